-- What the forum's MongoDB holds: the ten collections of the seed with its
-- indexes, and threads.
--
-- psql -v uri=mongodb://… -v database=forum -v mapping= -f sync.sql, as a superuser, after
-- schema.sql; mapping is the OPTIONS (…) clause with the credentials, where there are any.

CREATE SERVER docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER docs TO forum;
CREATE USER MAPPING FOR forum SERVER docs :mapping;

SET ROLE forum;
SELECT plinth.sync_table('forum.replies', 'docs', 'replies', field_names => 'camelCase', casts => '{"thread_id": "string"}', indexes => '[
    {"keys": {"threadId": 1, "createdAt": -1}},
    {"keys": {"userId": 1}},
    {"keys": {"parentReplyId": 1}}]');
SELECT plinth.sync_table('forum.reactions', 'docs', 'reactions', field_names => 'camelCase', casts => '{"thread_id": "string"}', indexes => '[
    {"keys": {"threadId": 1, "type": 1}},
    {"keys": {"threadId": 1, "userId": 1}, "unique": true}]');
SELECT plinth.sync_table('forum.wallets', 'docs', 'wallets', field_names => 'camelCase', indexes => '[
    {"keys": {"userId": 1}, "unique": true}]');
SELECT plinth.sync_table('forum.transactions', 'docs', 'transactions', field_names => 'camelCase', indexes => '[
    {"keys": {"userId": 1, "createdAt": -1}}]');
SELECT plinth.sync_table('forum.chat_sessions', 'docs', 'chat_sessions', field_names => 'camelCase', indexes => '[
    {"keys": {"userId": 1, "createdAt": -1}}]');
SELECT plinth.sync_table('forum.chat_messages', 'docs', 'chat_messages', field_names => 'camelCase', indexes => '[
    {"keys": {"sessionId": 1, "createdAt": 1}}]');
SELECT plinth.sync_table('forum.documents', 'docs', 'documents', field_names => 'camelCase');
SELECT plinth.sync_table('forum.reports', 'docs', 'reports', field_names => 'camelCase');
SELECT plinth.sync_table('forum.user_warnings', 'docs', 'user_warnings', field_names => 'camelCase');
SELECT plinth.sync_table('forum.device_bans', 'docs', 'device_bans', field_names => 'camelCase');
SELECT plinth.sync_table('forum.threads', 'docs', 'threads', field_names => 'camelCase');

-- A page of the forum: a thread with all that is shown below it.
SELECT plinth.sync_document('thread_pages', 'docs', 'thread_pages', 'forum.threads', $$
    SELECT t.id, t.title, t.summary, c.name AS category, m.username AS author, t.created_at,
           (SELECT count(*)::integer FROM forum.replies r WHERE r.thread_id = t.id AND NOT r.is_deleted) AS reply_count,
           (SELECT coalesce(jsonb_object_agg(v.type, v.n), '{}')
              FROM (SELECT x.type, count(*) AS n FROM forum.reactions x WHERE x.thread_id = t.id GROUP BY x.type) AS v) AS reactions,
           ARRAY(SELECT ROW(r.id, r.user_id, r.username, r.content, r.parent_reply_id, r.created_at)::forum.page_reply
                   FROM forum.replies r WHERE r.thread_id = t.id AND NOT r.is_deleted ORDER BY r.created_at, r.id) AS replies
      FROM forum.threads t
      JOIN forum.categories c ON c.id = t.category_id
      JOIN forum.members m ON m.id = t.author_id
     WHERE NOT t.is_deleted $$,
    field_names => 'camelCase');
SELECT plinth.sync_index('thread_pages', '{"keys": {"replies.userId": 1}}');

-- Who goes: their rows and documents in all ten collections, by rule.  What
-- others answered stays readable, and the accounts stay whole.
SELECT plinth.sync_cascade_rule('user', 'forum.replies', 'user_id', 'anonymise', '{"user_id": null, "username": "[deleted]"}');
SELECT plinth.sync_cascade_rule('user', 'forum.reactions', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'forum.transactions', 'user_id', 'anonymise', '{"user_id": null, "description": null}');
SELECT plinth.sync_cascade_rule('user', 'forum.wallets', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'forum.chat_sessions', 'user_id'); -- and chat_messages, by their foreign key
SELECT plinth.sync_cascade_rule('user', 'forum.documents', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'forum.reports', 'reporter_id', 'anonymise', '{"reporter_id": null, "details": null}');
SELECT plinth.sync_cascade_rule('user', 'forum.reports', 'resolved_by', 'anonymise', '{"resolved_by": null}');
SELECT plinth.sync_cascade_rule('user', 'forum.user_warnings', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'forum.user_warnings', 'admin_id', 'anonymise', '{"admin_id": null}');
SELECT plinth.sync_cascade_rule('user', 'forum.device_bans', 'banned_by', 'anonymise', '{"banned_by": null}');
SELECT plinth.sync_cascade_rule('user', 'forum.members', 'id');

-- A member leaves, as themselves; what was done is returned.
CREATE FUNCTION forum.leave() RETURNS TABLE (what text, action text, row_count bigint)
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT c.relation::text, c.action, c.row_count FROM plinth.sync_cascade('user', forum.me()::text) c;
END;
REVOKE ALL ON FUNCTION forum.leave() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION forum.leave() TO authenticated;
RESET ROLE;
