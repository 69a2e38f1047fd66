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
    impersonation_reason text CHECK (pg_catalog.octet_length(impersonation_reason) <= 1000),
    impersonator_session_id uuid REFERENCES plinth.sessions ON DELETE CASCADE,
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK (impersonator_id IS NULL OR impersonation_reason IS NOT NULL)
);
ALTER TABLE plinth.sessions OWNER TO plinth_owner;
ALTER TABLE plinth.sessions ENABLE ROW LEVEL SECURITY;
CREATE INDEX sessions_user_id_idx ON plinth.sessions (user_id);
CREATE INDEX sessions_impersonator_id_idx ON plinth.sessions (impersonator_id) WHERE impersonator_id IS NOT NULL;
CREATE INDEX sessions_impersonator_session_id_idx ON plinth.sessions (impersonator_session_id) WHERE impersonator_session_id IS NOT NULL;
CREATE INDEX sessions_device_fingerprint_idx ON plinth.sessions (device_fingerprint) WHERE device_fingerprint IS NOT NULL AND revoked_at IS NULL;
CREATE INDEX sessions_expires_at_idx ON plinth.sessions (expires_at);
COMMENT ON COLUMN plinth.sessions.impersonation_reason IS 'Not NULL in a session of an administrator who acts as the user; impersonator_id is NULL when that was a database role.';
COMMENT ON TABLE plinth.sessions IS 'Sessions, each known by the hash of its token. Never dumped.';

-- A type with a name: what a function with OUT parameters returns PostgreSQL describes anew, column by column, in each execution.
CREATE TYPE plinth.session_verified AS (
    session_id      uuid,
    user_id         uuid,
    expires_at      timestamptz,
    aal             integer,
    role            text,
    impersonator_id uuid
);
ALTER TYPE plinth.session_verified OWNER TO plinth_owner;
COMMENT ON TYPE plinth.session_verified IS 'Whose session a token is of; see session_verify.';

CREATE TABLE plinth.device_bans (
    id                 uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id            uuid REFERENCES plinth.users ON DELETE CASCADE,
    device_fingerprint text NOT NULL CHECK (device_fingerprint <> '' AND pg_catalog.octet_length(device_fingerprint) <= 200),
    banned_until       timestamptz,
    reason             text CHECK (pg_catalog.octet_length(reason) <= 1000),
    created_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    CONSTRAINT device_bans_device_key UNIQUE NULLS NOT DISTINCT (device_fingerprint, user_id)
);
ALTER TABLE plinth.device_bans OWNER TO plinth_owner;
ALTER TABLE plinth.device_bans ENABLE ROW LEVEL SECURITY;
CREATE INDEX device_bans_user_id_idx ON plinth.device_bans (user_id) WHERE user_id IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('plinth.device_bans', '');
COMMENT ON TABLE plinth.device_bans IS 'Devices that begin no session: of one user, or of everybody where user_id is NULL; for good, or until banned_until.';
