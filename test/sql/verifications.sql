-- Requests that an administrator approves or rejects, as seed 000 has them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
CREATE ROLE verifications_login LOGIN NOINHERIT IN ROLE anon, authenticated;
GRANT USAGE ON SCHEMA plinth TO verifications_login;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO verifications_login;
SELECT plinth.uuid_v7() AS start \gset
SELECT id AS ann FROM plinth.user_create('ann@verify.test', role => 'masyarakat_umum', password => 'correct horse') \gset
SELECT id AS ben FROM plinth.user_create('ben@verify.test', password => 'battery staple') \gset
SELECT id AS adm FROM plinth.user_create('adm@verify.test', role => 'verify_admin', password => 'admin of all') \gset
SELECT plinth.role_create('verify_admin', permissions => '{plinth:admin}');
SELECT plinth.role_create('profesional_hukum');
SELECT token FROM plinth.sign_in('ann@verify.test', 'correct horse') \gset
SELECT token AS ben_token FROM plinth.sign_in('ben@verify.test', 'battery staple') \gset
SELECT token AS adm_token FROM plinth.sign_in('adm@verify.test', 'admin of all') \gset

SET SESSION AUTHORIZATION verifications_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.verification_request('advocate', '[{"mongodb_id": "65a1"}, {"mongodb_id": "65a2"}]', '{"licence": "12.345"}') AS id \gset
SELECT plinth.verification_request('notary') AS other \gset
SAVEPOINT s;
SELECT plinth.verification_request('advocate');
ROLLBACK TO s;
SELECT plinth.verification_request('no kind');
ROLLBACK TO s;
SELECT plinth.verification_request(NULL);
ROLLBACK TO s;
SELECT plinth.verification_request('x', '{}');
ROLLBACK TO s;
SELECT plinth.verification_request('x', '[]', '[]');
ROLLBACK TO s;
SELECT plinth.verification_approve(:'id', role => 'profesional_hukum');
ROLLBACK TO s;
SELECT plinth.verifications_search();
ROLLBACK TO s;
-- What is withdrawn makes no room.
SELECT count(plinth.verification_withdraw(plinth.verification_request('k' || n))) FROM generate_series(1, 98) n;
SELECT plinth.verification_request('more');
ROLLBACK TO s;
SELECT kind, status, documents, data, reason FROM plinth.verifications_list();
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'ben_token') = :'ben' AS ben;
SELECT count(*) FROM plinth.verifications_list();
SELECT count(*) FROM plinth.verification_requests;
SELECT plinth.verification_withdraw(:'id');
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.verification_withdraw(:'other'), plinth.verification_withdraw(:'other');
COMMIT;
SET ROLE authenticated;
SELECT plinth.verification_request('advocate');
SELECT plinth.verifications_list();
RESET ROLE;

-- An administrator in a request context.
BEGIN;
SELECT plinth.context_begin(:'adm_token') = :'adm' AS adm;
SELECT kind, status FROM plinth.verifications_search();
SELECT kind, status FROM plinth.verifications_search('withdrawn', 'notary');
SELECT kind FROM plinth.verifications_search(after => :'id');
SELECT plinth.verification_request('advocate') AS own \gset
SAVEPOINT s;
SELECT plinth.verification_approve(:'own');
ROLLBACK TO s;
SELECT plinth.verification_reject(:'id', NULL);
ROLLBACK TO s;
SELECT plinth.verification_approve(plinth.uuid_v7());
ROLLBACK TO s;
SELECT plinth.verification_approve(:'id', repeat('x', 1001));
ROLLBACK TO s;
SELECT plinth.verification_approve(:'id', role => 'no role');
ROLLBACK TO s;
SELECT plinth.verifications_search('gone');
ROLLBACK TO s;
SELECT plinth.verifications_search(limit_count => 0);
ROLLBACK TO s;
SELECT status, reason, granted_role, reviewed_by = :'adm' AS by_adm FROM plinth.verification_approve(:'id', 'licence seen', 'profesional_hukum');
SAVEPOINT s;
SELECT plinth.verification_reject(:'id', 'changed my mind');
ROLLBACK TO s;
COMMIT;
-- It counts for the session that was there, and the user sees why.
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.has_role('profesional_hukum'), plinth.has_role('masyarakat_umum');
SELECT status, reason FROM plinth.verifications_list() WHERE kind = 'advocate';
SELECT plinth.verification_request('advocate') AS again \gset
COMMIT;
RESET SESSION AUTHORIZATION;
-- Outside of a request context.
SELECT status, reason, reviewed_by FROM plinth.verification_reject(:'again', 'once is enough');
SELECT plinth.user_delete(:'ann');
SELECT action, actor_user_id = :'adm' AS by_adm, result, metadata - 'user_id' AS metadata FROM plinth.audit_entries
    WHERE id > :'start' AND action LIKE 'plinth.verification%' ORDER BY id;
DELETE FROM plinth.users WHERE email LIKE '%@verify.test';
SELECT count(*) FROM plinth.verification_requests;
SELECT plinth.role_drop('verify_admin'), plinth.role_drop('profesional_hukum');
REVOKE ALL ON SCHEMA plinth FROM verifications_login;
REVOKE ALL ON FUNCTION plinth.context_begin(text) FROM verifications_login;
DROP ROLE verifications_login;
