-- What sync_document takes, writes down and refuses, and who may call it.  No MongoDB is needed: nobody listens at port 1.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE sync_document_owner;
CREATE ROLE sync_document_other;
GRANT USAGE ON SCHEMA plinth TO sync_document_owner, sync_document_other;
CREATE SCHEMA sync_document AUTHORIZATION sync_document_owner;
CREATE SCHEMA sync_document_else;
GRANT USAGE ON SCHEMA sync_document, sync_document_else TO PUBLIC;
SET search_path = sync_document;
CREATE SERVER sync_document_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_document');
GRANT USAGE ON FOREIGN SERVER sync_document_docs TO sync_document_owner, sync_document_other;
CREATE USER MAPPING FOR PUBLIC SERVER sync_document_docs;
\pset tuples_only on
\pset format unaligned

-- Says how a statement fails.
CREATE FUNCTION sync_document.refused(statement text) RETURNS text LANGUAGE plpgsql AS $$
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
-- The same for a query over threads, with more arguments.
CREATE FUNCTION sync_document.refuses(query text, more text DEFAULT '') RETURNS text LANGUAGE sql AS
    $$ SELECT sync_document.refused(format('SELECT plinth.sync_document(''w'', ''sync_document_docs'', ''w'', ''sync_document.threads'', %L%s)', query, more)) $$;

CREATE TABLE sync_document_else.shared (id int PRIMARY KEY, thread_id int, note text);
CREATE TABLE sync_document_else.closed (id int PRIMARY KEY, note text);
CREATE TABLE sync_document_else.hidden (id int PRIMARY KEY, note text);
ALTER TABLE sync_document_else.shared REPLICA IDENTITY FULL;
ALTER TABLE sync_document_else.hidden ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON sync_document_else.shared, sync_document_else.hidden TO sync_document_owner;

SET ROLE sync_document_owner;
CREATE TYPE card AS (title text, n int);
CREATE TABLE threads (id int PRIMARY KEY, title text, author_id int, at timestamptz);
CREATE TABLE replies (id int PRIMARY KEY, thread_id int, body text);
CREATE TABLE votes (id int PRIMARY KEY, reply_id int, value int);
ALTER TABLE replies REPLICA IDENTITY FULL;
ALTER TABLE votes REPLICA IDENTITY FULL;
CREATE VIEW titles AS SELECT id, upper(title) AS title FROM threads;

-- What it writes down: the search_path of now and the view of now.
SELECT plinth.sync_document('cards', 'sync_document_docs', 'cards', 'threads', $$
    SELECT v.id, v.title, (SELECT jsonb_agg(jsonb_build_object('body', r.body, 'at', to_char(t.at, 'YYYY-MM-DD')) ORDER BY r.id) FROM replies r WHERE r.thread_id = v.id) AS replies
    FROM titles v JOIN threads t USING (id) WHERE t.at > '1 Feb 2026'$$, field_names => 'camelCase', casts => '{"title": "string"}') IS NOT NULL;
SELECT m.kind, m.relation, m.owner, m.collection, m.key_columns, m.columns, m.field_names, m.fields, m.casts, m.filter, m.on_existing, m.query
    FROM plinth.sync_mappings m WHERE m.name = 'cards';
SELECT s.source, s.relation, s.columns, s.roots, s.derived FROM plinth.sync_sources s JOIN plinth.sync_mappings m ON m.id = s.mapping_id WHERE m.name = 'cards';
SELECT t.kind, t.relation::regclass FROM plinth.sync_tasks t JOIN plinth.sync_mappings m ON m.id = mapping_id WHERE m.name = 'cards';
SELECT count(*) FROM plinth.sync_sources;
RESET ROLE;
SET ROLE sync_document_other;
SELECT count(*) FROM plinth.sync_sources;
RESET ROLE;
SET ROLE sync_document_owner;
SELECT plinth.sync_drop('cards');
SELECT count(*) FROM plinth.sync_sources;

-- The forms of a document.
SELECT refuses('SELECT id, to_jsonb(t) - ''id'' AS document FROM threads t');
SELECT plinth.sync_drop('w');
SELECT refuses('SELECT id, (title, 1)::card AS document FROM threads t');
SELECT plinth.sync_drop('w');
SELECT refuses('SELECT id, title AS document FROM threads t');
SELECT refuses('SELECT id, to_jsonb(t) AS document FROM threads t', $$, casts => '{"document": "string"}'$$);
SELECT refuses('SELECT id, title, title FROM threads');
SELECT refuses('SELECT id, title AS "a.b" FROM threads');
SELECT refuses('SELECT id, title FROM threads', $$, casts => '{"at": "micros"}'$$);
SELECT refuses('SELECT id, title FROM threads', $$, field_names => 'Snake'$$);

-- What is no query for documents.
SELECT refuses('SELECT id FROM threads; SELECT 1');
SELECT refuses('');
SELECT refuses('SELEC id FROM threads');
SELECT refuses('DELETE FROM threads');
SELECT refuses('SELECT id INTO x FROM threads');
SELECT refuses('SELECT nothing FROM threads');
SELECT refuses('SELECT id FROM nowhere');
SELECT refuses('WITH d AS (DELETE FROM replies RETURNING thread_id) SELECT t.id, t.title FROM threads t JOIN d ON d.thread_id = t.id');
SELECT refuses('SELECT id, title FROM threads FOR UPDATE');
SELECT refuses('WITH r AS (SELECT * FROM replies) SELECT id, title FROM threads');
SELECT refuses('SELECT id, ctid FROM threads');
SELECT refuses('SELECT id, $1 AS x FROM threads');
SELECT refuses('VALUES (1)');
SELECT refuses(NULL);

-- What a document cannot depend on.
SELECT refuses('SELECT id, random() AS r FROM threads');
SELECT refuses('SELECT id, now() - at AS age FROM threads');
SELECT refuses('SELECT id, current_date - at::date AS age FROM threads');
SELECT refuses('SELECT id, age(at) AS age FROM threads');
SELECT refuses('SELECT id, current_setting(''application_name'') AS a FROM threads');
SELECT refuses('SELECT id, pg_relation_filenode(''threads'') AS a FROM threads');
CREATE FUNCTION score(id int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM sync_document.replies r WHERE r.thread_id = id';
CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * n';
CREATE FUNCTION add_score(n bigint, id int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT n + sync_document.score(id)';
CREATE AGGREGATE scores(int) (SFUNC = add_score, STYPE = bigint);
SELECT refuses('SELECT id, score(id) FROM threads');
SELECT refuses('SELECT id, s FROM threads, score(id) s');
SELECT refuses('SELECT t.id, scores(t.id) FROM threads t GROUP BY t.id');
SELECT refuses('SELECT id, twice(id) AS twice, format(''%s'', at) AS f, concat(title, id) AS c, date_trunc(''day'', at) AS d FROM threads');
SELECT plinth.sync_drop('w');

-- Tables that are not in the WAL, not ours to read, or hide rows.
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY, note text);
CREATE TEMP TABLE passing (id int PRIMARY KEY, note text);
CREATE MATERIALIZED VIEW counts AS SELECT thread_id AS id, count(*) AS n FROM replies GROUP BY 1;
CREATE TABLE parents (id int PRIMARY KEY, note text);
CREATE TABLE children () INHERITS (parents);
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN fast x USING (id)');
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN passing x USING (id)');
SELECT refuses('SELECT t.id, x.n FROM threads t JOIN counts x USING (id)');
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN parents x USING (id)');
SELECT refuses('SELECT t.id, x.relname FROM threads t JOIN pg_class x ON x.oid = t.id');
SELECT refuses('SELECT t.id, x.name FROM threads t JOIN plinth.sync_mappings x ON x.id = t.id');
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN sync_document_else.closed x USING (id)');
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN sync_document_else.hidden x USING (id)');
SELECT refuses('SELECT t.id, x.body FROM threads t JOIN replies x TABLESAMPLE system (10) ON x.thread_id = t.id');
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN sync_document_else.shared x ON x.thread_id = t.id');
SELECT s.relation, s.columns, s.roots FROM plinth.sync_sources s;
SELECT plinth.sync_drop('w');

-- via.
SELECT refuses('SELECT t.id, x.value FROM threads t JOIN LATERAL (SELECT sum(v.value) AS value FROM votes v WHERE v.reply_id + 0 = t.id) x ON true');
SELECT refuses('SELECT t.id, x.value FROM threads t JOIN LATERAL (SELECT sum(v.value) AS value FROM votes v WHERE v.reply_id + 0 = t.id) x ON true',
    $$, via => '{"votes": ["reply_id"]}'$$);
SELECT s.relation, s.columns, s.roots, s.derived FROM plinth.sync_sources s;
SELECT plinth.sync_drop('w');
SELECT refuses('SELECT t.id, x.value FROM threads t JOIN LATERAL (SELECT sum(v.value) AS value FROM votes v WHERE v.reply_id + 0 = t.id) x ON true',
    $$, via => '{"votes": "SELECT t.id FROM threads t WHERE t.id = $1.reply_id AND $1.value > 0 AND $1.reply_id > 0", "sync_document.replies": ["thread_id"]}'$$);
SELECT s.relation, s.columns, s.roots, s.derived FROM plinth.sync_sources s ORDER BY s.source;
SELECT plinth.sync_drop('w');
CREATE FUNCTION via(via text) RETURNS text LANGUAGE sql AS
    $$ SELECT sync_document.refuses('SELECT t.id, (SELECT sum(value) FROM votes) AS n FROM threads t', format(', via => %L', via)) $$;
SELECT via('[]');
SELECT via('{"votes": 1}');
SELECT via('{"votes": [1]}');
SELECT via('{"nothing": ["id"]}');
SELECT via('{"votes": ["nothing"]}');
SELECT via('{"votes": ["id", "value"]}');
SELECT via('{"votes": "SELECT title FROM threads"}');
SELECT via('{"votes": "SELECT id FROM threads"}');
SELECT via('{"votes": "SELECT id FROM threads WHERE id = $1.nothing"}');
SELECT via('{"votes": "SELECT id FROM threads WHERE to_jsonb($1) IS NULL"}');
SELECT via('{"votes": "SELECT id FROM threads WHERE id = $2"}');
SELECT via('{"votes": "SELECT r.thread_id FROM replies r WHERE r.id = $1.reply_id"}');
SELECT via('{"votes": "SELECT (random() * $1.id)::int"}');
SELECT via('{"votes": "UPDATE votes SET id = $1.id"}');
ALTER TABLE votes REPLICA IDENTITY DEFAULT;
SELECT via('{"votes": ["reply_id"]}');
SELECT via('{"votes": ["id"]}');
SELECT plinth.sync_drop('w');

-- Who may: the caller owns the root, and what is read is read as its owner.
RESET ROLE;
SET ROLE sync_document_other;
SELECT refused($$SELECT plinth.sync_document('w', 'sync_document_docs', 'w', 'sync_document.threads', 'SELECT id, title FROM sync_document.threads')$$);
RESET ROLE;
SELECT refuses('SELECT t.id, x.note FROM threads t JOIN sync_document_else.closed x USING (id)');

-- Indexes that it would want.
SET client_min_messages = notice;
SELECT plinth.sync_document('w', 'sync_document_docs', 'w', 'threads',
    'SELECT t.id, (SELECT jsonb_agg(r.body ORDER BY r.id) FROM replies r WHERE r.thread_id = t.id) AS replies, p.title AS by FROM threads t LEFT JOIN threads p ON p.id = t.author_id') IS NOT NULL;
SELECT plinth.sync_drop('w');
CREATE INDEX ON replies (thread_id, id);
CREATE INDEX ON threads (author_id);
SELECT plinth.sync_document('w', 'sync_document_docs', 'w', 'threads',
    'SELECT t.id, (SELECT jsonb_agg(r.body ORDER BY r.id) FROM replies r WHERE r.thread_id = t.id) AS replies, p.title AS by FROM threads t LEFT JOIN threads p ON p.id = t.author_id') IS NOT NULL;

-- What would be written: of a query, of a table, of a row that cannot become a document, and by whom it may be asked.
SET client_min_messages = warning;
INSERT INTO threads SELECT g, 'thread ' || g, g - 1, '2026-01-01' FROM generate_series(1, 4) g;
INSERT INTO replies VALUES (1, 1, 'one'), (2, 1, 'two');
SELECT * FROM plinth.sync_preview('w', 2);
SELECT count(*) FROM plinth.sync_preview('w', NULL);
SELECT * FROM plinth.sync_preview('w', 0);
BEGIN;
SELECT plinth.sync_table('threads', 'sync_document_docs', name => 'plain', collection => 'plain', columns => '{title}', filter => '1 / (author_id - 1) < 2') IS NOT NULL;
SELECT * FROM plinth.sync_preview('plain');
ROLLBACK;
SELECT refused($$SELECT * FROM plinth.sync_preview('w', -1)$$);
SELECT refused($$SELECT * FROM plinth.sync_preview('nothing')$$);
SELECT refused($$SELECT * FROM plinth.sync_preview(NULL)$$);
SET ROLE sync_document_other;
SELECT refused($$SELECT * FROM plinth.sync_preview('w')$$);
SET ROLE plinth_admin;
SELECT * FROM plinth.sync_preview('w');
SET ROLE sync_document_owner;
ALTER TABLE replies RENAME body TO text;
SELECT refused($$SELECT * FROM plinth.sync_preview('w')$$);
ALTER TABLE replies RENAME text TO body;
-- A table that loses its key before any worker has seen the mapping.
BEGIN;
CREATE TABLE keyless (id text PRIMARY KEY, title text);
SELECT plinth.sync_document('keyless', 'sync_document_docs', 'keyless', 'keyless', 'SELECT id, title FROM keyless') IS NOT NULL;
SELECT plinth.sync_table('keyless', 'sync_document_docs', name => 'plainless', collection => 'plainless') IS NOT NULL;
ALTER TABLE keyless DROP CONSTRAINT keyless_pkey, ALTER id DROP NOT NULL;
INSERT INTO keyless VALUES (NULL, 'a');
SELECT refused($$SELECT * FROM plinth.sync_preview('keyless')$$);
SELECT refused($$SELECT * FROM plinth.sync_preview('plainless')$$);
ROLLBACK;
-- A view in the place of a table runs whatever code it is made of.
CREATE FUNCTION says() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'called as %', current_user; RETURN 'x'; END $$;
ALTER TABLE replies RENAME TO replies_before;
CREATE VIEW replies AS SELECT id, thread_id, says() AS body FROM replies_before;
SELECT refused($$SELECT * FROM plinth.sync_preview('w')$$);
DROP VIEW replies;
DROP FUNCTION says();
ALTER TABLE replies_before RENAME TO replies;
BEGIN READ ONLY;
SELECT count(*) FROM plinth.sync_preview('w');
COMMIT;

-- Nothing of it stays after ROLLBACK, nor after DROP.
BEGIN;
SELECT plinth.sync_document('rolled', 'sync_document_docs', 'rolled', 'threads', 'SELECT id, title FROM threads') IS NOT NULL;
ROLLBACK;
SELECT name FROM plinth.sync_mappings;
SELECT plinth.sync_drop('w');
SELECT count(*) FROM plinth.sync_sources;
