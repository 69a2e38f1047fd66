-- Some hundred rows for ChronoChat.
--
-- psql -f data.sql, as a superuser, after schema.sql.
SET ROLE chronochat;
INSERT INTO chronochat.users (clerk_user_id, email, username, subscription_tier)
    SELECT 'user_' || g, format('chrono%s@example.org', g), 'chrono' || g, (ARRAY['free', 'pro', 'enterprise'])[1 + g % 3] FROM generate_series(1, 12) g;
INSERT INTO chronochat.user_preferences (clerk_user_id, preferred_model) SELECT clerk_user_id, 'gemini-pro' FROM chronochat.users;
INSERT INTO chronochat.user_sessions (clerk_user_id, session_id, ip_address, device_type) SELECT clerk_user_id, 'sess_' || clerk_user_id, '203.0.113.7', 'desktop' FROM chronochat.users;
INSERT INTO chronochat.api_logs (clerk_user_id, endpoint, method, status_code, response_time_ms)
    SELECT clerk_user_id, '/api/chat', 'POST', 200, 120.5 + g FROM chronochat.users, generate_series(1, 3) g;
INSERT INTO chronochat.conversations (user_id, title, summary, created_at, updated_at, metadata, tags, is_archived)
    SELECT u.clerk_user_id, format('Conversation %s of %s', g, u.username), CASE WHEN g % 2 = 0 THEN 'A summary' END, t, t,
           jsonb_build_object('pinned', g = 1, 'folder', jsonb_build_object('name', 'f' || g)), CASE WHEN g = 3 THEN '{}' ELSE ARRAY['chat', 'tag' || g] END, g = 3
    FROM chronochat.users u, generate_series(1, 3) g, LATERAL (SELECT timestamptz '2025-11-01 09:00+00' + g * interval '1 day') AS v (t);
INSERT INTO chronochat.messages (conversation_id, role, content, created_at, model, provider, tokens, metadata)
    SELECT c.conversation_id, CASE WHEN g % 2 = 1 THEN 'user' ELSE 'assistant' END, format('Message %s', g), c.created_at + g * interval '20 seconds',
           CASE WHEN g % 2 = 0 THEN 'gemini-pro' END, CASE WHEN g % 2 = 0 THEN 'gemini' END, 10 * g, jsonb_build_object('n', g)
    FROM chronochat.conversations c, generate_series(1, 8) g WHERE NOT c.is_archived;
INSERT INTO chronochat.user_usage_stats (clerk_user_id, total_messages, total_conversations, total_tokens_used, month_year)
    SELECT c.user_id, count(m.id), count(DISTINCT c.id), coalesce(sum(m.tokens), 0), '2025-11'
    FROM chronochat.conversations c LEFT JOIN chronochat.messages m USING (conversation_id) GROUP BY 1;
RESET ROLE;
