-- Audit events: what is recorded, what is refused, and when.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE event_user IN ROLE authenticated;
CREATE ROLE event_admin IN ROLE plinth_admin;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start, clock_timestamp() AS began \gset
SET application_name = 'event test';

-- Not enabled.
\set VERBOSITY default
SELECT plinth.audit_event('too.early');
\set VERBOSITY terse
SELECT ready, pending_entries FROM plinth.stat_audit;

-- Who may enable; rolled back, it is not.
SET ROLE event_user;
SELECT plinth.audit_event_enable();
SELECT plinth.audit_event_disable();
SELECT * FROM plinth.stat_audit;
SET ROLE event_admin;
BEGIN READ ONLY;
SELECT plinth.audit_event_enable();
ROLLBACK;
BEGIN;
SELECT plinth.audit_event_enable();
SELECT plinth.audit_event('too.early.still');
ROLLBACK;
SELECT enabled_at IS NOT NULL AS enabled FROM plinth.stat_audit;
SELECT plinth.audit_event_enable();
SELECT plinth.audit_event_enable();
SELECT enabled_at IS NOT NULL AS enabled FROM plinth.stat_audit;
RESET ROLE;
CREATE PROCEDURE pg_temp.wait_for(condition text) LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1 .. 9000 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        IF holds THEN
            RETURN;
        END IF;
        COMMIT;
        PERFORM pg_sleep(0.02);
    END LOOP;
    RAISE 'never: %', condition;
END
$$;
CALL pg_temp.wait_for('ready FROM plinth.stat_audit');

-- What is refused.
SELECT plinth.audit_event(NULL);
SELECT plinth.audit_event('');
SELECT plinth.audit_event(repeat('a', 201));
SELECT plinth.audit_event(' Plinth.sign_in');
SELECT plinth.audit_event('a', repeat('r', 1001));
SELECT plinth.audit_event('a', NULL, 'perhaps');
SELECT plinth.audit_event('a', NULL, NULL);
SELECT plinth.audit_event('a', NULL, 'success', '[1]');
SELECT plinth.audit_event('a', NULL, 'success', jsonb_build_object('a', repeat('x', 65536)));
SET ROLE anon;
SELECT plinth.audit_event('by.anon');
RESET ROLE;

-- What is kept, whatever becomes of the transaction.
BEGIN READ ONLY;
SELECT plinth.audit_event('read.only', 'document:1', 'denied', '{"page": 3}') > :'start' AS recorded;
SELECT pg_current_xact_id_if_assigned() AS no_xid;
COMMIT;
BEGIN;
SELECT plinth.audit_event('rolled.back', flush => true) IS NOT NULL AS recorded;
SELECT plinth.audit_record('not.kept') IS NOT NULL AS recorded;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY;
SAVEPOINT s;
SELECT plinth.audit_event('savepoint.back') IS NOT NULL AS recorded;
ROLLBACK TO s;
SELECT 1 / 0;
ROLLBACK;
SELECT plinth.audit_event(repeat('ä', 100), repeat('ä', 500), 'failure', jsonb_build_object('a', repeat('x', 65500)), flush => NULL) IS NOT NULL AS longest;
SELECT plinth.audit_event('null.metadata', metadata => NULL) IS NOT NULL AS recorded;
SET ROLE event_user;
SELECT plinth.audit_event('by.user') IS NOT NULL AS recorded;
RESET ROLE;

-- Who acts, and from where.
SELECT user_id AS ann FROM plinth.sign_up('ann@event.test', 'correct horse') \gset
SELECT token FROM plinth.sign_in('ann@event.test', 'correct horse') \gset
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.audit_record('in.context', 'note:1', 'denied', '{"a": 1}') AS record, plinth.audit_event('in.context', 'note:1', 'denied', '{"a": 1}') AS event \gset
COMMIT;
CALL pg_temp.wait_for($$ count(*) = 1 FROM plinth.audit_entries WHERE id = '$$ || :'event' || $$' $$);
SELECT actor_user_id = :'ann' AS ann, count(*), count(source_lsn) AS by_wal, count(DISTINCT (action, resource, result, actor_user_id, actor_user_key, session_id,
        impersonator_id, api_key_id, address, user_agent, db_role, application_name, metadata)) AS different
    FROM plinth.audit_entries WHERE id IN (:'record', :'event') GROUP BY 1;
CALL pg_temp.wait_for($$ count(*) = 7 FROM plinth.audit_entries WHERE id > '$$ || :'start' || $$' AND source_lsn IS NOT NULL $$);
SELECT left(action, 20) AS action, left(resource, 20) AS resource, result, actor_user_id, actor_user_key, session_id, impersonator_id, user_agent,
       db_role = session_user AS db_role, application_name, length(metadata::text) AS metadata,
       recorded_at BETWEEN :'began' AND clock_timestamp() AS recorded_at
    FROM plinth.audit_entries WHERE id > :'start' AND source_lsn IS NOT NULL AND action <> 'in.context' ORDER BY id;
SELECT count(DISTINCT source_lsn) FROM plinth.audit_entries WHERE id > :'start';
-- The time is that of the call.
BEGIN;
SELECT plinth.audit_event('when') AS id, clock_timestamp() AS called \gset
COMMIT;
CALL pg_temp.wait_for($$ count(*) = 1 FROM plinth.audit_entries WHERE id = '$$ || :'id' || $$' $$);
SELECT recorded_at <= :'called' AS at_the_call FROM plinth.audit_entries WHERE id = :'id';

-- Nobody reads the key, or what waits.
SET ROLE event_admin;
SELECT * FROM plinth.audit_event_keys;
SELECT * FROM plinth.audit_pending;
SELECT plinth.audit_event_disable();
RESET ROLE;
SELECT plinth.audit_event('too.late');
SELECT count(*) FROM plinth.audit_event_keys;
DROP ROLE event_user, event_admin;
