-- Some hundred rows for the AI chat.
--
-- psql -f data.sql, as a superuser, after schema.sql.
SET ROLE aichat;
INSERT INTO aichat.users (username, email, password_hash) SELECT 'ai' || g, format('ai%s@example.org', g), '$2b$12$not.a.hash' FROM generate_series(1, 10) g;
INSERT INTO aichat.chats (user_id, title, created_at, updated_at)
    SELECT u.id, CASE WHEN g < 4 THEN format('Chat %s', g) END, t, t FROM aichat.users u, generate_series(1, 4) g, LATERAL (SELECT timestamp '2026-02-01 09:00' + g * interval '3 hours') AS v (t);
INSERT INTO aichat.messages (chat_id, role, content, created_at)
    SELECT c.id, CASE WHEN g % 2 = 1 THEN 'user' ELSE 'assistant' END, format('Message %s of %s', g, c.title), c.created_at + g * interval '10 seconds'
    FROM aichat.chats c, generate_series(1, 7) g WHERE c.title IS NOT NULL;
INSERT INTO aichat.files (user_id, filename, file_path, file_size, mime_type)
    SELECT id, 'paper.pdf', '/uploads/' || username || '/paper.pdf', 5000000000 + length(username), 'application/pdf' FROM aichat.users;
RESET ROLE;
