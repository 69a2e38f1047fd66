-- sync: which mappings are verified by themselves, and what that found.

CREATE TABLE plinth.sync_verify_schedules (
    mapping_id   bigint PRIMARY KEY REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    every        interval NOT NULL CHECK (every >= '1 second'),
    repair       boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE plinth.sync_verify_schedules IS 'Which mappings are verified by themselves, and how often: plinth.sync_verify_schedule.';

CREATE TABLE plinth.sync_verify_runs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    missing      bigint NOT NULL,
    different    bigint NOT NULL,
    extra        bigint NOT NULL,
    repaired     boolean NOT NULL,               -- what differs was marked to be written again
    examples     jsonb NOT NULL DEFAULT '[]',    -- the first differences: key, difference, document_id
    error        text                            -- why it did not come to its end
);
COMMENT ON TABLE plinth.sync_verify_runs IS 'What scheduled verifications found: the last 100 of each mapping.';
CREATE INDEX sync_verify_runs_mapping_id_idx ON plinth.sync_verify_runs (mapping_id, id);

-- What was found is not true of a copy.
SELECT pg_catalog.pg_extension_config_dump('plinth.sync_verify_schedules', '');

ALTER TABLE plinth.sync_verify_schedules OWNER TO plinth_owner;
ALTER TABLE plinth.sync_verify_schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE plinth.sync_verify_runs OWNER TO plinth_owner;
ALTER TABLE plinth.sync_verify_runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY sync_verify_schedules_own ON plinth.sync_verify_schedules FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
CREATE POLICY sync_verify_runs_own ON plinth.sync_verify_runs FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
REVOKE ALL ON plinth.sync_verify_schedules, plinth.sync_verify_runs FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a mapping, and the policies say which.
GRANT SELECT ON plinth.sync_verify_schedules, plinth.sync_verify_runs TO PUBLIC;
