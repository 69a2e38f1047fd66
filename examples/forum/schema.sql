-- The forum of seed 001 on top of plinth: threads and replies belong to their
-- authors, which row-level security sees to.  What the seed kept in MongoDB is
-- kept here, and goes there by sync.sql.
--
-- psql -f schema.sql, as a superuser, in a database that has the extension.

CREATE ROLE forum NOLOGIN;
CREATE SCHEMA forum AUTHORIZATION forum;
GRANT USAGE ON SCHEMA forum TO anon, authenticated;
GRANT USAGE ON SCHEMA plinth TO forum;
GRANT REFERENCES ON plinth.users TO forum;

SET ROLE forum;

-- The application's own key of a user is a serial, as it was.
CREATE TABLE forum.members (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     uuid NOT NULL UNIQUE REFERENCES plinth.users ON DELETE CASCADE,
    username    text NOT NULL UNIQUE
);

CREATE TABLE forum.categories (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    slug        text NOT NULL UNIQUE,
    description text,
    color       text,
    icon        text,
    order_index integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE forum.threads (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title        text NOT NULL,
    summary      text,
    content_json jsonb NOT NULL DEFAULT '{}',
    category_id  integer NOT NULL REFERENCES forum.categories,
    author_id    integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    is_deleted   boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX threads_category_id_idx ON forum.threads (category_id);
CREATE INDEX threads_author_id_idx ON forum.threads (author_id);
CREATE INDEX threads_created_at_idx ON forum.threads (created_at DESC);

CREATE TABLE forum.replies (
    id              text PRIMARY KEY DEFAULT plinth.ulid('rpl'),
    thread_id       integer NOT NULL REFERENCES forum.threads ON DELETE CASCADE,
    content         text NOT NULL CHECK (content <> ''),
    user_id         integer REFERENCES forum.members ON DELETE CASCADE, -- NULL: who wrote it is gone
    username        text NOT NULL,
    parent_reply_id text REFERENCES forum.replies ON DELETE CASCADE,
    depth           integer NOT NULL DEFAULT 0 CHECK (depth BETWEEN 0 AND 3),
    is_deleted      boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX replies_thread_id_idx ON forum.replies (thread_id, created_at DESC);
CREATE INDEX replies_user_id_idx ON forum.replies (user_id);
CREATE INDEX replies_parent_reply_id_idx ON forum.replies (parent_reply_id);

CREATE TABLE forum.reactions (
    id          text PRIMARY KEY DEFAULT plinth.ulid('rct'),
    thread_id   integer NOT NULL REFERENCES forum.threads ON DELETE CASCADE,
    user_id     integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    type        text NOT NULL CHECK (type IN ('like', 'love', 'laugh', 'sad')),
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (thread_id, user_id)
);
CREATE INDEX reactions_user_id_idx ON forum.reactions (user_id);

CREATE TABLE forum.wallets (
    id            text PRIMARY KEY DEFAULT plinth.ulid('wal'),
    user_id       integer NOT NULL UNIQUE REFERENCES forum.members ON DELETE CASCADE,
    balance       bigint NOT NULL DEFAULT 0 CHECK (balance >= 0),
    token_balance bigint NOT NULL DEFAULT 0 CHECK (token_balance >= 0),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Accounts must add up when a member is gone: see the cascade in sync.sql.
CREATE TABLE forum.transactions (
    id           text PRIMARY KEY DEFAULT plinth.ulid('txn'),
    user_id      integer REFERENCES forum.members ON DELETE SET NULL,
    wallet_id    text REFERENCES forum.wallets ON DELETE SET NULL,
    type         text NOT NULL CHECK (type IN ('token_purchase', 'token_usage', 'refund')),
    amount       bigint NOT NULL,
    token_amount bigint NOT NULL,
    description  text,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX transactions_user_id_idx ON forum.transactions (user_id, created_at DESC);
CREATE INDEX transactions_wallet_id_idx ON forum.transactions (wallet_id);

CREATE TABLE forum.chat_sessions (
    id              text PRIMARY KEY DEFAULT plinth.ulid('cht'),
    user_id         integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    title           text NOT NULL,
    service_type    text NOT NULL,
    model           text,
    message_count   integer NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX chat_sessions_user_id_idx ON forum.chat_sessions (user_id, created_at DESC);

CREATE TABLE forum.chat_messages (
    id          text PRIMARY KEY DEFAULT plinth.ulid('msg'),
    session_id  text NOT NULL REFERENCES forum.chat_sessions ON DELETE CASCADE,
    role        text NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    content     text NOT NULL,
    tokens_used integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX chat_messages_session_id_idx ON forum.chat_messages (session_id, created_at);

CREATE TABLE forum.documents (
    id         text PRIMARY KEY DEFAULT plinth.ulid('doc'),
    user_id    integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    title      text NOT NULL,
    file_name  text NOT NULL,
    mime_type  text NOT NULL,
    size       integer NOT NULL,
    is_public  boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX documents_user_id_idx ON forum.documents (user_id);

-- What is reported is named by kind and id, so no foreign key can follow it.
CREATE TABLE forum.reports (
    id          text PRIMARY KEY DEFAULT plinth.ulid('rpt'),
    reporter_id integer REFERENCES forum.members ON DELETE SET NULL,
    target_type text NOT NULL CHECK (target_type IN ('thread', 'reply', 'user')),
    target_id   text NOT NULL,
    reason      text NOT NULL,
    details     text,
    status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'resolved', 'dismissed')),
    resolved_by integer REFERENCES forum.members ON DELETE SET NULL,
    resolved_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reports_reporter_id_idx ON forum.reports (reporter_id);
CREATE INDEX reports_resolved_by_idx ON forum.reports (resolved_by);

CREATE TABLE forum.user_warnings (
    id         text PRIMARY KEY DEFAULT plinth.ulid('wrn'),
    user_id    integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    admin_id   integer REFERENCES forum.members ON DELETE SET NULL,
    reason     text NOT NULL,
    severity   text NOT NULL CHECK (severity IN ('notice', 'warning', 'final')),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX user_warnings_user_id_idx ON forum.user_warnings (user_id);
CREATE INDEX user_warnings_admin_id_idx ON forum.user_warnings (admin_id);

CREATE TABLE forum.device_bans (
    id          text PRIMARY KEY DEFAULT plinth.ulid('ban'),
    fingerprint text NOT NULL,
    reason      text NOT NULL,
    banned_by   integer REFERENCES forum.members ON DELETE SET NULL,
    expires_at  timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX device_bans_banned_by_idx ON forum.device_bans (banned_by);

CREATE TABLE forum.badges (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    description text,
    icon_url    text,
    color       text,
    rarity      text NOT NULL DEFAULT 'common',
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE forum.user_badges (
    id         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id    integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
    badge_id   integer NOT NULL REFERENCES forum.badges ON DELETE CASCADE,
    is_primary boolean NOT NULL DEFAULT false,
    awarded_at timestamptz NOT NULL DEFAULT now(),
    awarded_by integer REFERENCES forum.members ON DELETE SET NULL,
    UNIQUE (user_id, badge_id)
);
CREATE INDEX user_badges_badge_id_idx ON forum.user_badges (badge_id);
CREATE INDEX user_badges_awarded_by_idx ON forum.user_badges (awarded_by);

-- Who is calling, in the application's own key: only from what plinth verified.
CREATE FUNCTION forum.me() RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN (SELECT id FROM forum.members WHERE user_id = plinth.current_user_id());

CREATE FUNCTION forum.my_name() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN (SELECT username FROM forum.members WHERE user_id = plinth.current_user_id());

-- Joining: a user of plinth becomes a member once.
CREATE FUNCTION forum.join_forum(username text) RETURNS integer
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    INSERT INTO forum.members (user_id, username) VALUES (plinth.current_user_id(), username) RETURNING id;
END;
REVOKE ALL ON FUNCTION forum.me(), forum.my_name(), forum.join_forum(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forum.me(), forum.my_name(), forum.join_forum(text) TO anon, authenticated;

ALTER TABLE forum.threads ALTER author_id SET DEFAULT forum.me();
ALTER TABLE forum.replies ALTER user_id SET DEFAULT forum.me(), ALTER username SET DEFAULT forum.my_name();
ALTER TABLE forum.reactions ALTER user_id SET DEFAULT forum.me();

-- Everybody reads; each writes as themselves and changes what is theirs.
ALTER TABLE forum.members ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.categories ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.threads ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.replies ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.reactions ENABLE ROW LEVEL SECURITY;

CREATE POLICY members_read ON forum.members FOR SELECT USING (true);
CREATE POLICY categories_read ON forum.categories FOR SELECT USING (true);

CREATE POLICY threads_read ON forum.threads FOR SELECT USING (NOT is_deleted OR author_id = (SELECT forum.me()));
CREATE POLICY threads_write ON forum.threads FOR INSERT WITH CHECK (author_id = (SELECT forum.me()));
CREATE POLICY threads_change ON forum.threads FOR UPDATE USING (author_id = (SELECT forum.me()));
CREATE POLICY threads_remove ON forum.threads FOR DELETE USING (author_id = (SELECT forum.me()));

CREATE POLICY replies_read ON forum.replies FOR SELECT USING (NOT is_deleted OR user_id = (SELECT forum.me()));
CREATE POLICY replies_write ON forum.replies FOR INSERT
    WITH CHECK (user_id = (SELECT forum.me()) AND username = (SELECT forum.my_name()));
CREATE POLICY replies_change ON forum.replies FOR UPDATE USING (user_id = (SELECT forum.me()));
CREATE POLICY replies_remove ON forum.replies FOR DELETE USING (user_id = (SELECT forum.me()));

CREATE POLICY reactions_read ON forum.reactions FOR SELECT USING (true);
CREATE POLICY reactions_write ON forum.reactions FOR INSERT WITH CHECK (user_id = (SELECT forum.me()));
CREATE POLICY reactions_remove ON forum.reactions FOR DELETE USING (user_id = (SELECT forum.me()));

-- Of the rest each sees what is theirs; nobody but the forum itself writes it.
ALTER TABLE forum.wallets ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.transactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.chat_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.chat_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.reports ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.user_warnings ENABLE ROW LEVEL SECURITY;
ALTER TABLE forum.device_bans ENABLE ROW LEVEL SECURITY;
CREATE POLICY wallets_read ON forum.wallets FOR SELECT USING (user_id = (SELECT forum.me()));
CREATE POLICY transactions_read ON forum.transactions FOR SELECT USING (user_id = (SELECT forum.me()));
CREATE POLICY chat_sessions_read ON forum.chat_sessions FOR SELECT USING (user_id = (SELECT forum.me()));
CREATE POLICY chat_messages_read ON forum.chat_messages FOR SELECT
    USING (session_id IN (SELECT s.id FROM forum.chat_sessions s WHERE s.user_id = (SELECT forum.me())));
CREATE POLICY documents_read ON forum.documents FOR SELECT USING (is_public OR user_id = (SELECT forum.me()));
CREATE POLICY reports_read ON forum.reports FOR SELECT USING (reporter_id = (SELECT forum.me()));
CREATE POLICY user_warnings_read ON forum.user_warnings FOR SELECT USING (user_id = (SELECT forum.me()));
GRANT SELECT ON forum.wallets, forum.transactions, forum.chat_sessions, forum.chat_messages, forum.documents, forum.reports,
    forum.user_warnings, forum.badges, forum.user_badges TO authenticated;

GRANT SELECT ON forum.members, forum.categories, forum.threads, forum.replies, forum.reactions TO anon, authenticated;
GRANT INSERT, DELETE ON forum.threads, forum.replies, forum.reactions TO authenticated;
GRANT UPDATE (title, summary, content_json, is_deleted, updated_at) ON forum.threads TO authenticated;
GRANT UPDATE (content, is_deleted, updated_at) ON forum.replies TO authenticated;

INSERT INTO forum.categories (name, slug, description, color, icon, order_index) VALUES
    ('Security', 'security', 'Keeping things that way', '#c0392b', 'shield', 1),
    ('Databases', 'databases', 'Rows and documents', '#2980b9', 'database', 2),
    ('Everything else', 'else', NULL, '#7f8c8d', 'chat', 3);

-- A reply as it stands on a thread's page; what a page is made of tells in its
-- old version which page that is.
CREATE TYPE forum.page_reply AS (id text, "userId" integer, username text, content text, "parentReplyId" text, "createdAt" timestamptz);
ALTER TABLE forum.replies REPLICA IDENTITY FULL;
ALTER TABLE forum.reactions REPLICA IDENTITY FULL;

RESET ROLE;
