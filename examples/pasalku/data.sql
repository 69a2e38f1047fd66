-- Some hundred rows for the legal assistant.
--
-- psql -f data.sql, as a superuser, after schema.sql.
SET ROLE pasalku;
INSERT INTO pasalku.users (id, email, role, subscription_tier, stripe_customer_id, verification_status)
    SELECT format('user_%s', substr(md5(g::text), 1, 20)), format('pengguna%s@example.id', g), (enum_range(NULL::pasalku.user_role))[1 + g % 3],
           (enum_range(NULL::pasalku.tier))[1 + g % 3], 'cus_' || g, CASE WHEN g % 2 = 0 THEN 'approved'::pasalku.verdict END
    FROM generate_series(1, 15) g;
INSERT INTO pasalku.verification_requests (user_id, status) SELECT id, 'pending' FROM pasalku.users WHERE role = 'profesional_hukum';
INSERT INTO pasalku.subscriptions (user_id, stripe_subscription_id, tier, status) SELECT id, 'sub_' || md5(id), subscription_tier, 'active' FROM pasalku.users;

-- One transcript a session, known by the number that orders them.
CREATE TEMP TABLE numbered AS
    SELECT g AS number, plinth.objectid() AS transcript, u.id AS user_id FROM generate_series(1, 30) g
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM pasalku.users) u ON u.n = 1 + g % 15;
INSERT INTO pasalku.chat_transcripts (id, created_at) SELECT transcript, timestamptz '2026-01-01 00:00+00' + number * interval '1 hour' FROM numbered;
INSERT INTO pasalku.chat_sessions (user_id, mongodb_transcript_id, title, ai_model, rating, created_at, updated_at)
    SELECT n.user_id, n.transcript, 'Konsultasi ' || n.number, 'ark-llm', 1 + n.number % 5, t.created_at, t.created_at
    FROM numbered n JOIN pasalku.chat_transcripts t ON t.id = n.transcript;
INSERT INTO pasalku.chat_messages (session_id, role, content, citations, confidence, created_at)
    SELECT s.id, CASE WHEN g % 2 = 1 THEN 'user' ELSE 'assistant' END, format('Pesan %s: Pasal %s KUHP', g, 100 + g),
           CASE WHEN g % 2 = 0 THEN jsonb_build_array(jsonb_build_object('article', 'Pasal ' || (100 + g), 'law', 'KUHP')) ELSE '[]' END,
           CASE WHEN g % 2 = 0 THEN 0.75 + g / 100.0 END, s.created_at + g * interval '1 minute'
    FROM pasalku.chat_sessions s, generate_series(1, 6) g;
INSERT INTO pasalku.session_analytics (session_id, total_messages, total_tokens, avg_confidence_score)
    SELECT session_id, count(*), sum(length(content)), avg(confidence)::numeric(5,4) FROM pasalku.chat_messages GROUP BY 1;
INSERT INTO pasalku.ai_query_logs (user_id, session_id, query_type, ai_provider, prompt_tokens, completion_tokens, response_time_ms)
    SELECT user_id, id, 'consultation', CASE WHEN rating % 2 = 0 THEN 'ark' ELSE 'groq' END, 120, 340, 900 + rating FROM pasalku.chat_sessions;
INSERT INTO pasalku.document_metadata (user_id, session_id, file_name, processing_status, ai_summary)
    SELECT user_id, id, 'kontrak-' || substr(title, 12) || '.pdf', 'completed', 'Ringkasan ' || title FROM pasalku.chat_sessions WHERE rating > 2;
-- Each upload is a file, some of more than one chunk; its id is that of the file in GridFS.
UPDATE pasalku.document_metadata d SET mongodb_document_id = plinth.file_put('pasalku_documents', d.file_name, v.bytes, 'application/pdf',
        jsonb_build_object('documentId', d.id, 'sha256', encode(sha256(v.bytes), 'hex')))
    FROM (SELECT m.id, '%PDF-1.7'::bytea || decode(repeat(md5(m.id::text), CASE WHEN s.rating = 5 THEN 20000 ELSE 200 END), 'hex')
            FROM pasalku.document_metadata m JOIN pasalku.chat_sessions s ON s.id = m.session_id) AS v (id, bytes) WHERE v.id = d.id;
INSERT INTO pasalku.document_analyses (document_id, summary, clauses, risk_score)
    SELECT id, ai_summary, '[{"no": 1, "text": "Para pihak", "risk": 0.1}, {"no": 2, "text": "Denda", "risk": 0.85}]', 0.475 FROM pasalku.document_metadata;
INSERT INTO pasalku.verification_documents (request_id, file_name, mime_type, content)
    SELECT id, 'kartu-advokat.png', 'image/png', '\x89504e470d0a1a0a'::bytea || decode(repeat(md5(id::text), 40), 'hex') FROM pasalku.verification_requests;
INSERT INTO pasalku.ai_response_cache (id, query, response, provider, hit_count, expires_at)
    SELECT md5('q' || g), 'Apa itu pasal ' || g || '?', 'Pasal ' || g || ' mengatur …', 'ark', g, timestamptz '2038-01-01 00:00+00' FROM generate_series(1, 20) g;
INSERT INTO pasalku.knowledge_graph_cache (id, query, result, expires_at)
    SELECT md5('k' || g), 'select Law filter .number = ' || g, jsonb_build_object('law', g, 'articles', jsonb_build_array(g, g + 1)), timestamptz '2038-01-01 00:00+00' FROM generate_series(1, 10) g;
INSERT INTO pasalku.user_activity_logs (user_id, action, resource, ip_address, metadata, created_at)
    SELECT id, (ARRAY['login', 'chat.open', 'document.upload'])[1 + g % 3], 'session', ('10.0.0.' || g)::inet, jsonb_build_object('n', g), timestamptz '2026-02-01 00:00+00' + g * interval '1 hour'
    FROM pasalku.users, generate_series(1, 8) g;
INSERT INTO pasalku.dual_ai_comparisons (session_id, query, ark_response, groq_response, similarity, selected_provider)
    SELECT id, title, 'Menurut Ark …', 'Menurut Groq …', 0.9, 'ark' FROM pasalku.chat_sessions WHERE rating = 5;
INSERT INTO pasalku.feature_flag_cache VALUES ('dual-ai', true, '{"tiers": ["premium", "enterprise"]}', 'statsig', timestamptz '2038-01-01 00:00+00'),
    ('pin-lock', false, '{}', 'hypertune', timestamptz '2038-01-01 00:00+00');
DROP TABLE numbered;
RESET ROLE;
