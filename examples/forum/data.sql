-- Some hundred rows for the forum, always the same but for ids.
--
-- psql -f data.sql, as a superuser, after schema.sql.

INSERT INTO plinth.users (email, username, full_name)
    SELECT format('member%s@example.org', g), format('member%s', g), format('Member %s', g) FROM generate_series(1, 20) g;
INSERT INTO forum.members (user_id, username)
    SELECT u.id, u.username FROM plinth.users u WHERE u.username ~ '^member\d+$' ORDER BY length(u.username), u.username;

INSERT INTO forum.threads (title, summary, content_json, category_id, author_id, created_at, updated_at)
    SELECT 'Thread ' || g, CASE WHEN g % 4 > 0 THEN 'What thread ' || g || ' is about' END,
           jsonb_build_object('blocks', jsonb_build_array(jsonb_build_object('type', 'p', 'text', 'Text of ' || g))),
           1 + g % 3, 1 + g % 20, t, t
    FROM generate_series(1, 30) g, LATERAL (SELECT timestamptz '2026-01-01 08:00+00' + g * interval '7 hours') AS v (t);

INSERT INTO forum.replies (thread_id, content, user_id, username, created_at, updated_at)
    SELECT 1 + g % 30, 'Reply ' || g, m.id, m.username, t, t
    FROM generate_series(1, 240) g JOIN forum.members m ON m.id = 1 + g % 20,
         LATERAL (SELECT timestamptz '2026-01-10 08:00+00' + g * interval '13 minutes 0.123456 seconds') AS v (t);
INSERT INTO forum.replies (thread_id, content, user_id, username, parent_reply_id, depth, created_at, updated_at)
    SELECT r.thread_id, 'Answer to ' || r.content, m.id, m.username, r.id, 1, r.created_at + interval '1 hour', r.created_at + interval '1 hour'
    FROM forum.replies r JOIN forum.members m ON m.id = 1 + (r.user_id + 6) % 20 WHERE r.content ~ '0$';

INSERT INTO forum.reactions (thread_id, user_id, type, created_at)
    SELECT t.id, m.id, (ARRAY['like', 'love', 'laugh', 'sad'])[1 + (t.id + m.id) % 4], t.created_at + m.id * interval '1 minute'
    FROM forum.threads t JOIN forum.members m ON (t.id * m.id) % 3 = 0;

INSERT INTO forum.wallets (user_id, balance, token_balance) SELECT id, id * 7500, id * 500 FROM forum.members;
INSERT INTO forum.transactions (user_id, wallet_id, type, amount, token_amount, description, created_at)
    SELECT w.user_id, w.id, (ARRAY['token_purchase', 'token_usage', 'refund'])[1 + g % 3], g * 1000, g * 210,
           'Transaction ' || g || ' of ' || w.user_id, timestamptz '2026-02-01 00:00+00' + g * interval '1 day'
    FROM forum.wallets w, generate_series(1, 6) g;

INSERT INTO forum.chat_sessions (user_id, title, service_type, model, created_at)
    SELECT m.id, format('Chat %s of %s', g, m.username), 'huggingface', CASE WHEN g = 2 THEN 'mistral-7b' END, timestamptz '2026-03-01 00:00+00' + m.id * interval '1 hour'
    FROM forum.members m, generate_series(1, 2) g WHERE m.id <= 15;
INSERT INTO forum.chat_messages (session_id, role, content, tokens_used, created_at)
    SELECT s.id, CASE WHEN g % 2 = 1 THEN 'user' ELSE 'assistant' END, format('Message %s: é, 😀', g), CASE WHEN g % 2 = 0 THEN 40 + g ELSE 0 END, s.created_at + g * interval '1 minute'
    FROM forum.chat_sessions s, generate_series(1, 6) g;
UPDATE forum.chat_sessions s SET message_count = v.n, last_message_at = v.last, updated_at = v.last
    FROM (SELECT session_id, count(*) AS n, max(created_at) AS last FROM forum.chat_messages GROUP BY 1) v WHERE v.session_id = s.id;

INSERT INTO forum.documents (user_id, title, file_name, mime_type, size, is_public)
    SELECT m.id, 'Resume.pdf', md5(m.username) || '_resume.pdf', 'application/pdf', 125000 + m.id, m.id % 5 = 0 FROM forum.members m;
INSERT INTO forum.reports (reporter_id, target_type, target_id, reason, details, status, resolved_by, resolved_at)
    SELECT 1 + g % 20, CASE WHEN g % 3 = 0 THEN 'user' ELSE 'thread' END, (1 + g % 20)::text, 'spam', 'Promotional content',
           CASE WHEN g % 2 = 0 THEN 'resolved' ELSE 'pending' END, CASE WHEN g % 2 = 0 THEN 1 END, CASE WHEN g % 2 = 0 THEN timestamptz '2026-04-01 00:00+00' END
    FROM generate_series(1, 25) g;
INSERT INTO forum.user_warnings (user_id, admin_id, reason, severity)
    SELECT 2 + g % 19, 1 + g % 2, 'Repeated spam', (ARRAY['notice', 'warning', 'final'])[1 + g % 3] FROM generate_series(1, 12) g;
INSERT INTO forum.device_bans (fingerprint, reason, banned_by, expires_at)
    SELECT md5(g::text), 'Multiple spam accounts', 1 + g % 2, CASE WHEN g % 2 = 0 THEN timestamptz '2030-01-01 00:00+00' END FROM generate_series(1, 8) g;
INSERT INTO forum.badges (name, rarity) VALUES ('First reply', 'common'), ('Night owl', 'rare');
INSERT INTO forum.user_badges (user_id, badge_id, awarded_by) SELECT m.id, 1 + m.id % 2, 1 FROM forum.members m;
