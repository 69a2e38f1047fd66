-- The two collections of seed 002.
--
-- psql -v uri=mongodb://… -v database=chronochat -v mapping= -f sync.sql, as a superuser, after
-- schema.sql; mapping is the OPTIONS (…) clause with the credentials, where there are any.

CREATE SERVER chronochat_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER chronochat_docs TO chronochat;
CREATE USER MAPPING FOR chronochat SERVER chronochat_docs :mapping;

SET ROLE chronochat;
-- How many messages a conversation has is not kept, it is counted.
SELECT plinth.sync_document('chronochat.conversations', 'chronochat_docs', 'conversations', 'chronochat.conversations', $$
    SELECT c.id, c.conversation_id::text AS conversation_id, c.user_id, c.title, c.summary, c.created_at, c.updated_at,
           (SELECT count(*)::integer FROM chronochat.messages m WHERE m.conversation_id = c.conversation_id) AS message_count,
           (SELECT coalesce(sum(m.tokens), 0)::integer FROM chronochat.messages m WHERE m.conversation_id = c.conversation_id) AS total_tokens,
           c.metadata, c.tags, c.is_archived
      FROM chronochat.conversations c $$,
    id_cast => 'objectId');
SELECT plinth.sync_index('chronochat.conversations', '{"keys": {"conversation_id": 1}, "unique": true}');
SELECT plinth.sync_index('chronochat.conversations', '{"keys": {"user_id": 1}}');
SELECT plinth.sync_index('chronochat.conversations', '{"keys": {"created_at": 1}}');
SELECT plinth.sync_table('chronochat.messages', 'chronochat_docs', name => 'chronochat.messages', id_cast => 'objectId', casts => '{"conversation_id": "string"}',
    indexes => '[{"keys": {"conversation_id": 1}}, {"keys": {"created_at": 1}}]');
RESET ROLE;
