-- Meters: what is counted, exactly, and what is not.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -

SELECT plinth.meter_create('tokens', 'tokens', periods => '{minute,hour,day,month}');
SELECT plinth.meter_create('cost', 'EUR', scale => 12, time_zone => 'Europe/Berlin');
SELECT plinth.meter_create('calls', scale => 0, periods => '{}');
SELECT name, unit, scale, time_zone, periods, status_code, durable, on_error, enabled, retention FROM plinth.meters ORDER BY id;

-- A key, its dimensions, and their sum.
SELECT plinth.meter_add('tokens', 1200, 'ann', 'gpt-4o'), plinth.meter_add('tokens', 300, 'ann', 'claude'), plinth.meter_add('tokens', 7, 'ann'),
    plinth.meter_add('tokens', 1, 'ben'), plinth.meter_add('calls', key => 'ann'), plinth.meter_add('calls', key => 'ann');
SELECT p, plinth.meter_read('tokens', 'ann', p) AS ann, plinth.meter_read('tokens', 'ann', p, dimension => 'gpt-4o') AS gpt,
    plinth.meter_read('tokens', 'ann', p, dimension => 'claude') AS claude, plinth.meter_read('tokens', 'ann', p, dimension => 'none') AS none
    FROM unnest(ARRAY['month', 'total']) p;
SELECT plinth.meter_read('tokens', 'ben'), plinth.meter_read('tokens', 'nobody'), plinth.meter_read('calls', 'ann');
-- Without a key, the caller.
SELECT plinth.meter_add('calls', 5);
SELECT plinth.meter_read('calls'), plinth.meter_read('calls', 'local') AS local;
-- Exactly: a tenth ten times, and what a double would not hold.
SELECT count(plinth.meter_add('cost', 0.1, 'ann')) FROM generate_series(1, 10);
SELECT plinth.meter_read('cost', 'ann');
SELECT plinth.meter_add('cost', 1000000.000000000001, 'ann');
SELECT plinth.meter_read('cost', 'ann'), plinth.meter_read('cost', 'ann', 'month') AS month;
-- A correction; below 0 too.
SELECT plinth.meter_add('cost', -1000001, 'ann'), plinth.meter_add('cost', -0.5, 'ben'), plinth.meter_add('cost', 0, 'ann');
SELECT plinth.meter_read('cost', 'ann'), plinth.meter_read('cost', 'ben');

-- Whatever becomes of the transaction.
BEGIN;
SELECT plinth.meter_add('tokens', 10, 'ben');
SAVEPOINT a;
SELECT plinth.meter_add('tokens', 10, 'ben');
ROLLBACK TO a;
SELECT plinth.meter_read('tokens', 'ben');
ROLLBACK;
BEGIN READ ONLY;
SELECT plinth.meter_add('tokens', 10, 'ben'), (plinth.meter_check('tokens', 10, 'ben')).status;
COMMIT;
SELECT plinth.meter_read('tokens', 'ben');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT plinth.meter_add('tokens', 9, 'ben');
SELECT plinth.meter_read('tokens', 'ben');
SELECT plinth.meter_flush();
ROLLBACK;

-- In the table, once each.
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT meter, unit, key, dimension, period, CASE period WHEN 'month' THEN period_start = date_trunc('month', now(), CASE meter WHEN 'cost' THEN 'Europe/Berlin' ELSE 'UTC' END) END AS now, amount
    FROM plinth.meter_export WHERE key = 'ann' AND period IN ('month', 'total') OR key = 'local' ORDER BY meter, key, dimension NULLS FIRST, period;
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', dimension => 'claude') AS claude, plinth.meter_read('cost', 'ann') AS cost;
SELECT plinth.meter_add('tokens', 3, 'ann', 'claude');
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', dimension => 'claude') AS claude;
-- A flush that rolls back has flushed nothing, and lost nothing.
BEGIN;
SELECT plinth.meter_add('tokens', 1000, 'carl');
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT amount FROM plinth.meter_export WHERE key = 'carl' AND period = 'total';
SELECT plinth.meter_read('tokens', 'carl');
SELECT plinth.meter_add('tokens', 1, 'carl');
SELECT plinth.meter_read('tokens', 'carl');
SAVEPOINT a;
SELECT plinth.meter_flush() >= 0 AS flushed;
ROLLBACK TO a;
SELECT plinth.meter_read('tokens', 'carl');
ROLLBACK;
SELECT plinth.meter_read('tokens', 'carl');
BEGIN;
SELECT plinth.meter_flush() >= 0 AS flushed;
PREPARE TRANSACTION 'meters';
SELECT plinth.meter_read('tokens', 'carl');

-- A durable meter is of the transaction.
SELECT plinth.meter_create('paid', durable => true, scale => 2);
BEGIN;
SELECT plinth.meter_add('paid', 9.99, 'ann', 'card');
SAVEPOINT a;
SELECT plinth.meter_add('paid', 1, 'ann', 'card');
SELECT plinth.meter_read('paid', 'ann');
ROLLBACK TO a;
SELECT plinth.meter_read('paid', 'ann'), plinth.meter_read('paid', 'ann', 'month', dimension => 'card') AS card;
COMMIT;
BEGIN;
SELECT plinth.meter_add('paid', 1, 'ann');
ROLLBACK;
SELECT plinth.meter_read('paid', 'ann');
SELECT dimension, period, amount FROM plinth.meter_export WHERE meter = 'paid' ORDER BY dimension NULLS FIRST, period;
BEGIN READ ONLY;
SELECT plinth.meter_add('paid', 1, 'ann');
ROLLBACK;
-- So is one that this transaction has made; what it counts by others is counted.
BEGIN;
SELECT plinth.meter_create('new');
SELECT plinth.meter_add('new', 5, 'ann'), plinth.meter_add('tokens', 1, 'dora');
SELECT plinth.meter_read('new', 'ann'), plinth.meter_read('tokens', 'dora');
ROLLBACK;
SELECT plinth.meter_read('new', 'ann');
SELECT plinth.meter_read('tokens', 'dora');
BEGIN;
SELECT plinth.meter_create('new');
SELECT plinth.meter_add('new', 5, 'ann');
COMMIT;
SELECT plinth.meter_add('new', 1, 'ann');
SELECT plinth.meter_read('new', 'ann');
-- Disabled, enabled.
UPDATE plinth.meters SET enabled = false WHERE name = 'new';
SELECT plinth.meter_add('new', 100, 'ann'), (plinth.meter_check('new', 100, 'ann')).*;
SELECT plinth.meter_read('new', 'ann');
UPDATE plinth.meters SET enabled = true WHERE name = 'new';
SELECT plinth.meter_add('new', 100, 'ann');
SELECT plinth.meter_read('new', 'ann');
SELECT plinth.meter_drop('new');
SELECT plinth.meter_read('new', 'ann');
-- A period that is added later counts from then on.
UPDATE plinth.meters SET periods = '{day}' WHERE name = 'calls';
SELECT plinth.meter_add('calls', 3, 'ann');
SELECT plinth.meter_read('calls', 'ann'), plinth.meter_read('calls', 'ann', 'day') AS day;

-- Reset: in the transaction, and only what there was.
BEGIN;
SELECT plinth.meter_reset('tokens', 'ann');
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', dimension => 'claude') AS claude;
ROLLBACK;
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', dimension => 'claude') AS claude;
SELECT plinth.meter_reset('tokens', 'ann', dimension => 'claude');
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', dimension => 'claude') AS claude;
SELECT plinth.meter_reset('tokens', 'ann', 'month');
SELECT plinth.meter_add('tokens', 2, 'ann', 'gpt-4o');
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', 'month') AS month, plinth.meter_read('tokens', 'ann', 'month', dimension => 'gpt-4o') AS gpt;
SELECT plinth.meter_reset('tokens', 'ann');
SELECT plinth.meter_read('tokens', 'ann'), plinth.meter_read('tokens', 'ann', 'month') AS month, plinth.meter_read('tokens', 'ben') AS ben;
BEGIN READ ONLY;
SELECT plinth.meter_reset('tokens', 'ann');
ROLLBACK;

-- What is refused.
SELECT plinth.meter_add('nope');
SELECT plinth.meter_add(NULL);
SELECT plinth.meter_add(repeat('x', 201));
SELECT plinth.meter_add('tokens', NULL);
SELECT plinth.meter_add('tokens', 'NaN');
SELECT plinth.meter_add('tokens', 'Infinity');
SELECT plinth.meter_add('tokens', '-Infinity');
SELECT plinth.meter_add('tokens', 0.0000001);
SELECT plinth.meter_add('calls', 1.5);
SELECT plinth.meter_add('calls', 1e19);
SELECT plinth.meter_add('calls', 1, '');
SELECT plinth.meter_add('calls', 1, repeat('x', 1025));
SELECT plinth.meter_add('calls', 1, 'k', '');
SELECT plinth.meter_add('calls', 1, 'k', repeat('x', 201));
SELECT plinth.meter_check('calls', -1, 'k');
SELECT plinth.meter_read('calls', 'k', 'month');
SELECT plinth.meter_read('calls', 'k', 'year');
SELECT plinth.meter_read('calls', 'k', NULL);
SELECT plinth.meter_add('calls', 9223372036854775807, 'most');
SELECT plinth.meter_read('calls', 'most'), plinth.meter_flush() >= 0 AS flushed;
SELECT plinth.meter_add('calls', 9223372036854775807, 'most');
SELECT plinth.meter_read('calls', 'most');
SELECT plinth.meter_create('calls');
SELECT plinth.meter_create('');
SELECT plinth.meter_create('m', time_zone => 'Mars/Olympus');
SELECT plinth.meter_create('m', periods => '{week}');
SELECT plinth.meter_create('m', scale => 13);
SELECT plinth.meter_create('m', status_code => 500);
SELECT plinth.meter_create('m', on_error => 'maybe');
SELECT plinth.meter_create('m', retention => '1 day');
SELECT plinth.meter_create('m', hard_quota => '{"week": 1}');
SELECT plinth.meter_create('m', hard_quota => '{"month": -1}');
SELECT plinth.meter_create('m', hard_quota => '{"month": "many"}');
UPDATE plinth.meters SET scale = 2 WHERE name = 'calls';
UPDATE plinth.meters SET durable = true WHERE name = 'calls';
SELECT plinth.meter_drop('nope');
-- Keys of any length and content are kept apart.
SELECT count(plinth.meter_add('calls', n, repeat('k', n), repeat('d', 1 + n % 200))) FROM generate_series(1, 1024) n;
SELECT count(*) FROM generate_series(1, 1024) n WHERE plinth.meter_read('calls', repeat('k', n)) <> n OR plinth.meter_read('calls', repeat('k', n), dimension => repeat('d', 1 + n % 200)) <> n;
-- What a flush must remember to the end of its transaction is little.
BEGIN;
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT total_bytes < 1000000 AS little FROM pg_backend_memory_contexts WHERE name = 'TopTransactionContext';
COMMIT;
SELECT count(*) FROM plinth.meter_export WHERE meter = 'calls' AND key ~ '^k+$' AND amount = length(key) AND (dimension IS NULL OR dimension = repeat('d', 1 + length(key) % 200));

-- Statistics.
SELECT name, enabled, durable, adds, denied, full_memory, pending FROM plinth.stat_meters WHERE name IN ('cost', 'paid') ORDER BY name;
-- Asking for meters that are not there takes no place from those that are.
SELECT count(s.adds) FROM generate_series(1000001, 1000300) AS id, plinth._meter_stat(id, 0) AS s;
SELECT plinth.meter_create('placed');
SELECT adds, denied, full_memory FROM plinth.stat_meters WHERE name = 'placed';
SELECT plinth.meter_add('placed', 1, 'a');
SELECT adds, denied, full_memory FROM plinth.stat_meters WHERE name = 'placed';

-- Rights.
CREATE ROLE meter_stranger IN ROLE authenticated;
CREATE ROLE meter_admin IN ROLE plinth_admin;
SET ROLE meter_stranger;
SELECT plinth.meter_add('calls');
SELECT plinth.meter_read('calls', 'ann');
SELECT * FROM plinth.meter_usage;
SELECT * FROM plinth.meter_export;
SET ROLE meter_admin;
SELECT plinth.meter_create('mine', hard_quota => '{"total": 10}');
SELECT plinth.meter_quota('mine', 'total', 1, 5, 'ann');
SELECT plinth.meter_add('mine', 1, 'ann');
SELECT plinth.meter_read('mine', 'ann'), (plinth.meter_check('mine', 1, 'ann')).status;
SELECT plinth.meter_reset('mine', 'ann');
SELECT count(*) > 0 AS some FROM plinth.meter_export;
SELECT plinth.meter_drop('mine');
RESET ROLE;
DROP ROLE meter_stranger, meter_admin;
SELECT plinth.meter_drop(name) FROM plinth.meters;
SELECT count(*) FROM plinth.meter_usage;
