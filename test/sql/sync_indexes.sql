-- What can be declared as an index, who may, and what is written down.  No MongoDB is needed: nobody listens at port 1.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE sync_indexes_owner;
CREATE ROLE sync_indexes_other;
GRANT USAGE ON SCHEMA plinth TO sync_indexes_owner, sync_indexes_other;
CREATE SCHEMA sync_indexes AUTHORIZATION sync_indexes_owner;
GRANT USAGE ON SCHEMA sync_indexes TO PUBLIC;
SET search_path = sync_indexes;
CREATE SERVER sync_indexes_docs FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri 'mongodb://127.0.0.1:1', database 'sync_indexes');
GRANT USAGE ON FOREIGN SERVER sync_indexes_docs TO sync_indexes_owner, sync_indexes_other;
CREATE USER MAPPING FOR PUBLIC SERVER sync_indexes_docs;

-- How a declaration fails.
CREATE FUNCTION refuses(declaration text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    m text;
    d text;
    h text;
BEGIN
    PERFORM plinth.sync_index('replies', declaration::json);
    RETURN 'not refused';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || m, nullif('  ' || d, '  '), nullif('  hint: ' || h, '  hint: '));
END
$$;
\pset tuples_only on
\pset format unaligned

SET ROLE sync_indexes_owner;
CREATE TABLE replies (id bigint PRIMARY KEY, thread_id int, user_id int, parent_reply_id bigint, body text, tags text[],
    extra jsonb, created_at timestamptz);
SELECT plinth.sync_table('replies', 'sync_indexes_docs', field_names => 'camelCase', casts => '{"created_at": "micros"}') > 0;

-- Names, and what is kept of a declaration.
SELECT plinth.sync_index('replies', '{"keys": {"threadId": 1, "createdAt": -1}}');
SELECT plinth.sync_index('replies', '{"key": {"userId": 1.0}, "unique": false, "when": "after"}');
SELECT plinth.sync_index('replies', '[{"keys": {"threadId": 1, "userId": 1}, "unique": true, "name": "one each"}]');
SELECT plinth.sync_index('replies', '{"keys": {"body": "text", "tags": "text"}, "weights": {"body": 10}, "default_language": "none"}');
SELECT plinth.sync_index('replies', '{"keys": {"createdAt": 1}, "expireAfterSeconds": 3600, "hidden": true}');
SELECT plinth.sync_index('replies', '{"keys": {"extra.kind": 1, "_id": -1}, "sparse": true, "collation": {"locale": "en", "strength": 2}}');
SELECT plinth.sync_index('replies', '{"keys": {"createdAtMicros": 1}, "partialFilterExpression":
    {"createdAt": {"$gt": {"$date": "2026-01-01T00:00:00Z"}}, "$and": [{"parentReplyId": {"$exists": true}}]}}');
SELECT plinth.sync_index('replies', '{"keys": {"$**": 1}, "wildcardProjection": {"body": 0}, "collation": {"locale": "simple"}}');
SELECT plinth.sync_index('replies', '{"keys": {"extra.place": "2dsphere"}}');
SELECT plinth.sync_index('replies', '{"keys": {"userId": "hashed"}}');
SELECT index, build, state, definition FROM plinth.stat_sync_indexes WHERE name = 'replies' ORDER BY index COLLATE "C";

-- What cannot be one.
SELECT refuses(NULL);
SELECT refuses('1');
SELECT refuses('[]');
SELECT refuses('[{"keys": {"body": 1}}, {"keys": {"userId": 1}}]');
SELECT refuses('["body"]');
SELECT refuses('{}');
SELECT refuses('{"keys": {}}');
SELECT refuses('{"keys": ["body"]}');
SELECT refuses('{"keys": "body"}');
SELECT refuses('{"keys": {"body": 1}, "uniq": true}');
SELECT refuses('{"keys": {"body": 1}, "key": {"body": 1}}');
SELECT refuses('{"keys": {"body": 1}, "unique": true, "unique": false}');
SELECT refuses('{"keys": {"body": 1, "body": -1}}');
SELECT refuses('{"keys": {"body": 2}}');
SELECT refuses('{"keys": {"body": "ascending"}}');
SELECT refuses('{"keys": {"body": true}}');
SELECT refuses('{"keys": {"": 1}}');
SELECT refuses('{"keys": {"body.": 1}}');
SELECT refuses('{"keys": {"$body": 1}}');
SELECT refuses('{"keys": {"extra.$each": 1}}');
SELECT split_part(refuses('{"keys": {"body\u0000": 1}}'), E'\n', 1);
SELECT refuses('{"keys": {"_id": 1}}');
SELECT refuses('{"keys": {"thread_id": 1}}');
SELECT refuses('{"keys": {"id": 1}}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": {"missing.x": 1}}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": {}}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": {"$and": {"body": 1}}}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": {"$and": [1]}}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": {"body": 1}, "sparse": true}');
SELECT refuses('{"keys": {"body": 1}, "partialFilterExpression": 1}');
SELECT refuses('{"keys": {"createdAt": 1, "body": 1}, "expireAfterSeconds": 1}');
SELECT refuses('{"keys": {"createdAt": 1}, "expireAfterSeconds": -1}');
SELECT refuses('{"keys": {"createdAt": 1}, "expireAfterSeconds": "1 day"}');
SELECT refuses('{"keys": {"createdAt": 1}, "unique": 1}');
SELECT refuses('{"keys": {"body": "text"}, "unique": true}');
SELECT refuses('{"keys": {"body": "text"}, "weights": {"body": 0}}');
SELECT refuses('{"keys": {"body": "text"}, "weights": {"other": 2}}');
SELECT refuses('{"keys": {"body": "text"}, "collation": {"locale": "en"}}');
SELECT refuses('{"keys": {"body": 1}, "weights": {"body": 2}}');
SELECT refuses('{"keys": {"body": 1}, "collation": {"strength": 2}}');
SELECT refuses('{"keys": {"body": 1}, "wildcardProjection": {"body": 1}}');
SELECT refuses('{"keys": {"body": 1}, "when": "never"}');
SELECT refuses('{"keys": {"body": 1}, "name": ""}');
SELECT refuses('{"keys": {"body": 1}, "name": "_id_"}');
SELECT refuses('{"keys": {"body": 1}, "name": "*"}');
SELECT refuses(format('{"keys": {"body": 1}, "name": %s}', to_json(repeat('x', 121))));
SELECT refuses('{"keys": {"body": 1}, "name": 7}');
SELECT split_part(refuses('{"keys": {"body": {"$date": "yesterday"}}}'), E'\n', 1);
SELECT split_part(refuses(format('{"keys": {"body": 1}, "partialFilterExpression": {"extra": %s}}', repeat('{"a": ', 150) || '1' || repeat('}', 150))), E'\n', 1);

-- Declared anew it is looked at anew; what rolls back was never declared.
BEGIN;
SELECT plinth.sync_index('replies', '{"keys": {"threadId": -1}, "name": "one each"}', rebuild => true);
SELECT definition, rebuild FROM plinth.sync_indexes WHERE name = 'one each';
ROLLBACK;
SELECT definition, rebuild FROM plinth.sync_indexes WHERE name = 'one each';

-- No change of the documents takes a field from under an index.
SELECT plinth.sync_alter('replies', field_names => 'same');
SELECT plinth.sync_alter('replies', casts => '{}');

-- Ending one.
SELECT plinth.sync_index_drop('replies', 'userId_1');
SELECT state FROM plinth.stat_sync_indexes WHERE index = 'userId_1';
SELECT plinth.sync_index('replies', '{"keys": {"userId": 1}}');
SELECT state FROM plinth.stat_sync_indexes WHERE index = 'userId_1';
SELECT plinth.sync_index_drop('replies', 'userId_1', forget => true);
SELECT count(*) FROM plinth.stat_sync_indexes WHERE index = 'userId_1';
\set VERBOSITY terse
SELECT plinth.sync_index_drop('replies', 'userId_1');
SELECT plinth.sync_index_drop('nothing', 'userId_1');
SELECT plinth.sync_index_drop('replies', NULL);
SELECT plinth.sync_index('nothing', '{"keys": {"a": 1}}');

-- Not for others.
SET ROLE sync_indexes_other;
SELECT refuses('{"keys": {"body": 1}}');
SELECT plinth.sync_index_drop('replies', 'one each');
SELECT count(*) FROM plinth.stat_sync_indexes;
UPDATE plinth.sync_indexes SET state = 'ready';

-- They go with the mapping.
SET ROLE sync_indexes_owner;
SELECT plinth.sync_drop('replies');
SELECT count(*) FROM plinth.sync_indexes;
RESET ROLE;

-- What MongoDB lists for what was declared is no difference (NULL); what is one is told.
SELECT declared, coalesce(plinth._mongo_index_difference(declared::json, listed::json), '-') FROM (VALUES
    ('{"keys": {"a": 1, "b": -1}}', '{"v": 2, "key": {"a": 1.0, "b": {"$numberLong": "-1"}}, "name": "a_1_b_-1", "ns": "db.c"}'),
    ('{"keys": {"a": 1, "b": -1}}', '{"v": 2, "key": {"b": -1, "a": 1}, "name": "a_1_b_-1"}'),
    ('{"keys": {"a": 1}, "unique": true}', '{"key": {"a": 1}, "unique": true, "background": true}'),
    ('{"keys": {"a": 1}, "unique": true}', '{"key": {"a": 1}}'),
    ('{"keys": {"a": 1}}', '{"key": {"a": 1}, "sparse": true, "unique": false}'),
    ('{"keys": {"a": 1}, "expireAfterSeconds": 60}', '{"key": {"a": 1}, "expireAfterSeconds": {"$numberLong": "60"}}'),
    ('{"keys": {"a": 1}, "expireAfterSeconds": 60}', '{"key": {"a": 1}, "expireAfterSeconds": 61.0}'),
    ('{"keys": {"a": 1}}', '{"key": {"a": 1}, "expireAfterSeconds": 0}'),
    ('{"keys": {"t": "text", "b": "text"}, "weights": {"t": 5}}', '{"v": 2, "key": {"_fts": "text", "_ftsx": 1}, "weights": {"b": 1, "t": 5}, "default_language": "english", "language_override": "language", "textIndexVersion": 3}'),
    ('{"keys": {"t": "text"}}', '{"key": {"_fts": "text", "_ftsx": 1}, "weights": {"b": 1, "t": 1}, "default_language": "english", "language_override": "language"}'),
    ('{"keys": {"t": "text"}}', '{"key": {"_fts": "text", "_ftsx": 1}, "weights": {"t": 2}, "default_language": "none", "language_override": "language"}'),
    ('{"keys": {"a": 1, "t": "text"}}', '{"key": {"a": 1, "_fts": "text", "_ftsx": 1}, "weights": {"t": 1}}'),
    ('{"keys": {"t": "text"}}', '{"key": {"t": 1}}'),
    ('{"keys": {"t": "text"}}', '{"key": {"t": "text"}}'),
    ('{"keys": {"$**": "text"}}', '{"key": {"_fts": "text", "_ftsx": 1}, "weights": {"$**": 1}}'),
    ('{"keys": {"a": 1}, "collation": {"locale": "en", "strength": 2}}', '{"key": {"a": 1}, "collation": {"locale": "en", "caseLevel": false, "caseFirst": "off", "strength": 2, "numericOrdering": false, "alternate": "non-ignorable", "maxVariable": "punct", "normalization": false, "backwards": false, "version": "57.1"}}'),
    ('{"keys": {"a": 1}, "collation": {"locale": "en"}}', '{"key": {"a": 1}, "collation": {"locale": "en", "caseLevel": false, "strength": 1}}'),
    ('{"keys": {"a": 1}}', '{"key": {"a": 1}, "collation": {"locale": "de"}}'),
    ('{"keys": {"a": 1}, "partialFilterExpression": {"b": {"$gt": 5, "$lt": 9}}}', '{"key": {"a": 1}, "partialFilterExpression": {"b": {"$lt": {"$numberLong": "9"}, "$gt": 5.0}}}'),
    ('{"keys": {"a": 1}, "partialFilterExpression": {"b": {"$gt": 5}}}', '{"key": {"a": 1}, "partialFilterExpression": {"b": {"$gt": 6}}}'),
    ('{"keys": {"a": "2dsphere"}}', '{"v": 2, "key": {"a": "2dsphere"}, "2dsphereIndexVersion": 3}'),
    ('{"keys": {"a": "hashed"}}', '{"key": {"a": 1}}'),
    ('{"keys": {"a": 1}, "hidden": true}', '{"key": {"a": 1}}')) AS v (declared, listed);
SET client_min_messages = error;
DROP SCHEMA sync_indexes CASCADE;
DROP SERVER sync_indexes_docs CASCADE;
REVOKE USAGE ON SCHEMA plinth FROM sync_indexes_owner, sync_indexes_other;
DROP ROLE sync_indexes_owner, sync_indexes_other;
