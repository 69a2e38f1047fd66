#!/usr/bin/env python3
"""What a rate limit's decision costs, beside Redis and a table: see docs/benchmarks.md.  Started by bench/run.sh."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common"))

import peers  # noqa: E402
from peers import Redis, compare, connect, pg, say_inside  # noqa: E402

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
        contestants = {
            "SELECT 1": [pg("SELECT 1")],
            "rate_limit_allow": [pg("SELECT plinth.rate_limit_allow('bench', $1)")],
            "rate_limit_check": [pg("SELECT allowed, remaining, retry_after FROM plinth.rate_limit_check('bench', $1)")],
            "Redis, Lua, answer alone": [redis.limit("unix", "answer")],
            "Redis, Lua, five values": [redis.limit("unix")],
            "Redis, Lua, answer, TCP": [redis.limit("tcp", "answer")],
            "upsert, UNLOGGED table": [pg(UPSERT)],
        }
        tcp = peers.PG.replace("host=" + os.environ["PGHOST"], "host=127.0.0.1")
        contestants["rate_limit_allow, TCP"] = [["pg", tcp, contestants["rate_limit_allow"][0][2]]]
        against = ["SELECT 1", "Redis, Lua, answer alone", "Redis, Lua, five values", "Redis, Lua, answer, TCP"]
        for clients, keys in ((1, 10000), (8, 10000), (8, 1)):
            compare("a decision over the wire", contestants, against, clients, keys)
    finally:
        redis.stop()
    say_inside("a decision", "plinth.rate_limit_check('bench', %s)", 10000)


main()
