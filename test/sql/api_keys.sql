-- API keys: what they open, what they do not, and how they end.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE keys_login LOGIN NOINHERIT IN ROLE anon, authenticated;
GRANT USAGE ON SCHEMA plinth TO keys_login;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO keys_login;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT id AS ann FROM plinth.user_create('ann@keys.test', 'ann', role => 'keys_editor', password => 'correct horse') \gset
SELECT id AS ben FROM plinth.user_create('ben@keys.test', password => 'battery staple') \gset
SELECT plinth.role_create('keys_editor');
SELECT plinth.role_grant('keys_editor', '{posts:read,posts:write}');
SELECT token FROM plinth.sign_in('ann', 'correct horse') \gset
SELECT token AS ben_token FROM plinth.sign_in('ben@keys.test', 'battery staple') \gset
CREATE VIEW keys_may AS SELECT plinth.current_user_id() = '00000000-0000-0000-0000-000000000000' AS nobody,
    plinth.current_session_id() IS NOT NULL AS session, plinth.current_aal() AS aal,
    plinth.has_role('keys_editor') AS editor, plinth.has_permission('posts:read') AS may_read,
    plinth.has_permission('posts:write') AS may_write;
GRANT SELECT ON keys_may TO authenticated;

-- ---- made by the user ----
SET SESSION AUTHORIZATION keys_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT id, key, prefix, length(key) AS length, starts_with(key, prefix) AS shown FROM plinth.api_key_create('reader', '{posts:read}') \gset
SELECT :'length', :'shown', length(:'prefix');
SELECT id AS all_id, key AS all_key FROM plinth.api_key_create('all', expires_at => now() + interval '1 day') \gset
SELECT name, prefix = :'prefix' AS prefix, scopes, limit_policy, expires_at > now() AS ahead, last_used_at FROM plinth.api_keys_list();
SELECT name, scopes FROM plinth.api_keys ORDER BY id;
SELECT key_hash FROM plinth.api_keys;
ROLLBACK;
-- What rolled back was never there.
BEGIN;
SELECT plinth.context_begin(:'key') = :'ann' AS ann;
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT id, key FROM plinth.api_key_create('reader', '{posts:read,posts:read,other:*}') \gset
SELECT id AS all_id, key AS all_key FROM plinth.api_key_create('all', expires_at => now() + interval '1 day') \gset
COMMIT;

-- A key outlives the session, so that must have been signed in to a short time ago.
RESET SESSION AUTHORIZATION;
UPDATE plinth.sessions SET authenticated_at = now() - interval '1 day' WHERE user_id = :'ann';
SET SESSION AUTHORIZATION keys_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.api_key_create('of a thief');
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.session_confirm('correct horse');
SELECT prefix LIKE 'plk_%' AS made FROM plinth.api_key_create('again');
ROLLBACK;

-- ---- what it opens ----
RESET SESSION AUTHORIZATION;
SELECT plinth.identity_link(:'ann', 'clerk', 'user_1');
SET SESSION AUTHORIZATION keys_login;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'key') = :'ann' AS ann;
TABLE keys_may;
SELECT email FROM plinth.me();
SELECT plinth.current_api_key_id() = :'id' AS by_key, count(*) AS sessions FROM plinth.sessions;
SELECT (SELECT count(*) FROM plinth.identities) AS identities, (SELECT count(*) FROM plinth.audit_entries) AS entries;
SELECT plinth.session_list();
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'all_key') = :'ann' AS ann;
TABLE keys_may;
SELECT plinth.audit_record('keys.used') IS NOT NULL AS recorded;
SELECT action, api_key_id = :'all_id' AS by_key FROM plinth.audit_entries;
SAVEPOINT s;
-- Another key is another identity.
SELECT plinth.context_begin(:'key');
ROLLBACK TO s;
SELECT plinth.context_begin(:'token');
ROLLBACK TO s;
-- It makes no key and manages no account.
SELECT plinth.api_key_create('child');
ROLLBACK TO s;
SELECT plinth.user_update_me('Other');
ROLLBACK TO s;
SELECT plinth.session_revoke();
ROLLBACK TO s;
SELECT plinth.email_change_request('thief@keys.test');
ROLLBACK TO s;
SELECT plinth.password_change('correct horse', 'of the thief');
ROLLBACK TO s;
SELECT plinth.api_key_revoke(:'all_id');
ROLLBACK TO s;
SELECT plinth.identity_unlink_me('clerk', 'user_1');
ROLLBACK TO s;
SELECT name FROM plinth.api_keys_list();
COMMIT;
-- Another form is another key.
SELECT plinth.context_begin(NULL);
SELECT plinth.context_begin('plk_');
SELECT plinth.context_begin(:'key' || 'x');
SELECT plinth.context_begin('pls_' || substr(:'key', 5));
SELECT plinth.context_begin('plk_' || substr(:'token', 5));

-- ---- whose keys ----
BEGIN;
SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben;
SELECT count(*) FROM plinth.api_keys_list();
SELECT plinth.api_key_revoke(:'id');
SAVEPOINT s;
SELECT plinth.api_keys_list(:'ann');
ROLLBACK TO s;
SELECT plinth.api_key_create('for ann', user_id => :'ann');
ROLLBACK TO s;
SELECT plinth.api_key_create('');
ROLLBACK TO s;
SELECT plinth.api_key_create(repeat('x', 201));
ROLLBACK TO s;
SELECT plinth.api_key_create('x', '{posts}');
ROLLBACK TO s;
SELECT plinth.api_key_create('x', '{"posts:read,posts:write"}');
ROLLBACK TO s;
SELECT plinth.api_key_create('x', '{NULL}');
ROLLBACK TO s;
SELECT plinth.api_key_create('x', expires_at => now() - interval '1 s');
ROLLBACK TO s;
SELECT plinth.api_key_create('x', limit_policy => 'no such');
ROLLBACK TO s;
SELECT count((plinth.api_key_create('many')).id) FROM generate_series(1, 101);
ROLLBACK;
SET ROLE authenticated;
SELECT plinth.api_key_create('nobody');
SELECT plinth.api_keys_list();
SELECT plinth.api_key_revoke(:'id');
RESET SESSION AUTHORIZATION;

-- ---- how it ends ----
SET ROLE plinth_admin;
SELECT name FROM plinth.api_keys_list(:'ann');
SELECT plinth.user_lock(:'ann');
RESET ROLE;
SELECT plinth.context_begin(:'key');
SELECT plinth.user_unlock(:'ann'), plinth.user_delete(:'ann');
SELECT plinth.context_begin(:'key');
SELECT plinth.user_restore(:'ann');
BEGIN;
SELECT plinth.context_begin(:'key') = :'ann' AS ann;
COMMIT;
UPDATE plinth.api_keys SET expires_at = clock_timestamp() WHERE id = :'all_id';
SELECT plinth.context_begin(:'all_key');
-- No constraint of the table refuses it, whose error would show the row.
SELECT plinth.api_key_revoke(:'id', repeat('é', 501));
SELECT plinth.api_key_revoke(:'id', 'leaked'), plinth.api_key_revoke(:'id');
SELECT plinth.context_begin(:'key');
SELECT name FROM plinth.api_keys_list(:'ann');

-- ---- under a limit of its own, and when it was used ----
SELECT plinth.rate_limit_create('keys_test', 2, '1 hour') > 0 AS created;
SELECT key FROM plinth.api_key_create('limited', limit_policy => 'keys_test', user_id => :'ben') \gset
DO $$ BEGIN PERFORM plinth.api_key_flush(); END $$;
BEGIN;
SELECT plinth.context_begin(:'key') = :'ben' AS ben;
COMMIT;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'key') = :'ben' AS ben;
COMMIT;
SELECT plinth.context_begin(:'key');
DO $$ BEGIN PERFORM plinth.api_key_flush(); END $$;
SELECT name, last_used_at > created_at AS used FROM plinth.api_keys_list(:'ben');

SELECT action, result, metadata - 'user_id' - 'prefix' AS metadata FROM plinth.audit_entries
    WHERE id > :'start' AND action LIKE 'plinth.api_key%' ORDER BY id;

-- ---- what is done with it says so ----
SELECT id, key FROM plinth.api_key_create('acts', user_id => :'ben') \gset
BEGIN;
SELECT plinth.context_begin(:'key') = :'ben' AS ben;
SELECT plinth.audit_record('keys.done') IS NOT NULL AS recorded;
COMMIT;
SELECT plinth.current_api_key_id();
SELECT action, actor_user_id = :'ben' AS ben, api_key_id = :'id' AS by_key FROM plinth.audit_entries WHERE id > :'start' AND action = 'keys.done';

-- ---- forgotten when it ended long ago; in one transaction, so that the housekeeper is not faster ----
BEGIN;
UPDATE plinth.api_keys SET revoked_at = now() - interval '31 days', expires_at = now() + interval '1 day' WHERE id = :'id';
SET LOCAL plinth.api_key_retention = '32d';
SELECT plinth._credentials_purge() IS NOT NULL AS purged;
SELECT count(*) FROM plinth.api_keys WHERE id = :'id';
SET LOCAL plinth.api_key_retention = '30d';
SELECT plinth._credentials_due();
SELECT plinth._credentials_purge() > 0 AS purged;
SELECT count(*) FROM plinth.api_keys WHERE id = :'id';
COMMIT;

SELECT plinth.rate_limit_drop('keys_test');
DROP VIEW keys_may;
DELETE FROM plinth.users WHERE email LIKE '%@keys.test';
SELECT count(*) FROM plinth.api_keys;
SELECT plinth.role_drop('keys_editor');
DELETE FROM plinth.permissions WHERE name LIKE 'posts:%';
REVOKE ALL ON SCHEMA plinth FROM keys_login;
REVOKE ALL ON FUNCTION plinth.context_begin(text) FROM keys_login;
DROP ROLE keys_login;
