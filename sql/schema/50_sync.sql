-- sync: what goes where, and what is still owed.

CREATE TABLE plinth.sync_mappings (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 200),
    kind         text NOT NULL DEFAULT 'table' CHECK (kind IN ('table', 'document', 'append', 'files')),
    relation     regclass NOT NULL,              -- document: the root, one document for each of its rows
    owner        regrole NOT NULL,
    server_name  name NOT NULL,
    collection   text NOT NULL CHECK (collection <> ''),
    key_columns  name[] NOT NULL,
    columns      name[],                         -- NULL: every column, those added later too; document: those that its query reads of the root
    field_names  text NOT NULL DEFAULT 'same' CHECK (field_names IN ('same', 'camelCase')),
    fields       jsonb NOT NULL DEFAULT '{}',    -- column -> field name, before field_names
    casts        jsonb NOT NULL DEFAULT '{}',    -- column -> cast
    id_cast      text,
    id_prefix    text,
    filter       text,
    query        text CHECK ((query IS NOT NULL) = (kind = 'document')), -- every name qualified, views expanded
    on_existing  text NOT NULL DEFAULT 'error' CHECK (on_existing IN ('error', 'replace', 'keep')),
    capped_bytes bigint CHECK (capped_bytes > 0), -- append: of a capped collection
    capped_documents bigint CHECK (capped_documents > 0),
    paused       boolean NOT NULL DEFAULT false, -- by sync_pause
    lanes        integer NOT NULL DEFAULT 1 CHECK (lanes BETWEEN 1 AND 16), -- how many write it: see docs/sync.md
    bucket_id    bigint,                         -- of plinth.file_buckets, whose files or chunks these are
    last_source  integer NOT NULL DEFAULT 0,     -- of sync_sources: a number is never given again
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_name, collection)
);
COMMENT ON TABLE plinth.sync_mappings IS 'Which table is copied to which collection, and how.';

-- Of a document: each place where a table stands in its query other than as the root's own row.
CREATE TABLE plinth.sync_sources (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    source       integer NOT NULL CHECK (source > 0), -- in marks that may be anywhere between decoder and lane: see last_source
    relation     regclass NOT NULL,
    columns      name[] NOT NULL CHECK (cardinality(columns) > 0), -- their old and new values say which roots
    roots        text,                           -- SELECT of the root's key by $1 ... $n (text); NULL: columns are that key
    derived      boolean NOT NULL DEFAULT true,  -- false: as the argument via says
    reads        name[],                         -- of this table by the query and the ways; NULL: whole rows
    PRIMARY KEY (mapping_id, source)
);
COMMENT ON TABLE plinth.sync_sources IS 'Which documents a changed row of a joined table concerns.';
CREATE INDEX sync_sources_relation_idx ON plinth.sync_sources (relation);

-- Runtime state, one row a mapping; never dumped.
CREATE TABLE plinth.sync_states (
    mapping_id   bigint PRIMARY KEY REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    blocked      text,                           -- why nothing is written until somebody acts: see docs/sync.md
    blocked_hint text,
    blocked_at   timestamptz,
    shape        text,                           -- what the table looked like when its rows were last sent whole
    filter_sent  text,                           -- the filter then; NULL: none
    columns_seen jsonb,                          -- attnum -> name then, to follow renamed columns
    leaves       oid[],                          -- partitions then
    source_leaves oid[],                         -- of the other tables that stand in its query
    key_attnums  smallint[],                     -- of key_columns; known once the engine has seen the mapping
    adopting     boolean NOT NULL DEFAULT false, -- take the fence over, whoever owned it: sync_adopt
    prepared     boolean NOT NULL DEFAULT false, -- the collection was looked at, and the fence stands
    fence_lsn    pg_lsn,                         -- the last fence that MongoDB acknowledged
    fence_epoch  bigint NOT NULL DEFAULT 1,
    fence_timeline integer,
    slot_generation bigint,
    resyncing    boolean NOT NULL DEFAULT false, -- take a fence of ours, wherever it stands: sync_resync
    promoted     boolean NOT NULL DEFAULT false  -- and that by itself, as this server was promoted: not wherever it stands
);
COMMENT ON TABLE plinth.sync_states IS 'How far each mapping is, and what stopped it.';

-- Snapshots and sweeps that are not finished.
CREATE TABLE plinth.sync_tasks (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('snapshot', 'sweep')),
    relation     oid NOT NULL,                   -- snapshot: the table, or one partition of it
    cursor_key   text,                           -- snapshot: the last key done, as an array literal
    old_filter   text,                           -- snapshot: only of rows that match either this or the mapping's filter; NULL: of all
    sent_key     text,                           -- snapshot: rows up to this key may have been sent already
    cursor_id    bytea,                          -- sweep: the last _id done, as BSON
    done         bigint NOT NULL DEFAULT 0,
    total        bigint,                         -- snapshot: rows there were, as far as the statistics know
    created_at   timestamptz NOT NULL DEFAULT now(),
    lane         smallint NOT NULL DEFAULT 0     -- snapshot: whose share of it; the first lane's row brings the others'
);
COMMENT ON TABLE plinth.sync_tasks IS 'Snapshots and sweeps that are not finished.';
CREATE INDEX sync_tasks_mapping_id_idx ON plinth.sync_tasks (mapping_id);

-- Keys whose document must be written (again).
CREATE TABLE plinth.sync_dirty (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    key          text NOT NULL,                  -- the key's text values as an array literal
    due_at       timestamptz NOT NULL DEFAULT '-infinity',
    zombie_stage smallint NOT NULL DEFAULT 0,    -- 0: owed; 1, 2, 3: to be written once more, see docs/sync.md
    sent_at      timestamptz,                    -- set before it is sent; NULL again by a new mark
    suspect      boolean NOT NULL DEFAULT false, -- an earlier write of it may still land
    attempts     integer NOT NULL DEFAULT 0,
    lane         smallint NOT NULL DEFAULT 0,    -- which looks at it first: _sync_lane(key, lanes), or another that passes it on
    yield        boolean NOT NULL DEFAULT false  -- another lane waits for a unique value that its document has
) WITH (fillfactor = 45);                        -- room for the version that is sent: no index is touched for it
COMMENT ON TABLE plinth.sync_dirty IS 'Keys whose documents must be written, where that could not be done at once.';
CREATE UNIQUE INDEX sync_dirty_key_idx ON plinth.sync_dirty (mapping_id, md5(key));
CREATE INDEX sync_dirty_due_idx ON plinth.sync_dirty (mapping_id, lane, due_at);
CREATE INDEX sync_dirty_owed_idx ON plinth.sync_dirty (mapping_id, lane) WHERE zombie_stage = 0;

-- The place in the fence of each lane but the first, whose place is in sync_states.
CREATE TABLE plinth.sync_lanes (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    lane         smallint NOT NULL,
    fence_lsn    pg_lsn NOT NULL,
    fence_epoch  bigint NOT NULL,                -- of the fence; in a younger one the place is not there
    PRIMARY KEY (mapping_id, lane)
);
COMMENT ON TABLE plinth.sync_lanes IS 'How far the further lanes of each mapping are fenced.';

CREATE TABLE plinth.sync_dead_letters (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    key          text NOT NULL,
    status       text NOT NULL,
    code         integer NOT NULL,
    reason       text NOT NULL,
    attempts     integer NOT NULL DEFAULT 1,
    failed_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE plinth.sync_dead_letters IS 'Keys whose documents MongoDB does not take, and why; sync_retry tries again.';
CREATE UNIQUE INDEX sync_dead_letters_key_idx ON plinth.sync_dead_letters (mapping_id, md5(key));

-- Documents that were there before a mapping with on_existing = keep.
CREATE TABLE plinth.sync_foreign_ids (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    id           bytea NOT NULL                  -- {"_id": value} as BSON
);
COMMENT ON TABLE plinth.sync_foreign_ids IS 'Documents that were there before a mapping with on_existing = keep; never deleted.';
CREATE UNIQUE INDEX sync_foreign_ids_id_idx ON plinth.sync_foreign_ids (mapping_id, md5(id));

-- Only the mappings are dumped; how far they are is not true of a copy.
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_mappings', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_mappings_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_sources', '');

-- Everybody sees what is theirs: of their mappings, or as an administrator.
ALTER TABLE plinth.sync_mappings OWNER TO plinth_owner;
ALTER TABLE plinth.sync_mappings ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_sources OWNER TO plinth_owner;
ALTER TABLE plinth.sync_sources ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_states OWNER TO plinth_owner;
ALTER TABLE plinth.sync_states ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_tasks OWNER TO plinth_owner;
ALTER TABLE plinth.sync_tasks ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_dirty OWNER TO plinth_owner;
ALTER TABLE plinth.sync_dirty ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_lanes OWNER TO plinth_owner;
ALTER TABLE plinth.sync_lanes ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_dead_letters OWNER TO plinth_owner;
ALTER TABLE plinth.sync_dead_letters ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_foreign_ids OWNER TO plinth_owner;
ALTER TABLE plinth.sync_foreign_ids ENABLE ROW LEVEL SECURITY;

CREATE POLICY sync_mappings_own ON plinth.sync_mappings FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('plinth_admin', 'USAGE'));
CREATE POLICY sync_sources_own ON plinth.sync_sources FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_states_own ON plinth.sync_states FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_tasks_own ON plinth.sync_tasks FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_dirty_own ON plinth.sync_dirty FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_lanes_own ON plinth.sync_lanes FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_dead_letters_own ON plinth.sync_dead_letters FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_foreign_ids_own ON plinth.sync_foreign_ids FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));

REVOKE ALL ON plinth.sync_mappings, plinth.sync_sources, plinth.sync_states, plinth.sync_tasks, plinth.sync_dirty,
    plinth.sync_dead_letters, plinth.sync_foreign_ids, plinth.sync_lanes FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a mapping, and the policies say which.
GRANT SELECT ON plinth.sync_mappings, plinth.sync_sources, plinth.sync_states, plinth.sync_tasks, plinth.sync_dirty,
    plinth.sync_dead_letters, plinth.sync_foreign_ids, plinth.sync_lanes TO PUBLIC;
