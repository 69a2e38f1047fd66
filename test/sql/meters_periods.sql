-- Calendar periods in a meter's time zone, and history.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
SET TimeZone = 'UTC';

SELECT plinth.meter_create('b', time_zone => 'Europe/Berlin', periods => '{minute,hour,day,month}');
SELECT plinth.meter_create('l', time_zone => 'Australia/Lord_Howe', periods => '{hour,day}');
SELECT plinth.meter_create('s', time_zone => 'Pacific/Apia', periods => '{day}');
-- Midnight twice: the hour between the two still belongs to the day before, and to the month before.
SELECT plinth.meter_create('twice', time_zone => 'Atlantic/Azores', periods => '{day}'), plinth.meter_create('havana', time_zone => 'America/Havana', periods => '{day,month}');
INSERT INTO plinth.meter_usage (meter_id, key, period, period_start, amount)
    SELECT m.id, 'k', u.period, u.start::timestamptz, u.amount FROM (VALUES
        ('twice', 'day', '2026-10-24 00:00+00', 24), ('twice', 'day', '2026-10-25 01:00+00', 25),
        ('havana', 'month', '2026-10-01 04:00+00', 10), ('havana', 'month', '2026-11-01 05:00+00', 11)) u (name, period, start, amount)
    JOIN plinth.meters m ON m.name = u.name;
SELECT at, plinth.meter_read('twice', 'k', 'day', at::timestamptz) FROM (VALUES ('2026-10-24 23:59+00'), ('2026-10-25 00:30+00'), ('2026-10-25 01:00+00'), ('2026-10-26 00:59+00')) v (at);
SELECT at, plinth.meter_read('havana', 'k', 'month', at::timestamptz) FROM (VALUES ('2026-11-01 03:59+00'), ('2026-11-01 04:30+00'), ('2026-11-01 05:00+00')) v (at);
INSERT INTO plinth.meter_usage (meter_id, key, period, period_start, amount)
    SELECT m.id, 'k', u.period, u.start::timestamptz, u.amount FROM (VALUES
        -- a day of 23 hours, one of 25 hours, and months that begin at 23:00 or 22:00 UTC
        ('b', 'day', '2020-03-28 23:00+00', 23), ('b', 'day', '2020-03-29 22:00+00', 24), ('b', 'day', '2020-10-24 22:00+00', 25), ('b', 'day', '2020-10-25 23:00+00', 24.5),
        ('b', 'month', '2020-02-28 23:00+00', 3), ('b', 'month', '2020-03-31 22:00+00', 4), ('b', 'month', '2020-09-30 22:00+00', 10), ('b', 'month', '2020-10-31 23:00+00', 11),
        -- 02:00 to 03:00 twice
        ('b', 'hour', '2020-10-25 00:00+00', 2.1), ('b', 'hour', '2020-10-25 01:00+00', 2.2), ('b', 'hour', '2020-10-25 02:00+00', 3.1),
        ('b', 'minute', '2020-10-25 00:59+00', 59), ('b', 'minute', '2020-10-25 01:00+00', 60),
        -- half an hour
        ('l', 'day', '2020-04-03 13:00+00', 3), ('l', 'day', '2020-04-04 13:00+00', 4), ('l', 'day', '2020-04-05 13:30+00', 5),
        -- a day that was left out
        ('s', 'day', '2011-12-29 10:00+00', 29), ('s', 'day', '2011-12-30 10:00+00', 31)) AS u (meter, period, start, amount)
        JOIN plinth.meters m ON m.name = u.meter;
SELECT m, p, t, plinth.meter_read(m, 'k', p, t::timestamptz) FROM (VALUES
    (1, 'b', 'day', '2020-03-28 23:00+00'), (2, 'b', 'day', '2020-03-29 21:59:59.999999+00'), (3, 'b', 'day', '2020-03-29 22:00+00'), (4, 'b', 'day', '2020-03-28 22:59:59+00'),
    (5, 'b', 'day', '2020-10-24 22:00+00'), (6, 'b', 'day', '2020-10-25 22:59:59.999999+00'), (7, 'b', 'day', '2020-10-25 23:00+00'),
    (8, 'b', 'month', '2020-03-31 21:59:59+00'), (9, 'b', 'month', '2020-03-31 22:00+00'), (10, 'b', 'month', '2020-10-31 22:59:59+00'), (11, 'b', 'month', '2020-10-31 23:00+00'),
    (12, 'b', 'hour', '2020-10-25 00:30+00'), (13, 'b', 'hour', '2020-10-25 01:30+00'), (14, 'b', 'hour', '2020-10-25 02:00+00'),
    (15, 'b', 'minute', '2020-10-25 00:59:59.999999+00'), (16, 'b', 'minute', '2020-10-25 01:00+00'), (17, 'b', 'minute', '2020-10-25 01:01+00'),
    (18, 'l', 'day', '2020-04-04 12:59:59+00'), (19, 'l', 'day', '2020-04-04 13:00+00'), (20, 'l', 'day', '2020-04-05 13:29:59+00'), (21, 'l', 'day', '2020-04-05 13:30+00'),
    (22, 's', 'day', '2011-12-30 09:59:59+00'), (23, 's', 'day', '2011-12-30 10:00+00')) AS c (n, m, p, t) ORDER BY n;

-- What is counted now goes where PostgreSQL says that now is.
SELECT plinth.meter_add('b', 1, 'now'), plinth.meter_add('l', 1, 'now'), plinth.meter_add('s', 1, 'now');
SELECT plinth.meter_flush() >= 0 AS flushed;
SELECT m.name, u.period, u.period_start = date_trunc(u.period, u.updated_at, m.time_zone) AS now, u.amount
    FROM plinth.meter_usage u JOIN plinth.meters m ON m.id = u.meter_id WHERE u.key = 'now' AND u.period IN ('day', 'month') ORDER BY m.name, u.period;
SELECT name, resets_at = date_trunc('day', date_trunc('day', now(), time_zone) + interval '36 hours', time_zone) AS tomorrow
    FROM (SELECT name, time_zone, plinth.meter_quota(name, 'day', hard => 1) FROM plinth.meters ORDER BY name) m, plinth.meter_check(name, 0, 'now');

-- History, with what is not flushed yet.
SELECT * FROM plinth.meter_history('b', 'k');
SELECT * FROM plinth.meter_history('b', 'k', 'month', '2020-03-31 22:00+00', '2020-10-31 23:00+00');
SELECT * FROM plinth.meter_history('b', 'k', 'hour');
SELECT plinth.meter_add('b', 5, 'k', 'gpt');
SELECT count(*), sum(amount) FROM plinth.meter_history('b', 'k');
SELECT period_start = date_trunc('month', now(), 'Europe/Berlin') AS now, amount FROM plinth.meter_history('b', 'k', dimension => 'gpt');
SELECT * FROM plinth.meter_history('b', 'k', 'total');
SELECT * FROM plinth.meter_history('b', 'nobody');
SELECT * FROM plinth.meter_history('l', 'k', 'month');
SELECT plinth.meter_read('b', 'k', 'month', 'infinity'), plinth.meter_read('b', 'k', 'day', '-infinity'), plinth.meter_read('b', 'k', 'total', '1900-01-01');

-- An abbreviation means what a session sets.
SELECT plinth.meter_create('ist', time_zone => 'IST');
SELECT plinth.meter_create('est', time_zone => 'est');
UPDATE plinth.meters SET time_zone = 'CET' WHERE name = 'b';
SELECT plinth.meter_create('gmt', time_zone => 'GMT'), plinth.meter_create('utc', time_zone => 'Utc'), plinth.meter_create('kolkata', time_zone => 'Asia/Kolkata');

SELECT plinth.meter_drop(name) FROM plinth.meters;
