-- What sync_table takes and what it refuses, who may do what.  No MongoDB is needed: nobody listens at port 1.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE sync_api_owner;
CREATE ROLE sync_api_other;
CREATE ROLE sync_api_admin IN ROLE plinth_admin;
GRANT USAGE ON SCHEMA plinth TO sync_api_owner, sync_api_other;
CREATE SCHEMA sync_api AUTHORIZATION sync_api_owner;
GRANT USAGE ON SCHEMA sync_api TO PUBLIC;
SET search_path = sync_api;
CREATE SERVER sync_api_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_api');
CREATE SERVER sync_api_same FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://10.0.0.1,127.0.0.1:1/?replicaSet=r', database 'sync_api');
CREATE SERVER sync_api_else FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_api_else');
CREATE SERVER sync_api_closed FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_api');
GRANT USAGE ON FOREIGN SERVER sync_api_docs, sync_api_same, sync_api_else TO sync_api_owner, sync_api_other;
CREATE USER MAPPING FOR PUBLIC SERVER sync_api_docs;
CREATE USER MAPPING FOR sync_api_owner SERVER sync_api_same;
CREATE USER MAPPING FOR PUBLIC SERVER sync_api_else;
CREATE USER MAPPING FOR PUBLIC SERVER sync_api_closed;
CREATE FOREIGN DATA WRAPPER sync_api_fdw;
CREATE SERVER sync_api_wrong FOREIGN DATA WRAPPER sync_api_fdw;

-- Says how a statement fails.
CREATE FUNCTION sync_api.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m text;
    d text;
    h text;
BEGIN
    EXECUTE statement;
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || m, nullif('  ' || d, '  '), nullif('  hint: ' || h, '  hint: '));
END
$$;
-- The same for sync_table with these arguments.
CREATE FUNCTION sync_api.refuses(arguments text) RETURNS text LANGUAGE sql AS
    $$ SELECT sync_api.refused('SELECT plinth.sync_table(' || arguments || ')') $$;
\pset tuples_only on
\pset format unaligned

SET ROLE sync_api_owner;
CREATE TABLE threads (id text PRIMARY KEY, title text, author_id int, created_at timestamptz, "__odd__name_" int, score numeric);

-- What it writes down.
SELECT plinth.sync_table('threads', 'sync_api_docs', name => 'plain') IS NOT NULL;
SELECT m.name, m.relation, m.owner, m.server_name, m.collection, m.key_columns, m.columns, m.field_names, m.fields, m.casts,
       m.id_cast, m.id_prefix, m.filter, m.on_existing, m.paused, s.blocked, s.prepared, s.adopting, s.resyncing
    FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id WHERE name = 'plain';
SELECT t.kind, t.relation::regclass FROM plinth.sync_tasks t JOIN plinth.sync_mappings m ON m.id = mapping_id WHERE m.name = 'plain';
SELECT plinth.sync_table('threads', 'sync_api_docs', collection => 'short', name => 'chosen', columns => '{title,id,created_at}',
    field_names => 'camelCase', fields => '{"title": "headline"}', casts => '{"created_at": "micros"}',
    filter => 'author_id > 0 AND title <> ''x''::text', on_existing => 'keep', snapshot => false) IS NOT NULL;
SELECT columns, field_names, fields, casts, filter, on_existing, s.blocked
    FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id WHERE name = 'chosen';
SELECT count(*) FROM plinth.sync_tasks t JOIN plinth.sync_mappings m ON m.id = mapping_id WHERE m.name = 'chosen';

-- Names.
SELECT refuses($$'threads', 'sync_api_docs', name => 'plain', collection => 'c2'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => ''$$);
SELECT refuses($$'threads', 'sync_api_docs', name => repeat('x', 201)$$);
SELECT refuses($$NULL, 'sync_api_docs'$$);
SELECT refuses($$'threads', NULL$$);
SELECT refuses($$12345678, 'sync_api_docs'$$);

-- Where to.
SELECT refuses($$'threads', 'sync_api_none'$$);
SELECT refuses($$'threads', 'sync_api_wrong'$$);
SELECT refuses($$'threads', 'sync_api_closed'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => 'short'$$);
SELECT refuses($$'threads', 'sync_api_same', collection => 'short'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => ''$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => 'a$b'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => '.a'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => 'system.users'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => 'plinth_sync'$$);
SELECT refuses($$'threads', 'sync_api_docs', collection => repeat('x', 112)$$);
SELECT plinth.sync_table('threads', 'sync_api_else', collection => 'short', name => 'elsewhere') IS NOT NULL;
SELECT plinth.sync_drop('elsewhere');

-- Columns, fields, casts, _id.
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', columns => '{id,nosuch}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', columns => '{id,ctid}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', columns => '{title,id,title}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', columns => '{title,NULL}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', field_names => 'snake'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', on_existing => 'merge'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '["title"]'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": 1}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"nosuch": "x"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', columns => '{id}', casts => '{"title": "string"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": ""}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": "$set"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": "a.b"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": "_id"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": "score"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', fields => '{"title": "created_atMicros"}', casts => '{"created_at": "micros"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', casts => '{"title": "nosuch"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', casts => '{"author_id": "date"}'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', id_cast => 'nosuch'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', id_cast => 'objectId', id_prefix => 'x_'$$);
CREATE TABLE underscore (_id int PRIMARY KEY, a int);
SELECT refuses($$'underscore', 'sync_api_docs', columns => '{_id,a}'$$);
SELECT refuses($$'underscore', 'sync_api_docs', fields => '{"_id": "_id"}'$$);
SELECT plinth.sync_table('underscore', 'sync_api_docs', fields => '{"_id": "number"}') IS NOT NULL;
SELECT plinth.sync_drop('underscore');
SELECT plinth.sync_table('underscore', 'sync_api_docs') IS NOT NULL;
SELECT plinth.sync_drop('underscore');
CREATE TABLE pair (a int, b text, c text, d int, PRIMARY KEY (a, b));
SELECT refuses($$'pair', 'sync_api_docs', columns => '{c}', fields => '{"a": "x", "b": "x"}'$$);
SELECT refuses($$'pair', 'sync_api_docs', columns => '{c}', fields => '{"d": "x"}'$$);
SELECT plinth.sync_table('pair', 'sync_api_docs', columns => '{c}', fields => '{"a": "x"}') IS NOT NULL;
SELECT plinth.sync_drop('pair');
CREATE TABLE clash (id int PRIMARY KEY, thread_id int, "threadId" int);
SELECT refuses($$'clash', 'sync_api_docs', field_names => 'camelCase'$$);
SELECT plinth.sync_table('clash', 'sync_api_docs', field_names => 'camelCase', fields => '{"threadId": "other", "id": "number"}') IS NOT NULL;
SELECT plinth.sync_drop('clash');

-- Filters.
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => ''$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'title'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'nosuch = 1'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'true; DROP TABLE sync_api.threads'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'true FROM pg_class'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'true, false'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'true UNION SELECT true'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'title IN (SELECT relname FROM pg_class)'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'created_at > now()'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'created_at::date > ''2020-01-01'''$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'random() > 0.5'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'max(author_id) > 1'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'row_number() OVER () > 1'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'generate_series(1, 2) > 1'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'xmin <> ''1'''$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => 'threads IS NOT NULL'$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', filter => '$1'$$);
-- It is kept in a form that no setting changes.
CREATE FUNCTION sync_api.short(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT length($1) < 10';
SET DateStyle = 'SQL, DMY';
SELECT plinth.sync_table('threads', 'sync_api_docs', name => 'filtered', collection => 'filtered',
    filter => 'short(title) AND created_at > ''01/02/2020 00:00:00+00'' -- a comment') IS NOT NULL;
RESET DateStyle;
SET TimeZone = 'UTC';
SELECT filter FROM plinth.sync_mappings WHERE name = 'filtered';
RESET TimeZone;

-- Kinds of tables.
RESET ROLE;
CREATE FOREIGN TABLE sync_api.afar (id int) SERVER sync_api_wrong;
ALTER FOREIGN TABLE sync_api.afar OWNER TO sync_api_owner;
SELECT refuses($$'pg_catalog.pg_class', 'sync_api_docs'$$);
SELECT refuses($$'plinth.sync_mappings', 'sync_api_docs'$$);
SELECT refuses($$'information_schema.sql_features', 'sync_api_docs'$$);
SELECT refused(format($$GRANT TEMPORARY ON DATABASE %I TO sync_api_owner, sync_api_other$$, current_database()));
SET ROLE sync_api_owner;
CREATE VIEW a_view AS SELECT * FROM threads;
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM threads;
CREATE SEQUENCE a_sequence;
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE TEMP TABLE temporary (id int PRIMARY KEY);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child () INHERITS (parent);
CREATE TABLE forced (id int PRIMARY KEY);
ALTER TABLE forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT refuses($$'afar', 'sync_api_docs'$$);
SELECT refuses($$'a_view', 'sync_api_docs'$$);
SELECT refuses($$'a_matview', 'sync_api_docs'$$);
SELECT refuses($$'a_sequence', 'sync_api_docs'$$);
SELECT refuses($$'threads_pkey', 'sync_api_docs'$$);
SELECT refuses($$'unlogged', 'sync_api_docs'$$);
SELECT refuses($$'temporary', 'sync_api_docs'$$);
SELECT refuses($$'parent', 'sync_api_docs'$$);
SELECT refuses($$'forced', 'sync_api_docs'$$);
ALTER TABLE forced NO FORCE ROW LEVEL SECURITY;
SELECT plinth.sync_table('forced', 'sync_api_docs') IS NOT NULL;
SELECT plinth.sync_drop('forced');

-- Keys.
CREATE TABLE keyless (id int, code text NOT NULL);
CREATE UNIQUE INDEX keyless_partial ON keyless (code) WHERE id > 0;
CREATE UNIQUE INDEX keyless_expression ON keyless (lower(code));
CREATE UNIQUE INDEX keyless_nullable ON keyless (id);
SELECT refuses($$'keyless', 'sync_api_docs'$$);
ALTER TABLE keyless REPLICA IDENTITY FULL;
SELECT refuses($$'keyless', 'sync_api_docs'$$);
CREATE UNIQUE INDEX keyless_code ON keyless (code);
SELECT plinth.sync_table('keyless', 'sync_api_docs') IS NOT NULL;
SELECT key_columns FROM plinth.sync_mappings WHERE name = 'keyless';
SELECT plinth.sync_drop('keyless');
ALTER TABLE keyless REPLICA IDENTITY USING INDEX keyless_code;
SELECT plinth.sync_table('keyless', 'sync_api_docs') IS NOT NULL;
SELECT plinth.sync_drop('keyless');
DROP INDEX keyless_code;
SELECT refuses($$'keyless', 'sync_api_docs'$$);
ALTER TABLE keyless REPLICA IDENTITY NOTHING;
SELECT refuses($$'keyless', 'sync_api_docs'$$);
CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
SELECT refuses($$'deferred', 'sync_api_docs'$$);
ALTER TABLE deferred REPLICA IDENTITY FULL;
SELECT plinth.sync_table('deferred', 'sync_api_docs') IS NOT NULL;
SELECT plinth.sync_drop('deferred');
CREATE TABLE nothing (id int PRIMARY KEY);
ALTER TABLE nothing REPLICA IDENTITY NOTHING;
SELECT refuses($$'nothing', 'sync_api_docs'$$);

-- Partitions: what counts is each one's own replica identity.
CREATE TABLE parts (a int, b text, c text, PRIMARY KEY (a, b)) PARTITION BY RANGE (a);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 (c text, b text NOT NULL, a int NOT NULL, UNIQUE (b));
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM (10) TO (20);
SELECT plinth.sync_table('parts', 'sync_api_docs') IS NOT NULL;
SELECT key_columns FROM plinth.sync_mappings WHERE name = 'parts';
ALTER TABLE parts_2 REPLICA IDENTITY NOTHING;
SELECT refuses($$'parts', 'sync_api_docs', name => 'n', collection => 'n'$$);
ALTER TABLE parts_2 REPLICA IDENTITY USING INDEX parts_2_b_key;
SELECT refuses($$'parts', 'sync_api_docs', name => 'n', collection => 'n'$$);
ALTER TABLE parts_2 REPLICA IDENTITY FULL;
SELECT plinth.sync_table('parts', 'sync_api_docs', name => 'n', collection => 'n') IS NOT NULL;
SELECT plinth.sync_drop('n');
CREATE UNLOGGED TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30);
SELECT refuses($$'parts', 'sync_api_docs', name => 'n', collection => 'n'$$);
DROP TABLE parts_3;

-- Pause, resume, resync, retry, adopt.
SELECT plinth.sync_pause('plain'), plinth.sync_pause('plain');
SELECT paused FROM plinth.sync_mappings WHERE name = 'plain';
SELECT plinth.sync_resume('plain');
SELECT paused FROM plinth.sync_mappings WHERE name = 'plain';
SELECT plinth.sync_pause('parts'), plinth.sync_pause('plain');
SELECT plinth.sync_resync('parts', '{"{1,a}","{01,\"b\\\"c d\"}","{1,a}"}');
SELECT key FROM plinth.sync_dirty d JOIN plinth.sync_mappings m ON m.id = mapping_id WHERE name = 'parts' ORDER BY key;
SELECT plinth.sync_resync('plain', '{a,"b c"}');
SELECT key, zombie_stage, suspect FROM plinth.sync_dirty d JOIN plinth.sync_mappings m ON m.id = mapping_id WHERE name = 'plain' ORDER BY key;
SELECT refused($$SELECT plinth.sync_resync('plain', '{NULL}')$$);
SELECT refused($$SELECT plinth.sync_resync('parts', '{a}')$$);
SELECT refused($$SELECT plinth.sync_resync('parts', '{"{1}"}')$$);
SELECT refused($$SELECT plinth.sync_resync('parts', '{"{1,NULL}"}')$$);
SELECT refused($$SELECT plinth.sync_resync('parts', '{"{x,y}"}')$$);
SELECT refused($$SELECT plinth.sync_resync('nosuch')$$);
SELECT refused($$SELECT plinth.sync_resync(NULL)$$);
SELECT refused($$SELECT plinth.sync_drop('nosuch')$$);
SELECT refused($$SELECT plinth.sync_pause(NULL)$$);
SELECT refused($$SELECT plinth.sync_retry(-1)$$);
SELECT refused($$SELECT plinth.sync_retry(NULL)$$);
SELECT refused($$SELECT plinth.sync_adopt('sync_api_none')$$);
SELECT refused($$SELECT plinth.sync_adopt(NULL)$$);
RESET ROLE;
UPDATE plinth.sync_states s SET blocked = 'test', blocked_hint = 'x', blocked_at = now() FROM plinth.sync_mappings m WHERE m.id = mapping_id AND name = 'parts';
INSERT INTO plinth.sync_dead_letters (mapping_id, key, status, code, reason) SELECT id, '{"dead"}', 'too_large', 1, 'test' FROM plinth.sync_mappings WHERE name = 'plain';
INSERT INTO plinth.sync_dirty (mapping_id, key, zombie_stage, due_at) SELECT id, '{"dead"}', 2, 'infinity' FROM plinth.sync_mappings WHERE name = 'plain';
SELECT set_config('sync_api.letter', id::text, false) IS NOT NULL FROM plinth.sync_dead_letters WHERE key = '{"dead"}';
SET ROLE sync_api_owner;
SELECT plinth.sync_retry(current_setting('sync_api.letter')::bigint);
SELECT count(*) FROM plinth.sync_dead_letters WHERE id = current_setting('sync_api.letter')::bigint;
SELECT key, due_at, zombie_stage, suspect FROM plinth.sync_dirty WHERE key = '{"dead"}';
BEGIN;
SELECT plinth.sync_resync('parts');
SELECT s.blocked, s.blocked_hint, s.blocked_at, s.resyncing, array_agg(t.kind || ' ' || t.relation::regclass ORDER BY t.id)
    FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id JOIN plinth.sync_tasks t ON t.mapping_id = m.id
    WHERE name = 'parts' GROUP BY 1, 2, 3, 4;
ROLLBACK;
SELECT s.blocked, s.resyncing FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id WHERE name = 'parts';
BEGIN;
SELECT plinth.sync_adopt('sync_api_docs');
SELECT m.name, s.blocked, s.adopting, s.prepared, s.fence_epoch, count(t.id)
    FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id JOIN plinth.sync_tasks t ON t.mapping_id = m.id
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1;
ROLLBACK;

-- Others see nothing, and may nothing.
SET ROLE sync_api_other;
SELECT count(*) FROM plinth.sync_mappings;
SELECT count(*) FROM plinth.sync_states;
SELECT count(*) FROM plinth.sync_tasks;
SELECT count(*) FROM plinth.sync_dirty;
SELECT count(*) FROM plinth.sync_dead_letters;
SELECT count(*) FROM plinth.sync_foreign_ids;
SELECT refused($$DELETE FROM plinth.sync_mappings$$);
SELECT refused($$INSERT INTO plinth.sync_dirty (mapping_id, key) VALUES (1, '{"1"}')$$);
SELECT refuses($$'threads', 'sync_api_docs', name => 'n', collection => 'n'$$);
SELECT refused($$SELECT plinth.sync_drop('plain')$$);
SELECT refused($$SELECT plinth.sync_pause('plain')$$);
SELECT refused($$SELECT plinth.sync_resume('plain')$$);
SELECT refused($$SELECT plinth.sync_resync('plain')$$);
SELECT refused($$SELECT plinth.sync_resync('plain', '{a}')$$);
SELECT refused($$SELECT plinth.sync_adopt('sync_api_docs')$$);
SELECT refused($$SELECT plinth.adopt()$$);
RESET ROLE;
INSERT INTO plinth.sync_dead_letters (mapping_id, key, status, code, reason) SELECT id, '{"dead"}', 'too_large', 1, 'test' FROM plinth.sync_mappings WHERE name = 'plain';
SELECT set_config('sync_api.letter', id::text, false) IS NOT NULL FROM plinth.sync_dead_letters WHERE key = '{"dead"}';
SET ROLE sync_api_other;
SELECT refused($$SELECT plinth.sync_retry(current_setting('sync_api.letter')::bigint)$$);
-- Owning a table is not enough.
RESET ROLE;
CREATE TABLE sync_api.others (id int PRIMARY KEY);
ALTER TABLE sync_api.others OWNER TO sync_api_other;
SET ROLE sync_api_other;
SELECT refuses($$'others', 'sync_api_closed'$$);
SELECT refuses($$'others', 'sync_api_same'$$);
-- An administrator may do all but make mappings of tables that are not theirs.
SET ROLE sync_api_admin;
SELECT name FROM plinth.sync_mappings ORDER BY name;
SELECT plinth.sync_pause('chosen'), plinth.sync_resume('chosen');
SELECT refuses($$'sync_api.threads', 'sync_api_docs', name => 'n', collection => 'n'$$);
RESET ROLE;
-- A superuser's mapping belongs to the table's owner, who must have rights of their own.
SELECT plinth.sync_table('threads', 'sync_api_docs', name => 'super', collection => 'super') IS NOT NULL;
SELECT owner FROM plinth.sync_mappings WHERE name = 'super';
SELECT refuses($$'threads', 'sync_api_closed', name => 'n', collection => 'n'$$);
-- In a read-only transaction nothing is changed.
BEGIN READ ONLY;
SELECT refused($$SELECT plinth.sync_pause('plain')$$);
ROLLBACK;
-- Waiting for one mapping: which there is, and which is the caller's.
SELECT refused($$SELECT plinth.sync_wait('0', 'nosuch')$$);
SELECT refused($$SELECT plinth.sync_wait('-1s', 'plain')$$);
SET ROLE sync_api_other;
SELECT refused($$SELECT plinth.sync_wait('0', 'plain')$$);
RESET ROLE;
-- A mapping that comes from elsewhere waits to be adopted.
INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)
    VALUES ('restored', 'threads', 'sync_api_owner', 'sync_api_docs', 'restored', '{id}');
SELECT s.blocked, s.blocked_hint FROM plinth.sync_mappings m JOIN plinth.sync_states s ON s.mapping_id = m.id WHERE name = 'restored';
-- The table goes: resync says so, drop ends it.
SET ROLE sync_api_owner;
DROP TABLE parts;
SELECT refused($$SELECT plinth.sync_resync('parts')$$);
SELECT plinth.sync_drop(name) FROM plinth.sync_mappings;
SELECT count(*) FROM plinth.sync_states;
RESET ROLE;
SELECT count(*) FROM plinth.sync_mappings;

RESET search_path;
DROP SCHEMA sync_api CASCADE;
DROP SERVER sync_api_docs, sync_api_same, sync_api_else, sync_api_closed, sync_api_wrong CASCADE;
DROP FOREIGN DATA WRAPPER sync_api_fdw;
DROP OWNED BY sync_api_owner, sync_api_other, sync_api_admin;
DROP ROLE sync_api_owner, sync_api_other, sync_api_admin;
