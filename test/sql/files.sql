-- Files in chunks: whole, piece by piece, by ranges; versions; whose they are.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE files_app;
CREATE ROLE files_member IN ROLE files_app;
CREATE ROLE files_guest;
GRANT USAGE ON SCHEMA plinth TO files_app, files_guest;

SET ROLE files_app;
SELECT plinth.file_bucket_create('docs') > 0 AS created;
SELECT plinth.file_bucket_create('docs');
SELECT plinth.file_bucket_create('');
SELECT plinth.file_bucket_create(NULL);
SELECT plinth.file_put('docs', 'a', 'hello') ~ '^[0-9a-f]{24}$' AS put;
SELECT plinth.file_get('docs', 'a');
SELECT plinth.file_get('docs', 'none') IS NULL AS none;
SELECT length, chunk_size, content_type, metadata FROM plinth.file_info('docs', 'a');
SELECT * FROM plinth.file_info('docs', 'none');

-- Edges of chunks, and ranges over them.
CREATE TEMP TABLE sizes AS SELECT unnest(ARRAY[0, 1, 261119, 261120, 261121, 522240, 600000]) AS size;
CREATE FUNCTION pg_temp.bytes(size int) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$ SELECT substr(convert_to(repeat('0123456789abc', size / 13 + 1), 'UTF8'), 1, size) $$;
SELECT count(plinth.file_put('docs', 'f' || size, pg_temp.bytes(size))) FROM sizes;
SELECT size, plinth.file_get('docs', 'f' || size) = pg_temp.bytes(size) AS same,
       (SELECT length FROM plinth.file_info('docs', 'f' || size)) AS length FROM sizes ORDER BY size;
SELECT bool_and(plinth.file_get('docs', 'f600000', o, n) = substr(pg_temp.bytes(600000), o + 1, n)) AS ranges
  FROM unnest(ARRAY[0, 1, 261119, 261120, 261121, 599999, 600000, 700000]) AS o, unnest(ARRAY[0, 1, 2, 261120, 300000, 700000]) AS n;
SELECT plinth.file_get('docs', 'a', 2), plinth.file_get('docs', 'a', NULL, 2), plinth.file_get('docs', 'a', -1);
SELECT plinth.file_get('docs', 'a', 0, -1);

-- Piece by piece.
CREATE TEMP TABLE up AS SELECT plinth.file_put('docs', 'pieces', pg_temp.bytes(5), 'text/plain', '{"k": [1]}', finish => false) AS id;
SELECT plinth.file_get('docs', 'pieces') IS NULL AS unseen;
SELECT plinth.file_append(id, substr(pg_temp.bytes(1000000), 6, 261115), at_offset => 5) FROM up;
SELECT plinth.file_append(id, substr(pg_temp.bytes(1000000), 261121, 1)) FROM up;
\set VERBOSITY sqlstate
SELECT plinth.file_append(id, 'again', at_offset => 261120) FROM up;
\set VERBOSITY terse
SELECT plinth.file_append(id, substr(pg_temp.bytes(1000000), 261122, 600000)) FROM up;
SELECT plinth.file_append(id, NULL) FROM up;
SELECT plinth.file_append(id, substr(pg_temp.bytes(1000000), 861122), true) FROM up;
SELECT plinth.file_get('docs', 'pieces') = pg_temp.bytes(1000000) AS same;
SELECT length, content_type, metadata FROM plinth.file_info('docs', 'pieces');
\set VERBOSITY sqlstate
SELECT plinth.file_append((SELECT id FROM up), 'more') IS NULL;
\set VERBOSITY terse
SELECT plinth.file_put('docs', 'x', NULL);
SELECT plinth.file_append('nothing', 'x');

-- Versions.
SELECT id AS first FROM plinth.file_info('docs', 'a') \gset
SELECT plinth.file_put('docs', 'a', 'second') AS second \gset
SELECT plinth.file_get('docs', 'a') = 'second' AS newest, plinth.file_get('docs', 'a', version => :'first') = 'hello' AS older,
       plinth.file_get('docs', 'a', version => 'none') IS NULL AS none;
SELECT state, length FROM plinth.file_versions WHERE filename = 'a' ORDER BY uploaded_at;
BEGIN;
SELECT plinth.file_put('docs', 'a', 'third') IS NOT NULL AS put;
SELECT plinth.file_put('docs', 'a', 'fourth') IS NOT NULL AS put;
SELECT count(DISTINCT uploaded_at) FROM plinth.file_versions WHERE filename = 'a';
ROLLBACK;
SELECT plinth.file_get('docs', 'a') = 'second' AS "what rolls back was never there";
BEGIN;
SAVEPOINT s;
SELECT plinth.file_delete('docs', 'a');
SELECT plinth.file_get('docs', 'a') IS NULL AS gone;
ROLLBACK TO s;
SELECT plinth.file_get('docs', 'a') = 'second' AS back;
COMMIT;
SELECT plinth.file_delete('docs', 'a'), plinth.file_delete('docs', 'none');
SELECT plinth.file_get('docs', 'a') IS NULL AND plinth.file_get('docs', 'a', version => :'second') IS NULL AS gone;
SELECT plinth.file_delete('docs', 'a') AS twice;
SELECT plinth.file_put('docs', 'a', 'anew') IS NOT NULL AS put;

-- Wrong arguments.
SELECT plinth.file_put('docs', '', 'x');
SELECT plinth.file_put('docs', repeat('x', 1001), 'x');
SELECT plinth.file_put('docs', 'x', 'x', '');
SELECT plinth.file_put('docs', 'x', 'x', 'text/plain', '[1]');
SELECT plinth.file_put('nowhere', 'x', 'x');
SELECT plinth.file_put(NULL, 'x', 'x');
SELECT plinth.file_get('docs', NULL);
BEGIN READ ONLY;
SELECT plinth.file_get('docs', 'a');
SELECT plinth.file_put('docs', 'a', 'x');
ROLLBACK;

-- Whose they are.
SET ROLE files_guest;
SELECT plinth.file_get('docs', 'a');
SELECT plinth.file_put('docs', 'a', 'x');
SELECT plinth.file_delete('docs', 'a');
SELECT plinth.file_bucket_drop('docs');
SELECT plinth.file_bucket_grant('docs', 'files_guest');
SELECT plinth.sync_bucket('docs', 'nowhere');
SELECT plinth.file_append((SELECT id FROM up), 'x');
SELECT count(*) FROM plinth.file_versions;
SELECT count(*) FROM plinth.file_buckets;
SELECT count(*) FROM plinth.files;
SELECT count(*) FROM plinth.file_chunks;
SELECT count(*) FROM plinth.file_uploads;
SELECT * FROM plinth.file_info('docs', 'a');
RESET ROLE;
GRANT SELECT ON up TO files_guest, files_app;
SET ROLE files_app;
UPDATE up SET id = plinth.file_put('docs', 'theirs', NULL, finish => false);
SELECT plinth.file_bucket_grant('docs', 'files_guest');
SET ROLE files_guest;
SELECT plinth.file_get('docs', 'a');
SELECT count(*) > 0 AS sees FROM plinth.file_versions;
SELECT plinth.file_put('docs', 'a', 'x');
SELECT plinth.file_append((SELECT id FROM up), 'x');
SET ROLE files_member;
SELECT plinth.file_put('docs', 'a', 'by a member') IS NOT NULL AS put;
SELECT plinth.file_bucket_grant('docs', 'files_guest', true);
SET ROLE files_guest;
SELECT plinth.file_put('docs', 'a', 'by a guest') IS NOT NULL AS put;
SELECT plinth.file_bucket_drop('docs');
SET ROLE files_app;
SELECT plinth.file_bucket_revoke('docs', 'files_guest');
SET ROLE files_guest;
SELECT plinth.file_get('docs', 'a');
SELECT count(*) FROM plinth.files;
SET ROLE plinth_admin;
SELECT plinth.file_get('docs', 'a');

-- Users' own, by the request context.
SET ROLE files_app;
SELECT plinth.file_bucket_create('mine', per_user => true) > 0 AS created;
SELECT plinth.file_bucket_grant('mine', 'authenticated', true);
-- A role of requests owns none: it is every visitor's.
BEGIN;
SET LOCAL ROLE anon;
SELECT plinth.file_bucket_create('everybodys');
ROLLBACK;
RESET ROLE;
SELECT user_id AS ann FROM plinth.sign_up('ann@files.test', 'correct horse') \gset
SELECT user_id AS bob FROM plinth.sign_up('bob@files.test', 'battery staple') \gset
SELECT token AS ann_token FROM plinth.sign_in('ann@files.test', 'correct horse') \gset
SELECT token AS bob_token FROM plinth.sign_in('bob@files.test', 'battery staple') \gset
BEGIN;
SET LOCAL ROLE authenticated;
SELECT plinth.file_put('mine', 'avatar', 'nobody');
ROLLBACK;
BEGIN;
SELECT plinth.context_begin(:'ann_token') IS NOT NULL AS begun;
SET LOCAL ROLE authenticated;
SELECT plinth.file_put('mine', 'avatar', 'ann') AS ann_file \gset
SELECT plinth.file_get('mine', 'avatar') = 'ann' AS own;
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'bob_token') IS NOT NULL AS begun;
SET LOCAL ROLE authenticated;
SELECT plinth.file_get('mine', 'avatar') IS NULL AS none, plinth.file_get('mine', 'avatar', version => :'ann_file') IS NULL AS "nor by its id",
       plinth.file_delete('mine', 'avatar') AS deleted, (SELECT count(*) FROM plinth.files) AS seen;
SELECT plinth.file_put('mine', 'avatar', 'bob') IS NOT NULL AS put;
SELECT plinth.file_get('mine', 'avatar') = 'bob' AS own, (SELECT count(*) FROM plinth.files) AS seen;
COMMIT;
SET ROLE files_app;
SELECT plinth.file_get('mine', 'avatar') IS NULL AS "of no user", plinth.file_get('mine', 'avatar', version => :'ann_file') = 'ann' AS "by its id";
RESET ROLE;
SELECT gridfs_name = user_id || '/avatar' AS named FROM plinth.files WHERE id = :'ann_file';

-- What nobody reads any more goes with the next write.
SELECT count(*) > 0 AS there FROM plinth.files WHERE hidden_at IS NOT NULL OR replaced_at IS NOT NULL;
UPDATE plinth.files SET hidden_at = hidden_at - interval '1 day', replaced_at = replaced_at - interval '1 day';
UPDATE plinth.file_uploads SET touched_at = touched_at - interval '2 days';
SET ROLE files_app;
SELECT plinth.file_delete('docs', 'none') FROM generate_series(1, 3);
RESET ROLE;
SELECT count(*) AS left_over FROM plinth.files WHERE hidden_at IS NOT NULL OR replaced_at IS NOT NULL;
SELECT count(*) AS uploads FROM plinth.file_uploads;
SELECT count(*) AS chunks_of_nothing FROM plinth.file_chunks AS c WHERE NOT EXISTS (SELECT FROM plinth.files AS f WHERE f.id = c.files_id);

-- A column that is copied may be altered: what it holds then is never taken for bytes, nor a key that is NULL for a name.
CREATE SERVER files_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'files');
CREATE USER MAPPING FOR PUBLIC SERVER files_docs;
GRANT USAGE ON FOREIGN SERVER files_docs TO files_app;
CREATE SCHEMA files_altered AUTHORIZATION files_app;
SET ROLE files_app;
CREATE TABLE files_altered.people (id int PRIMARY KEY, photo bytea);
INSERT INTO files_altered.people VALUES (1, 'one');
SELECT plinth.sync_file('files_altered.people', 'photo', 'files_docs') > 0 AS synced;
ALTER TABLE files_altered.people ALTER photo TYPE bigint USING 0;
INSERT INTO files_altered.people VALUES (2, 0);
UPDATE files_altered.people SET photo = 4096;
ALTER TABLE files_altered.people DROP photo, ADD photo bytea, DROP CONSTRAINT people_pkey, ALTER id DROP NOT NULL;
INSERT INTO files_altered.people VALUES (NULL, 'nobody');
INSERT INTO files_altered.people VALUES (3, 'three');
SELECT filename, state FROM plinth.file_versions WHERE bucket = 'people.photo' ORDER BY filename;
-- Nor does who had the table before read what is written now.
RESET ROLE;
GRANT CREATE, USAGE ON SCHEMA files_altered TO files_guest;
ALTER TABLE files_altered.people OWNER TO files_guest;
INSERT INTO files_altered.people VALUES (5, 'of another owner');
ALTER TABLE files_altered.people OWNER TO files_app;
SET ROLE files_app;
-- A trigger after any other statement than TRUNCATE takes nothing away.
CREATE TRIGGER another AFTER INSERT ON files_altered.people FOR EACH STATEMENT EXECUTE FUNCTION plinth._file_column_changed();
INSERT INTO files_altered.people VALUES (4, 'four');
SELECT count(*) FROM plinth.file_versions WHERE bucket = 'people.photo' AND state = 'current';
TRUNCATE files_altered.people;
SELECT count(*) FROM plinth.file_versions WHERE bucket = 'people.photo' AND state = 'current';
-- Documents are data: an administrator reads them as little as the bytes.
SET ROLE plinth_admin;
SELECT count(*) FROM plinth.sync_preview('people.photo.chunks');
SET ROLE files_app;
SELECT count(*) FROM plinth.sync_preview('people.photo.chunks');
SELECT plinth.sync_drop('people.photo.files');
SELECT plinth.file_bucket_drop('people.photo');
RESET ROLE;
DROP SCHEMA files_altered CASCADE;
DROP SERVER files_docs CASCADE;

SET ROLE files_app;
SELECT plinth.file_bucket_drop('docs'), plinth.file_bucket_drop('mine');
SELECT plinth.file_bucket_drop('docs');
RESET ROLE;
SELECT (SELECT count(*) FROM plinth.files) AS files, (SELECT count(*) FROM plinth.file_chunks) AS chunks, (SELECT count(*) FROM plinth.file_grants) AS grants;
DROP OWNED BY files_app, files_guest, files_member;
DROP ROLE files_member, files_app, files_guest;
