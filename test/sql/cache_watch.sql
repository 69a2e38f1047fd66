-- Tables whose changes invalidate: keys, tags, all; partitions, TRUNCATE, rights.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
CREATE ROLE cache_watcher NOLOGIN;
CREATE ROLE cache_writer NOLOGIN;
GRANT USAGE ON SCHEMA plinth TO cache_watcher;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO cache_watcher', current_database()); END $$;
CREATE SCHEMA cache_app AUTHORIZATION cache_watcher;
GRANT USAGE ON SCHEMA cache_app TO cache_writer;
SET ROLE cache_watcher;
SET search_path = cache_app;
CREATE TABLE posts (id int PRIMARY KEY, author text, title text);
CREATE TABLE parted (id int, k text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_2 (k text, dropped int, id int);
ALTER TABLE parted_2 DROP COLUMN dropped;
ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES IN (2);
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA cache_app TO cache_writer;
CREATE FUNCTION evil(int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
SELECT plinth.cache_create('w_key', per_user => false), plinth.cache_create('w_tag', per_user => false, durable => true),
    plinth.cache_create('w_all', per_user => false), plinth.cache_create('w_user', roles => '{cache_writer}');
SELECT plinth.cache_watch('w_key', 'posts', $$'post:' || id$$), plinth.cache_watch('w_tag', 'posts', tag_expression => 'author'), plinth.cache_watch('w_all', 'posts');
SELECT plinth.cache_watch('w_key', 'parted', 'k');
SELECT c.name, w.relation, w.key_expression, w.tag_expression FROM plinth.cache_watches w JOIN plinth.caches c ON c.id = w.cache_id ORDER BY w.id;
INSERT INTO posts VALUES (1, 'ann', 'a'), (2, 'ben', 'b');
-- What is set while a transaction of somebody else goes on, such as a worker's, may be refused: once more then.
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        PERFORM plinth.cache_set('w_key', 'post:1', '1'), plinth.cache_set('w_key', 'post:2', '1'), plinth.cache_set('w_key', 'post:3', '1'), plinth.cache_set('w_all', 'x', '1'),
            plinth.cache_set('w_tag', 'of:ann', '1', tags => '{ann}'), plinth.cache_set('w_tag', 'of:ben', '1', tags => '{ben}'), plinth.cache_set('w_key', 'p1', '1'), plinth.cache_set('w_key', 'p2', '1');
        COMMIT;
        EXIT WHEN NOT EXISTS (SELECT FROM unnest('{post:1,post:2,post:3,p1,p2}'::text[]) AS k WHERE plinth.cache_get('w_key', k) IS NULL) AND plinth.cache_get('w_all', 'x') IS NOT NULL;
        PERFORM pg_catalog.pg_sleep(0.01);
    END LOOP;
END $$;
CREATE VIEW held AS SELECT string_agg(cache || ' ' || key, ', ' ORDER BY cache, key) AS held FROM (VALUES ('w_key', 'post:1'), ('w_key', 'post:2'), ('w_key', 'post:3'),
    ('w_all', 'x'), ('w_tag', 'of:ann'), ('w_tag', 'of:ben'), ('w_key', 'p1'), ('w_key', 'p2')) v (cache, key) WHERE plinth.cache_get(cache, key) IS NOT NULL;

CALL fill(); TABLE held;
-- Both the old row and the new one; by whoever writes; in the transaction at once.
SET ROLE cache_writer;
BEGIN;
UPDATE posts SET id = 3, author = 'cem' WHERE id = 1;
SET LOCAL ROLE cache_watcher; TABLE held; SET LOCAL ROLE cache_writer;
ROLLBACK;
SET ROLE cache_watcher; TABLE held; SET ROLE cache_writer;
UPDATE posts SET id = 3, author = 'cem' WHERE id = 1;
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
DELETE FROM posts WHERE id = 2;
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
INSERT INTO posts VALUES (1, NULL, 'no author');
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
-- An UPDATE that is taken back to a savepoint, and one of a replica's session.
BEGIN; SAVEPOINT s; UPDATE posts SET title = 'x'; ROLLBACK TO s; COMMIT;
SET ROLE cache_watcher; TABLE held; RESET ROLE;
BEGIN; SET LOCAL session_replication_role = replica; UPDATE posts SET title = 'x' WHERE id = 3; COMMIT;
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
-- Partitions, whose columns lie otherwise, by the parent and by themselves.
INSERT INTO parted VALUES (1, 'p1');
SET ROLE cache_watcher; TABLE held; SET ROLE cache_writer;
INSERT INTO parted_2 (id, k) VALUES (2, 'p2');
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
UPDATE parted SET id = 2 WHERE id = 1;
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
TRUNCATE parted_2;
SET ROLE cache_watcher; TABLE held; CALL fill(); SET ROLE cache_writer;
TRUNCATE posts;
SET ROLE cache_watcher; TABLE held;
-- A cache that is per user: the key, for everybody.
SELECT plinth.cache_watch('w_user', 'posts', 'title');
INSERT INTO posts VALUES (5, 'ann', 'title');
-- The writer's search_path does not matter, nor what he put there.
RESET ROLE;
CREATE SCHEMA cache_evil AUTHORIZATION cache_writer;
SET ROLE cache_writer;
CREATE FUNCTION cache_evil.cat(text, int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'evil' $$;
CREATE OPERATOR cache_evil.|| (LEFTARG = text, RIGHTARG = int, FUNCTION = cache_evil.cat);
SET ROLE cache_watcher; CALL fill(); SET ROLE cache_writer;
\c -
SET ROLE cache_writer;
SET search_path = cache_evil, pg_catalog;
INSERT INTO cache_app.posts VALUES (2, 'x', 'y');
SET search_path = cache_app;
SET client_min_messages = warning;
SET ROLE cache_watcher; TABLE held;

-- What cannot be watched.
SELECT plinth.cache_watch('w_key', 'posts', 'evil(id)');
SELECT plinth.cache_watch('w_key', 'posts', 'now()');
SELECT plinth.cache_watch('w_key', 'posts', 'random()');
SELECT plinth.cache_watch('w_key', 'posts', '(SELECT title)');
SELECT plinth.cache_watch('w_key', 'posts', 'ctid');
SELECT plinth.cache_watch('w_key', 'posts', 'posts');
SELECT plinth.cache_watch('w_key', 'posts', 'missing');
SELECT plinth.cache_watch('w_key', 'posts', 'title FROM posts');
SELECT plinth.cache_watch('w_key', 'posts', 'title; DROP TABLE posts');
SELECT plinth.cache_watch('w_key', 'posts', '');
SELECT plinth.cache_watch('w_key', 'posts', 'id', 'id');
SELECT plinth.cache_watch('w_key', 'held');
SELECT plinth.cache_watch('w_key', 'parted_1');
CREATE TEMP TABLE passing (id int);
SELECT plinth.cache_watch('w_key', 'passing');
SELECT plinth.cache_watch('w_key', NULL);
SELECT plinth.cache_watch('no such', 'posts');
SELECT plinth.cache_watch('w_key', 'pg_catalog.pg_class');
SELECT plinth.cache_watch('w_key', 'plinth.caches');
RESET ROLE;
CREATE TABLE of_others (id int);
SET ROLE cache_watcher;
SELECT plinth.cache_watch('w_key', 'of_others');
-- A trigger made by hand does nothing but for a watch of its own table.
CREATE TABLE forged (id int);
DO $$ BEGIN
    EXECUTE format('CREATE TRIGGER forged AFTER INSERT ON forged FOR EACH ROW EXECUTE FUNCTION plinth._cache_watched(%L)',
        (SELECT min(id) FROM plinth.cache_watches));
END $$;
CALL fill(); INSERT INTO forged VALUES (1); TABLE held;
DROP TABLE forged;

-- A table that is altered after it was watched, and partitions that come and go.
CREATE TABLE altered (id int, gone text, name varchar(10));
SELECT plinth.cache_create('w_alter', per_user => false), plinth.cache_watch('w_alter', 'altered', $$'a' || id || name$$);
CREATE PROCEDURE fill_alter() LANGUAGE plpgsql AS $$ BEGIN LOOP PERFORM plinth.cache_set('w_alter', k, '1') FROM unnest('{a1x,p1,p3}'::text[]) k; COMMIT; EXIT WHEN (SELECT count(plinth.cache_get('w_alter', k)) FROM unnest('{a1x,p1,p3}'::text[]) k) = 3; END LOOP; END $$;
CREATE VIEW held_alter AS SELECT string_agg(key, ' ' ORDER BY key) AS held FROM (VALUES ('a1x'), ('p1'), ('p3')) v (key) WHERE plinth.cache_get('w_alter', key) IS NOT NULL;
INSERT INTO altered VALUES (1, 'g', 'x');
ALTER TABLE altered DROP COLUMN gone, ADD COLUMN late int DEFAULT 7;
CALL fill_alter(); UPDATE altered SET late = 8; TABLE held_alter;
ALTER TABLE altered ALTER COLUMN name TYPE text;
CALL fill_alter(); UPDATE altered SET late = 9; TABLE held_alter;
ALTER TABLE altered RENAME TO renamed;
CALL fill_alter(); UPDATE renamed SET late = 10; TABLE held_alter;
ALTER TABLE renamed RENAME COLUMN name TO title;
UPDATE renamed SET late = 11;
SELECT plinth.cache_unwatch('w_alter', 'renamed'), plinth.cache_watch('w_alter', 'renamed', $$'a' || id || title$$);
CALL fill_alter(); UPDATE renamed SET late = 11; TABLE held_alter;
SELECT plinth.cache_watch('w_alter', 'parted', 'k');
CREATE TABLE parted_3 (id int, k text);
INSERT INTO parted_3 VALUES (3, 'p3');
CALL fill_alter();
ALTER TABLE parted ATTACH PARTITION parted_3 FOR VALUES IN (3);
TABLE held_alter;
UPDATE parted_3 SET k = 'p1'; TABLE held_alter;
CALL fill_alter(); ALTER TABLE parted DETACH PARTITION parted_3; UPDATE parted_3 SET k = 'p3'; TABLE held_alter;
CALL fill_alter(); TRUNCATE parted; TABLE held_alter;
SELECT plinth.cache_drop('w_alter');

-- Ended: no trigger is left, and none stops a table from being used.
SELECT plinth.cache_unwatch('w_key', 'posts'), plinth.cache_unwatch('w_key', 'posts');
SELECT tgname ~ 'truncate' AS truncate, count(*) FROM pg_trigger WHERE tgrelid = 'posts'::regclass GROUP BY 1 ORDER BY 1;
CALL fill(); UPDATE posts SET title = 'z'; TABLE held;
SELECT plinth.cache_drop('w_tag'), plinth.cache_drop('w_all'), plinth.cache_drop('w_user');
SELECT count(*) FROM pg_trigger WHERE tgfoid = 'plinth._cache_watched'::regproc;
RESET ROLE;
-- A definition that is deleted by hand leaves triggers that do nothing.
DELETE FROM plinth.caches WHERE name = 'w_key';
INSERT INTO parted VALUES (1, 'p1');
TRUNCATE parted;
SELECT count(*) FROM plinth.cache_watches;
RESET search_path;
DROP TABLE of_others;
DROP SCHEMA cache_app, cache_evil CASCADE;
DROP OWNED BY cache_watcher, cache_writer;
DROP ROLE cache_watcher, cache_writer;
