-- Audit entries: what is recorded, what is refused, and that nothing changes them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE audit_user IN ROLE authenticated;
CREATE ROLE audit_admin IN ROLE plinth_admin;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
SET application_name = 'audit test';

-- An entry, in the transaction.
SELECT plinth.audit_record('document.read', 'document:1', 'success', '{"page": 3}') > :'start' AS recorded;
SELECT action, resource, result, actor_user_id, actor_user_key, session_id, impersonator_id, metadata,
       db_role = session_user AS db_role, application_name, recorded_xid IS NOT NULL AS xid,
       recorded_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS recorded_at
    FROM plinth.audit_entries WHERE id > :'start';
SELECT plinth.audit_record('defaults') IS NOT NULL AS recorded;
SELECT resource, result, metadata FROM plinth.audit_entries WHERE action = 'defaults' AND id > :'start';
BEGIN;
SELECT plinth.audit_record('rolled.back') IS NOT NULL AS recorded;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT plinth.audit_record('savepoint.back') IS NOT NULL AS recorded;
ROLLBACK TO s;
SELECT plinth.audit_record('savepoint.kept') IS NOT NULL AS recorded;
COMMIT;
SELECT action FROM plinth.audit_entries WHERE id > :'start' AND action ~ 'back|kept' ORDER BY id;

-- What is refused.
SELECT plinth.audit_record(NULL);
SELECT plinth.audit_record('');
SELECT plinth.audit_record(repeat('a', 201));
SELECT plinth.audit_record('plinth.sign_in');
SELECT plinth.audit_record('a', repeat('r', 1001));
SELECT plinth.audit_record('a', NULL, 'perhaps');
SELECT plinth.audit_record('a', NULL, NULL);
SELECT plinth.audit_record('a', NULL, 'success', '[1]');
SELECT plinth.audit_record('a', NULL, 'success', '1');
SELECT plinth.audit_record('a', NULL, 'success', jsonb_build_object('a', repeat('x', 70000)));
BEGIN READ ONLY;
SELECT plinth.audit_record('read.only');
ROLLBACK;
\set VERBOSITY sqlstate
SELECT plinth.audit_record('');
\set VERBOSITY terse
SELECT plinth.audit_record(repeat('ä', 100), repeat('ä', 500)) IS NOT NULL AS longest;
SELECT plinth.audit_record('null.metadata', metadata => NULL) IS NOT NULL AS recorded;

-- Append only, for superusers too, and under session_replication_role.
SELECT tableoid::regclass AS partition FROM plinth.audit_entries WHERE id > :'start' LIMIT 1 \gset
UPDATE plinth.audit_entries SET action = 'x' WHERE id > :'start';
DELETE FROM plinth.audit_entries WHERE id > :'start';
TRUNCATE plinth.audit_entries;
UPDATE :partition SET action = 'x' WHERE id > :'start';
DELETE FROM :partition WHERE id > :'start';
TRUNCATE :partition;
MERGE INTO plinth.audit_entries e USING (SELECT 1) s ON e.id > :'start' WHEN MATCHED THEN DELETE;
INSERT INTO :partition SELECT * FROM plinth.audit_entries WHERE id > :'start'
    ON CONFLICT (id) DO UPDATE SET action = 'x';
SET session_replication_role = replica;
UPDATE plinth.audit_entries SET action = 'x' WHERE id > :'start';
DELETE FROM :partition WHERE id > :'start';
TRUNCATE plinth.audit_entries;
RESET session_replication_role;
SET ROLE plinth_owner;
DELETE FROM plinth.audit_entries WHERE id > :'start';
TRUNCATE plinth.audit_entries CASCADE;
RESET ROLE;
SELECT count(*) FROM plinth.audit_entries WHERE id > :'start';

-- A partition that is not there is made, the next month's as well; rolled back, they are made again.
SELECT to_char(now() AT TIME ZONE 'UTC', '"plinth.audit_entries_"YYYY_MM') AS this_month,
       to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + interval '1 month', '"plinth.audit_entries_"YYYY_MM') AS next_month \gset
SELECT :'partition'::regclass = :'this_month'::regclass AS in_this_month, to_regclass(:'next_month') IS NOT NULL AS next_month_ready;
BEGIN;
ALTER TABLE plinth.audit_entries DETACH PARTITION :next_month;
DROP TABLE :next_month;
SELECT plinth.audit_record('made.ahead') IS NOT NULL AS recorded;
SELECT to_regclass(:'next_month') IS NOT NULL AS made_ahead;
ROLLBACK;
BEGIN;
ALTER TABLE plinth.audit_entries DETACH PARTITION :this_month;
ALTER TABLE :this_month RENAME TO audit_entries_away;
SET LOCAL default_tablespace = 'pg_global';
SET LOCAL timezone = 'Pacific/Kiritimati';
SET LOCAL datestyle = 'SQL, DMY';
SAVEPOINT s;
SELECT plinth.audit_record('made.now') IS NOT NULL AS recorded;
ROLLBACK TO s;
SELECT to_regclass(:'this_month') IS NULL AS gone_again;
SELECT plinth.audit_record('made.again') IS NOT NULL AS recorded;
SELECT tableoid::regclass = :'this_month'::regclass AS in_this_month FROM plinth.audit_entries WHERE action = 'made.again';
SAVEPOINT t;
TRUNCATE :this_month;
ROLLBACK TO t;
DELETE FROM :this_month;
ROLLBACK TO t;
ROLLBACK;
-- Not while this session reads the entries; the entry itself is recorded.
BEGIN;
DROP TABLE :next_month;
SELECT count(plinth.audit_record('while.reading')) > 0 AS recorded FROM plinth.audit_entries WHERE id > :'start';
SELECT plinth.audit_record('then') IS NOT NULL AS recorded;
SELECT to_regclass(:'next_month') IS NOT NULL AS made;
ROLLBACK;

-- Partitions are no members of the extension and carry what a partition needs.
SELECT count(*) FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = :'partition'::regclass AND deptype = 'e';
SELECT relowner::regrole, relrowsecurity FROM pg_class WHERE oid = :'partition'::regclass;
SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = :'partition'::regclass ORDER BY tgname;

-- Who may: without a context an administrator reads all, others nothing.
SET ROLE audit_admin;
SELECT count(*) > 0 AS reads FROM plinth.audit_entries WHERE id > :'start';
SELECT plinth.audit_record('by.admin') IS NOT NULL AS recorded;
SELECT has_table_privilege(:'partition', 'SELECT') AS reads_partition;
INSERT INTO plinth.audit_entries (action, result) VALUES ('forged', 'success');
UPDATE plinth.audit_entries SET action = 'x';
SET ROLE audit_user;
SELECT count(*) AS reads FROM plinth.audit_entries;
SELECT plinth.audit_record('by.user') IS NOT NULL AS recorded;
INSERT INTO plinth.audit_entries (action, result) VALUES ('forged', 'success');
SELECT plinth._audit_partition_create('2001-01-01');
SET ROLE anon;
SELECT plinth.audit_record('by.anon');
SELECT count(*) FROM plinth.audit_entries;
RESET ROLE;
SELECT action, db_role = session_user AS db_role FROM plinth.audit_entries WHERE id > :'start' AND action ~ '^by' ORDER BY id;

DROP ROLE audit_user, audit_admin;
