#!/usr/bin/env python3
"""What a rate limit's decision costs, beside Redis and a table: see docs/benchmarks.md.  Started by bench/run.sh."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common"))

import peers  # noqa: E402
from peers import Redis, compare, connect, inside, pg, say, spread  # noqa: E402

# A generic cell rate algorithm: KEYS[1]; microseconds a unit, burst in units, cost.
GCRA = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then full = now end
local after = full + cost * interval
local room = now + burst * interval - after
if room < 0 then
  return {0, burst, math.floor((now + burst * interval - full) / interval), -room, full - now}
end
redis.call('SET', KEYS[1], after, 'PX', math.ceil((after - now) / 1000))
return {1, burst, math.floor(room / interval), 0, after - now}
"""

UPSERT = """
INSERT INTO bench_windows AS w (key, window_start, used) VALUES ($1, date_trunc('hour', now()), 1)
    ON CONFLICT (key) DO UPDATE SET
        used = CASE WHEN w.window_start = excluded.window_start THEN w.used + 1 ELSE 1 END,
        window_start = excluded.window_start
    RETURNING used <= 1000000000, 1000000000 - used
"""


def main():
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("""
        CREATE EXTENSION plinth;
        SELECT plinth.rate_limit_create('bench', 1000000000, '1 hour');
        CREATE UNLOGGED TABLE bench_windows (key text PRIMARY KEY, window_start timestamptz, used bigint)
            WITH (fillfactor = 50)""")
    redis = Redis()
    try:
        sha = redis.command("-x", "SCRIPT", "LOAD", text=GCRA)
        check = ["EVALSHA", sha, "1", "limit:%k", "4", "1000000000", "1"]
        contestants = {
            "SELECT 1": [pg("SELECT 1")],
            "rate_limit_check": [pg("SELECT allowed, remaining, retry_after FROM plinth.rate_limit_check('bench', $1)")],
            "Redis, Lua, unix socket": [redis.step("unix", *check)],
            "Redis, Lua, TCP": [redis.step("tcp", *check)],
            "upsert, UNLOGGED table": [pg(UPSERT)],
        }
        tcp = peers.PG.replace("host=" + os.environ["PGHOST"], "host=127.0.0.1")
        contestants["rate_limit_check, TCP"] = [["pg", tcp, contestants["rate_limit_check"][0][2]]]
        against = ["SELECT 1", "Redis, Lua, unix socket", "Redis, Lua, TCP"]
        for clients, keys in ((1, 10000), (8, 10000), (8, 1)):
            compare("a decision over the wire", contestants, against, clients, keys)
    finally:
        redis.stop()
    say()
    hot = "plinth.rate_limit_check('bench', 'hot')"
    say("inside the server, processor time of a decision in us (a key, an answer of five columns):")
    say("  one client     " + spread(inside(hot)))
    say("  8 on one key   " + spread(inside(hot, 8)))
    say("  10,000 keys    " + spread(inside("plinth.rate_limit_check('bench', 'k' || g % 10000)")) +
        "  with making the key, " + spread(inside("'k' || g % 10000")))


main()
