-- Roles, what they inherit, and permissions.
\set VERBOSITY terse
CREATE FUNCTION error_code(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT pg_current_xact_id() AS start \gset
SELECT user_id AS ann FROM plinth.sign_up('ann.roles@example.com', 'a long password', 'ann_roles') \gset
SELECT user_id AS bob FROM plinth.sign_up('bob.roles@example.com', 'a long password', 'bob_roles') \gset
SELECT token AS ann_token FROM plinth.sign_in('ann_roles', 'a long password') \gset
SELECT token AS bob_token FROM plinth.sign_in('bob_roles', 'a long password') \gset

-- Making them.
SELECT plinth.role_create('reader', 'reads', permissions => '{post:read}');
SELECT plinth.role_create('writer', inherits => '{reader}', permissions => '{post:write,draft:*}');
SELECT plinth.role_create('chief', inherits => '{writer}');
SELECT plinth.role_create('tier:pro', permissions => '{export:run}');
SELECT plinth.role_create('user', permissions => '{profile:read}');
SELECT plinth.role_grant('chief', '{post:delete}');
SELECT name, description FROM plinth.roles ORDER BY 1;

-- Who has nothing but their own role.
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.current_roles(), plinth.current_permissions(), plinth.current_tier(), plinth.has_role('user'), plinth.has_role('reader'), plinth.has_role(NULL);
SELECT plinth.has_permission('profile:read'), plinth.has_permission('post:read'), plinth.has_permission('nonsense'), plinth.has_permission(''), plinth.has_permission(NULL);
COMMIT;
-- Nobody.
SELECT plinth.current_roles(), plinth.current_permissions(), plinth.current_tier(), plinth.has_role('user'), plinth.has_permission('profile:read');
SELECT error_code($$SELECT plinth.require_permission('profile:read')$$);
SELECT error_code($$SELECT plinth.require_permission(NULL)$$);

-- Granted, inherited, by tier, of one's own, with wildcards.
SELECT plinth.user_role_grant(:'ann', 'chief', reason => 'promoted');
SELECT plinth.user_permission_grant(:'ann', 'report:*');
UPDATE plinth.users SET tier = 'pro' WHERE id = :'ann';
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.current_roles(), plinth.current_permissions(), plinth.current_tier();
SELECT p, plinth.has_permission(p) FROM unnest('{post:read,post:delete,post:other,draft:x,report:yearly,report:*,export:run,plinth:admin,post,:read,*:*}'::text[]) p;
SELECT plinth.require_permission('report:yearly');
SELECT error_code($$SELECT plinth.require_permission('plinth:admin')$$);
-- In parallel workers too.
RESET ROLE;
CREATE TABLE role_numbers AS SELECT generate_series(1, 20000) AS n;
GRANT SELECT ON role_numbers TO authenticated;
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT count(*) FROM role_numbers WHERE plinth.has_role('reader') AND plinth.has_permission('draft:x') AND n > 0;
SELECT count(*) FROM role_numbers WHERE plinth.has_role('reader') AND plinth.has_permission('draft:x') AND n > 0;
COMMIT;
DROP TABLE role_numbers;

-- A change of what a role permits counts at once, in the transaction that makes it and after a rollback too.
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
RESET ROLE;
SELECT plinth.has_permission('post:delete');
SAVEPOINT s;
DELETE FROM plinth.role_permissions WHERE permission = 'post:delete';
SELECT plinth.has_permission('post:delete');
ROLLBACK TO s;
SELECT plinth.has_permission('post:delete');
DELETE FROM plinth.role_inherits WHERE role = 'writer';
SELECT plinth.has_permission('post:read'), plinth.has_role('reader'), plinth.has_role('writer');
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.has_permission('post:read'), plinth.has_role('reader');
COMMIT;
SELECT plinth.role_revoke('chief', '{post:delete,none:such}', '{writer}');
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.current_roles(), plinth.current_permissions();
COMMIT;
SELECT plinth.role_grant('chief', inherits => '{writer}');

-- So does a tier that becomes a role, for who begins a context there, and for nobody else until it is committed.
UPDATE plinth.users SET tier = 'gold' WHERE id = :'ann';
SELECT count(user_id) FROM plinth.session_verify(:'ann_token');
BEGIN;
SELECT plinth.role_create('tier:gold', permissions => '{vault:open}');
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.has_role('tier:gold'), plinth.has_permission('vault:open');
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.has_role('tier:gold'), plinth.has_permission('vault:open');
COMMIT;
UPDATE plinth.users SET tier = 'pro' WHERE id = :'ann';

-- A cycle ends.
SELECT plinth.role_grant('reader', inherits => '{chief}');
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.current_roles();
COMMIT;
SELECT plinth.role_revoke('reader', inherits => '{chief}');

-- What has expired is gone.
SELECT plinth.user_role_grant(:'ann', 'chief', expires_at => now() - interval '1 second');
SELECT plinth.user_permission_grant(:'ann', 'report:*', expires_at => now() - interval '1 second');
BEGIN;
SELECT plinth.context_begin(:'ann_token') = :'ann';
SELECT plinth.current_roles(), plinth.current_permissions();
COMMIT;
SELECT plinth.user_role_revoke(:'ann', 'chief', 'left'), plinth.user_role_revoke(:'ann', 'chief'), plinth.user_permission_revoke(:'ann', 'report:*'),
    plinth.user_permission_revoke(:'ann', 'report:*');

-- Who may administer: the user of the context, whatever the role; else the role.
SET ROLE authenticated;
SELECT error_code($$SELECT plinth.role_create('mine')$$);
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL;
SELECT error_code(format('SELECT plinth.user_permission_grant(%L, %L)', :'bob', '*:*'));
COMMIT;
RESET ROLE;
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL;
RESET ROLE;
SELECT error_code($$SELECT plinth.role_create('mine')$$);
SELECT error_code($$SELECT plinth.role_drop('reader')$$);
COMMIT;
SELECT plinth.user_permission_grant(:'bob', 'plinth:admin');
SET ROLE authenticated;
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL;
SELECT plinth.role_create('mine');
SELECT plinth.user_role_grant(:'ann', 'mine', reason => 'because');
SELECT user_id = :'bob' AS own, permission FROM plinth.user_permissions;
SELECT count(*) FROM plinth.user_roles;
SELECT error_code('INSERT INTO plinth.roles (name) VALUES (''other'')');
COMMIT;
RESET ROLE;
SELECT r.granted_by = :'bob' AS by_bob, r.reason FROM plinth.user_roles r WHERE role = 'mine';
SELECT plinth.role_drop('mine'), plinth.role_drop('mine');
SELECT count(*) FROM plinth.user_roles WHERE role = 'mine';

-- Bad input.
SELECT error_code($$SELECT plinth.role_create('a,b')$$);
SELECT error_code($$SELECT plinth.role_create('+x')$$);
SELECT error_code($$SELECT plinth.role_create(NULL)$$);
SELECT error_code($$SELECT plinth.role_create('x', permissions => '{read}')$$);
SELECT error_code($$SELECT plinth.role_create('x', permissions => '{"a:b,c"}')$$);
SELECT error_code($$SELECT plinth.role_create('x', permissions => '{*:read}')$$);
SELECT error_code($$SELECT plinth.role_create('x', inherits => '{unknown}')$$);
SELECT error_code($$SELECT plinth.role_create('x', inherits => '{x}')$$);
SELECT error_code(format('SELECT plinth.user_role_grant(%L, %L)', :'ann', 'unknown'));
SELECT error_code($$SELECT plinth.user_role_grant('00000000-0000-7000-8000-000000000000', 'reader')$$);

-- The audit trail.
SELECT action, resource LIKE 'user:%' AS user, result, count(*) FROM plinth.audit_entries
    WHERE recorded_xid > :'start' AND (action LIKE 'plinth.role%' OR action LIKE 'plinth.user_%') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

-- An application's table.
CREATE TABLE role_notes (owner_id uuid DEFAULT plinth.current_user_id(), note text);
GRANT SELECT, INSERT ON role_notes TO authenticated;
SET client_min_messages = warning;
SELECT plinth.owner_policy('role_notes', 'owner_id', 'note:all');
SELECT plinth.owner_policy('role_notes', 'owner_id', 'note:all');
BEGIN;
SELECT plinth.context_begin(:'ann_token') IS NOT NULL;
SET LOCAL ROLE authenticated;
INSERT INTO role_notes (note) VALUES ('of ann');
SELECT error_code(format('INSERT INTO role_notes VALUES (%L, %L)', :'bob', 'forged'));
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL;
SET LOCAL ROLE authenticated;
SELECT count(*) FROM role_notes;
ROLLBACK;
SELECT plinth.user_permission_grant(:'bob', 'note:*');
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL;
SET LOCAL ROLE authenticated;
SELECT count(*) FROM role_notes;
ROLLBACK;
CREATE TABLE role_keys (k int, t text, b boolean);
SELECT plinth.owner_policy('role_keys', 'k');
SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'role_keys'::regclass;
SELECT plinth.owner_policy('role_keys', 't');
SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'role_keys'::regclass;
SELECT error_code($$SELECT plinth.owner_policy('role_keys', 'b')$$);
SELECT error_code($$SELECT plinth.owner_policy('role_keys', 'nothing')$$);
SELECT error_code($$SELECT plinth.owner_policy('role_keys', NULL)$$);
SET ROLE authenticated;
SELECT error_code($$SELECT plinth.owner_policy('public.role_keys', 't')$$);
RESET ROLE;
DROP TABLE role_notes, role_keys;
DELETE FROM plinth.users WHERE id IN (:'ann', :'bob');
DELETE FROM plinth.roles;
DELETE FROM plinth.permissions;
DROP FUNCTION error_code(text);
