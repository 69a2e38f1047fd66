-- What sync_append takes and refuses, and what it writes down.  No MongoDB is needed: nobody listens at port 1.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE sync_append_owner;
GRANT USAGE ON SCHEMA plinth TO sync_append_owner;
CREATE SCHEMA sync_append AUTHORIZATION sync_append_owner;
SET search_path = sync_append;
CREATE SERVER sync_append_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_append');
GRANT USAGE ON FOREIGN SERVER sync_append_docs TO sync_append_owner;
CREATE USER MAPPING FOR PUBLIC SERVER sync_append_docs;
SET ROLE sync_append_owner;
CREATE FUNCTION refuses(arguments text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m text;
    h text;
BEGIN
    EXECUTE 'SELECT plinth.sync_append(''logs'', ''sync_append_docs'', ' || arguments || ')';
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || m, nullif('  hint: ' || h, '  hint: '));
END
$$;
\pset tuples_only on
\pset format unaligned
CREATE TABLE logs (id bigint PRIMARY KEY, level text, logged_at timestamptz, day date, epoch bigint);

SELECT plinth.sync_append('logs', 'sync_append_docs', field_names => 'camelCase', expire_field => 'loggedAt', expire_after => '1 day 1 hour 1.5 s',
    filter => 'level <> ''debug''', on_existing => 'keep', indexes => '{"keys": {"level": 1}}') > 0;
SELECT name, kind, on_existing, capped_bytes, capped_documents FROM plinth.sync_mappings;
SELECT index, definition FROM plinth.stat_sync_indexes ORDER BY index;
SELECT kind FROM plinth.sync_tasks;
-- Only the rows that are missing: nothing is swept away.
SELECT plinth.sync_resync('logs');
SELECT kind FROM plinth.sync_tasks;
SELECT plinth.sync_drop('logs');
SELECT plinth.sync_append('logs', 'sync_append_docs', capped_bytes => 1048576, capped_documents => 1000, snapshot => false) > 0;
SELECT capped_bytes, capped_documents FROM plinth.sync_mappings;
SELECT count(*) FROM plinth.sync_tasks;
SELECT plinth.sync_drop('logs');
SELECT plinth.sync_append('logs', 'sync_append_docs', expire_field => 'seen', expire_after => '1 s', fields => '{"day": "seen"}') > 0;
SELECT index FROM plinth.stat_sync_indexes;
SELECT plinth.sync_drop('logs');

SELECT refuses($$on_existing => 'replace'$$);
SELECT refuses($$on_existing => 'other'$$);
SELECT refuses($$expire_field => 'logged_at'$$);
SELECT refuses($$expire_after => '1 day'$$);
SELECT refuses($$expire_field => 'loggedAt', expire_after => '1 day'$$);
SELECT refuses($$expire_field => 'epoch', expire_after => '1 day'$$);
SELECT refuses($$expire_field => 'logged_at', casts => '{"logged_at": "string"}', expire_after => '1 day'$$);
SELECT refuses($$expire_field => 'logged_at', expire_after => '1 month'$$);
SELECT refuses($$expire_field => 'logged_at', expire_after => '0'$$);
SELECT refuses($$expire_field => 'logged_at', expire_after => '1000000 days'$$);
SELECT refuses($$expire_field => 'logged_at', expire_after => '1 day', capped_bytes => 4096$$);
SELECT refuses($$capped_documents => 10$$);
SELECT refuses($$capped_bytes => 0$$);
SELECT refuses($$capped_bytes => 4096, capped_documents => -1$$);
SELECT refuses($$indexes => '{"keys": {"nothing": 1}}'$$);
SELECT count(*) FROM plinth.sync_mappings;

RESET ROLE;
SET client_min_messages = error;
DROP SCHEMA sync_append CASCADE;
DROP SERVER sync_append_docs CASCADE;
REVOKE USAGE ON SCHEMA plinth FROM sync_append_owner;
DROP ROLE sync_append_owner;
