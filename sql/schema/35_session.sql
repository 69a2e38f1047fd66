-- session: who is signed in.  Never dumped: a session restored from an old
-- dump would be one that was revoked since.

CREATE TABLE plinth.sessions (
    id                   uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id              uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    token_hash           bytea NOT NULL UNIQUE CHECK (pg_catalog.octet_length(token_hash) = 32),
    aal                  smallint NOT NULL DEFAULT 1 CHECK (aal BETWEEN 1 AND 3),
    authenticated_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    device_fingerprint   text CHECK (pg_catalog.octet_length(device_fingerprint) <= 200),
    device_type          text CHECK (pg_catalog.octet_length(device_type) <= 50),
    address              inet,
    user_agent           text CHECK (pg_catalog.octet_length(user_agent) <= 1000),
    label                text CHECK (pg_catalog.octet_length(label) <= 200),
    created_at           timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_active_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at           timestamptz NOT NULL,
    idle_timeout         interval CHECK (idle_timeout > interval '0'),
    revoked_at           timestamptz,
    revoked_reason       text,
    impersonator_id      uuid REFERENCES plinth.users ON DELETE CASCADE,
    impersonation_reason text,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK (impersonator_id IS NULL OR impersonation_reason IS NOT NULL)
);
ALTER TABLE plinth.sessions OWNER TO plinth_owner;
ALTER TABLE plinth.sessions ENABLE ROW LEVEL SECURITY;
CREATE INDEX sessions_user_id_idx ON plinth.sessions (user_id);
CREATE INDEX sessions_impersonator_id_idx ON plinth.sessions (impersonator_id) WHERE impersonator_id IS NOT NULL;
CREATE INDEX sessions_expires_at_idx ON plinth.sessions (expires_at);
COMMENT ON TABLE plinth.sessions IS 'Sessions, each known by the hash of its token. Never dumped.';
