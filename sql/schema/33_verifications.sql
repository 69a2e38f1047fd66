-- identity: what users ask administrators to verify about them.

CREATE TABLE plinth.verification_requests (
    id           uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id      uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'),
    status       text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'rejected', 'withdrawn')),
    documents    jsonb NOT NULL DEFAULT '[]' CHECK (pg_catalog.jsonb_typeof(documents) = 'array'
                     AND pg_catalog.octet_length(documents::text) <= 65536),
    data         jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(data) = 'object'
                     AND pg_catalog.octet_length(data::text) <= 65536),
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reviewed_at  timestamptz,
    reviewed_by  uuid REFERENCES plinth.users ON DELETE SET NULL, -- NULL: outside of a request context, or gone
    reason       text CHECK (pg_catalog.octet_length(reason) <= 1000),
    granted_role text,
    CONSTRAINT verification_requests_reviewed_check CHECK ((status IN ('approved', 'rejected')) = (reviewed_at IS NOT NULL))
);
ALTER TABLE plinth.verification_requests OWNER TO plinth_owner;
ALTER TABLE plinth.verification_requests ENABLE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX verification_requests_pending_key ON plinth.verification_requests (user_id, kind) WHERE status = 'pending';
CREATE INDEX verification_requests_user_id_idx ON plinth.verification_requests (user_id);
CREATE INDEX verification_requests_reviewed_by_idx ON plinth.verification_requests (reviewed_by) WHERE reviewed_by IS NOT NULL;
CREATE INDEX verification_requests_status_idx ON plinth.verification_requests (status, id);
SELECT pg_catalog.pg_extension_config_dump('plinth.verification_requests', '');
COMMENT ON TABLE plinth.verification_requests IS 'What users ask administrators to verify about them, and what these said.';
COMMENT ON COLUMN plinth.verification_requests.documents IS 'Where the documents are: references, not the documents themselves.';
