-- Caches: definitions, values, and what is wrong input.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -

SELECT plinth.cache_create('api', ttl => '1 hour', per_user => false);
SELECT name, owner = current_user::regrole AS mine, ttl, jitter, stale_ttl, max_bytes, max_value_bytes, per_user, durable, overflow, roles, warm, enabled
    FROM plinth.caches WHERE name = 'api';

-- Values of three types, and none.
SELECT plinth.cache_set('api', 'j', '{"a": [1, null]}'), plinth.cache_set_text('api', 't', 'a text'), plinth.cache_set_bytea('api', 'b', '\x00ff'),
    plinth.cache_set('api', 'none', NULL), plinth.cache_set_text('api', 'empty', '');
SELECT plinth.cache_get('api', 'j'), plinth.cache_get_text('api', 't'), plinth.cache_get_bytea('api', 'b'), plinth.cache_get('api', 'none'),
    plinth.cache_get_text('api', 'empty') = '' AS empty, plinth.cache_get('api', 'missing');
SELECT k, found, stale, kind, value, value_text, value_bytes, expires_at BETWEEN now() + '59 min' AND now() + '61 min' AS in_an_hour, hits
    FROM unnest(ARRAY['j', 't', 'b', 'none', 'missing']) WITH ORDINALITY AS u (k, n), plinth.cache_lookup('api', k) ORDER BY n;
SELECT * FROM plinth.cache_get_many('api', ARRAY['missing', 'j', 'none', 'j']);
SELECT plinth.cache_get('api', 't');
SELECT plinth.cache_get_text('api', 'j');
SELECT * FROM plinth.cache_get_many('api', ARRAY['t']);
-- An embedding: as bytes of its array, or as jsonb.
SELECT plinth.cache_set_bytea('api', 'embedding', array_send(ARRAY[0.25, -1, 3]::real[])), plinth.cache_set('api', 'embedding:json', to_jsonb(ARRAY[0.25, -1, 3]::real[]));
SELECT plinth.cache_get_bytea('api', 'embedding') = array_send(ARRAY[0.25, -1, 3]::real[]) AS same,
    ARRAY(SELECT e::real FROM jsonb_array_elements_text(plinth.cache_get('api', 'embedding:json')) WITH ORDINALITY AS x (e, n) ORDER BY n) AS embedding;
-- Large values come back whole, whatever their length.
SELECT bool_and(plinth.cache_set_text('api', 'n' || n, repeat('x', n)) AND true) FROM unnest(ARRAY[0, 1, 126, 127, 200, 256, 4000, 100000]) n;
SELECT n, plinth.cache_get_text('api', 'n' || n) = repeat('x', n) AS same FROM unnest(ARRAY[0, 1, 126, 127, 200, 256, 4000, 100000]) n;

-- Own changes are seen at once, and go with their savepoint.
BEGIN;
SELECT plinth.cache_set('api', 'x', '1'); SELECT plinth.cache_get('api', 'x');
SAVEPOINT s;
SELECT plinth.cache_set('api', 'x', '2'), plinth.cache_delete('api', 'j'); SELECT plinth.cache_get('api', 'x'), plinth.cache_get('api', 'j');
ROLLBACK TO s;
SELECT plinth.cache_get('api', 'x'), plinth.cache_get('api', 'j');
ROLLBACK;
SELECT plinth.cache_get('api', 'x'), plinth.cache_get('api', 'j');
-- In a READ ONLY transaction too.
BEGIN READ ONLY;
SELECT plinth.cache_set('api', 'readonly', '1'), plinth.cache_delete('api', 'j');
COMMIT;
SELECT plinth.cache_get('api', 'readonly'), plinth.cache_get('api', 'j');

-- Invalidation.
SELECT plinth.cache_set('api', 'p:1', '1', tags => '{red,blue}'), plinth.cache_set('api', 'p:2', '2', tags => '{blue}'), plinth.cache_set('api', 'q', '3');
SELECT plinth.cache_invalidate_tag('api', 'red');
SELECT * FROM plinth.cache_get_many('api', '{p:1,p:2,q}');
BEGIN;
SELECT plinth.cache_invalidate_tag('api', 'blue');
SELECT * FROM plinth.cache_get_many('api', '{p:1,p:2,q}');
ROLLBACK;
SELECT plinth.cache_delete_prefix('api', 'p:');
SELECT * FROM plinth.cache_get_many('api', '{p:1,p:2,q}');
SELECT plinth.cache_clear('api');
SELECT * FROM plinth.cache_get_many('api', '{p:1,p:2,q}');

-- Time: a ttl that passed, a stale value, one that is touched.
SELECT plinth.cache_alter('api', stale_ttl => '1 hour');
SELECT plinth.cache_set('api', 'short', '1', ttl => '1 ms'), plinth.cache_set('api', 'long', '1', ttl => '1 day');
SELECT pg_sleep(0.01);
SELECT plinth.cache_get('api', 'short') AS fresh, l.found, l.stale, l.value FROM plinth.cache_lookup('api', 'short') l;
SELECT plinth.cache_touch('api', 'short', '1 hour'), plinth.cache_touch('api', 'missing'), plinth.cache_get('api', 'short');
SELECT expires_at BETWEEN now() + '24 h' AND now() + '26 h' AS in_a_day FROM plinth.cache_lookup('api', 'long');
SELECT plinth.cache_alter('api', stale_ttl => '0', ttl => '0', jitter => 1);
SELECT plinth.cache_set('api', 'forever', '1');
SELECT expires_at FROM plinth.cache_lookup('api', 'forever');
SELECT bool_and(plinth.cache_set('api', 'jitter' || n, '1', ttl => '1 h')) FROM generate_series(1, 20) n;
SELECT count(DISTINCT l.expires_at) > 10 AS spread, bool_and(l.expires_at <= clock_timestamp() + '1 h') AS shortened FROM generate_series(1, 20) n, plinth.cache_lookup('api', 'jitter' || n) l;
SELECT plinth.cache_alter('api', jitter => 0);

-- A ticket.
SELECT plinth.cache_ticket('api') AS ticket \gset
SELECT plinth.cache_set('api', 'ticket', '1', ticket => :ticket), plinth.cache_set('api', 'other', '1', ticket => 0);
SELECT plinth.cache_get('api', 'ticket'), plinth.cache_get('api', 'other');
SELECT plinth.cache_ticket('api') AS ticket \gset
SELECT plinth.cache_delete('api', 'ticket');
SELECT plinth.cache_set('api', 'ticket', '2', ticket => :ticket);
SELECT plinth.cache_get('api', 'ticket');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT plinth.cache_ticket('api'), plinth.cache_set('api', 'repeatable', '1'), plinth.cache_get('api', 'repeatable');
COMMIT;
SELECT plinth.cache_get('api', 'repeatable');

-- Disabled, altered, dropped; by SQL too.
SELECT plinth.cache_set('api', 'k', '1'); SELECT plinth.cache_alter('api', enabled => false);
SELECT plinth.cache_get('api', 'k'), plinth.cache_set('api', 'k', '2');
UPDATE plinth.caches SET enabled = true WHERE name = 'api';
SELECT plinth.cache_get('api', 'k'), plinth.cache_set('api', 'k', '2');
SELECT plinth.cache_get('api', 'k');
BEGIN;
UPDATE plinth.caches SET name = 'renamed' WHERE name = 'api';
SELECT plinth.cache_get('renamed', 'k');
ROLLBACK;
SELECT plinth.cache_get('api', 'k');
SELECT plinth.cache_get('renamed', 'k');

-- Wrong input.
SELECT plinth.cache_get('no such', 'k');
SELECT plinth.cache_get('', 'k');
SELECT plinth.cache_get(repeat('n', 64), 'k');
SELECT plinth.cache_get(NULL, 'k');
SELECT plinth.cache_get('api', NULL);
SELECT plinth.cache_get('api', repeat('k', 1025));
SELECT plinth.cache_set('api', repeat('k', 1024), '1'), plinth.cache_get('api', repeat('k', 1024));
SELECT plinth.cache_get_many('api', NULL);
SELECT plinth.cache_get_many('api', ARRAY['k', NULL]);
SELECT plinth.cache_set('api', NULL, '1');
SELECT plinth.cache_set('api', 'k', '1', ttl => '-1 s');
SELECT plinth.cache_set('api', 'k', '1', ttl => '0');
SELECT plinth.cache_set('api', 'k', '1', ttl => '1000 years');
SELECT plinth.cache_set('api', 'k', '1', tags => ARRAY[NULL]);
SELECT plinth.cache_set('api', 'k', '1', tags => (SELECT array_agg(n::text) FROM generate_series(1, 17) n));
SELECT plinth.cache_set('api', 'k', '1', tags => (SELECT array_agg(n::text) FROM generate_series(1, 16) n));
SELECT plinth.cache_alter('api', max_value_bytes => 100);
SELECT plinth.cache_set_text('api', 'k', repeat('x', 100));
SELECT plinth.cache_set_text('api', 'k', repeat('x', 99));
SELECT plinth.cache_delete('api', NULL);
SELECT plinth.cache_delete('api', repeat('k', 1025));
SELECT plinth.cache_delete('api', 'k', '00000000-0000-0000-0000-000000000001');
SELECT plinth.cache_delete_prefix('api', NULL);
SELECT plinth.cache_invalidate_tag('api', NULL);
SELECT plinth.cache_clear('api', '00000000-0000-0000-0000-000000000001');
SELECT plinth.cache_create(NULL);
SELECT plinth.cache_create('');
SELECT plinth.cache_create(repeat('n', 64));
SELECT plinth.cache_create('api');
SELECT plinth.cache_create('bad', ttl => '0');
SELECT plinth.cache_create('bad', ttl => '-1 s');
SELECT plinth.cache_create('bad', stale_ttl => '-1 s');
SELECT plinth.cache_create('bad', max_bytes => 0);
SELECT plinth.cache_create('bad', max_value_bytes => 0);
SELECT plinth.cache_create('bad', jitter => 1.1);
SELECT plinth.cache_create('bad', jitter => 'NaN');
SELECT plinth.cache_create('bad', roles => '{nobody_of_this_name}');
SELECT plinth.cache_create('bad', roles => ARRAY[NULL]::name[]);
SELECT plinth.cache_create('bad', warm => 'SELECT 1');
SELECT plinth.cache_create('bad', durable => true, overflow => true);
SELECT plinth.cache_alter('no such', ttl => '1 s');
SELECT plinth.cache_drop('no such');
BEGIN;
SELECT plinth.cache_set('api', 'k', '1');
PREPARE TRANSACTION 'cache';

SELECT entries > 0 AS entries, bytes > 0 AS bytes, hits > 0 AS hits, misses > 0 AS misses, stale_hits > 0 AS stale, invalidations > 0 AS invalidations,
    fills > 0 AS fills, waits FROM plinth.stat_cache WHERE name = 'api';
SELECT plinth.cache_drop('api');
SELECT plinth.cache_get('api', 'k');
SELECT count(*) FROM plinth.caches WHERE name IN ('api', 'bad');

-- Whose entries there are, and where, stays as it was created.
SELECT plinth.cache_create('fixed', per_user => false);
SELECT plinth.cache_alter('fixed', durable => true);
SELECT plinth.cache_alter('fixed', per_user => true);
UPDATE plinth.caches SET overflow = true WHERE name = 'fixed';
SELECT plinth.cache_alter('fixed', durable => false, max_bytes => 1000000);
SELECT plinth.cache_drop('fixed');
