-- Quotas of meters: what is refused, what is only noticed, and for whom.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
SET TimeZone = 'UTC';

SELECT plinth.meter_create('q', scale => 2, periods => '{month}', soft_quota => '{"month": 5}', hard_quota => '{"month": 10, "total": 12.5}');
SELECT allowed, status, period, used, soft_quota, hard_quota, remaining, resets_at = date_trunc('month', now(), 'UTC') + interval '1 month' AS next_month
    FROM plinth.meter_check('q', 4, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 0.01, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 5, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 4.99, 'ann');
-- Nothing is left; looking is allowed, and another key has all of it.
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 0.01, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 0, 'ann');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 10, 'ben');
SELECT plinth.meter_read('q', 'ann'), plinth.meter_read('q', 'ben');
-- meter_add asks nobody, and dimensions count for their key.
SELECT plinth.meter_add('q', 11, 'carl', 'x');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 0, 'carl', 'y');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1, 'carl', 'y');
SELECT plinth.meter_read('q', 'carl', dimension => 'y');
SELECT plinth.meter_add('q', -3, 'carl', 'x');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1, 'carl', 'y');
-- Flushed or not makes no difference.
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1.01, 'carl');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1, 'carl');
-- The total never comes back.
SELECT plinth.meter_reset('q', 'carl', 'month');
SELECT allowed, status, period, used, remaining, resets_at FROM plinth.meter_check('q', 3, 'carl');
SELECT allowed, status, period, used, remaining, resets_at FROM plinth.meter_check('q', 2, 'carl');
-- By hand.
SELECT plinth.meter_flush() >= 0 AS flushed;
UPDATE plinth.meter_usage SET amount = 1 WHERE key = 'carl';
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 1, 'carl');
SELECT plinth.meter_flush() >= 0 AS flushed;
DELETE FROM plinth.meter_usage WHERE key = 'carl';
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('q', 0, 'carl');

-- Raised.
DO $$
BEGIN
    PERFORM plinth.meter_require('q', 1, 'ann');
EXCEPTION WHEN SQLSTATE 'PT429' THEN
    RAISE WARNING '% %', SQLSTATE, SQLERRM;
END
$$;
UPDATE plinth.meters SET status_code = 402;
DO $$
BEGIN
    PERFORM plinth.meter_require('q', 1, 'ann');
EXCEPTION WHEN SQLSTATE 'PT402' THEN
    RAISE WARNING '% %', SQLSTATE, SQLERRM;
END
$$;
-- Under PostgREST, with the fields of a response.
BEGIN;
SET LOCAL "request.method" = 'POST';
DO $$
DECLARE
    detail text;
BEGIN
    PERFORM plinth.meter_require('q', 1, 'ann');
EXCEPTION WHEN SQLSTATE 'PGRST' THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE WARNING '% % %', SQLERRM::json ->> 'code', detail::json ->> 'status', detail::json -> 'headers' ->> 'RateLimit-Policy' ~ '^"q";q=10;w=[0-9]+$';
END
$$;
ROLLBACK;
SELECT allowed, status FROM plinth.meter_require('q', 1, 'dora');
SELECT plinth.meter_read('q', 'ann'), plinth.meter_read('q', 'dora');

-- Whose quota: of the key, else of the user's tier, else everybody's.
SELECT user_id AS free FROM plinth.sign_up('free@meter.test', 'a password') \gset
SELECT user_id AS pro FROM plinth.sign_up('pro@meter.test', 'a password') \gset
UPDATE plinth.users SET tier = 'pro' WHERE id = :'pro';
SELECT plinth.meter_create('t', hard_quota => '{"month": 1}');
SELECT plinth.meter_quota('t', 'month', 4, 5, tier => 'pro'), plinth.meter_quota('t', 'month', hard => 3, key => 'special'), plinth.meter_quota('t', 'month', key => 'endless');
SELECT k, hard_quota, allowed, status FROM unnest(ARRAY['x', 'user:' || :'free', 'user:' || :'pro', 'special', 'endless', 'user:nobody', 'user:']) WITH ORDINALITY AS u (k, n), plinth.meter_check('t', 2, k) WHERE n NOT IN (2, 3) ORDER BY n;
SELECT n, hard_quota, allowed FROM unnest(ARRAY['user:' || :'free', 'user:' || :'pro']) WITH ORDINALITY AS u (k, n), plinth.meter_check('t', 2, k) ORDER BY n;
UPDATE plinth.users SET tier = 'pro' WHERE id = :'free';
SELECT hard_quota, allowed, used FROM plinth.meter_check('t', 2, 'user:' || :'free');
SELECT plinth.meter_quota('t', 'month', hard => 1.5, key => 'user:' || :'free');
SELECT hard_quota, allowed, used FROM plinth.meter_check('t', 0, 'user:' || :'free');
SELECT plinth.meter_quota('t', 'month', hard => 2.5);
SELECT hard_quota, allowed, used FROM plinth.meter_check('t', 2, 'x');
-- A change counts in its transaction too, and not when it rolls back.
BEGIN;
SELECT plinth.meter_quota('t', 'month', hard => 100);
SELECT hard_quota, allowed, used FROM plinth.meter_check('t', 50, 'x');
ROLLBACK;
SELECT hard_quota, allowed, used FROM plinth.meter_check('t', 50, 'x');
-- Of a period that the meter does not keep there is no quota, nor an end of keeping it while there is one.
SELECT plinth.meter_quota('t', 'day', hard => 0);
SELECT plinth.meter_create('noperiod', scale => 0, periods => '{day}', hard_quota => '{"month": 10}');
UPDATE plinth.meter_quotas SET period = 'day';
UPDATE plinth.meters SET periods = '{day}' WHERE name = 't';
UPDATE plinth.meters SET periods = '{day,month}' WHERE name = 't';
SELECT plinth.meter_quota('t', 'day', hard => 0.5, key => 'daily');
SELECT period, hard_quota, allowed FROM plinth.meter_check('t', 0.6, 'daily');
UPDATE plinth.meters SET periods = '{month}' WHERE name = 't';
DELETE FROM plinth.meter_quotas WHERE period = 'day';
UPDATE plinth.meters SET periods = '{month}' WHERE name = 't';
INSERT INTO plinth.meter_quotas (meter_id, period, hard) VALUES (-1, 'day', 1);
-- Without hard quotas there is only the soft one.
SELECT plinth.meter_create('soft', soft_quota => '{"total": 1}');
SELECT allowed, status, period, used, soft_quota, hard_quota, remaining FROM plinth.meter_check('soft', 1, 'x');
SELECT allowed, status, period, used, soft_quota, hard_quota, remaining FROM plinth.meter_check('soft', 1, 'x');
SELECT plinth.meter_create('none');
SELECT * FROM plinth.meter_check('none', 1, 'x');
SELECT plinth.meter_quota('nope', 'month', 1, 1);
SELECT plinth.meter_quota('t', 'month', 1, -1);
SELECT plinth.meter_quota('t', 'month', 1, 'NaN');
SELECT plinth.meter_quota('t', 'month', 1, 1, 'key', 'tier');
-- Larger than integers hold.
SELECT plinth.meter_quota('t', 'month', hard => 1e30, key => 'large');
SELECT plinth.meter_quota('t', 'month', hard => 9223372036854.775807, key => 'large');
SELECT plinth.meter_quota('t', 'month', soft => 9223372036854.775807, key => 'large');
SELECT plinth.meter_quota('t', 'month', hard => 9223372036854.775806, key => 'large');
SELECT hard_quota, allowed, used, remaining FROM plinth.meter_check('t', 9223372036854.775806, 'large');
SELECT hard_quota, allowed, used, remaining FROM plinth.meter_check('t', 0.000001, 'large');
SELECT plinth.meter_quota('t', 'month', soft => 1, key => 'large');
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT status, soft_quota, allowed, used FROM plinth.meter_check('t', 9, 'large');
-- What came past the trigger is a quota all the same.
SET session_replication_role = replica;
SELECT plinth.meter_quota('t', 'month', hard => 1e30, key => 'past');
RESET session_replication_role;
SELECT allowed FROM plinth.meter_check('t', 9223372036854.775806, 'past');
SELECT allowed FROM plinth.meter_check('t', 0.000001, 'past');
DELETE FROM plinth.meter_quotas WHERE key = 'past';
INSERT INTO plinth.meter_usage (meter_id, key, period, period_start, amount) SELECT id, 'below', 'month', date_trunc('month', now(), 'UTC'), -1e30 FROM plinth.meters WHERE name = 't';
SELECT plinth.meter_quota('t', 'month', hard => 5, key => 'below');
SELECT allowed, used, remaining FROM plinth.meter_check('t', 1, 'below');
INSERT INTO plinth.meter_usage (meter_id, key, period, period_start, amount) SELECT id, 'huge', 'month', date_trunc('month', now(), 'UTC'), 1e30 FROM plinth.meters WHERE name = 't';
SELECT hard_quota, allowed FROM plinth.meter_check('t', 1, 'huge');
SELECT plinth.meter_read('t', 'huge', 'month');

-- The same for a durable meter.
SELECT plinth.meter_create('d', scale => 2, durable => true, soft_quota => '{"month": 5}', hard_quota => '{"month": 10}');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('d', 10.01, 'ann');
SELECT plinth.meter_read('d', 'ann');
BEGIN;
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('d', 6, 'ann', 'x');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('d', 6, 'ann', 'y');
ROLLBACK;
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('d', 10, 'ann', 'y');
SELECT allowed, status, period, used, remaining FROM plinth.meter_check('d', 0.01, 'ann');
SELECT plinth.meter_read('d', 'ann'), plinth.meter_read('d', 'ann', dimension => 'y') AS y;
SELECT plinth.meter_require('d', 1, 'ann');

SELECT name, adds, denied, full_memory FROM plinth.stat_meters WHERE name IN ('d', 'soft', 'none') ORDER BY name;
-- What is rolled back to a savepoint still does not let a quota be exceeded.
SELECT plinth.meter_create('savepoint', scale => 0, hard_quota => '{"total": 100}');
SELECT (plinth.meter_check('savepoint', 1, 'k')).used;
BEGIN;
SAVEPOINT s;
UPDATE plinth.meter_quotas SET hard = hard;
ROLLBACK TO s;
SELECT allowed, used FROM plinth.meter_check('savepoint', 90, 'k');
COMMIT;
SELECT allowed, used FROM plinth.meter_check('savepoint', 90, 'k');

SELECT plinth.meter_drop(name) FROM plinth.meters;
DELETE FROM plinth.users WHERE email ~ 'meter.test';
