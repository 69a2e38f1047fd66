-- Some hundred rows for the digital twin.
--
-- psql -f data.sql, as a superuser, after schema.sql.
SET ROLE digitwin;
INSERT INTO digitwin.users (email, name, personality_traits, subscription_tier, settings, deleted_at)
    SELECT format('twin%s@example.org', g), 'Twin ' || g, ARRAY['curious', 'calm'], (ARRAY['free', 'pro', 'enterprise'])[1 + g % 3], '{"language": "en"}',
           CASE WHEN g = 10 THEN timestamptz '2026-05-01 00:00+00' END FROM generate_series(1, 10) g;
INSERT INTO digitwin.voice_models (user_id, provider, model_path, quality_score, is_active) SELECT id, 'xtts-v2', 'gs://models/voice/' || name, 0.9, true FROM digitwin.users;
INSERT INTO digitwin.face_models (user_id, model_path, resolution, quality_score, is_active) SELECT id, 'gs://models/face/' || name, '{"width": 512, "height": 512}', 0.8, true FROM digitwin.users;
INSERT INTO digitwin.conversation_sessions (user_id, state, llm_provider, tts_provider, started_at, ended_at)
    SELECT u.id, CASE WHEN g = 3 THEN 'listening' ELSE 'idle' END, 'gemini', 'xtts-v2', t, CASE WHEN g < 3 THEN t + interval '10 minutes' END
    FROM digitwin.users u, generate_series(1, 3) g, LATERAL (SELECT timestamptz '2026-03-01 10:00+00' + g * interval '1 day') AS v (t);
INSERT INTO digitwin.conversation_turns (session_id, user_transcript, llm_response, asr_latency_ms, rag_latency_ms, llm_latency_ms, tts_latency_ms, asr_cost, llm_cost, tts_cost, created_at)
    SELECT s.id, 'Question ' || g, CASE WHEN g < 8 THEN 'Answer ' || g END, 100 + g + g % 2, 50 + g, 700 + g, 200 + g, 0.0006, 0.002 + g / 1000.0, 0.0015, s.started_at + g * interval '30 seconds'
    FROM digitwin.conversation_sessions s, generate_series(1, 8) g WHERE s.ended_at IS NOT NULL;
INSERT INTO digitwin.knowledge_documents (user_id, filename, content_type, text_content, chunk_count, status, vector_ids, deleted_at)
    SELECT u.id, format('notes-%s.txt', g), 'text/plain', 'What ' || u.name || ' knows', 2, 'completed', ARRAY['v' || g || 'a', 'v' || g || 'b'],
           CASE WHEN g = 4 THEN timestamptz '2026-05-01 00:00+00' END FROM digitwin.users u, generate_series(1, 4) g;
RESET ROLE;
