-- Leases: never more than so many, and what ends them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -

-- Two of two, of each key.
SELECT plinth.lease_acquire('export', 'ann', 2) AS one \gset
SELECT plinth.lease_acquire('export', 'ann', 2) AS two \gset
SELECT :'one'::uuid <> :'two'::uuid AS different, :'one' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' AS version_8;
SELECT plinth.lease_acquire('export', 'ann', 2);
SELECT plinth.lease_acquire('export', 'ben', 2) AS ben \gset
SELECT plinth.lease_acquire('import', 'ann', 1) AS import \gset
SELECT * FROM plinth.stat_leases ORDER BY name, key;
-- One more where the caller allows more, none where he allows fewer.
SELECT plinth.lease_acquire('export', 'ann', 3) AS three \gset
SELECT plinth.lease_release(:'three');
SELECT plinth.lease_acquire('export', 'ann', 1);
SELECT plinth.lease_release(:'one'), plinth.lease_release(:'one') AS again;
SELECT plinth.lease_acquire('export', 'ann', 2) AS one \gset
SELECT plinth.lease_acquire('export', 'ann', 2);
SELECT plinth.lease_release(i) FROM unnest(ARRAY[:'one', :'two', :'ben', :'import']::uuid[]) i;
SELECT * FROM plinth.stat_leases;
-- name and key are two things, and an id is of nothing else.
SELECT plinth.lease_acquire('a', 'bc', 1) AS one \gset
SELECT plinth.lease_acquire('ab', 'c', 1) AS two \gset
SELECT plinth.lease_release(i) FROM unnest(ARRAY[:'one', :'two']::uuid[]) i;
SELECT plinth.lease_release('00000000-0000-0000-0000-000000000000'), plinth.lease_release('ffffffff-ffff-8fff-8fff-ffffffffffff'),
    plinth.lease_release(plinth.uuid_v7()), plinth.lease_release(NULL);

-- A time.
SELECT plinth.lease_acquire('short', 'k', 1, interval '50 ms') AS short \gset
SELECT plinth.lease_acquire('long', 'k', 1, interval '1 hour', 'none') AS long \gset
SELECT name, held, first_expires_in BETWEEN interval '59 min' AND interval '1 hour' AS hour FROM plinth.stat_leases WHERE name = 'long';
SELECT pg_sleep(0.06);
SELECT plinth.lease_renew(:'short', interval '1 hour') AS too_late, plinth.lease_renew(:'long', interval '2 hours') AS renewed;
SELECT name, first_expires_in > interval '1 hour' AS longer FROM plinth.stat_leases;
SELECT plinth.lease_acquire('short', 'k', 1, interval '50 ms') IS NOT NULL AS free_again;
SELECT pg_sleep(0.06);
SELECT plinth.lease_renew(:'long', interval '1 us') AS shorter;
SELECT pg_sleep(0.001);
SELECT plinth.lease_release(:'long') AS over, plinth.lease_renew(:'long', interval '1 hour') AS over_too;
SELECT * FROM plinth.stat_leases;

-- What rolls back, and what does not.
BEGIN;
SELECT plinth.lease_acquire('tx', 'session', 1) IS NOT NULL AS session, plinth.lease_acquire('tx', 'commit', 1, NULL, 'commit') IS NOT NULL AS commit,
    plinth.lease_acquire('tx', 'transaction', 1, NULL, 'transaction') IS NOT NULL AS transaction;
SELECT name, key, held FROM plinth.stat_leases ORDER BY key;
ROLLBACK;
SELECT name, key, held FROM plinth.stat_leases ORDER BY key;
BEGIN;
SELECT plinth.lease_acquire('tx', 'commit', 1, NULL, 'commit') AS commit \gset
SAVEPOINT a;
SELECT plinth.lease_acquire('tx', 'savepoint', 1, NULL, 'commit') IS NOT NULL AS savepoint, plinth.lease_acquire('tx', 'transaction', 1, NULL, 'transaction') IS NOT NULL AS transaction;
SELECT name, key, held FROM plinth.stat_leases ORDER BY key;
ROLLBACK TO a;
SELECT name, key, held FROM plinth.stat_leases ORDER BY key;
SELECT plinth.lease_acquire('tx', 'transaction', 1, NULL, 'transaction') IS NOT NULL AS transaction;
COMMIT;
SELECT name, key, held FROM plinth.stat_leases ORDER BY key;
SELECT plinth.lease_release(:'commit');
BEGIN;
SELECT plinth.lease_acquire('tx', 'prepared', 1, NULL, 'commit') IS NOT NULL AS taken;
PREPARE TRANSACTION 'lease';
-- Nor does one that is not taken stand in the way (but for the server's setting).
SELECT plinth.lease_acquire('tx', 'mine', 1) AS held \gset
BEGIN;
SELECT plinth.lease_acquire('tx', 'mine', 1, NULL, 'commit') IS NULL AS none_left, plinth.lease_acquire('tx', 'mine', 1, NULL, 'transaction') IS NULL AS none_left;
PREPARE TRANSACTION 'no lease';
ROLLBACK PREPARED 'no lease';
SELECT plinth.lease_release(:'held');
BEGIN READ ONLY;
SELECT plinth.lease_acquire('tx', 'read only', 1, NULL, 'transaction') IS NOT NULL AS taken, plinth.lease_acquire('tx', 'read only', 1) AS none_left;
COMMIT;
BEGIN READ ONLY;
-- Several may be taken in one statement, no more than there are.
SELECT count(plinth.lease_acquire('many', 'k', 7, NULL, 'transaction')) FROM generate_series(1, 10);
COMMIT;

-- What is refused.
SELECT plinth.lease_acquire(NULL, 'k', 1);
SELECT plinth.lease_acquire('n', NULL, 1);
SELECT plinth.lease_acquire('', 'k', 1);
SELECT plinth.lease_acquire('n', '', 1);
SELECT plinth.lease_acquire(repeat('x', 201), 'k', 1);
SELECT plinth.lease_acquire('n', repeat('x', 1025), 1);
SELECT plinth.lease_acquire('n', 'k', NULL);
SELECT plinth.lease_acquire('n', 'k', 0);
SELECT plinth.lease_acquire('n', 'k', -1);
SELECT plinth.lease_acquire('n', 'k', 1000001);
SELECT plinth.lease_acquire('n', 'k', 1, interval '0');
SELECT plinth.lease_acquire('n', 'k', 1, interval '-1 day');
SELECT plinth.lease_acquire('n', 'k', 1, interval '1000 years');
SELECT plinth.lease_acquire('n', 'k', 1, NULL, 'none');
SELECT plinth.lease_acquire('n', 'k', 1, NULL, 'forever');
SELECT plinth.lease_acquire('n', 'k', 1, NULL, NULL);
SELECT plinth.lease_renew(plinth.uuid_v7(), NULL);
SELECT plinth.lease_renew(plinth.uuid_v7(), interval '0');
SELECT plinth.lease_renew(NULL, interval '1 hour');
-- Long names are told apart behind what stat_leases shows.
SELECT plinth.lease_acquire(repeat('ä', 100), repeat('k', 1023) || 'a', 1, NULL, 'session') AS one \gset
SELECT plinth.lease_acquire(repeat('ä', 100), repeat('k', 1023) || 'b', 1, NULL, 'session') AS two \gset
SELECT name = repeat('ä', 31) AS name, key = repeat('k', 63) AS key, held FROM plinth.stat_leases WHERE name <> 'tx';
-- A new connection has none of the last one's.
\c -
\pset null -
DO $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM plinth.stat_leases);
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
SELECT * FROM plinth.stat_leases;

-- For those who were granted it.
CREATE ROLE lease_stranger IN ROLE authenticated;
SET ROLE lease_stranger;
SELECT plinth.lease_acquire('n', 'k', 1);
SELECT * FROM plinth.stat_leases;
RESET ROLE;
DROP ROLE lease_stranger;
