-- The request context: how it begins and ends, and that nobody can imitate one.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE context_login LOGIN NOINHERIT IN ROLE anon, authenticated;
CREATE ROLE context_stranger LOGIN;
GRANT USAGE ON SCHEMA plinth TO context_login, context_stranger;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO context_login, context_stranger;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SELECT user_id AS ann FROM plinth.sign_up('ann@context.test', 'correct horse') \gset
SELECT user_id AS ben FROM plinth.sign_up('ben@context.test', 'battery staple') \gset
SELECT token, session_id FROM plinth.sign_in('ann@context.test', 'correct horse') \gset
SELECT token AS ben_token FROM plinth.sign_in('ben@context.test', 'battery staple') \gset
UPDATE plinth.users SET role = 'editor' WHERE id = :'ann';
CREATE TABLE context_notes (id int PRIMARY KEY, owner_id uuid NOT NULL REFERENCES plinth.users, note text);
INSERT INTO context_notes SELECT n, CASE n % 2 WHEN 0 THEN :'ann'::uuid ELSE :'ben'::uuid END, 'note ' || n FROM generate_series(1, 10) n;
ALTER TABLE context_notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON context_notes USING (owner_id = (SELECT plinth.current_user_id()));
GRANT SELECT, INSERT, UPDATE ON context_notes TO authenticated, context_stranger;
CREATE VIEW context_who AS SELECT CASE plinth.current_user_id() WHEN :'ann' THEN 'ann' WHEN :'ben' THEN 'ben' END AS who,
    plinth.current_session_id() = :'session_id' AS session, plinth.current_aal() AS aal, plinth.has_role('editor') AS editor,
    current_user AS role;
GRANT SELECT ON context_who TO PUBLIC;

-- It lasts as long as the transaction.
SET SESSION AUTHORIZATION context_login;
TABLE context_who;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
TABLE context_who;
SELECT array_agg(id ORDER BY id) FROM context_notes;
INSERT INTO context_notes VALUES (11, :'ben', 'as somebody else');
ROLLBACK;
TABLE context_who;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
UPDATE context_notes SET note = 'mine' WHERE id IN (1, 2) RETURNING id;
SELECT email FROM plinth.users;
SELECT plinth.audit_record('note.update', 'note:2') IS NOT NULL AS recorded;
SELECT actor_user_id = :'ann' AS ann, session_id = :'session_id' AS session, db_role, count(*) FROM plinth.audit_entries
    WHERE action = 'note.update' AND id > :'start' GROUP BY 1, 2, 3;
SELECT count(*) AS of_others FROM plinth.audit_entries WHERE actor_user_id IS DISTINCT FROM :'ann';
COMMIT;
TABLE context_who;
-- In a READ ONLY transaction too.
BEGIN READ ONLY;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT count(*) FROM context_notes;
COMMIT;
-- Outside a transaction block it warns, and ends with the statement.
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
TABLE context_who;

-- Savepoints: rolled back with them, kept by them.
BEGIN;
SAVEPOINT s;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
ROLLBACK TO s;
TABLE context_who;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SAVEPOINT s;
SELECT 1 / 0;
ROLLBACK TO s;
TABLE context_who;
RELEASE s;
TABLE context_who;
-- The same once more is no harm; another is refused, also after a savepoint.
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SAVEPOINT s;
SELECT plinth.context_begin(:'ben_token');
ROLLBACK TO s;
TABLE context_who;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
ROLLBACK TO s;
SELECT plinth.context_begin(:'ben_token');
ROLLBACK;

-- Tokens that are none.
\set VERBOSITY sqlstate
SELECT plinth.context_begin(NULL);
SELECT plinth.context_begin('');
SELECT plinth.context_begin('pls_' || repeat('A', 43));
SELECT plinth.context_begin(repeat('x', 1000000));
\set VERBOSITY terse
SELECT plinth.context_begin('pls_x');

-- A login role that may not take the role keeps its own; the context counts all the same.
SET SESSION AUTHORIZATION context_stranger;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
TABLE context_who;
SELECT count(*) FROM context_notes;
COMMIT;
RESET SESSION AUTHORIZATION;

-- Not in a security-definer function.
CREATE FUNCTION context_definer(token text) RETURNS uuid LANGUAGE sql SECURITY DEFINER AS 'SELECT plinth.context_begin(token)';
SELECT context_definer(:'token');
DROP FUNCTION context_definer(text);

-- Imitations, one by one.
SET SESSION AUTHORIZATION context_login;
SET plinth.context = 'x';
SET LOCAL plinth.context = 'x';
SELECT set_config('plinth.context', 'x', true);
UPDATE pg_settings SET setting = 'x' WHERE name = 'plinth.context';
ALTER ROLE context_login SET plinth.context = 'x';
\set VERBOSITY sqlstate
SET "Plinth.Context" = 'x';
SHOW plinth.context;
SELECT current_setting('plinth.context', true);
\set VERBOSITY terse
SELECT count(*) FROM pg_settings WHERE name = 'plinth.context';
SET plinth.user_id = 'x';
BEGIN;
SELECT set_config('request.jwt.claims', json_build_object('sub', :'ben', 'role', 'authenticated')::text, true) IS NOT NULL AS set;
TABLE context_who;
SELECT count(*) FROM context_notes;
COMMIT;
-- Within a context: who it is stays, whatever is set or reset.
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SAVEPOINT s;
SET plinth.context = '';
ROLLBACK TO s;
RESET plinth.context;
ROLLBACK TO s;
SET plinth.context TO DEFAULT;
ROLLBACK TO s;
RESET ALL;
TABLE context_who;
SELECT set_config('request.jwt.claims', json_build_object('sub', :'ben')::text, true) IS NOT NULL AS set;
TABLE context_who;
RESET ROLE;
SELECT who, role FROM context_who;
SET LOCAL ROLE anon;
SELECT who, role FROM context_who;
SET LOCAL search_path = pg_temp, public;
CREATE TEMP TABLE users (id uuid);
SELECT who FROM context_who;
SET LOCAL ROLE plinth_admin;
ROLLBACK TO s;
SET LOCAL ROLE plinth_owner;
ROLLBACK;
DISCARD ALL;
-- A superuser can do much, but not set it either.
RESET SESSION AUTHORIZATION;
SET plinth.context = 'x';
SELECT set_config('plinth.context', 'x', false);
ALTER ROLE context_login SET plinth.context = 'x';
ALTER DATABASE :DBNAME SET plinth.context = 'x';
ALTER SYSTEM SET plinth.context = 'x';

-- Parallel workers know who it is.
ALTER TABLE context_notes SET (parallel_workers = 2);
INSERT INTO context_notes SELECT n, CASE n % 2 WHEN 0 THEN :'ann'::uuid ELSE :'ben'::uuid END, 'more' FROM generate_series(12, 20000) n;
ANALYZE context_notes;
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL max_parallel_workers_per_gather = 2;
SET LOCAL parallel_leader_participation = off;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
DO $$
DECLARE
    line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN SELECT count(*) FROM context_notes WHERE owner_id = plinth.current_user_id()' LOOP
        IF line ~ 'Filter: .*owner_id = plinth.current_user_id' THEN
            RAISE WARNING 'workers ask who it is';
        END IF;
    END LOOP;
END
$$;
SELECT count(*) FROM context_notes WHERE owner_id = plinth.current_user_id();
SELECT count(*) FROM context_notes WHERE owner_id = plinth.current_user_id() AND plinth.has_role('editor') AND plinth.current_aal() = 1;
ROLLBACK;

-- Use is known at once, whatever becomes of the transaction, and is written when it is flushed.
UPDATE plinth.sessions SET last_active_at = now() - interval '1 day' WHERE id = :'session_id';
PREPARE noted AS SELECT plinth.session_flush() >= 0 AS flushed, (SELECT last_active_at > now() - interval '1 hour' FROM plinth.sessions WHERE id = :'session_id') AS before;
EXECUTE noted;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
ROLLBACK;
EXECUTE noted;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
-- What a DBA sets counts, not what was known before.
UPDATE plinth.sessions SET last_active_at = now() - interval '1 day', idle_timeout = '12 h' WHERE id = :'session_id';
EXECUTE noted;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
UPDATE plinth.sessions SET idle_timeout = '2 days' WHERE id = :'session_id';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
COMMIT;
EXECUTE noted;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
UPDATE plinth.sessions SET last_active_at = now() - interval '1 day' WHERE id = :'session_id';
BEGIN READ ONLY;
SELECT plinth.session_flush();
ROLLBACK;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.session_flush();
ROLLBACK;
-- A flush that rolls back has written nothing, and the next one does.
BEGIN;
SELECT plinth.session_flush() >= 0 AS flushed;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
ROLLBACK;
SELECT plinth.session_flush() >= 0 AS flushed;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
DEALLOCATE noted;
-- Whoever reads the tables, having changed what sessions depend on, leaves a note there at commit.
UPDATE plinth.sessions SET last_active_at = now() - interval '1 day' WHERE id = :'session_id';
BEGIN;
UPDATE plinth.users SET tier = 'noted' WHERE id = :'ann';
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
ROLLBACK;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
BEGIN;
UPDATE plinth.users SET tier = 'noted' WHERE id = :'ann';
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';
COMMIT;
SELECT last_active_at > now() - interval '1 hour' AS noted FROM plinth.sessions WHERE id = :'session_id';

DROP VIEW context_who;
DROP TABLE context_notes;
DELETE FROM plinth.users WHERE id > :'start';
REVOKE ALL ON FUNCTION plinth.context_begin(text) FROM context_login, context_stranger;
REVOKE USAGE ON SCHEMA plinth FROM context_login, context_stranger;
DROP ROLE context_login, context_stranger;
