-- cache: the named caches, what tables they hear of, and their second level.

CREATE TABLE plinth.caches (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (octet_length(name) BETWEEN 1 AND 63),
    owner           regrole NOT NULL,
    roles           name[] NOT NULL DEFAULT '{}',    -- who may use it beside the owner; 'public': everybody
    ttl             interval CHECK (ttl > interval '0'), -- NULL: until it is invalidated or evicted
    jitter          real NOT NULL DEFAULT 0 CHECK (jitter BETWEEN 0 AND 1),
    stale_ttl       interval NOT NULL DEFAULT '0' CHECK (stale_ttl >= interval '0'),
    max_bytes       bigint NOT NULL DEFAULT 16777216 CHECK (max_bytes > 0),
    max_value_bytes integer NOT NULL DEFAULT 1048576 CHECK (max_value_bytes > 0),
    per_user        boolean NOT NULL DEFAULT true,
    durable         boolean NOT NULL DEFAULT false,
    overflow        boolean NOT NULL DEFAULT false,
    warm            text,
    enabled         boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (NOT (durable AND overflow)),
    CHECK (warm IS NULL OR NOT per_user)
);
COMMENT ON TABLE plinth.caches IS 'Named caches: how long, how much, for whom.';
COMMENT ON COLUMN plinth.caches.owner IS 'May use and alter it, and runs the warming query.';
COMMENT ON COLUMN plinth.caches.roles IS 'Roles that may use it beside the owner; ''public'' for everybody.';
COMMENT ON COLUMN plinth.caches.ttl IS 'How long a value is fresh; NULL: until it is invalidated or evicted.';
COMMENT ON COLUMN plinth.caches.jitter IS 'By which part of it, at random, a time to live is shortened: 0 to 1.';
COMMENT ON COLUMN plinth.caches.stale_ttl IS 'How long after that cache_fetch gives it out while one caller computes it anew.';
COMMENT ON COLUMN plinth.caches.per_user IS 'Whether each user has entries of their own, which nobody else can read.';
COMMENT ON COLUMN plinth.caches.durable IS 'Whether entries stand in a logged table too, and outlive restarts and crashes.';
COMMENT ON COLUMN plinth.caches.overflow IS 'Whether entries stand in an unlogged table too, and outlive eviction from memory.';
COMMENT ON COLUMN plinth.caches.warm IS 'A query for (key, value) rows that fill the cache when the server starts.';

-- What dropped extensions left in shared memory must not be taken for ours.
SELECT pg_catalog.setval('plinth.caches_id_seq', 1 + pg_catalog.floor(pg_catalog.random() * 1000000000)::bigint);

CREATE TABLE plinth.cache_watches (
    id              integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache_id        integer NOT NULL REFERENCES plinth.caches ON DELETE CASCADE,
    relation        regclass NOT NULL,
    key_expression  text,
    tag_expression  text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CHECK (key_expression IS NULL OR tag_expression IS NULL)
);
COMMENT ON TABLE plinth.cache_watches IS 'Tables whose changes invalidate entries of a cache: a key, a tag, or all of it.';
CREATE INDEX cache_watches_cache_id_idx ON plinth.cache_watches (cache_id);

-- The second level.  Requests only ever add rows here, and lock none: the newest
-- valid row of a key counts.  A row tells under which snapshot its value was
-- computed, an invalidation which transaction made it; the row is valid when its
-- snapshot sees every invalidation of its key, tags, prefix or cache that its
-- reader sees.  Purging removes both: see docs/cache.md.
CREATE SEQUENCE plinth.cache_change_seq;

CREATE TABLE plinth.cache_durable_entries (
    id          bigint NOT NULL,                  -- of plinth.cache_change_seq
    cache_id    integer NOT NULL,
    user_id     uuid NOT NULL,                    -- all zero: not per user
    key         text COLLATE "C" NOT NULL,
    kind        smallint NOT NULL,                -- 0: known to be absent, 1: jsonb, 2: text, 3: bytea
    value       bytea,
    tags        bigint[] NOT NULL DEFAULT '{}',   -- hashes
    stale_at    timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    fill        boolean NOT NULL,                 -- computed, so older than any value that was set meanwhile
    xid         xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    snapshot    pg_catalog.pg_snapshot NOT NULL
);
COMMENT ON TABLE plinth.cache_durable_entries IS 'Entries of durable caches.';
CREATE INDEX cache_durable_entries_key_idx ON plinth.cache_durable_entries (cache_id, user_id, key, id);

CREATE UNLOGGED TABLE plinth.cache_entries (LIKE plinth.cache_durable_entries INCLUDING DEFAULTS INCLUDING INDEXES);
COMMENT ON TABLE plinth.cache_entries IS 'Entries of caches with overflow; empty after a crash.';

CREATE TABLE plinth.cache_invalidations (
    id          bigint NOT NULL,                  -- of plinth.cache_change_seq
    cache_id    integer NOT NULL,
    kind        "char" NOT NULL CHECK (kind IN ('k', 't', 'p', 'a')), -- key, tag, prefix, all
    user_id     uuid,                             -- NULL: of every user
    key         text COLLATE "C",                 -- or prefix
    tag         bigint,
    xid         xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id()
);
COMMENT ON TABLE plinth.cache_invalidations IS 'What was invalidated in the second level, until purging has removed the entries.';
CREATE INDEX cache_invalidations_key_idx ON plinth.cache_invalidations (cache_id, kind, key);
CREATE INDEX cache_invalidations_tag_idx ON plinth.cache_invalidations (cache_id, tag) WHERE kind = 't';

-- How far a cache is purged: up to where its invalidations were removed, and the
-- pass that is under way, of several transactions.
CREATE TABLE plinth.cache_horizons (
    cache_id      integer PRIMARY KEY,
    xid           xid8 NOT NULL,                  -- invalidations before it were removed, by the last pass that ended
    snapshot      pg_catalog.pg_snapshot NOT NULL, -- which began under it
    next_xid      xid8 NOT NULL,                  -- those before it are, by the next pass
    pass_xid      xid8,                           -- those before it are, by this pass; NULL: none is under way
    pass_snapshot pg_catalog.pg_snapshot,         -- under which this one began
    stage         text CHECK (stage IN ('judge', 'evict', 'settle')),
    at_user       uuid,                           -- entries up to this one are done in this stage
    at_key        text COLLATE "C",
    bytes         bigint NOT NULL DEFAULT 0,      -- of entries that this pass kept
    cutoff        bigint,                         -- entries up to this id are too many
    change_id     bigint NOT NULL,                -- plinth.cache_change_seq as it began; -1: there is more to remove
    purged_at     timestamptz NOT NULL DEFAULT now(), -- when the last one ended
    CHECK ((pass_xid IS NULL) = (pass_snapshot IS NULL) AND (pass_xid IS NULL) = (stage IS NULL))
);
COMMENT ON TABLE plinth.cache_horizons IS 'Up to where the invalidations of each cache were purged, and the pass that is under way.';

-- Definitions are dumped, entries are not.
SELECT pg_catalog.pg_extension_config_dump('plinth.caches', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.caches_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.cache_watches', '');
SELECT pg_catalog.pg_extension_config_dump('plinth.cache_watches_id_seq', '');

ALTER TABLE plinth.caches OWNER TO plinth_owner;
ALTER TABLE plinth.caches ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.cache_watches OWNER TO plinth_owner;
ALTER TABLE plinth.cache_watches ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.cache_durable_entries OWNER TO plinth_owner;
ALTER TABLE plinth.cache_durable_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.cache_entries OWNER TO plinth_owner;
ALTER TABLE plinth.cache_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.cache_invalidations OWNER TO plinth_owner;
ALTER TABLE plinth.cache_invalidations ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.cache_horizons OWNER TO plinth_owner;
ALTER SEQUENCE plinth.cache_change_seq OWNER TO plinth_owner;

-- A definition is for those who may alter the cache; keys and values are for nobody.
CREATE POLICY caches_own ON plinth.caches FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role('plinth_admin', 'USAGE'));
CREATE POLICY cache_watches_own ON plinth.cache_watches FOR SELECT
    USING (EXISTS (SELECT FROM plinth.caches c WHERE c.id = cache_id));
REVOKE ALL ON plinth.caches, plinth.cache_watches, plinth.cache_durable_entries, plinth.cache_entries,
    plinth.cache_invalidations, plinth.cache_horizons FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a cache, and the policies say which.
GRANT SELECT ON plinth.caches, plinth.cache_watches TO PUBLIC;
