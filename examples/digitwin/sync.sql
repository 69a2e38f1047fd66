-- Conversations with their turns, and the knowledge base, as documents.
--
-- psql -v uri=mongodb://… -v database=digitwin -v mapping= -f sync.sql, as a superuser, after
-- schema.sql; mapping is the OPTIONS (…) clause with the credentials, where there are any.

CREATE SERVER digitwin_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER digitwin_docs TO digitwin;
CREATE USER MAPPING FOR digitwin SERVER digitwin_docs :mapping;

SET ROLE digitwin;
-- The sums that the seed kept in the session are made of its turns.
SELECT plinth.sync_document('digitwin.conversations', 'digitwin_docs', 'conversations', 'digitwin.conversation_sessions', $$
    SELECT s.id, s.user_id::text AS user_id, u.name AS user_name, s.state, s.llm_provider, s.tts_provider, s.started_at, s.ended_at,
           (SELECT count(*)::integer FROM digitwin.conversation_turns t WHERE t.session_id = s.id) AS total_turns,
           (SELECT avg(t.asr_latency_ms + t.rag_latency_ms + t.llm_latency_ms + t.tts_latency_ms)::double precision
              FROM digitwin.conversation_turns t WHERE t.session_id = s.id) AS average_latency_ms,
           (SELECT coalesce(sum(t.asr_cost + t.llm_cost + t.tts_cost), 0) FROM digitwin.conversation_turns t WHERE t.session_id = s.id) AS total_cost,
           ARRAY(SELECT ROW(t.user_transcript, t.llm_response, t.asr_latency_ms + t.rag_latency_ms + t.llm_latency_ms + t.tts_latency_ms,
                            t.asr_cost + t.llm_cost + t.tts_cost, t.created_at)::digitwin.turn
                   FROM digitwin.conversation_turns t WHERE t.session_id = s.id ORDER BY t.created_at, t.id) AS turns
      FROM digitwin.conversation_sessions s JOIN digitwin.users u ON u.id = s.user_id
     WHERE u.deleted_at IS NULL $$,
    field_names => 'camelCase', id_cast => 'string');
SELECT plinth.sync_index('digitwin.conversations', '{"keys": {"userId": 1, "startedAt": 1}}');
-- A soft delete takes the document away, and restoring brings it back.
SELECT plinth.sync_table('digitwin.knowledge_documents', 'digitwin_docs', name => 'digitwin.knowledge_documents',
    columns => '{user_id,filename,content_type,text_content,chunk_count,status,vector_ids,uploaded_at}', field_names => 'camelCase',
    id_cast => 'string', casts => '{"user_id": "string"}', filter => 'deleted_at IS NULL',
    indexes => '[{"keys": {"userId": 1, "uploadedAt": 1}}, {"keys": {"status": 1}}]');
RESET ROLE;
