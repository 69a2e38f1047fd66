-- identity: users, and their passwords apart from them.

CREATE TABLE plinth.users (
    id                uuid PRIMARY KEY DEFAULT plinth.uuid_v7(),
    email             text CHECK (email <> '' AND pg_catalog.octet_length(email) <= 254),
    email_verified_at timestamptz,
    username          text CHECK (username <> '' AND pg_catalog.octet_length(username) <= 64
                                  AND pg_catalog.strpos(username, '@') = 0),
    full_name         text CHECK (pg_catalog.octet_length(full_name) <= 400),
    avatar_url        text CHECK (pg_catalog.octet_length(avatar_url) <= 2000),
    role              text NOT NULL DEFAULT 'user' CHECK (role ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'),
    tier              text NOT NULL DEFAULT 'free' CHECK (tier ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'),
    status            text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'locked', 'banned')),
    status_reason     text CHECK (pg_catalog.octet_length(status_reason) <= 1000),
    banned_until      timestamptz, -- NULL in one who is banned: for good
    metadata          jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(metadata) = 'object'
                                  AND pg_catalog.octet_length(metadata::text) <= 65536),
    app_metadata      jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(app_metadata) = 'object'),
    created_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_login_at     timestamptz,
    deleted_at        timestamptz,
    user_key          text CHECK (user_key <> '' AND pg_catalog.octet_length(user_key) <= 200),
    CONSTRAINT users_banned_until_check CHECK (banned_until IS NULL OR status = 'banned')
);
ALTER TABLE plinth.users OWNER TO plinth_owner;
ALTER TABLE plinth.users ENABLE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX users_email_key ON plinth.users (pg_catalog.lower(email)) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_username_key ON plinth.users (pg_catalog.lower(username)) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX users_user_key_key ON plinth.users (user_key);
SELECT pg_catalog.pg_extension_config_dump('plinth.users', '');
COMMENT ON TABLE plinth.users IS 'The people who use the application. No secret is in it.';
COMMENT ON COLUMN plinth.users.status IS 'Only the active sign in and have sessions, and the banned from banned_until on.';
COMMENT ON COLUMN plinth.users.metadata IS 'What the user may change about themselves.';
COMMENT ON COLUMN plinth.users.user_key IS 'The application''s own key of the user, where user_key_source or users_adopt keeps one.';
COMMENT ON COLUMN plinth.users.app_metadata IS 'What only the application may change.';

CREATE FUNCTION plinth._users_touch() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
ALTER FUNCTION plinth._users_touch() OWNER TO plinth_owner;
REVOKE ALL ON FUNCTION plinth._users_touch() FROM PUBLIC;
-- Signing in sets last_login_at, which changes nothing about the user.
CREATE TRIGGER users_touch BEFORE UPDATE OF email, email_verified_at, username, full_name, avatar_url, role, tier,
    status, status_reason, banned_until, metadata, app_metadata, deleted_at, user_key ON plinth.users
    FOR EACH ROW EXECUTE FUNCTION plinth._users_touch();

CREATE TABLE plinth.passwords (
    user_id    uuid PRIMARY KEY REFERENCES plinth.users ON DELETE CASCADE,
    phc        text NOT NULL CHECK (phc <> '' AND pg_catalog.octet_length(phc) <= 1000),
    changed_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER TABLE plinth.passwords OWNER TO plinth_owner;
ALTER TABLE plinth.passwords ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('plinth.passwords', '');
COMMENT ON TABLE plinth.passwords IS 'Argon2id hashes of passwords. Readable by nobody but plinth itself.';
