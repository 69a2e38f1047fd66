-- sync: marks of rows that lead to documents, where the roots cannot be looked for at once.

CREATE TABLE plinth.sync_via (
    mapping_id   bigint NOT NULL REFERENCES plinth.sync_mappings ON DELETE CASCADE,
    mark         bytea NOT NULL,                 -- a source's number and its columns' values, as src/sync/via.c has them
    suspect      boolean NOT NULL DEFAULT false  -- documents found by it may have been sent without an answer
);
COMMENT ON TABLE plinth.sync_via IS 'Changed rows of joined tables whose documents are still to be found.';
CREATE UNIQUE INDEX sync_via_mark_idx ON plinth.sync_via (mapping_id, pg_catalog.md5(mark));

ALTER TABLE plinth.sync_via OWNER TO plinth_owner;
ALTER TABLE plinth.sync_via ENABLE ROW LEVEL SECURITY;
CREATE POLICY sync_via_own ON plinth.sync_via FOR SELECT
    USING (EXISTS (SELECT FROM plinth.sync_mappings m WHERE m.id = mapping_id));
REVOKE ALL ON plinth.sync_via FROM PUBLIC;
-- On purpose to PUBLIC, as the tables of sync are: the policy says which.
GRANT SELECT ON plinth.sync_via TO PUBLIC;
