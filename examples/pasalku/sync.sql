-- The eight collections of seed 000 and its GridFS bucket.
--
-- psql -v uri=mongodb://… -v database=pasalku -v mapping= -f sync.sql, as a superuser, after
-- schema.sql; mapping is the OPTIONS (…) clause with the credentials, where there are any.

CREATE SERVER pasalku_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri :'uri', database :'database');
GRANT USAGE ON FOREIGN SERVER pasalku_docs TO pasalku;
CREATE USER MAPPING FOR pasalku SERVER pasalku_docs :mapping;

SET ROLE pasalku;
-- A transcript is a session with all of its messages, and its key an ObjectId.
SELECT plinth.sync_document('pasalku.chat_transcripts', 'pasalku_docs', 'chat_transcripts', 'pasalku.chat_transcripts', $$
    SELECT t.id, s.id::text AS session_id, s.user_id, s.title, s.ai_model, s.rating, s.created_at, s.updated_at,
           ARRAY(SELECT ROW(m.role, m.content, m.citations, m.confidence, m.created_at)::pasalku.transcript_message
                   FROM pasalku.chat_messages m WHERE m.session_id = s.id ORDER BY m.id) AS messages,
           a.total_messages, a.total_tokens, a.avg_confidence_score
      FROM pasalku.chat_transcripts t
      JOIN pasalku.chat_sessions s ON s.mongodb_transcript_id = t.id
      LEFT JOIN pasalku.session_analytics a ON a.session_id = s.id $$,
    id_cast => 'objectId');
SELECT plinth.sync_index('pasalku.chat_transcripts', '{"keys": {"session_id": 1}}');
SELECT plinth.sync_index('pasalku.chat_transcripts', '{"keys": {"user_id": 1, "created_at": -1}}');
SELECT plinth.sync_index('pasalku.chat_transcripts', '{"keys": {"messages.content": "text"}, "default_language": "none"}');
SELECT plinth.sync_table('pasalku.document_analyses', 'pasalku_docs', name => 'pasalku.document_analyses', id_cast => 'objectId', casts => '{"document_id": "string"}',
    indexes => '[{"keys": {"document_id": 1}}, {"keys": {"summary": "text"}, "default_language": "none"}]');
SELECT plinth.sync_table('pasalku.verification_documents', 'pasalku_docs', name => 'pasalku.verification_documents', id_cast => 'objectId', casts => '{"request_id": "string"}',
    indexes => '[{"keys": {"request_id": 1}}]');
SELECT plinth.sync_table('pasalku.ai_response_cache', 'pasalku_docs', name => 'pasalku.ai_response_cache',
    indexes => '[{"keys": {"expires_at": 1}, "expireAfterSeconds": 0}]');
SELECT plinth.sync_table('pasalku.knowledge_graph_cache', 'pasalku_docs', name => 'pasalku.knowledge_graph_cache',
    indexes => '[{"keys": {"expires_at": 1}, "expireAfterSeconds": 0}]');
SELECT plinth.sync_append('pasalku.user_activity_logs', 'pasalku_docs', name => 'pasalku.user_activity_logs', id_cast => 'objectId',
    indexes => '[{"keys": {"user_id": 1, "created_at": -1}}]', expire_field => 'created_at', expire_after => '365 days');
SELECT plinth.sync_table('pasalku.dual_ai_comparisons', 'pasalku_docs', name => 'pasalku.dual_ai_comparisons', id_cast => 'objectId', casts => '{"session_id": "string"}',
    indexes => '[{"keys": {"session_id": 1}}]');
SELECT plinth.sync_table('pasalku.feature_flag_cache', 'pasalku_docs', name => 'pasalku.feature_flag_cache',
    indexes => '[{"keys": {"expires_at": 1}, "expireAfterSeconds": 0}]');
-- documents.files and documents.chunks, for every driver's GridFS.
SELECT plinth.sync_bucket('pasalku_documents', 'pasalku_docs', 'documents', name => 'pasalku.documents');
RESET ROLE;
