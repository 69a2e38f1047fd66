-- identity: keys by which programs act for a user.

CREATE TABLE plinth.api_keys (
    id             uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    user_id        uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    name           text NOT NULL CHECK (name <> '' AND pg_catalog.octet_length(name) <= 200),
    prefix         text NOT NULL CHECK (prefix ~ '^plk_[A-Za-z0-9_-]{8}$'),
    key_hash       bytea NOT NULL UNIQUE CHECK (pg_catalog.octet_length(key_hash) = 32),
    scopes         text[] NOT NULL DEFAULT '{}' CHECK (pg_catalog.cardinality(scopes) <= 100
                       AND pg_catalog.strpos(pg_catalog.array_to_string(scopes, ' ', ','), ',') = 0),
    limit_policy   text CHECK (limit_policy <> '' AND pg_catalog.octet_length(limit_policy) <= 200),
    created_at     timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at     timestamptz,
    last_used_at   timestamptz,
    revoked_at     timestamptz,
    revoked_reason text CHECK (pg_catalog.octet_length(revoked_reason) <= 1000)
);
ALTER TABLE plinth.api_keys OWNER TO plinth_owner;
ALTER TABLE plinth.api_keys ENABLE ROW LEVEL SECURITY;
CREATE INDEX api_keys_user_id_idx ON plinth.api_keys (user_id);
CREATE INDEX api_keys_ended_idx ON plinth.api_keys ((LEAST(expires_at, revoked_at)));
SELECT pg_catalog.pg_extension_config_dump('plinth.api_keys', '');
COMMENT ON TABLE plinth.api_keys IS 'API keys, each known by its hash.';
COMMENT ON COLUMN plinth.api_keys.scopes IS 'The only permissions that it gives of its user''s, sorted; empty for all.';
