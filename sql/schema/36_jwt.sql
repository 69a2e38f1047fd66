-- session: keys that sign access tokens, issuers whose tokens are believed, and refresh tokens.

CREATE TABLE plinth.signing_keys (
    kid            text PRIMARY KEY CHECK (kid ~ '^[A-Za-z0-9_-]{1,128}$'),
    alg            text NOT NULL CHECK (alg IN ('HS256', 'EdDSA', 'ES256', 'RS256')),
    status         text NOT NULL CHECK (status IN ('next', 'active', 'retired')),
    public_jwk     jsonb,              -- HS256 has none
    private_sealed bytea,              -- under a key of the root key's
    private_file   text CHECK (private_file ~ '^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,199}$'),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    activated_at   timestamptz,
    retired_at     timestamptz,
    not_after      timestamptz,        -- until when tokens of a retired key are good
    CONSTRAINT signing_keys_public_check CHECK ((alg = 'HS256') = (public_jwk IS NULL)),
    CONSTRAINT signing_keys_private_check CHECK (status = 'retired' OR (private_sealed IS NULL) <> (private_file IS NULL)),
    CONSTRAINT signing_keys_times_check CHECK ((status = 'retired') = (retired_at IS NOT NULL)
        AND (status = 'retired') = (not_after IS NOT NULL) AND (status <> 'active' OR activated_at IS NOT NULL))
);
ALTER TABLE plinth.signing_keys OWNER TO plinth_owner;
CREATE UNIQUE INDEX signing_keys_active_key ON plinth.signing_keys (status) WHERE status IN ('active', 'next');
SELECT pg_catalog.pg_extension_config_dump('plinth.signing_keys', '');
COMMENT ON TABLE plinth.signing_keys IS 'Keys that sign access tokens: one signs, at most one is next, retired ones still verify for a while.';
COMMENT ON COLUMN plinth.signing_keys.private_sealed IS 'Readable by nobody but plinth itself, and of no use without the root key.';

CREATE TABLE plinth.jwt_issuers (
    issuer             text PRIMARY KEY CHECK (issuer <> '' AND pg_catalog.octet_length(issuer) <= 1000),
    jwks               jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(jwks -> 'keys') = 'array'),
    audience           text[] CHECK (pg_catalog.cardinality(audience) > 0),
    authorized_parties text[] CHECK (pg_catalog.cardinality(authorized_parties) > 0),
    user_key_claim     text NOT NULL DEFAULT 'sub' CHECK (user_key_claim <> '' AND pg_catalog.octet_length(user_key_claim) <= 200),
    provider           text CHECK (provider <> '' AND pg_catalog.octet_length(provider) <= 1000),
    create_users       boolean NOT NULL DEFAULT false,
    by_user_key        boolean NOT NULL DEFAULT false,
    updated_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE plinth.jwt_issuers OWNER TO plinth_owner;
SELECT pg_catalog.pg_extension_config_dump('plinth.jwt_issuers', '');
COMMENT ON TABLE plinth.jwt_issuers IS 'Others whose tokens jwt_verify accepts, and their public keys.';

-- A family of refresh tokens is one row, however often it is rotated.  Never
-- dumped, as sessions are not.
CREATE TABLE plinth.refresh_tokens (
    id           uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    session_id   uuid NOT NULL REFERENCES plinth.sessions ON DELETE CASCADE,
    salt         bytea NOT NULL CHECK (pg_catalog.octet_length(salt) = 32),
    generation   integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
    token_hash   bytea NOT NULL CHECK (pg_catalog.octet_length(token_hash) = 32),
    rotated_at   timestamptz[] NOT NULL DEFAULT '{}', -- when the latest generations were left, the latest last
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_used_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE plinth.refresh_tokens OWNER TO plinth_owner;
ALTER TABLE plinth.refresh_tokens ENABLE ROW LEVEL SECURITY;
CREATE INDEX refresh_tokens_session_id_idx ON plinth.refresh_tokens (session_id);
COMMENT ON TABLE plinth.refresh_tokens IS 'Families of refresh tokens, each known by the hash of its newest. Never dumped.';
