-- Users as administrators manage them, and as they manage themselves.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE users_admin LOGIN IN ROLE plinth_admin;
CREATE ROLE users_login LOGIN NOINHERIT IN ROLE anon, authenticated;
CREATE ROLE users_stranger LOGIN;
GRANT USAGE ON SCHEMA plinth TO users_login, users_stranger;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO users_login;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset

SET SESSION AUTHORIZATION users_admin;
-- ---- creating ----
SELECT id AS ann, email, email_verified_at IS NOT NULL AS verified, username, full_name, role, tier, status, metadata, app_metadata
    FROM plinth.user_create('Ann@users.test', 'Ann', 'Ann Example', 'editor', 'pro', 'correct horse', true, '{"a": 1}', '{"b": 2}') \gset ann_
SELECT :'ann_email', :'ann_verified', :'ann_username', :'ann_full_name', :'ann_role', :'ann_tier', :'ann_status', :'ann_metadata', :'ann_app_metadata';
SELECT id AS ben, role, tier, email_verified_at, metadata, app_metadata FROM plinth.user_create(email => 'ben@users.test') \gset ben_
SELECT :'ben_role', :'ben_tier', :'ben_metadata', :'ben_app_metadata';
SELECT email, username FROM plinth.user_create();
SELECT plinth.user_create('ANN@users.test');
SELECT plinth.user_create('other@users.test', 'ANN');
SELECT plinth.user_create('no address');
SELECT plinth.user_create('other@users.test', 'a b');
SELECT plinth.user_create('other@users.test', password => 'short');
SELECT plinth.user_create('other@users.test', password => repeat('x', 1025));
SELECT plinth.user_create('other@users.test', role => 'no role');
SELECT plinth.user_create('other@users.test', tier => '');
SELECT plinth.user_create('other@users.test', metadata => '[]');
SELECT plinth.user_create('other@users.test', app_metadata => '1');
SELECT plinth.user_create('other@users.test', full_name => repeat('x', 401));
RESET SESSION AUTHORIZATION;
SELECT status FROM plinth.sign_in('ann', 'correct horse');
SELECT count(*) FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE u.email LIKE '%@users.test';
SET SESSION AUTHORIZATION users_admin;

-- ---- changing ----
SELECT email, email_verified_at, full_name, tier FROM plinth.user_update(:'ann_ann', email => 'ann2@users.test', full_name => 'Ann Other');
SELECT email, email_verified_at IS NOT NULL AS verified, full_name, username, role, tier, metadata, app_metadata
    FROM plinth.user_update(:'ann_ann', email_verified => true, clear_fields => '{full_name}', metadata => '{}');
SELECT email_verified_at IS NOT NULL AS verified FROM plinth.user_update(:'ann_ann', email => 'ann@users.test', email_verified => true);
SELECT email_verified_at FROM plinth.user_update(:'ann_ann', email_verified => false);
SELECT email_verified_at IS NOT NULL AS verified FROM plinth.user_update(:'ann_ann', email_verified => true);
SELECT email, email_verified_at FROM plinth.user_update(:'ben_ben', clear_fields => '{email}');
SELECT email FROM plinth.user_update(:'ben_ben', email => 'ben@users.test');
-- What changes nothing is not a change.
SELECT updated_at AS before FROM plinth.user_get(:'ben_ben') \gset
SELECT updated_at = :'before' AS same FROM plinth.user_update(:'ben_ben', email => 'ben@users.test', role => 'user');
SELECT plinth.user_update(:'ben_ben', email => 'ANN@users.test');
SELECT plinth.user_update(:'ben_ben', username => 'aNN');
SELECT plinth.user_update(:'ben_ben', clear_fields => '{role}');
SELECT plinth.user_update(:'ben_ben', metadata => '"x"');
SELECT plinth.user_update(:'ben_ben', avatar_url => repeat('x', 2001));
SELECT plinth.user_update(plinth.uuid_v7(), email => 'x@users.test');
SELECT plinth.user_update(NULL, email => 'x@users.test');
SELECT plinth.user_verify(:'ben_ben');
SELECT plinth.user_verify(:'ben_ben');
SELECT plinth.user_verify(plinth.uuid_v7());
SELECT username FROM plinth.user_update(:'ben_ben', username => 'ben');

-- ---- locked and banned ----
RESET SESSION AUTHORIZATION;
SELECT token FROM plinth.sign_in('ann', 'correct horse') \gset
SET SESSION AUTHORIZATION users_admin;
SELECT plinth.user_lock(:'ann_ann', 'odd sign-ins');
SELECT plinth.user_lock(:'ann_ann', 'odd sign-ins');
SELECT status, status_reason FROM plinth.user_get(:'ann_ann');
SELECT session_id FROM plinth.session_verify(:'token');
SELECT status FROM plinth.sign_in('ann', 'correct horse');
SELECT plinth.user_ban(:'ann_ann');
SELECT plinth.user_unban(:'ann_ann');
SELECT plinth.user_unlock(:'ann_ann');
SELECT plinth.user_unlock(:'ann_ann');
SELECT session_id FROM plinth.session_verify(:'token');
SELECT status, token FROM plinth.sign_in('ann', 'correct horse') \gset
SELECT :'status';
SELECT plinth.user_ban(:'ann_ann', now() - interval '1 s');
SELECT plinth.user_ban(:'ann_ann', now() + interval '1 day', repeat('x', 1001));
SELECT plinth.user_ban(:'ann_ann', now() + interval '1 day', 'spam');
SELECT session_id FROM plinth.session_verify(:'token');
SELECT status FROM plinth.sign_in('ann', 'correct horse');
SELECT status, status_reason, banned_until > now() AS ahead FROM plinth.user_get(:'ann_ann');
SELECT plinth.user_lock(:'ann_ann');
SELECT plinth.user_ban(:'ann_ann', 'infinity');
SELECT banned_until FROM plinth.user_get(:'ann_ann');
SELECT plinth.user_unban(:'ann_ann', 'appeal');
SELECT plinth.user_unban(:'ann_ann');

-- ---- deleted and restored ----
SELECT token FROM plinth.sign_in('ann', 'correct horse') \gset
SELECT plinth.user_delete(:'ann_ann', 'asked for it');
SELECT plinth.user_delete(:'ann_ann');
SELECT session_id FROM plinth.session_verify(:'token');
SELECT status FROM plinth.sign_in('ann', 'correct horse');
SELECT deleted_at IS NOT NULL AS deleted FROM plinth.user_get(:'ann_ann');
SELECT plinth.user_lock(:'ann_ann');
SELECT plinth.user_ban(:'ann_ann');
SELECT id AS other FROM plinth.user_create('ann@users.test', 'ann') \gset
SELECT plinth.user_restore(:'ann_ann');
SELECT email FROM plinth.user_update(:'ann_ann', email => 'ann3@users.test');
SELECT plinth.user_restore(:'ann_ann');
SELECT plinth.user_delete(:'other');
SELECT plinth.user_restore(:'ann_ann');
SELECT plinth.user_restore(:'ann_ann');
SELECT plinth.user_restore(plinth.uuid_v7());
SELECT status FROM plinth.sign_in('ann', 'correct horse');

-- ---- searching ----
SELECT count(plinth.user_create('many' || n || '@users.test', 'Many_' || n, role => CASE n % 3 WHEN 0 THEN 'moderator' END))
    FROM generate_series(1, 9) n;
SELECT email FROM plinth.users_search('MANY', limit_count => 4);
SELECT email FROM plinth.users_search('many', limit_count => 10,
    after => (SELECT id FROM plinth.users WHERE email = 'many4@users.test'));
SELECT email FROM plinth.users_search('many_');
SELECT email FROM plinth.users_search('many', role => 'moderator');
SELECT count(*) FROM plinth.users_search('%');
SELECT count(*) FROM plinth.users_search('m_ny');
SELECT count(*) FROM plinth.users_search('many\');
SELECT count(*) FROM plinth.users_search(''' OR true --');
SELECT count(*) FROM plinth.users_search(role => ''' OR true --') r, plinth.users_search(tier => ''' OR true --') t;
SELECT email FROM plinth.users_search(:'ann_ann');
SELECT plinth.user_lock(id) FROM plinth.users WHERE email = 'many2@users.test';
SELECT email FROM plinth.users_search('many', 'locked');
SELECT email FROM plinth.users_search('ann', 'deleted');
SELECT email, tier FROM plinth.users_search('ann', tier => 'pro', status => 'active');
SELECT count(*) FROM plinth.users_search(NULL, limit_count => 3);
SELECT plinth.users_search('x', 'gone');
SELECT plinth.users_search('x', limit_count => 0);
SELECT plinth.users_search('x', limit_count => 1001);
SELECT plinth.users_search('x', limit_count => NULL);
SELECT plinth.users_search(repeat('x', 255));

-- ---- about oneself ----
SELECT token FROM plinth.sign_in('ann', 'correct horse') \gset
SET SESSION AUTHORIZATION users_login;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'token') = :'ann_ann' AS ann;
SELECT email, username, role FROM plinth.me();
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann_ann' AS ann;
SELECT full_name, avatar_url, username, metadata, role, tier, email, email_verified_at IS NOT NULL AS verified
    FROM plinth.user_update_me('Ann E.', 'https://img.test/a.png', 'annie', '{"theme": "dark"}');
SELECT full_name, avatar_url, username FROM plinth.user_update_me(clear_fields => '{full_name,avatar_url}');
SAVEPOINT s;
SELECT plinth.user_update_me(username => 'BEN');
ROLLBACK TO s;
SELECT plinth.user_update_me(clear_fields => '{email}');
ROLLBACK TO s;
-- No administrator.
SELECT plinth.user_get(:'ben_ben');
ROLLBACK TO s;
SELECT plinth.user_create('mine@users.test');
ROLLBACK TO s;
SELECT plinth.users_search();
ROLLBACK TO s;
SELECT plinth.user_update(:'ann_ann', role => 'admin');
ROLLBACK TO s;
SELECT plinth._user_update(:'ann_ann', NULL, NULL, NULL, NULL, 'admin', NULL, NULL, NULL, NULL, NULL);
ROLLBACK TO s;
UPDATE plinth.users SET role = 'admin';
ROLLBACK;
-- Deleting oneself, soon after signing in.
RESET SESSION AUTHORIZATION;
SELECT session_id FROM plinth.session_verify(:'token') \gset
UPDATE plinth.sessions SET authenticated_at = now() - interval '1 day' WHERE id = :'session_id';
SET SESSION AUTHORIZATION users_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann_ann' AS ann;
SELECT plinth.user_delete_me();
ROLLBACK;
RESET SESSION AUTHORIZATION;
UPDATE plinth.sessions SET authenticated_at = now() WHERE id = :'session_id';
SET SESSION AUTHORIZATION users_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann_ann' AS ann;
SELECT plinth.user_delete_me();
COMMIT;
SELECT plinth.context_begin(:'token');
SELECT plinth.me();
SET ROLE authenticated;
SELECT plinth.me();
SELECT plinth.user_update_me('x');
SELECT plinth.user_delete(:'ben_ben');
SET SESSION AUTHORIZATION users_stranger;
SELECT plinth.user_get(:'ben_ben');
SELECT plinth.me();
RESET SESSION AUTHORIZATION;
SET ROLE plinth_admin;
BEGIN READ ONLY;
SELECT email FROM plinth.user_get(:'ben_ben');
SELECT plinth.user_lock(:'ben_ben');
ROLLBACK;
RESET ROLE;

-- ---- in the audit ----
SELECT action, result, metadata - 'until' AS metadata FROM plinth.audit_entries WHERE id > :'start' AND resource = 'user:' || :'ann_ann'
    AND action ~ '^plinth.user' ORDER BY id;
SELECT count(*) AS secrets FROM plinth.audit_entries a WHERE id > :'start' AND a::text ~ 'correct horse|argon2';

DELETE FROM plinth.users WHERE email LIKE '%@users.test' OR email IS NULL;
DROP ROLE users_admin;
REVOKE ALL ON SCHEMA plinth FROM users_login, users_stranger;
REVOKE ALL ON FUNCTION plinth.context_begin(text) FROM users_login;
DROP ROLE users_login, users_stranger;
