-- Sessions: signing in, what a token is worth, and what ends it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE session_user_role IN ROLE authenticated;
CREATE ROLE session_admin IN ROLE plinth_admin;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT user_id AS ann FROM plinth.sign_up('ann@session.test', 'correct horse', 'session_ann') \gset
SELECT user_id AS ben FROM plinth.sign_up('ben@session.test', 'battery staple', 'session_ben') \gset

-- Signing in by e-mail or username, without regard to case.
SELECT status, user_id = :'ann' AS ann, session_id > :'start' AS has_session, token ~ '^pls_[A-Za-z0-9_-]{43}$' AS has_token,
       expires_at - now() BETWEEN interval '29 days 23 hours' AND interval '30 days 1 hour' AS expires
    FROM plinth.sign_in('ANN@session.TEST', 'correct horse');
SELECT * FROM plinth.sign_in('Session_Ann', 'correct horse', 'fp-1', 'phone', repeat('ä', 1000), 'My phone') \gset
SELECT aal, device_fingerprint, device_type, address, octet_length(user_agent) AS user_agent, label, idle_timeout, revoked_at,
       revoked_reason, impersonator_id, created_at = last_active_at AND created_at = authenticated_at AS times
    FROM plinth.sessions WHERE id = :'session_id';
SELECT last_login_at > now() - interval '1 minute' AS seen FROM plinth.users WHERE id = :'ann';
SELECT octet_length(token_hash), position(convert_to(substr(:'token', 5), 'UTF8') IN token_hash) AS token_in_hash
    FROM plinth.sessions WHERE id = :'session_id';
SELECT token_hash <> plinth.base64url_decode(substr(:'token', 5)) AS hashed FROM plinth.sessions WHERE id = :'session_id';

-- Nobody learns which part was wrong.
SELECT * FROM plinth.sign_in('ann@session.test', 'battery staple');
SELECT * FROM plinth.sign_in('nobody@session.test', 'correct horse');
SELECT * FROM plinth.sign_in('session_nobody', 'correct horse');
SELECT * FROM plinth.sign_in('', '');
SELECT * FROM plinth.sign_in('ann@session.test', repeat('x', 100000));
SELECT plinth.sign_in(NULL, 'correct horse');
SELECT plinth.sign_in('ann@session.test', NULL);
SELECT plinth.sign_in(repeat('x', 1025), 'x');
SELECT plinth.sign_in('ann@session.test', 'correct horse', repeat('x', 201));
SELECT plinth.sign_in('ann@session.test', 'correct horse', label => repeat('x', 201));
SELECT plinth.sign_in('ann@session.test', 'correct horse', device_type => repeat('x', 51));
BEGIN READ ONLY;
SELECT plinth.sign_in('ann@session.test', 'correct horse');
ROLLBACK;
BEGIN;
UPDATE plinth.users SET status = 'locked' WHERE id = :'ann';
SELECT * FROM plinth.sign_in('ann@session.test', 'correct horse');
SELECT * FROM plinth.sign_in('ann@session.test', 'wrong');
UPDATE plinth.users SET status = 'banned' WHERE id = :'ann';
SELECT * FROM plinth.sign_in('ann@session.test', 'correct horse');
UPDATE plinth.users SET status = 'active', deleted_at = now() WHERE id = :'ann';
SELECT * FROM plinth.sign_in('ann@session.test', 'correct horse');
UPDATE plinth.users SET deleted_at = NULL WHERE id = :'ann';
DELETE FROM plinth.passwords WHERE user_id = :'ann';
SELECT * FROM plinth.sign_in('ann@session.test', 'correct horse');
ROLLBACK;

-- A hash of other costs is verified, and made anew.
BEGIN;
UPDATE plinth.passwords SET phc = '$argon2id$v=19$m=8192,t=1,p=1$4N/VEADYZz3IUaeUDlzJSQ$ydxrD1vd3tSF2N06WeuI374mDdhiSiQL1sNR3r2j4fQ' WHERE user_id = :'ann';
SELECT status FROM plinth.sign_in('ann@session.test', 'rehash me please');
SELECT phc LIKE '$argon2id$v=19$m=' || setting || ',%' AS rehashed FROM plinth.passwords,
    (SELECT (pg_size_bytes(current_setting('plinth.argon2_memory')) / 1024)::text AS setting) s WHERE user_id = :'ann';
SELECT status FROM plinth.sign_in('ann@session.test', 'rehash me please');
ROLLBACK;

-- Verifying.
SELECT session_id = :'session_id' AS session, user_id = :'ann' AS ann, expires_at > now() AS expires, aal, role, impersonator_id
    FROM plinth.session_verify(:'token');
BEGIN READ ONLY;
SELECT user_id = :'ann' AS ann FROM plinth.session_verify(:'token');
ROLLBACK;
SELECT * FROM plinth.session_verify(NULL);
SELECT * FROM plinth.session_verify('');
SELECT * FROM plinth.session_verify('pls_');
SELECT * FROM plinth.session_verify(upper(:'token'));
SELECT count(user_id) FROM (VALUES (:'token' || '='), (:'token' || 'A'), (left(:'token', -1)), (substr(:'token', 5)), (' ' || :'token'),
    ('pls-' || substr(:'token', 5)), ('PLS_' || substr(:'token', 5)), ('pls_' || repeat('A', 43)), (repeat('x', 1000000)),
    ('pls_' || repeat('ä', 20) || 'abc')) t (token), plinth.session_verify(t.token);
-- The last character has two bits that no byte has: with them set, it is another token.
SELECT count(user_id) FROM generate_series(1, 3) n, plinth.session_verify(left(:'token', -1) ||
    substr('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_',
        strpos('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_', right(:'token', 1)) + n, 1));

-- What ends a session, by whoever's hand.
PREPARE verify AS SELECT user_id = :'ann' AS ann FROM plinth.session_verify(:'token');
BEGIN;
UPDATE plinth.sessions SET expires_at = now() WHERE id = :'session_id';
EXECUTE verify;
ROLLBACK;
BEGIN;
UPDATE plinth.sessions SET last_active_at = clock_timestamp() - idle_timeout + interval '1 minute' WHERE id = :'session_id';
EXECUTE verify;
UPDATE plinth.sessions SET last_active_at = clock_timestamp() - idle_timeout WHERE id = :'session_id';
EXECUTE verify;
UPDATE plinth.sessions SET idle_timeout = NULL WHERE id = :'session_id';
EXECUTE verify;
ROLLBACK;
BEGIN;
UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'by hand' WHERE id = :'session_id';
EXECUTE verify;
ROLLBACK;
BEGIN;
DELETE FROM plinth.sessions WHERE id = :'session_id';
EXECUTE verify;
ROLLBACK;
BEGIN;
UPDATE plinth.users SET status = 'banned' WHERE id = :'ann';
EXECUTE verify;
UPDATE plinth.users SET status = 'active', deleted_at = now() WHERE id = :'ann';
EXECUTE verify;
ROLLBACK;
BEGIN;
DELETE FROM plinth.users WHERE id = :'ann';
EXECUTE verify;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
EXECUTE verify;
SELECT plinth.session_revoke(:'session_id');
EXECUTE verify;
ROLLBACK;
EXECUTE verify;
DEALLOCATE verify;

-- Revoking: one's own, the current one, nobody else's.
SELECT token AS token2, session_id AS session2 FROM plinth.sign_in('ann@session.test', 'correct horse') \gset
SELECT token AS token3, session_id AS session3 FROM plinth.sign_in('ann@session.test', 'correct horse') \gset
SELECT token AS ben_token, session_id AS ben_session FROM plinth.sign_in('ben@session.test', 'battery staple') \gset
SET ROLE session_user_role;
SELECT plinth.session_revoke();
SELECT plinth.session_revoke(:'session_id');
SELECT plinth.session_revoke_all();
SELECT plinth.session_revoke_all(:'ann');
RESET ROLE;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.session_revoke(:'ben_session');
SELECT plinth.session_revoke('00000000-0000-7000-8000-000000000000');
SAVEPOINT s;
SELECT plinth.session_revoke_all(:'ben');
ROLLBACK TO s;
SELECT plinth.session_revoke(:'session2');
SELECT plinth.session_revoke(:'session2');
COMMIT;
SELECT user_id = :'ann' AS ann FROM plinth.session_verify(:'token2');
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.session_revoke();
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT id = :'session3' AS session3, revoked_at FROM plinth.sessions WHERE id IN (:'session3', :'ben_session');
SELECT plinth.session_revoke_all(keep_current => true) > 0 AS others;
SELECT plinth.session_revoke();
COMMIT;
SELECT user_id FROM plinth.session_verify(:'token');
SELECT user_id FROM plinth.session_verify(:'token3');
SELECT user_id = :'ben' AS ben FROM plinth.session_verify(:'ben_token');
BEGIN READ ONLY;
SELECT plinth.session_revoke(:'ben_session');
ROLLBACK;

-- An administrator, without a context.
SET ROLE session_admin;
SELECT plinth.session_revoke();
SELECT plinth.session_revoke_all();
SELECT plinth.session_revoke(:'ben_session');
SELECT plinth.session_revoke_all(:'ben');
SELECT revoked_reason FROM plinth.sessions WHERE id = :'ben_session';
SELECT token_hash FROM plinth.sessions;
UPDATE plinth.sessions SET expires_at = 'infinity';
SET ROLE session_user_role;
SELECT count(id) FROM plinth.sessions;
SELECT token_hash FROM plinth.sessions;
SET ROLE anon;
SELECT id FROM plinth.sessions;
SELECT plinth.session_revoke();
RESET ROLE;

-- The audit entries: who is named, and nothing that was typed.
SELECT action, result, metadata, resource ~ '^(user|session):' AS resource, actor_user_id IN (:'ann', :'ben') AS actor,
       session_id IS NOT NULL AS session, octet_length(user_agent) AS user_agent, count(*)
    FROM plinth.audit_entries WHERE id > :'start' AND action NOT LIKE '%sign_up' GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7;
SELECT count(*) FROM plinth.audit_entries e WHERE e::text ~ 'horse|staple|pls_|session.test|nobody';

DELETE FROM plinth.users WHERE id > :'start';
SELECT count(*) FROM plinth.sessions WHERE id > :'start';
DROP ROLE session_user_role, session_admin;
