-- identity: what administrators look users up by.

-- The beginnings of names, in any collation.
CREATE INDEX users_email_prefix_idx ON plinth.users (pg_catalog.lower(email) text_pattern_ops);
CREATE INDEX users_username_prefix_idx ON plinth.users (pg_catalog.lower(username) text_pattern_ops);
-- What few users are.
CREATE INDEX users_status_idx ON plinth.users (status, id) WHERE status <> 'active';
CREATE INDEX users_role_idx ON plinth.users (role, id) WHERE role <> 'user';
CREATE INDEX users_tier_idx ON plinth.users (tier, id) WHERE tier <> 'free';
CREATE INDEX users_deleted_idx ON plinth.users (id) WHERE deleted_at IS NOT NULL;
