-- The forum of seed 001 on top of plinth: threads and replies belong to their
-- authors, which row-level security sees to; replies and reactions are read
-- from MongoDB, where this file's second half sends them.
--
-- psql -v uri=mongodb://… -v database=forum -v mapping= -f schema.sql, as a superuser, in
-- a database that has the extension.

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
    user_id         integer NOT NULL REFERENCES forum.members ON DELETE CASCADE,
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

GRANT SELECT ON forum.members, forum.categories, forum.threads, forum.replies, forum.reactions TO anon, authenticated;
GRANT INSERT, DELETE ON forum.threads, forum.replies, forum.reactions TO authenticated;
GRANT UPDATE (title, summary, content_json, is_deleted, updated_at) ON forum.threads TO authenticated;
GRANT UPDATE (content, is_deleted, updated_at) ON forum.replies TO authenticated;

INSERT INTO forum.categories (name, slug, description, color, icon, order_index) VALUES
    ('Security', 'security', 'Keeping things that way', '#c0392b', 'shield', 1),
    ('Databases', 'databases', 'Rows and documents', '#2980b9', 'database', 2),
    ('Everything else', 'else', NULL, '#7f8c8d', 'chat', 3);

RESET ROLE;

-- The other half: replies, reactions and threads as documents.
CREATE SERVER docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER docs TO forum;
CREATE USER MAPPING FOR forum SERVER docs :mapping;

SET ROLE forum;
SELECT plinth.sync_table('forum.replies', 'docs', 'replies', field_names => 'camelCase', casts => '{"thread_id": "string"}');
SELECT plinth.sync_table('forum.reactions', 'docs', 'reactions', field_names => 'camelCase', casts => '{"thread_id": "string"}');
SELECT plinth.sync_table('forum.threads', 'docs', 'threads', field_names => 'camelCase');
RESET ROLE;
