-- The request context: how long it lasts, and who reads it.
SELECT user_id AS alice FROM plinth.sign_up('alice@context.test', 'alice''s password') \gset
SELECT user_id AS bob FROM plinth.sign_up('bob@context.test', 'bob''s password') \gset
SELECT token AS alice_token, session_id AS alice_session FROM plinth.sign_in('alice@context.test', 'alice''s password') \gset
SELECT token AS bob_token FROM plinth.sign_in('bob@context.test', 'bob''s password') \gset

CREATE FUNCTION who() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN concat_ws(' ', coalesce((SELECT split_part(u.email, '@', 1) FROM plinth.users u WHERE u.id = plinth.current_user_id()), 'nobody'),
    'aal=' || plinth.current_aal());

-- Nobody, to begin with.
SELECT who(), plinth.current_user_id(), plinth.current_session_id(), plinth.current_user_key(), plinth.current_aal(), plinth.has_role('user'),
    plinth.has_role(NULL);

-- To the end of the transaction, by COMMIT or ROLLBACK.
BEGIN;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
RESET ROLE;
SELECT who(), plinth.current_user_id() = :'alice' AS id, plinth.current_session_id() = :'alice_session' AS session,
    plinth.current_user_key() = :'alice' AS key, plinth.has_role('user'), plinth.has_role('use'), plinth.has_role('');
COMMIT;
SELECT who();
BEGIN;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
ROLLBACK;
SELECT who();

-- Outside a block, to the end of the statement.
SELECT plinth.context_begin(:'alice_token') = plinth.current_user_id() AS same;
SELECT who();

-- Savepoints: one that is rolled back takes back what was begun in it, and no more.
BEGIN;
SAVEPOINT a;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
RESET ROLE;
SELECT who();
ROLLBACK TO a;
SELECT who();
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun_again;
RESET ROLE;
SAVEPOINT b;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun_twice;
RESET ROLE;
ROLLBACK TO b;
SELECT who();
SAVEPOINT c;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun_twice;
RESET ROLE;
RELEASE c;
SELECT who();
COMMIT;
SELECT who();

-- Another identity is refused, in a savepoint that is rolled back too.
BEGIN;
SAVEPOINT a;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
ROLLBACK TO a;
SELECT plinth.context_begin(:'bob_token');
ROLLBACK TO a;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
RESET ROLE;
SAVEPOINT b;
SELECT plinth.context_begin(:'bob_token');
ROLLBACK TO b;
SELECT who();
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'bob_token') = :'bob' AS next_transaction;
ROLLBACK;

-- A function with settings of its own does not end it, nor does an exception elsewhere.
CREATE FUNCTION begin_in_function(token text) RETURNS boolean LANGUAGE plpgsql SET work_mem = '1MB' SET search_path = pg_catalog AS $$
BEGIN
    PERFORM plinth.context_begin(token);
    BEGIN
        PERFORM 1 / 0;
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
    RETURN true;
END
$$;
BEGIN;
SELECT begin_in_function(:'alice_token');
RESET ROLE;
SELECT who();
COMMIT;

-- COMMIT in a procedure ends it as well.
CREATE PROCEDURE commit_and_look(token text, INOUT before text DEFAULT NULL, INOUT after text DEFAULT NULL) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM plinth.context_begin(token);
    before := who();
    COMMIT;
    after := who();
END
$$;
SET client_min_messages = error;
CALL commit_and_look(:'alice_token');
RESET client_min_messages;

-- Deferred triggers and cursors that outlive the transaction still see it.
CREATE TABLE seen (by text);
CREATE FUNCTION note_who() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE seen SET by = who(); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON seen DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note_who();
BEGIN;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
RESET ROLE;
INSERT INTO seen VALUES (NULL);
DECLARE held CURSOR WITH HOLD FOR SELECT who();
COMMIT;
TABLE seen;
FETCH held;
CLOSE held;

-- Parallel workers have it.
CREATE TABLE many AS SELECT i FROM generate_series(1, 1000) i;
ALTER TABLE many SET (parallel_workers = 2);
ANALYZE many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
CREATE FUNCTION in_worker(i int) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE COST 10000 AS $$
BEGIN
    RETURN i > 0 AND plinth.current_user_id() IS NOT NULL AND plinth.current_aal() = 1 AND plinth.has_role('user');
END
$$;
SET parallel_leader_participation = off;
BEGIN;
SELECT plinth.context_begin(:'alice_token') = :'alice' AS begun;
RESET ROLE;
EXPLAIN (COSTS OFF) SELECT count(*) FROM many WHERE in_worker(i);
SELECT count(*) FROM many WHERE in_worker(i);
SELECT count(*) FROM many WHERE NOT in_worker(i);
COMMIT;
SELECT count(*) FROM many WHERE in_worker(i);
RESET parallel_leader_participation;

DROP TABLE many, seen;
DROP FUNCTION in_worker, note_who, begin_in_function;
DROP PROCEDURE commit_and_look;
DROP FUNCTION who;
DELETE FROM plinth.users WHERE email LIKE '%@context.test';
