-- Tokens and codes that are mailed and good for one use.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE one_time_user IN ROLE authenticated;
CREATE ROLE one_time_sender;
GRANT USAGE ON SCHEMA plinth TO one_time_sender;
GRANT EXECUTE ON FUNCTION plinth.outbox_claim(text, int, interval), plinth.outbox_ack(uuid), plinth.outbox_fail(uuid, text, int) TO one_time_sender;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT status FROM plinth.sign_up('ann@once.test', 'correct horse', 'once_ann', 'Ann Once');
SELECT status FROM plinth.sign_up('ben@once.test', 'correct horse', 'once_ben');
-- What a sender is handed: the newest message of a kind.
CREATE FUNCTION pg_temp.mailed(wanted text) RETURNS text LANGUAGE sql AS $$
    SELECT token FROM plinth.outbox_claim('test') WHERE kind = wanted ORDER BY id DESC LIMIT 1 $$;

-- The same answer for an address that nobody has.
SELECT 'verify', * FROM (VALUES ('Ann@once.test'), ('nobody@once.test')) v (email), plinth.email_verify_request(email)
UNION ALL SELECT 'reset', * FROM (VALUES ('Ann@once.test'), ('nobody@once.test')) v (email), plinth.password_reset_request(email)
UNION ALL SELECT 'link', * FROM (VALUES ('Ann@once.test'), ('nobody@once.test')) v (email), plinth.magic_link_request(email, 'https://app.test/in')
UNION ALL SELECT 'code', * FROM (VALUES ('Ann@once.test'), ('nobody@once.test')) v (email), plinth.email_code_request(email);
SELECT kind, recipient, user_id IS NOT NULL AS known, data, octet_length(secret) AS sealed, attempts, failed_at IS NOT NULL AS done, expires_at - created_at < interval '1 day 1 min' AS ends
    FROM plinth.outbox_messages WHERE id > :'start' ORDER BY kind, recipient;
SELECT kind, email, user_id IS NOT NULL AS known, octet_length(token_hash), round(extract(epoch FROM expires_at - created_at) / 60) AS minutes
    FROM plinth.one_time_tokens WHERE id > :'start' ORDER BY kind, email;

-- Only a sender reads tokens, and only by claiming them.
SET ROLE one_time_sender;
SELECT * FROM plinth.outbox_messages;
SELECT * FROM plinth.one_time_tokens;
SELECT plinth._outbox_open(plinth.uuid_v7(), '');
SELECT kind, recipient, token ~ CASE kind WHEN 'email_code' THEN '^[0-9]{6}$' ELSE '^plo_[A-Za-z0-9_-]{43}$' END AS well, data, attempt FROM plinth.outbox_claim('mailer') ORDER BY kind;
SELECT count(*) FROM plinth.outbox_claim('mailer');
RESET ROLE;
SET ROLE plinth_admin;
SELECT secret FROM plinth.outbox_messages;
SELECT kind, recipient, claimed_by FROM plinth.outbox_messages WHERE id > :'start' AND claimed_by IS NOT NULL ORDER BY kind;
SET ROLE one_time_user;
SELECT count(*) FROM plinth.outbox_messages;
SELECT plinth.outbox_claim('me');
RESET ROLE;
SELECT plinth.outbox_claim('');
SELECT plinth.outbox_claim('x', 0);
SELECT plinth.outbox_claim('x', 1, '0');

-- Done: the token is gone.  Failed: once more, later; the tenth time no more.
SELECT id AS m FROM plinth.outbox_messages WHERE id > :'start' AND kind = 'email_verify' AND user_id IS NOT NULL \gset
SELECT plinth.outbox_ack(:'m'), plinth.outbox_ack(:'m'), plinth.outbox_fail(:'m', 'late');
SELECT sent_at IS NOT NULL AS sent, secret IS NULL AS gone FROM plinth.outbox_messages WHERE id = :'m';
SELECT id AS m FROM plinth.outbox_messages WHERE id > :'start' AND kind = 'magic_link' AND user_id IS NOT NULL \gset
SELECT plinth.outbox_fail(:'m', 'no route', 2), plinth.outbox_fail(:'m', 'no route', 1);
SELECT last_error, failed_at, attempts, available_at - now() BETWEEN '0 s' AND '10 s' AS later, secret IS NULL AS gone FROM plinth.outbox_messages WHERE id = :'m';
UPDATE plinth.outbox_messages SET attempts = 10 WHERE id = :'m';
SELECT plinth.outbox_fail(:'m', 'no route'), plinth.outbox_fail(:'m', 'no route');
SELECT failed_at IS NOT NULL AS failed, secret IS NULL AS gone FROM plinth.outbox_messages WHERE id = :'m';
SELECT plinth.outbox_ack(plinth.uuid_v7()), plinth.outbox_fail(plinth.uuid_v7(), 'x');

-- Used once, for what it was made.
SELECT status FROM plinth.email_verify_request('ann@once.test');
SELECT pg_temp.mailed('email_verify') AS t \gset
SELECT plinth.password_reset(:'t', 'another horse'), plinth.email_change_confirm(:'t'), (SELECT status FROM plinth.magic_link_sign_in(:'t'));
SELECT plinth.email_verify(:'t' || 'x'), plinth.email_verify(NULL), plinth.email_verify(''), plinth.email_verify(repeat('x', 1000000));
SELECT plinth.email_verify(:'t'), plinth.email_verify(:'t');
SELECT email_verified_at IS NOT NULL AS verified FROM plinth.users WHERE username = 'once_ann';
-- Nothing is sent to whom it was before.
SELECT status FROM plinth.email_verify_request('ann@once.test');
SELECT pg_temp.mailed('email_verify');

-- Signing in by link: once, into a session.
SELECT status FROM plinth.magic_link_request('ann@once.test');
SELECT pg_temp.mailed('magic_link') AS t \gset
SELECT status, token AS session FROM plinth.magic_link_sign_in(:'t', 'fp', 'phone', 'agent', 'label') \gset
SELECT :'status' AS status, label, device_fingerprint FROM plinth.sessions WHERE id = (SELECT session_id FROM plinth.session_verify(:'session'));
SELECT status, token FROM plinth.magic_link_sign_in(:'t');
-- Not when it is over, nor when the address is another one, nor for whom is locked.
SELECT status FROM plinth.magic_link_request('ben@once.test');
SELECT pg_temp.mailed('magic_link') AS t \gset
BEGIN;
UPDATE plinth.one_time_tokens SET expires_at = now() - interval '1 s' WHERE kind = 'magic_link';
SELECT status FROM plinth.magic_link_sign_in(:'t');
ROLLBACK;
BEGIN;
UPDATE plinth.users SET email = 'ben2@once.test' WHERE username = 'once_ben';
SELECT status FROM plinth.magic_link_sign_in(:'t');
ROLLBACK;
BEGIN;
UPDATE plinth.users SET deleted_at = now() WHERE username = 'once_ben';
SELECT status FROM plinth.magic_link_sign_in(:'t');
ROLLBACK;
UPDATE plinth.users SET status = 'locked' WHERE username = 'once_ben';
SELECT status, token, retry_after FROM plinth.magic_link_sign_in(:'t');
UPDATE plinth.users SET status = 'active' WHERE username = 'once_ben';

-- By code: five tries in all, rolled back or not; the next one asked for replaces it.
SELECT plinth.rate_limit_alter('plinth.lockout_1', enabled => false), plinth.rate_limit_alter('plinth.lockout_2', enabled => false);
SELECT status FROM plinth.email_code_request('ann@once.test');
SELECT pg_temp.mailed('email_code') AS t \gset
SELECT CASE :'t' WHEN '111111' THEN '222222' ELSE '111111' END AS wrong \gset
BEGIN;
SELECT n, (plinth.email_code_sign_in('ann@once.test', :'wrong')).status FROM generate_series(1, 3) n;
ROLLBACK;
SELECT (plinth.email_code_sign_in('ann@once.test', :'wrong')).status;
SELECT status, token IS NOT NULL AS "in" FROM plinth.email_code_sign_in('ANN@once.test', :'t');
SELECT status FROM plinth.email_code_sign_in('ann@once.test', :'t');
SELECT status FROM plinth.email_code_request('ann@once.test');
SELECT pg_temp.mailed('email_code') AS t \gset
SELECT n, (plinth.email_code_sign_in('ann@once.test', CASE :'t' WHEN '111111' THEN '222222' ELSE '111111' END)).status FROM generate_series(1, 5) n;
SELECT status FROM plinth.email_code_sign_in('ann@once.test', :'t');
SELECT status FROM plinth.email_code_request('ben@once.test');
SELECT pg_temp.mailed('email_code') AS t \gset
SELECT status FROM plinth.email_code_sign_in('ann@once.test', :'t');
SELECT status FROM plinth.email_code_request('ben@once.test');
SELECT pg_temp.mailed('email_code') AS t2 \gset
SELECT count(*) FROM plinth.one_time_tokens WHERE kind = 'email_code' AND email = 'ben@once.test';
SELECT :'t' = :'t2' OR (SELECT status FROM plinth.email_code_sign_in('ben@once.test', :'t')) = 'invalid_credentials' AS replaced;
SELECT status FROM plinth.email_code_sign_in('ben@once.test', :'t2');
SELECT (plinth.email_code_sign_in('ben@once.test', c)).status FROM (VALUES (''), ('12345'), ('1234567'), ('äöü'), (repeat('1', 1000000))) v (c);
SELECT plinth.email_code_sign_in(repeat('x', 2000), '123456');
SELECT plinth.email_code_sign_in('ben@once.test', NULL);

-- Another password, by token: all sessions end.
SELECT status FROM plinth.password_reset_request('ann@once.test');
SELECT pg_temp.mailed('password_reset') AS t \gset
SELECT plinth.password_reset(:'t', 'short');
SELECT plinth.password_reset(:'t', 'another horse'), plinth.password_reset(:'t', 'third horse');
SELECT user_id IS NOT NULL AS good FROM plinth.session_verify(:'session');
SELECT status FROM plinth.sign_in('once_ann', 'another horse');
SELECT count(*) FROM plinth.one_time_tokens WHERE user_id = (SELECT id FROM plinth.users WHERE username = 'once_ann') AND kind = 'password_reset';

-- Another address, confirmed at both ends, in either order.
SELECT plinth.email_change_request('anna@once.test');
SELECT token AS session FROM plinth.sign_in('once_ann', 'another horse') \gset
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT * FROM plinth.email_change_request('anna@once.test');
SELECT * FROM plinth.email_verify_request();
COMMIT;
CREATE TEMP TABLE mails AS SELECT * FROM plinth.outbox_claim('test');
SELECT kind, recipient, data FROM mails ORDER BY kind;
SELECT plinth.email_change_confirm(token), plinth.email_change_confirm(token) FROM mails WHERE kind = 'email_change_old';
SELECT email FROM plinth.users WHERE username = 'once_ann';
SELECT plinth.email_change_confirm(token), plinth.email_change_confirm(token) FROM mails WHERE kind = 'email_change_new';
SELECT email FROM plinth.users WHERE username = 'once_ann';
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT status FROM plinth.email_change_request('BEN@once.test');
COMMIT;
SELECT kind, plinth.email_change_confirm(token) FROM plinth.outbox_claim('test');
SELECT email FROM plinth.users WHERE username = 'once_ann';

-- Who had somebody's session, or password, changes no address once the password is another.
SELECT id AS cat FROM plinth.user_create(username => 'once_cat', password => 'correct horse') \gset
SELECT token AS session FROM plinth.sign_in('once_cat', 'correct horse') \gset
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT status FROM plinth.email_change_request('mallory@once.test');
COMMIT;
SELECT pg_temp.mailed('email_change_new') AS t \gset
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT status FROM plinth.password_change('correct horse', 'another horse');
COMMIT;
SELECT plinth.email_change_confirm(:'t');
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT status FROM plinth.email_change_request('mallory@once.test');
COMMIT;
SELECT pg_temp.mailed('email_change_new') AS t \gset
SELECT plinth.password_set(:'cat', 'third horse');
SELECT plinth.email_change_confirm(:'t');
SELECT email FROM plinth.users WHERE username = 'once_cat';
DELETE FROM plinth.users WHERE username = 'once_cat';

-- A deleted user is mailed nothing, and what was mailed is not good again when they are back.
SELECT id AS dee FROM plinth.user_create('dee@once.test', 'once_dee') \gset
SELECT status FROM plinth.magic_link_request('dee@once.test');
SELECT pg_temp.mailed('magic_link') AS t \gset
SELECT status FROM plinth.password_reset_request('dee@once.test');
SELECT plinth.user_delete(:'dee');
SELECT count(*) FROM plinth.outbox_claim('test');
SELECT plinth.user_restore(:'dee');
SELECT status FROM plinth.magic_link_sign_in(:'t');
DELETE FROM plinth.users WHERE username = 'once_dee';

-- Who signed up with an address of somebody else's does not keep a way in.
SELECT user_id AS eve FROM plinth.sign_up('victim@once.test', 'horse of eve', 'once_eve') \gset
SELECT token AS session FROM plinth.sign_in('once_eve', 'horse of eve') \gset
BEGIN;
SELECT plinth.context_begin(:'session') IS NOT NULL AS begun;
SELECT key AS api_key FROM plinth.api_key_create('left behind') \gset
COMMIT;
SELECT plinth.identity_link(:'eve', 'provider', 'eve');
SELECT status FROM plinth.magic_link_request('victim@once.test');
SELECT pg_temp.mailed('magic_link') AS t \gset
SELECT status, token AS own FROM plinth.magic_link_sign_in(:'t') \gset
SELECT :'status' AS status, (plinth.session_verify(:'own')).user_id = :'eve' AS own, (plinth.session_verify(:'session')).user_id IS NULL AS ended,
    (SELECT status FROM plinth.sign_in('once_eve', 'horse of eve')) AS password, (SELECT count(*) FROM plinth.identities WHERE user_id = :'eve') AS identities,
    (SELECT revoked_reason FROM plinth.api_keys WHERE user_id = :'eve') AS api_key;
-- The second time nothing ends.
SELECT plinth.password_set(:'eve', 'horse of the victim');
SELECT token AS session FROM plinth.sign_in('once_eve', 'horse of the victim') \gset
SELECT status FROM plinth.magic_link_request('victim@once.test');
SELECT pg_temp.mailed('magic_link') AS t \gset
SELECT status FROM plinth.magic_link_sign_in(:'t');
SELECT (plinth.session_verify(:'session')).user_id = :'eve' AS goes_on, (SELECT status FROM plinth.sign_in('once_eve', 'horse of the victim')) AS password;
DELETE FROM plinth.users WHERE username = 'once_eve';

-- No more than so many, for known and unknown alike.
SELECT n, (plinth.password_reset_request('ben@once.test')).status FROM generate_series(1, 6) n;
SELECT n, (plinth.password_reset_request('none@once.test')).status FROM generate_series(1, 6) n;
SELECT (plinth.password_reset_request('Ben@once.test')).status AS ben, (plinth.password_reset_request('NONE@once.test')).status AS none, (plinth.magic_link_request('ben@once.test')).status AS other;

-- What is refused.
SELECT plinth.email_code_request('no address');
SELECT plinth.password_reset_request(NULL);
SELECT plinth.magic_link_request(repeat('x', 1000000));
SELECT plinth.magic_link_request('ann@once.test', repeat('x', 2001));
SELECT plinth.email_verify_request();
BEGIN READ ONLY;
SELECT plinth.email_code_request('ann@once.test');
ROLLBACK;
SELECT a.status, b.status FROM plinth.magic_link_request(U&'m\00FCller@once.test') a, plinth.magic_link_request(U&'mu\0308ller@once.test') b;
SELECT count(DISTINCT email), count(*) FROM plinth.one_time_tokens WHERE email LIKE 'm%ller@once.test';

-- What is over is forgotten: tokens at once, messages later.
BEGIN;
UPDATE plinth.one_time_tokens SET expires_at = now() WHERE id > :'start';
UPDATE plinth.outbox_messages SET expires_at = now() WHERE id > :'start';
SELECT plinth._credentials_due(), plinth._credentials_purge() > 5 AS some, plinth._credentials_due();
SELECT count(*) AS messages, count(secret) AS sealed, count(*) FILTER (WHERE sent_at IS NULL AND failed_at IS NULL) AS open FROM plinth.outbox_messages WHERE id > :'start';
SELECT count(*) AS tokens FROM plinth.one_time_tokens WHERE id > :'start';
UPDATE plinth.outbox_messages SET created_at = now() - interval '8 days' WHERE id > :'start';
SELECT plinth._credentials_due(), plinth._credentials_purge() > 5 AS some, plinth._credentials_due();
COMMIT;

SELECT plinth.rate_limit_drop('plinth.lockout_1'), plinth.rate_limit_drop('plinth.lockout_2');
SELECT count(*) FROM plinth.audit_entries e WHERE id > :'start' AND e::text ~ 'plo_|horse|nobody';
SELECT action, result, metadata, resource IS NOT NULL AS names_user, count(*) FROM plinth.audit_entries WHERE id > :'start' AND action ~ 'email|magic|reset' GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4;
DELETE FROM plinth.users WHERE id > :'start';
REVOKE ALL ON FUNCTION plinth.outbox_claim(text, int, interval), plinth.outbox_ack(uuid), plinth.outbox_fail(uuid, text, int) FROM one_time_sender;
REVOKE USAGE ON SCHEMA plinth FROM one_time_sender;
DROP ROLE one_time_user, one_time_sender;
