-- sync: the indexes that are declared with mappings.

CREATE TABLE plinth.sync_indexes (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    suffix       text NOT NULL DEFAULT '',       -- of the mapping's collection: a GridFS bucket has two
    name         text NOT NULL,
    definition   json NOT NULL,                  -- as createIndexes takes it; not jsonb: the order of keys counts
    build        text NOT NULL DEFAULT 'before' CHECK (build IN ('before', 'after')),
    state        text NOT NULL DEFAULT 'waiting'
                 CHECK (state IN ('waiting', 'building', 'ready', 'different', 'failed', 'dropping')),
    reason       text,                           -- of what is not as it should be
    hint         text,
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT '-infinity', -- to be looked at then, or tried again
    checked_at   timestamptz,                    -- when MongoDB was last asked for it
    rebuild      boolean NOT NULL DEFAULT false, -- sync_index asked to build it anew where it differs
    PRIMARY KEY (mapping_id, suffix, name)
);
COMMENT ON TABLE plinth.sync_indexes IS 'Which indexes MongoDB is to have, and whether it has them.';
CREATE INDEX sync_indexes_due_idx ON plinth.sync_indexes (due_at);

-- Dumped with the mappings; what is known of them is asked anew once the mapping is adopted.
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_indexes', '');

ALTER TABLE plinth.sync_indexes OWNER TO plinth_owner;
ALTER TABLE plinth.sync_indexes ENABLE ROW LEVEL SECURITY;
CREATE POLICY sync_indexes_own ON plinth.sync_indexes FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
REVOKE ALL ON plinth.sync_indexes FROM PUBLIC;
-- On purpose to PUBLIC: the policy says which.
GRANT SELECT ON plinth.sync_indexes TO PUBLIC;
