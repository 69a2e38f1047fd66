-- What roles own here, when they go or give it away.
BEGIN;
CREATE ROLE regress_owned_app;
CREATE ROLE regress_owned_next;
CREATE ROLE regress_owned_reader;
CREATE SCHEMA sync_owned AUTHORIZATION regress_owned_app;
GRANT CREATE, USAGE ON SCHEMA sync_owned TO regress_owned_next;
GRANT USAGE ON SCHEMA plinth TO regress_owned_app, regress_owned_next;
SET LOCAL client_min_messages = warning;
\pset format unaligned
\pset tuples_only

SET ROLE regress_owned_app;
CREATE TABLE sync_owned.people (id int PRIMARY KEY, name text);
SELECT plinth.sync_cascade_rule('person', 'sync_owned.people', 'id');
SELECT plinth.file_bucket_create('owned') IS NOT NULL;
SELECT plinth.file_bucket_grant('owned', 'regress_owned_reader');
SELECT plinth.file_put('owned', 'a', 'bytes') IS NOT NULL;
RESET ROLE;
CREATE VIEW sync_owned.all_of_it AS SELECT 'bucket' AS what, name, owner FROM plinth.file_buckets WHERE name = 'owned'
    UNION ALL SELECT 'grant', role::text, owner FROM plinth.file_grants UNION ALL SELECT 'rule', name, owner FROM plinth.sync_cascade_rules WHERE name = 'person'
    UNION ALL SELECT 'chunks', count(*)::text, 0 FROM plinth.file_chunks;
SELECT * FROM sync_owned.all_of_it;

-- To another role, with the tables.
REASSIGN OWNED BY regress_owned_app TO regress_owned_next;
SELECT * FROM sync_owned.all_of_it;
SET ROLE regress_owned_next;
SELECT plinth.file_get('owned', 'a');
SELECT action, row_count FROM plinth.sync_cascade('person', '1');
RESET ROLE;
-- Who owns nothing goes, and with a role what it was granted.
DROP OWNED BY regress_owned_app, regress_owned_reader;
SELECT * FROM sync_owned.all_of_it;
DROP ROLE regress_owned_app;
-- Not while it owns any of it, though it owns nothing that PostgreSQL knows of.
ALTER TABLE sync_owned.people OWNER TO CURRENT_USER;
REVOKE ALL ON SCHEMA sync_owned, plinth FROM regress_owned_next;
ALTER SCHEMA sync_owned OWNER TO CURRENT_USER;
SAVEPOINT a;
DROP ROLE regress_owned_next;
ROLLBACK TO a;
DROP OWNED BY regress_owned_next;
DROP ROLE regress_owned_next;
SELECT * FROM sync_owned.all_of_it;

-- A bucket that is synced is one that others depend on.
CREATE ROLE regress_owned_app;
GRANT USAGE ON SCHEMA plinth TO regress_owned_app;
CREATE SERVER owned_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'owned');
CREATE USER MAPPING FOR PUBLIC SERVER owned_docs;
GRANT USAGE ON FOREIGN SERVER owned_docs TO regress_owned_app;
SET ROLE regress_owned_app;
SELECT plinth.file_bucket_create('owned') IS NOT NULL, plinth.file_put('owned', 'a', 'bytes') IS NOT NULL;
SELECT plinth.sync_bucket('owned', 'owned_docs') IS NULL;
RESET ROLE;
SAVEPOINT a;
DROP OWNED BY regress_owned_app;
ROLLBACK TO a;
DROP OWNED BY regress_owned_app CASCADE;
SELECT count(*) FROM plinth.sync_mappings WHERE server_name = 'owned_docs';
SELECT * FROM sync_owned.all_of_it;
DROP ROLE regress_owned_app;
ROLLBACK;
