-- What PostgREST serves of the forum: plinth's functions for signing in, and
-- the forum's tables, each with its own row-level security.
--
-- psql -f api.sql, as a superuser, after schema.sql.

CREATE SCHEMA api;
SELECT plinth.api_install('api', '{sign_in,account}');

CREATE VIEW api.categories WITH (security_invoker = true) AS SELECT id, name, slug, description FROM forum.categories;
CREATE VIEW api.threads WITH (security_invoker = true) AS SELECT id, title, summary, content_json, category_id, author_id, created_at FROM forum.threads;
CREATE VIEW api.replies WITH (security_invoker = true) AS SELECT id, thread_id, content, username, created_at FROM forum.replies;
GRANT SELECT ON ALL TABLES IN SCHEMA api TO anon, authenticated;
GRANT INSERT, UPDATE, DELETE ON api.threads, api.replies TO authenticated;

CREATE FUNCTION api.join_forum(username text) RETURNS integer
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    RETURN forum.join_forum(username);
REVOKE ALL ON FUNCTION api.join_forum(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION api.join_forum(text) TO authenticated;
COMMENT ON FUNCTION api.join_forum(text) IS 'Becomes a member of the forum, once.';
