-- Caches with a table: what stands in it, purging, changes by hand; and cache_fetch, warming.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
SELECT plinth.cache_create('durable', per_user => false, durable => true), plinth.cache_create('overflow', per_user => false, overflow => true);
CREATE VIEW cache_rows AS SELECT c.name, e.key, e.kind, convert_from(substr(e.value, 1, 20), 'LATIN1') AS value FROM plinth.caches c
    JOIN (SELECT * FROM plinth.cache_durable_entries UNION ALL SELECT * FROM plinth.cache_entries) e ON e.cache_id = c.id WHERE e.kind <> 1;

SELECT c, plinth.cache_set_text(c, 'a', 'one', tags => '{t}'), plinth.cache_set_bytea(c, 'b', '\x01'), plinth.cache_set(c, 'none', NULL), plinth.cache_set_text(c, 'gone', 'x')
    FROM unnest(ARRAY['durable', 'overflow']) c;
-- Read by a session that finds nothing in memory, and by one that does.
SELECT n, c, plinth.cache_get_text(c, 'a'), plinth.cache_get_bytea(c, 'b'), (plinth.cache_lookup(c, 'none')).kind FROM generate_series(1, 2) n, unnest(ARRAY['durable', 'overflow']) c;
SELECT name, key, kind FROM cache_rows ORDER BY 1, 2;
-- Replaced, invalidated, expired: all that is read stays, all else is purged.
SELECT c, plinth.cache_set_text(c, 'a', 'two', tags => '{t}'), plinth.cache_delete(c, 'gone'), plinth.cache_set_text(c, 'expired', 'x', ttl => '1 ms') FROM unnest(ARRAY['durable', 'overflow']) c;
SELECT pg_sleep(0.01);
SELECT c, plinth.cache_get_text(c, 'a'), plinth.cache_get_text(c, 'gone'), plinth.cache_get_text(c, 'expired') FROM unnest(ARRAY['durable', 'overflow']) c;
-- The service may purge at the same time; wait until one of us has.
CREATE PROCEDURE cache_purge() LANGUAGE plpgsql AS $$
BEGIN
    WHILE EXISTS (SELECT FROM plinth.cache_invalidations i JOIN plinth.caches c ON c.id = i.cache_id)
        OR EXISTS (SELECT FROM plinth.caches c LEFT JOIN plinth.cache_horizons h ON h.cache_id = c.id
            WHERE (c.durable OR c.overflow) AND h.change_id IS DISTINCT FROM (SELECT last_value FROM plinth.cache_change_seq)) LOOP
        PERFORM plinth._cache_purge(id) FROM plinth.caches;
        COMMIT;
        PERFORM pg_sleep(0.01);
    END LOOP;
END $$;
CALL cache_purge();
SELECT name, key, kind, value FROM cache_rows ORDER BY 1, 2;
SELECT c, plinth.cache_get_text(c, 'a'), (plinth.cache_lookup(c, 'none')).kind FROM unnest(ARRAY['durable', 'overflow']) c;
-- A time to live that is moved, in the table too.
SELECT plinth.cache_touch('durable', 'a', '1 hour');
CALL cache_purge();
SELECT name, key, value FROM cache_rows WHERE key = 'a' AND name = 'durable';
SELECT expires_at < now() + '2 h' AS moved FROM plinth.cache_durable_entries e JOIN plinth.caches c ON c.id = e.cache_id AND c.name = 'durable' WHERE key = 'a';
-- A transaction sees its own, by savepoints, and both orders of setting and invalidating.
BEGIN;
SELECT plinth.cache_invalidate_tag('durable', 't'); SELECT plinth.cache_get_text('durable', 'a');
SELECT plinth.cache_set_text('durable', 'a', 'three', tags => '{t}'); SELECT plinth.cache_get_text('durable', 'a');
SAVEPOINT s;
SELECT plinth.cache_delete_prefix('durable', ''); SELECT plinth.cache_get_text('durable', 'a');
ROLLBACK TO s;
SELECT plinth.cache_get_text('durable', 'a');
COMMIT;
SELECT plinth.cache_get_text('durable', 'a');
BEGIN; SELECT plinth.cache_set_text('durable', 'a', 'four'); ROLLBACK;
SELECT plinth.cache_get_text('durable', 'a');
-- All of it, however often a transaction asks: one row, but one more after it has set something, and by savepoint.
CREATE TABLE cache_watched AS SELECT n FROM generate_series(1, 1000) n;
SELECT plinth.cache_watch('durable', 'cache_watched');
CALL cache_purge();
BEGIN;
UPDATE cache_watched SET n = n;
SELECT count(*) FROM plinth.cache_invalidations i JOIN plinth.caches c ON c.id = i.cache_id AND c.name = 'durable';
SELECT plinth.cache_set_text('durable', 'own', '1'); SELECT plinth.cache_get_text('durable', 'own');
UPDATE cache_watched SET n = n WHERE n = 1;
SELECT plinth.cache_get_text('durable', 'own');
SELECT plinth.cache_set_text('durable', 'own', '2');
SAVEPOINT s;
UPDATE cache_watched SET n = n WHERE n = 1;
ROLLBACK TO s;
SELECT plinth.cache_get_text('durable', 'own');
UPDATE cache_watched SET n = n WHERE n = 1;
SELECT plinth.cache_get_text('durable', 'own');
COMMIT;
DROP TABLE cache_watched;
SELECT plinth.cache_set_text('durable', 'a', 'three', tags => '{t}');

-- What replaced an older entry leaves nothing of it when it is invalidated.
SELECT plinth.cache_set_text('durable', 'replaced', 'old'); SELECT plinth.cache_set_text('durable', 'replaced', 'new', tags => '{r}');
SELECT plinth.cache_invalidate_tag('durable', 'r'); SELECT plinth.cache_get_text('durable', 'replaced');
BEGIN; SELECT plinth.cache_set_text('durable', 'replaced', 'old'); SELECT plinth.cache_set_text('durable', 'replaced', 'new', tags => '{r}'); COMMIT;
SELECT plinth.cache_invalidate_tag('durable', 'r'); SELECT plinth.cache_get_text('durable', 'replaced');

-- Under REPEATABLE READ: set, and valid as long as nobody invalidates.
BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT plinth.cache_set_text('durable', 'rr', '1'), plinth.cache_get_text('durable', 'rr'); COMMIT;
SELECT plinth.cache_get_text('durable', 'rr');
-- Read only: reading, but no writing.
BEGIN READ ONLY; SELECT plinth.cache_get_text('durable', 'a'); SELECT plinth.cache_set('durable', 'x', '1'); ROLLBACK;
BEGIN READ ONLY; SELECT plinth.cache_delete('overflow', 'x'); ROLLBACK;
BEGIN READ ONLY; SELECT plinth.cache_fetch('durable', 'ro', 'SELECT 1'); COMMIT;
SELECT plinth.cache_get('durable', 'ro') AS in_memory, count(*) AS in_table FROM plinth.cache_durable_entries WHERE key = 'ro';
-- Too much for max_bytes: the oldest go.
SELECT plinth.cache_alter('durable', max_bytes => 5000);
SELECT bool_and(plinth.cache_set_text('durable', 'big' || n, repeat('x', 1000))) FROM generate_series(1, 10) n;
CALL cache_purge();
SELECT array_agg(e.key ORDER BY e.id) FROM plinth.cache_durable_entries e JOIN plinth.caches c ON c.id = e.cache_id AND c.name = 'durable';
-- By hand: memory hears of it.
SELECT plinth.cache_get_text('durable', 'big10') IS NOT NULL AS there;
UPDATE plinth.cache_durable_entries SET value = 'by hand' WHERE key = 'big10';
SELECT plinth.cache_get_text('durable', 'big10');
DELETE FROM plinth.cache_durable_entries WHERE key = 'big10';
SELECT plinth.cache_get_text('durable', 'big10'), plinth.cache_get_text('durable', 'big9') IS NOT NULL AS there;
TRUNCATE plinth.cache_durable_entries;
SELECT plinth.cache_get_text('durable', 'big9');
-- Dropped: nothing is left.
SELECT plinth.cache_set('durable', 'k', '1'), id AS dropped FROM plinth.caches WHERE name = 'durable' \gset
SELECT plinth.cache_drop('durable'), plinth.cache_drop('overflow');
SELECT (plinth._cache_purge(:dropped)).removed >= 0 AS purged;
SELECT count(*) FROM plinth.cache_durable_entries WHERE cache_id = :dropped;

-- cache_fetch: what the query returns, with its parameters.
SELECT plinth.cache_create('fetch', per_user => false, ttl => '1 h', stale_ttl => '1 h', max_value_bytes => 1000);
CREATE SEQUENCE cache_count;
CREATE TABLE cache_things (id int PRIMARY KEY, name text);
INSERT INTO cache_things SELECT n, 'thing ' || n FROM generate_series(1, 300) n;
SELECT plinth.cache_fetch('fetch', 'a', 'SELECT nextval(''cache_count'')'), plinth.cache_fetch('fetch', 'a', 'SELECT nextval(''cache_count'')');
SELECT plinth.cache_fetch('fetch', 'b', 'SELECT to_jsonb(t) FROM cache_things t WHERE id = $1 AND name LIKE $2', '{7,thing%}');
SELECT plinth.cache_fetch('fetch', 'json', 'SELECT ''{"a": 1}''::json'), plinth.cache_fetch('fetch', 'text', 'SELECT $1', '{x}'), plinth.cache_fetch('fetch', 'null arg', 'SELECT coalesce($1::int, -1)', '{NULL}');
SELECT plinth.cache_fetch('fetch', 'nothing', 'SELECT 1 WHERE false'), (plinth.cache_lookup('fetch', 'nothing')).found;
SELECT plinth.cache_fetch('fetch', 'nothing', 'SELECT NULL::int', cache_null => true), (plinth.cache_lookup('fetch', 'nothing')).kind;
SELECT plinth.cache_fetch('fetch', 'nothing', 'SELECT 1');
SELECT length(plinth.cache_fetch('fetch', 'large', 'SELECT repeat(''x'', 2000)')::text) AS returned, plinth.cache_get('fetch', 'large') AS kept;
-- Stale: computed anew by whoever finds nobody at it.
SELECT plinth.cache_fetch('fetch', 'stale', 'SELECT 1', ttl => '1 ms', tags => '{t}');
SELECT pg_sleep(0.01);
SELECT plinth.cache_fetch('fetch', 'stale', 'SELECT 2', tags => '{t}'), plinth.cache_get('fetch', 'stale');
SELECT plinth.cache_invalidate_tag('fetch', 't'); SELECT plinth.cache_get('fetch', 'stale');
-- Errors are the caller's.
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT 1/0');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT 1, 2');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT * FROM generate_series(1, 2)');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT $1 + $2', '{1}');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT $1 + 1', '{x}');
SELECT plinth.cache_fetch('fetch', 'error', 'nonsense');
SELECT plinth.cache_fetch('fetch', 'error', '');
SELECT plinth.cache_fetch('fetch', 'error', 'COMMIT');
SELECT plinth.cache_fetch('fetch', 'error', NULL);
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT 1', wait_timeout => '-1 s');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT plinth.cache_fetch(''fetch'', ''error'', ''SELECT 1'')');
SELECT plinth.cache_fetch('fetch', 'error', 'SELECT 1') AS not_kept;
SELECT plinth.cache_set_text('fetch', 'typed', 'x'), plinth.cache_fetch('fetch', 'typed', 'SELECT 1');
-- What a transaction computes of its own changes is kept when it commits, and only then.
BEGIN;
UPDATE cache_things SET name = 'changed' WHERE id = 1;
SELECT plinth.cache_fetch('fetch', 'own', 'SELECT name FROM cache_things WHERE id = 1');
ROLLBACK;
SELECT plinth.cache_get('fetch', 'own');

-- Under REPEATABLE READ it computes by the transaction's snapshot, and keeps nothing; what it finds it takes.
SELECT plinth.cache_create('fetch_table', per_user => false, durable => true);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT c, plinth.cache_fetch(c, 'repeatable', 'SELECT name FROM cache_things WHERE id = 2') FROM unnest('{fetch,fetch_table}'::text[]) c;
SELECT c, plinth.cache_fetch(c, 'repeatable', 'SELECT name FROM cache_things WHERE id = 3') FROM unnest('{fetch,fetch_table}'::text[]) c;
COMMIT;
SELECT c, plinth.cache_get(c, 'repeatable') FROM unnest('{fetch,fetch_table}'::text[]) c;
SELECT plinth.cache_set('fetch', 'repeatable', '"there"');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT plinth.cache_fetch('fetch', 'repeatable', 'SELECT 1/0');
COMMIT;
SELECT plinth.cache_drop('fetch_table');

-- Warming, which a server's start does by itself.
SELECT plinth.cache_create('warm', per_user => false, warm => 'SELECT t.id::text, to_jsonb(t.name) FROM public.cache_things t');
SELECT plinth.cache_warm('warm'), plinth.cache_get('warm', '300');
SELECT plinth.cache_alter('warm', warm => 'SELECT id::text, to_jsonb(name) FROM cache_things');
SELECT plinth.cache_warm('warm');
SELECT plinth.cache_alter('warm', warm => 'SELECT 1, 2');
SELECT plinth.cache_warm('warm');
SELECT plinth.cache_alter('warm', warm => 'DELETE FROM public.cache_things RETURNING id::text, to_jsonb(name)');
SELECT plinth.cache_warm('warm');
SELECT plinth.cache_alter('warm', warm => '');
SELECT plinth.cache_warm('warm');
SELECT plinth.cache_drop('warm'), plinth.cache_drop('fetch');
DROP VIEW cache_rows;
DROP PROCEDURE cache_purge();
DROP TABLE cache_things;
DROP SEQUENCE cache_count;
