-- sync: what goes where, and what is still owed.

CREATE TABLE plinth.sync_mappings (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name <> '' AND octet_length(name) <= 200),
    relation     regclass NOT NULL,
    owner        regrole NOT NULL,
    server_name  name NOT NULL,
    collection   text NOT NULL CHECK (collection <> ''),
    key_columns  name[] NOT NULL,
    columns      name[],                         -- NULL: every column, those added later too
    field_names  text NOT NULL DEFAULT 'same' CHECK (field_names IN ('same', 'camelCase')),
    fields       jsonb NOT NULL DEFAULT '{}',    -- column -> field name, before field_names
    casts        jsonb NOT NULL DEFAULT '{}',    -- column -> cast
    id_cast      text,
    id_prefix    text,
    filter       text,
    on_existing  text NOT NULL DEFAULT 'error' CHECK (on_existing IN ('error', 'replace', 'keep')),
    paused       boolean NOT NULL DEFAULT false, -- by sync_pause
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_name, collection)
);
COMMENT ON TABLE plinth.sync_mappings IS 'Which table is copied to which collection, and how.';

-- Runtime state, one row a mapping; never dumped.
CREATE TABLE plinth.sync_states (
    mapping_id   bigint PRIMARY KEY REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    blocked      text,                           -- why nothing is written until somebody acts: see docs/sync.md
    blocked_hint text,
    blocked_at   timestamptz,
    shape        text,                           -- what the table looked like when its rows were last sent whole
    columns_seen jsonb,                          -- attnum -> name then, to follow renamed columns
    leaves       oid[],                          -- partitions then
    key_attnums  smallint[],                     -- of key_columns; known once the engine has seen the mapping
    adopting     boolean NOT NULL DEFAULT false, -- take the fence over, whoever owned it
    prepared     boolean NOT NULL DEFAULT false, -- the collection was looked at, and the fence stands
    fence_lsn    pg_lsn,                         -- the last fence that MongoDB acknowledged
    fence_epoch  bigint NOT NULL DEFAULT 1,
    fence_timeline integer,
    slot_generation bigint
);

-- Snapshots and sweeps that are not finished.
CREATE TABLE plinth.sync_tasks (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('snapshot', 'sweep')),
    relation     oid NOT NULL,                   -- snapshot: the table, or one partition of it
    cursor_key   text,                           -- snapshot: the last key done, as an array literal
    cursor_id    bytea,                          -- sweep: the last _id done, as BSON
    done         bigint NOT NULL DEFAULT 0,
    total        bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sync_tasks_mapping_id_idx ON plinth.sync_tasks (mapping_id);

-- Keys whose document must be written (again).
CREATE TABLE plinth.sync_dirty (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    key          text NOT NULL,                  -- the key's text values as an array literal
    due_at       timestamptz NOT NULL DEFAULT '-infinity',
    zombie_stage smallint NOT NULL DEFAULT 0,    -- 0: owed; 1, 2, 3: to be written once more, see docs/sync.md
    sent_at      timestamptz,                    -- set before it is sent; NULL again by a new mark
    suspect      boolean NOT NULL DEFAULT false, -- an earlier write of it may still land
    attempts     integer NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX sync_dirty_key_idx ON plinth.sync_dirty (mapping_id, md5(key));
CREATE INDEX sync_dirty_due_idx ON plinth.sync_dirty (mapping_id, due_at);
CREATE INDEX sync_dirty_owed_idx ON plinth.sync_dirty (mapping_id) WHERE zombie_stage = 0;

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
CREATE UNIQUE INDEX sync_dead_letters_key_idx ON plinth.sync_dead_letters (mapping_id, md5(key));

-- Documents that were there before a mapping with on_existing = keep.
CREATE TABLE plinth.sync_foreign_ids (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    id           bytea NOT NULL                  -- {"_id": value} as BSON
);
CREATE UNIQUE INDEX sync_foreign_ids_id_idx ON plinth.sync_foreign_ids (mapping_id, md5(id));
