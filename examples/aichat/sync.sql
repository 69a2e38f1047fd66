-- Chats with their messages, and the files' records, as documents.
--
-- psql -v uri=mongodb://… -v database=aichat -v mapping= -f sync.sql, as a superuser, after
-- schema.sql; mapping is the OPTIONS (…) clause with the credentials, where there are any.

CREATE SERVER aichat_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER aichat_docs TO aichat;
CREATE USER MAPPING FOR aichat SERVER aichat_docs :mapping;

SET ROLE aichat;
SELECT plinth.sync_document('aichat.chats', 'aichat_docs', 'chats', 'aichat.chats', $$
    SELECT c.id, c.user_id::text AS user_id, u.username, c.title, c.created_at, c.updated_at,
           ARRAY(SELECT ROW(m.id::text, m.role, m.content, m.created_at)::aichat.chat_message
                   FROM aichat.messages m WHERE m.chat_id = c.id ORDER BY m.created_at, m.id) AS messages
      FROM aichat.chats c LEFT JOIN aichat.users u ON u.id = c.user_id $$,
    field_names => 'camelCase', id_cast => 'string');
SELECT plinth.sync_index('aichat.chats', '{"keys": {"userId": 1}}');
SELECT plinth.sync_table('aichat.files', 'aichat_docs', name => 'aichat.files', field_names => 'camelCase', id_cast => 'string', casts => '{"user_id": "string"}',
    indexes => '[{"keys": {"userId": 1}}]');
RESET ROLE;
