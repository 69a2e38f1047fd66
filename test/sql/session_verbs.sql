-- What users and administrators do with sessions: lists, labels, step-up, devices, limits, impersonation.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE verbs_user LOGIN IN ROLE authenticated;
CREATE ROLE verbs_admin LOGIN IN ROLE plinth_admin;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT user_id AS ann FROM plinth.sign_up('ann@verbs.test', 'correct horse') \gset
SELECT user_id AS ben FROM plinth.sign_up('ben@verbs.test', 'battery staple') \gset
SELECT user_id AS root FROM plinth.sign_up('root@verbs.test', 'purple monkey') \gset
SELECT plinth.user_permission_grant(:'root', 'plinth:admin');
SELECT token AS t1, session_id AS s1 FROM plinth.sign_in('ann@verbs.test', 'correct horse', 'fp-1', 'phone', 'Agent', 'Phone') \gset
SELECT token AS t2, session_id AS s2 FROM plinth.sign_in('ann@verbs.test', 'correct horse', 'fp-2') \gset
SELECT token AS ben_token, session_id AS ben_session FROM plinth.sign_in('ben@verbs.test', 'battery staple', 'fp-1') \gset
SELECT token AS root_token, session_id AS root_session FROM plinth.sign_in('root@verbs.test', 'purple monkey') \gset
PREPARE good AS SELECT string_agg(CASE WHEN v.user_id IS NULL THEN '-' ELSE 'x' END, '' ORDER BY n)
    FROM unnest(ARRAY[:'t1', :'t2', :'ben_token', :'root_token']) WITH ORDINALITY t (token, n), plinth.session_verify(t.token) v;
EXECUTE good;

-- A superuser's function does not make its caller an administrator.
CREATE FUNCTION verbs_revoke(id uuid) RETURNS boolean LANGUAGE sql SECURITY DEFINER AS 'SELECT plinth.session_revoke(id)';
CREATE FUNCTION verbs_revoke_all(id uuid) RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT plinth.session_revoke_all(id)';
-- One's own sessions.
SET SESSION AUTHORIZATION verbs_user;
SELECT verbs_revoke(:'ben_session');
SELECT verbs_revoke_all(:'ben');
SELECT plinth.session_list();
SELECT plinth.session_revoke_others();
SELECT plinth.session_label(:'s1', 'x');
SELECT plinth.session_confirm('x');
SELECT plinth.require_recent();
SELECT plinth.require_aal(1);
BEGIN;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SELECT session_id IN (:'s1', :'s2') AS own, is_current, label, device_type, device_fingerprint, user_agent, aal, is_impersonated,
       last_active_at > now() - interval '1 minute' AS active FROM plinth.session_list() ORDER BY created_at;
SELECT plinth.session_label(:'s2', 'Tablet'), plinth.session_label(:'ben_session', 'mine'), plinth.session_label(:'s1', NULL);
SELECT label FROM plinth.session_list() ORDER BY created_at;
SAVEPOINT s;
SELECT plinth.session_label(:'s2', repeat('x', 201));
ROLLBACK TO s;
SELECT plinth.session_revoke_others();
SELECT count(*) FROM plinth.session_list();
SELECT plinth.session_revoke_others();
ROLLBACK;

-- Step-up: how long ago, and how sure.
BEGIN;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SELECT plinth.require_recent(), plinth.require_recent('1 hour'), plinth.require_aal(1);
SAVEPOINT s;
SELECT plinth.require_recent('0');
ROLLBACK TO s;
SELECT plinth.require_recent(NULL);
ROLLBACK TO s;
SELECT plinth.require_aal(2);
ROLLBACK;
RESET SESSION AUTHORIZATION;
UPDATE plinth.sessions SET authenticated_at = now() - interval '2 hours' WHERE id = :'s1';
SET SESSION AUTHORIZATION verbs_user;
BEGIN;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SAVEPOINT s;
SELECT plinth.require_recent('1 hour');
ROLLBACK TO s;
SELECT plinth.session_confirm('battery staple');
SELECT plinth.session_confirm(NULL);
ROLLBACK TO s;
SELECT plinth.session_confirm('correct horse');
SELECT plinth.require_recent('1 minute');
COMMIT;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SELECT plinth.require_recent('5 minutes');
SELECT plinth.session_confirm('correct horse');
ROLLBACK;

-- Devices.
SELECT plinth.device_ban('fp-1');
BEGIN;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SELECT plinth.device_ban('fp-1', :'ann');
ROLLBACK;
SET SESSION AUTHORIZATION verbs_admin;
SELECT plinth.device_ban('');
SELECT plinth.device_ban('fp-1', until => now() - interval '1 s');
SELECT plinth.device_ban('fp-1', '00000000-0000-7000-8000-000000000000');
SELECT plinth.device_ban('fp-1', :'ann', reason => 'stolen');
SELECT device_fingerprint, reason, banned_until FROM plinth.device_bans;
RESET SESSION AUTHORIZATION;
EXECUTE good;
SELECT status FROM plinth.sign_in('ann@verbs.test', 'correct horse', 'fp-1');
SELECT status FROM plinth.sign_in('ann@verbs.test', 'correct horse', 'fp-3');
SELECT status FROM plinth.sign_in('ann@verbs.test', 'correct horse');
SELECT status FROM plinth.sign_in('ben@verbs.test', 'battery staple', 'fp-1');
SET SESSION AUTHORIZATION verbs_admin;
SELECT plinth.device_ban('fp-1', until => now() + interval '1 day');
RESET SESSION AUTHORIZATION;
EXECUTE good;
SELECT status FROM plinth.sign_in('ben@verbs.test', 'battery staple', 'fp-1');
UPDATE plinth.device_bans SET banned_until = now() WHERE user_id IS NULL;
SELECT status FROM plinth.sign_in('ben@verbs.test', 'battery staple', 'fp-1');
SET SESSION AUTHORIZATION verbs_admin;
SELECT plinth.device_unban('fp-1'), plinth.device_unban('fp-1'), plinth.device_unban('fp-1', :'ann');
RESET SESSION AUTHORIZATION;
SELECT token AS t1, session_id AS s1, status FROM plinth.sign_in('ann@verbs.test', 'correct horse', 'fp-1') \gset
\echo :status

-- Impersonation.
SELECT user_id AS boss FROM plinth.sign_up('boss@verbs.test', 'orange gibbon') \gset
SELECT plinth.user_permission_grant(:'boss', 'plinth:admin');
SELECT id AS ann_key FROM plinth.api_key_create('ann''s', user_id => :'ann') \gset
SELECT plinth.identity_link(:'ann', 'clerk', 'ann');
SET SESSION AUTHORIZATION verbs_user;
SELECT plinth.session_impersonate(:'ann', 'why not');
BEGIN;
SELECT plinth.context_begin(:'t1') = :'ann' AS ann;
SELECT plinth.session_impersonate(:'ben', 'why not');
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'root_token') = :'root' AS root;
SAVEPOINT s;
SELECT plinth.session_impersonate(:'ann', '');
ROLLBACK TO s;
SELECT plinth.session_impersonate(NULL, 'ticket 7');
ROLLBACK TO s;
SELECT plinth.session_impersonate(:'ann', 'ticket 7', '2 days');
ROLLBACK TO s;
SELECT plinth.session_impersonate(:'root', 'ticket 7');
ROLLBACK TO s;
SELECT plinth.session_impersonate('00000000-0000-7000-8000-000000000000', 'ticket 7');
ROLLBACK TO s;
SELECT token AS as_ann, session_id AS as_ann_session, expires_at < now() + interval '31 minutes' AS short FROM plinth.session_impersonate(:'ann', 'ticket 7') \gset
SELECT token AS as_ann2 FROM plinth.session_impersonate(:'ann', 'ticket 7') \gset
SELECT token AS as_boss FROM plinth.session_impersonate(:'boss', 'ticket 7') \gset
COMMIT;
\echo :short
SELECT user_id = :'ann' AS ann, impersonator_id = :'root' AS root, aal FROM plinth.session_verify(:'as_ann');
BEGIN;
SELECT plinth.context_begin(:'as_ann') = :'ann' AS ann;
SELECT plinth.is_impersonated(), plinth.current_user_id() = :'ann' AS ann;
SELECT plinth.audit_record('note.read', 'note:1') IS NOT NULL AS recorded;
SELECT count(*) FROM plinth.sessions;
SAVEPOINT s;
SELECT plinth.session_list();
ROLLBACK TO s;
SELECT plinth.session_revoke(:'s1');
ROLLBACK TO s;
SELECT plinth.session_revoke_all();
ROLLBACK TO s;
SELECT plinth.session_revoke_others();
ROLLBACK TO s;
SELECT plinth.session_label(:'s1', 'x');
ROLLBACK TO s;
SELECT plinth.session_confirm('correct horse');
ROLLBACK TO s;
SELECT plinth.require_recent('1 day');
ROLLBACK TO s;
SELECT plinth.session_impersonate(:'ben', 'further');
ROLLBACK TO s;
SELECT plinth.device_ban('fp-1');
ROLLBACK TO s;
SELECT plinth.api_key_revoke(:'ann_key');
ROLLBACK TO s;
SELECT plinth.identity_unlink_me('clerk', 'ann');
ROLLBACK TO s;
SELECT plinth.user_update_me(username => 'root2');
ROLLBACK TO s;
SELECT plinth.user_update_me(clear_fields => '{username}');
ROLLBACK TO s;
SELECT full_name FROM plinth.user_update_me('Ann, as support wrote it');
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'as_boss') = :'boss' AS boss;
SELECT plinth.api_key_revoke(:'ann_key');
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT actor_user_id = :'ann' AS ann, impersonator_id = :'root' AS root, session_id = :'as_ann_session' AS session FROM plinth.audit_entries
    WHERE action = 'note.read' AND id > :'start';
SELECT impersonator_id = :'root' AS root, metadata FROM plinth.audit_entries WHERE action = 'plinth.user_update' AND id > :'start';
-- An administrator's account is not the way to more, and it ends with their right, session or account.
PREPARE as_ann AS SELECT count(user_id) FROM plinth.session_verify(:'as_ann');
BEGIN;
SELECT plinth.context_begin(:'as_ann') IS NOT NULL AS begun;
ROLLBACK;
EXECUTE as_ann;
BEGIN;
DELETE FROM plinth.user_permissions WHERE user_id = :'root';
EXECUTE as_ann;
ROLLBACK;
UPDATE plinth.user_permissions SET expires_at = now() WHERE user_id = :'root';
EXECUTE as_ann;
UPDATE plinth.user_permissions SET expires_at = NULL WHERE user_id = :'root';
EXECUTE as_ann;
UPDATE plinth.users SET status = 'locked' WHERE id = :'root';
EXECUTE as_ann;
UPDATE plinth.users SET status = 'active' WHERE id = :'root';
EXECUTE as_ann;
UPDATE plinth.sessions SET last_active_at = now() - interval '1 day', idle_timeout = '1 hour' WHERE id = :'root_session';
EXECUTE as_ann;
UPDATE plinth.sessions SET last_active_at = now() WHERE id = :'root_session';
EXECUTE as_ann;
UPDATE plinth.sessions SET expires_at = now() WHERE id = :'root_session';
EXECUTE as_ann;
UPDATE plinth.sessions SET expires_at = now() + interval '1 day' WHERE id = :'root_session';
EXECUTE as_ann;
BEGIN;
SELECT plinth.context_begin(:'as_ann') = :'ann' AS ann;
SELECT plinth.session_revoke();
COMMIT;
EXECUTE as_ann;
SELECT count(user_id) FROM plinth.session_verify(:'as_ann2');
SELECT plinth.session_revoke(:'root_session');
SELECT count(user_id) FROM plinth.session_verify(:'as_ann2');
EXECUTE good;
-- By a database role, which has no account.
SET SESSION AUTHORIZATION verbs_admin;
SELECT token AS by_role FROM plinth.session_impersonate(:'ann', 'ticket 8', '1 hour') \gset
RESET SESSION AUTHORIZATION;
SELECT user_id = :'ann' AS ann, impersonator_id FROM plinth.session_verify(:'by_role');
BEGIN;
SELECT plinth.context_begin(:'by_role') = :'ann' AS ann;
SELECT plinth.session_list();
ROLLBACK;

SELECT action, result, metadata ->> 'reason' AS reason, count(*) FROM plinth.audit_entries WHERE id > :'start' AND action ~ 'session|device'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
SELECT count(*) FROM plinth.audit_entries e WHERE id > :'start' AND e::text ~ 'horse|staple|monkey|pls_';
DELETE FROM plinth.users WHERE id > :'start';
DROP FUNCTION verbs_revoke, verbs_revoke_all;
DROP ROLE verbs_user, verbs_admin;
