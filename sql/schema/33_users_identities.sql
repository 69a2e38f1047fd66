-- identity: who users are to outside providers, and to the application.

CREATE TABLE plinth.identities (
    provider     text NOT NULL CHECK (provider <> '' AND pg_catalog.octet_length(provider) <= 1000),
    subject      text NOT NULL CHECK (subject <> '' AND pg_catalog.octet_length(subject) <= 1000),
    user_id      uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    data         jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(data) = 'object'
                             AND pg_catalog.octet_length(data::text) <= 65536),
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    last_used_at timestamptz,
    PRIMARY KEY (provider, subject)
);
ALTER TABLE plinth.identities OWNER TO plinth_owner;
ALTER TABLE plinth.identities ENABLE ROW LEVEL SECURITY;
CREATE INDEX identities_user_id_idx ON plinth.identities (user_id);
SELECT pg_catalog.pg_extension_config_dump('plinth.identities', '');
COMMENT ON TABLE plinth.identities IS 'Who users are to outside providers.';
COMMENT ON COLUMN plinth.identities.last_used_at IS 'When a token of theirs began a request context, to the hour.';

-- At most one row: users have one key.
CREATE TABLE plinth.user_key_sources (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    relation    regclass,
    key_column  name,
    user_column name,  -- with plinth's id of the user; NULL: the rows are adopted
    columns     jsonb CHECK (pg_catalog.jsonb_typeof(columns) = 'object'), -- of an adopted table: {"email": "mail", ...}
    provider    text,
    CHECK ((relation IS NULL) = (key_column IS NULL) AND (relation IS NULL) <> (provider IS NULL)),
    CHECK (provider IS NULL OR user_column IS NULL),
    CHECK ((columns IS NOT NULL) = (relation IS NOT NULL AND user_column IS NULL))
);
ALTER TABLE plinth.user_key_sources OWNER TO plinth_owner;
SELECT pg_catalog.pg_extension_config_dump('plinth.user_key_sources', '');
COMMENT ON TABLE plinth.user_key_sources IS 'Where the application''s own keys of users come from.';
