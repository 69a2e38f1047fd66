-- Rate limits: policies, decisions, tiers, lists, and what is refused.
-- Periods are long, so that nothing comes back while the test runs.
\set VERBOSITY terse
SET search_path = pg_catalog;

CREATE FUNCTION pg_temp.ask(policy text, key text DEFAULT NULL, cost bigint DEFAULT 1) RETURNS text
    LANGUAGE sql BEGIN ATOMIC
    SELECT pg_catalog.format('%s, %s of %s, again in %s d, whole in %s d', CASE WHEN d.allowed THEN 'yes' ELSE 'no' END, d.remaining, d.limit_count,
        pg_catalog.ceil(EXTRACT(epoch FROM d.retry_after) / 86400), pg_catalog.ceil(EXTRACT(epoch FROM d.reset_after) / 86400))
    FROM plinth.rate_limit_check(ask.policy, ask.key, ask.cost) d;
END;
CREATE FUNCTION pg_temp.fails(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE query;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN SQLSTATE || ': ' || SQLERRM || coalesce(' -- ' || nullif(hint, ''), '');
END
$$;

-- A bucket of three, one a day.
SELECT plinth.rate_limit_create('bucket', 1, '1 day', burst => 3, scope => 'key') > 0 AS created;
SELECT n, pg_temp.ask('bucket', 'a') FROM generate_series(1, 5) n;
SELECT pg_temp.ask('bucket', 'b', 2), pg_temp.ask('bucket', 'b', 2), pg_temp.ask('bucket', 'b', 1);
SELECT pg_temp.ask('bucket', 'b', 0) AS peek, pg_temp.ask('bucket', 'c', 0) AS peek_unknown;
SELECT plinth.rate_limit_reset('bucket', 'a') AS used, plinth.rate_limit_reset('bucket', 'a') AS again, pg_temp.ask('bucket', 'a');

-- The answer alone, from the same bucket.
SELECT plinth.rate_limit_create('alone', 2, '2 days', scope => 'key') > 0 AS created;
SELECT n, plinth.rate_limit_allow('alone', 'a') FROM generate_series(1, 3) n;
SELECT plinth.rate_limit_allow('alone', 'a', 0) AS peek, plinth.rate_limit_allow('alone', 'b', cost => 2) AS both, pg_temp.ask('alone', 'b', 0);
SELECT pg_temp.fails(q) FROM unnest(ARRAY[$$SELECT plinth.rate_limit_allow('none', 'a')$$, $$SELECT plinth.rate_limit_allow(NULL, 'a')$$,
    $$SELECT plinth.rate_limit_allow('alone')$$, $$SELECT plinth.rate_limit_allow('alone', 'a', NULL)$$, $$SELECT plinth.rate_limit_allow('alone', 'a', 3)$$,
    $$SELECT plinth.rate_limit_allow('alone', 'a', -1)$$, $$SELECT plinth.rate_limit_allow('alone', '')$$]) q;
SELECT plinth.rate_limit_alter('alone', shadow => true);
SELECT plinth.rate_limit_allow('alone', 'a') AS in_shadow_mode;
SELECT allowed, denied, shadow_denied FROM plinth.stat_limits WHERE policy = 'alone';

-- token_bucket is another name; a lowered burst keeps what was used, another limit does not.
SELECT plinth.rate_limit_alter('bucket', algorithm => 'token_bucket');
SELECT pg_temp.ask('bucket', 'a', 0);
SELECT plinth.rate_limit_alter('bucket', burst => 1);
SELECT pg_temp.ask('bucket', 'a', 0);
SELECT plinth.rate_limit_alter('bucket', burst => 3, limit_count => 2);
SELECT pg_temp.ask('bucket', 'a', 0);

-- A window of thirty days; its end is where the calendar has it.
SELECT plinth.rate_limit_create('window', 2, '30 days', algorithm => 'fixed_window', scope => 'key') > 0 AS created;
SELECT (d).allowed, (d).remaining, (d).retry_after = CASE WHEN (d).allowed THEN interval '0' ELSE (d).reset_after END AS retry,
        (d).reset_after BETWEEN interval '1 microsecond' AND interval '30 days' AS reset
    FROM (SELECT plinth.rate_limit_check('window', 'a') AS d FROM generate_series(1, 3) OFFSET 0) s;

-- Several at once: all or nothing.
SELECT plinth.rate_limit_create('wide', 10, '10 days', scope => 'key') > 0 AS created;
SELECT allowed, policy, remaining FROM plinth.rate_limit_check_all('{wide,window}', 'm');
SELECT allowed, policy, remaining FROM plinth.rate_limit_check_all('{window,wide}', 'm');
SELECT allowed, policy, remaining FROM plinth.rate_limit_check_all('{wide,window}', 'm');
SELECT pg_temp.ask('wide', 'm', 0) AS nothing_was_consumed;
SELECT allowed, policy, remaining FROM plinth.rate_limit_check_all('{wide,window}', 'm', 0);
SELECT allowed, policy, remaining FROM plinth.rate_limit_check_all('{wide,bucket}', 'n', 3);

-- What is consumed stays consumed.
BEGIN;
SELECT pg_temp.ask('wide', 'rolled back', 4);
ROLLBACK;
BEGIN READ ONLY;
SELECT pg_temp.ask('wide', 'rolled back', 4);
ROLLBACK;
SELECT pg_temp.ask('wide', 'rolled back', 0);

-- Shadow mode, not enabled.
SELECT plinth.rate_limit_alter('wide', shadow => true);
SELECT pg_temp.ask('wide', 's', 10), pg_temp.ask('wide', 's'), pg_temp.ask('wide', 's', 0);
SELECT allowed, policy FROM plinth.rate_limit_check_all('{wide,bucket}', 's');
SELECT plinth.rate_limit_alter('wide', shadow => false, enabled => false);
SELECT pg_temp.ask('wide', 's', 10), pg_temp.ask('wide', 's');
SELECT plinth.rate_limit_alter('wide', enabled => true);
SELECT pg_temp.ask('wide', 's');

-- Ad hoc.
SELECT n, d.allowed, d.remaining FROM generate_series(1, 3) n,
    LATERAL plinth.rate_limit_check_adhoc(repeat('x', 1024), 2, '2 days', cost => n - n + 1) d;
SELECT (plinth.rate_limit_check_adhoc('other', 7, '1 s', burst => 4, cost => 4)).remaining;

-- Whom a call without a key counts.
SELECT plinth.rate_limit_create('by_user', 2, '2 days') > 0 AND plinth.rate_limit_create('by_address', 2, '2 days', scope => 'address') > 0
    AND plinth.rate_limit_create('by_session', 2, '2 days', scope => 'session') > 0
    AND plinth.rate_limit_create('by_endpoint', 2, '2 days', scope => 'endpoint') > 0 AS created;
SELECT pg_temp.ask('by_user'), pg_temp.ask('by_user', 'local', 0), pg_temp.ask('by_address'), pg_temp.ask('by_address', 'local', 0);
SELECT pg_temp.ask('by_endpoint'), pg_temp.ask('by_endpoint', 'local ', 0);
BEGIN;
SET LOCAL request.path = '/rpc/one';
SELECT pg_temp.ask('by_endpoint'), pg_temp.ask('by_endpoint', 'local /rpc/one', 0);
SELECT set_config('request.path', repeat('é', 1000), true) = '' AS set;
SELECT pg_temp.ask('by_endpoint'), pg_temp.ask('by_endpoint', 'local ' || repeat('é', 128), 0);
COMMIT;

-- Addresses: IPv6 by /64, IPv4 in IPv6 is IPv4.
SELECT pg_temp.ask('by_address', '2001:db8::1'), pg_temp.ask('by_address', '2001:DB8:0:0:ffff::2'), pg_temp.ask('by_address', '2001:db8:0:1::1', 0),
    pg_temp.ask('by_address', 'address:2001:db8::/64', 0);
SELECT pg_temp.ask('by_address', '192.0.2.7'), pg_temp.ask('by_address', '::ffff:192.0.2.7'), pg_temp.ask('by_address', 'address:192.0.2.7', 0);
SELECT k,
    pg_temp.fails(format('SELECT plinth.rate_limit_check(%L, %L)', 'by_address', k)) FROM unnest(ARRAY['192.0.2', '[2001:db8::1]', '2001:db8::1%eth0', 'x']) k;

-- Tiers, users and sessions.
SELECT user_id AS free FROM plinth.sign_up('limits.free@example.com', 'correct horse battery') \gset
SELECT user_id AS pro FROM plinth.sign_up('limits.pro@example.com', 'correct horse battery') \gset
UPDATE plinth.users SET tier = 'pro' WHERE id = :'pro';
SELECT token AS free_token FROM plinth.sign_in('limits.free@example.com', 'correct horse battery') \gset
SELECT token AS pro_token FROM plinth.sign_in('limits.pro@example.com', 'correct horse battery') \gset
UPDATE plinth.rate_limits SET tiers = '{"pro": {"limit_count": 20}, "team": {"burst": 7, "period": "5 days"}}' WHERE name = 'by_user';
BEGIN;
SELECT plinth.context_begin(:'free_token') = :'free' AS begun;
RESET ROLE;
SELECT pg_temp.ask('by_user'), pg_temp.ask('by_user', 'user:' || :'free', 0), pg_temp.ask('by_session'), pg_temp.ask('by_address', NULL, 0);
COMMIT;
BEGIN;
SELECT plinth.context_begin(:'pro_token') = :'pro' AS begun;
RESET ROLE;
SELECT pg_temp.ask('by_user', cost => 19), pg_temp.ask('by_user', 'user:' || :'pro', 0);
COMMIT;
SELECT pg_temp.ask('by_user', 'user:' || :'pro', 0) AS terms_of_nobody, plinth.rate_limit_reset('by_user', 'user:' || :'pro') AS reset;
BEGIN;
SELECT plinth.context_begin(:'pro_token') = :'pro' AS begun;
RESET ROLE;
SELECT pg_temp.ask('by_user', cost => 0);
COMMIT;

-- Lists.
INSERT INTO plinth.rate_limit_rules (policy, network, key, action) VALUES ('by_address', '192.0.2.0/24', NULL, 'deny'),
    ('by_address', '192.0.2.128/25', NULL, 'allow'), ('by_address', '192.0.2.128/25', NULL, 'deny'), ('by_address', '192.0.2.240/28', NULL, 'allow'),
    (NULL, '2001:db8:dead::/48', NULL, 'deny'), ('wide', NULL, 'friend', 'allow'), (NULL, NULL, 'foe', 'deny'), ('wide', '0.0.0.0/0', NULL, 'deny'),
    ('bucket', '::ffff:198.51.100.0/120', NULL, 'deny');
SELECT k, pg_temp.ask('by_address', k) FROM unnest(ARRAY['192.0.2.1', '192.0.2.129', '192.0.2.241', '198.51.100.1', '2001:db8:dead:1::1', '2001:db8:beef::1']) k;
-- A single host is not its /64, and the /64 as a key is no host.
INSERT INTO plinth.rate_limit_rules (policy, network, key, action) VALUES ('by_address', '2001:db8:8::5/128', NULL, 'deny'),
    ('by_address', '2001:db8:9::/128', NULL, 'deny'), ('by_address', '2001:db8:a::/128', NULL, 'allow'), ('by_address', NULL, '2001:db8:b::5', 'deny'),
    ('by_address', NULL, 'address:2001:db8:c::/64', 'deny');
SELECT k, pg_temp.ask('by_address', k, 0) FROM unnest(ARRAY['2001:db8:8::5', 'address:2001:DB8:8:0::5', '2001:db8:8::6', '2001:db8:8::/64', '2001:db8:9::',
    '2001:db8:9::77', '2001:db8:9::/64', '2001:db8:b::5', '2001:db8:b::6', '2001:db8:c::5']) k;
SELECT k, pg_temp.ask('by_address', k, 2), pg_temp.ask('by_address', k, 2) AS again FROM unnest(ARRAY['2001:db8:a::', '2001:db8:a::1', '2001:db8:a::/64']) k;
SELECT k, pg_temp.ask('wide', k, 10), pg_temp.ask('wide', k, 10) AS again FROM unnest(ARRAY['friend', 'friends', 'foe', '192.0.2.1']) k;
SELECT pg_temp.ask('bucket', '198.51.100.9') AS mapped, pg_temp.ask('bucket', 'foe') AS foe;
SELECT allowed, policy, retry_after FROM plinth.rate_limit_check_all('{window,wide}', '10.0.0.1');
SELECT remaining AS nothing_was_consumed FROM plinth.rate_limit_check('window', '10.0.0.1', 0);
SELECT plinth.rate_limit_drop('wide') AS dropped, plinth.rate_limit_drop('wide') AS again;
SELECT count(*) AS rules_of_wide FROM plinth.rate_limit_rules WHERE policy = 'wide';
DELETE FROM plinth.rate_limit_rules;

-- In its own transaction a change is seen at once, and gone when rolled back.
BEGIN;
SELECT plinth.rate_limit_create('mine', 2, '2 days', scope => 'key') > 0 AS created;
SELECT pg_temp.ask('mine', 'a');
SAVEPOINT s;
SELECT plinth.rate_limit_alter('mine', limit_count => 4);
SELECT pg_temp.ask('mine', 'a');
ROLLBACK TO s;
SELECT pg_temp.ask('mine', 'a');
ROLLBACK;
SELECT pg_temp.fails($$SELECT plinth.rate_limit_check('mine', 'a')$$);

-- A policy that comes again knows nothing of its predecessor's keys, in its own transaction neither.
SELECT plinth.rate_limit_create('again', 2, '2 days', scope => 'key') > 0 AS created;
SELECT pg_temp.ask('again', 'a', 2);
SELECT plinth.rate_limit_drop('again'), plinth.rate_limit_create('again', 2, '2 days', scope => 'key') > 0;
SELECT pg_temp.ask('again', 'a', 0);

-- rate_limit_require.
SELECT plinth.rate_limit_create('strict', 2, '2 days', scope => 'key') > 0 AS created;
SELECT plinth.rate_limit_require('strict', 'a', 2);
SELECT pg_temp.fails($$SELECT plinth.rate_limit_require('strict', 'a')$$);
BEGIN;
SET LOCAL request.method = 'GET';
SET LOCAL response.headers = '[{"Set-Cookie": "a=b"}, {"X": "1"}, {"RateLimit": "\"other\";r=9;t=9"}, {"RateLimit-Policy": "\"other\";q=9"}]';
SELECT plinth.rate_limit_require('strict', 'b');
SELECT jsonb_pretty(current_setting('response.headers')::jsonb);
SELECT plinth.rate_limit_require('strict', 'b');
SELECT regexp_replace(e ->> 'RateLimit', 't=172[78]\d\d$', 't=1728..') FROM jsonb_array_elements(current_setting('response.headers')::jsonb) e WHERE e ? 'RateLimit';
\set VERBOSITY default
DO $$
DECLARE
    detail text;
BEGIN
    PERFORM plinth.rate_limit_require('strict', 'b');
EXCEPTION WHEN SQLSTATE 'PGRST' THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
    RAISE NOTICE '% %', SQLERRM::jsonb ->> 'message', regexp_replace((detail::jsonb)::text, '(86[34]|172[78])\d\d', '\1..', 'g');
END
$$;
\set VERBOSITY terse
ROLLBACK;

-- Bad input.
SELECT q, pg_temp.fails('SELECT plinth.' || q) FROM unnest(ARRAY[
    $$rate_limit_check('nobody', 'a')$$, $$rate_limit_check('', 'a')$$, $$rate_limit_check(repeat('x', 500), 'a')$$,
    $$rate_limit_check(NULL, 'a')$$, $$rate_limit_check('strict')$$, $$rate_limit_check('strict', 'a', NULL)$$,
    $$rate_limit_check('strict', '')$$, $$rate_limit_check('strict', repeat('é', 513))$$,
    $$rate_limit_check('strict', 'a', -1)$$, $$rate_limit_check('strict', 'a', 3)$$, $$rate_limit_check('window', 'a', 3)$$,
    $$rate_limit_check('strict', 'a', 9223372036854775807)$$,
    $$rate_limit_check_all('{}', 'a')$$, $$rate_limit_check_all(NULL, 'a')$$, $$rate_limit_check_all('{strict,NULL}', 'a')$$,
    $$rate_limit_check_all('{strict,strict}', 'a')$$, $$rate_limit_check_all('{strict,nobody}', 'a')$$,
    $$rate_limit_check_all(array_fill('strict'::text, '{17}'), 'a')$$, $$rate_limit_check_all('{by_user,strict}')$$,
    $$rate_limit_reset('nobody', 'a')$$, $$rate_limit_reset('strict')$$, $$rate_limit_reset(NULL, 'a')$$, $$rate_limit_require('nobody', 'a')$$,
    $$rate_limit_check_adhoc(NULL, 1, '1 s')$$, $$rate_limit_check_adhoc('', 1, '1 s')$$, $$rate_limit_check_adhoc('a', NULL, '1 s')$$,
    $$rate_limit_check_adhoc('a', 0, '1 s')$$, $$rate_limit_check_adhoc('a', 1, '-1 s')$$, $$rate_limit_check_adhoc('a', 1, '-1 month')$$,
    $$rate_limit_check_adhoc('a', 1, '178000000 years')$$, $$rate_limit_check_adhoc('a', 1, '10 ms')$$, $$rate_limit_check_adhoc('a', 1, '1 s', -1)$$,
    $$rate_limit_check_adhoc('a', 1, '1 day', 367)$$, $$rate_limit_check_adhoc('a', 1, '1 s', cost => 2)$$,
    $$rate_limit_create('x y', 1, '1 s')$$, $$rate_limit_create('strict', 1, '1 s')$$, $$rate_limit_create('x', 0, '1 s')$$,
    $$rate_limit_create('x', 1, '367 days')$$, $$rate_limit_create('x', 1, '1 day', 400)$$, $$rate_limit_create('x', 1, '1 s', algorithm => 'leaky')$$,
    $$rate_limit_create('x', 1, '1 s', 2, algorithm => 'fixed_window')$$, $$rate_limit_create('x', 1, '1 s', scope => 'planet')$$,
    $$rate_limit_create('x', 1, '1 s', on_error => 'panic')$$, $$rate_limit_create('x', 1, '1 s', tiers => '[]')$$,
    $$rate_limit_create('x', 1, '1 s', tiers => '{"pro": 5}')$$, $$rate_limit_create('x', 1, '1 s', tiers => '{"pro": {"limit": 5}}')$$,
    $$rate_limit_create('x', 1, '1 s', tiers => '{"pro": {"limit_count": 0}}')$$, $$rate_limit_create('x', 1, '1 s', tiers => '{"pro": {"period": "long"}}')$$,
    $$rate_limit_create(NULL, 1, '1 s')$$, $$rate_limit_alter('nobody', 1)$$, $$rate_limit_alter('strict', 0)$$]) q;

-- Rights: a client may neither ask for another's key nor see or change policies.
SET ROLE authenticated;
SELECT pg_temp.fails($$SELECT plinth.rate_limit_check('strict', 'a')$$);
SELECT pg_temp.fails($$SELECT plinth.rate_limit_check_adhoc('a', 1, '1 s')$$);
SELECT pg_temp.fails($$SELECT * FROM plinth.rate_limits$$);
SELECT pg_temp.fails($$SELECT * FROM plinth.stat_limits$$);
SET ROLE plinth_admin;
SELECT plinth.rate_limit_create('admin', 1, '1 day', scope => 'key', tiers => '{"pro": {"burst": 2}}') > 0 AS created;
SELECT (plinth.rate_limit_check('admin', 'a')).remaining, (plinth.rate_limit_check('admin', 'a')).allowed;
INSERT INTO plinth.rate_limit_rules (policy, key, action) VALUES ('admin', 'a', 'allow');
SELECT (plinth.rate_limit_check('admin', 'a')).allowed;
SELECT * FROM plinth.stat_limits WHERE policy IN ('admin', 'strict', 'by_session') ORDER BY 1;
SELECT plinth.rate_limit_drop('admin');
RESET ROLE;

-- TRUNCATE forgets the keys of all policies, those without a policy not; a replica's apply fires triggers of rows only.
SELECT plinth.rate_limit_create('emptied', 2, '2 days', scope => 'key') AS emptied \gset
SELECT pg_temp.ask('emptied', 'a', 2), (plinth.rate_limit_check_adhoc('kept', 5, '5 days', cost => 4)).remaining;
TRUNCATE plinth.rate_limits, plinth.rate_limit_rules;
INSERT INTO plinth.rate_limits (id, name, limit_count, period, scope) OVERRIDING SYSTEM VALUE VALUES (:emptied, 'emptied', 2, '2 days', 'key');
SELECT pg_temp.ask('emptied', 'a', 0), (plinth.rate_limit_check_adhoc('kept', 5, '5 days', cost => 0)).remaining;

DELETE FROM plinth.rate_limits;
DELETE FROM plinth.users WHERE email LIKE 'limits.%';
SELECT count(*) AS policies_in_stat FROM plinth.stat_limits WHERE policy <> '(ad hoc)' AND policy NOT LIKE 'plinth.%';
