-- identity: passwords that are known to others, tokens that are good for one use, and what is to be sent.

CREATE TABLE plinth.breached_passwords (
    hash bytea PRIMARY KEY CHECK (pg_catalog.octet_length(hash) BETWEEN 8 AND 20)
);
ALTER TABLE plinth.breached_passwords OWNER TO plinth_owner;
SELECT pg_catalog.pg_extension_config_dump('plinth.breached_passwords', '');
COMMENT ON TABLE plinth.breached_passwords IS 'Passwords that nobody may choose: the first 8 to 20 bytes of their SHA-1. breached_passwords_load fills it from a file.';

CREATE TABLE plinth.one_time_tokens (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('email_verify', 'password_reset', 'magic_link', 'email_code', 'email_change_old', 'email_change_new')),
    user_id      uuid REFERENCES plinth.users ON DELETE CASCADE, -- NULL: nobody has this address
    email        text NOT NULL CHECK (pg_catalog.octet_length(email) <= 254),
    new_email    text CHECK (pg_catalog.octet_length(new_email) <= 254),
    token_hash   bytea NOT NULL UNIQUE CHECK (pg_catalog.octet_length(token_hash) = 32),
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    confirmed_at timestamptz,
    CHECK ((kind ~ '^email_change') = (new_email IS NOT NULL))
);
ALTER TABLE plinth.one_time_tokens OWNER TO plinth_owner;
ALTER TABLE plinth.one_time_tokens ENABLE ROW LEVEL SECURITY;
CREATE INDEX one_time_tokens_user_id_idx ON plinth.one_time_tokens (user_id);
CREATE INDEX one_time_tokens_expires_at_idx ON plinth.one_time_tokens (expires_at);
-- Of what can be guessed there is one at a time.
CREATE UNIQUE INDEX one_time_tokens_code_key ON plinth.one_time_tokens (pg_catalog.lower(email)) WHERE kind = 'email_code';
COMMENT ON TABLE plinth.one_time_tokens IS 'Tokens and codes that were mailed and are good for one use, by their hashes; bound to user, kind and the address as it was. Never dumped.';

CREATE TABLE plinth.outbox_messages (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL,
    recipient    text NOT NULL,
    user_id      uuid REFERENCES plinth.users ON DELETE CASCADE,
    token_id     uuid REFERENCES plinth.one_time_tokens ON DELETE SET NULL ON UPDATE SET NULL,
    data         jsonb NOT NULL DEFAULT '{}',
    secret       bytea, -- the sealed token; NULL when it is no longer needed
    created_at   timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    available_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    attempts     int NOT NULL DEFAULT 0,
    claimed_by   text,
    lease_until  timestamptz,
    sent_at      timestamptz,
    failed_at    timestamptz,
    last_error   text
);
ALTER TABLE plinth.outbox_messages OWNER TO plinth_owner;
ALTER TABLE plinth.outbox_messages ENABLE ROW LEVEL SECURITY;
CREATE INDEX outbox_messages_due_idx ON plinth.outbox_messages (available_at) WHERE sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_messages_secret_idx ON plinth.outbox_messages (expires_at) WHERE secret IS NOT NULL;
CREATE INDEX outbox_messages_created_at_idx ON plinth.outbox_messages (created_at);
CREATE INDEX outbox_messages_user_id_idx ON plinth.outbox_messages (user_id);
CREATE INDEX outbox_messages_token_id_idx ON plinth.outbox_messages (token_id);
COMMENT ON TABLE plinth.outbox_messages IS 'What is to be mailed, for a sender that claims it. Never dumped.';
