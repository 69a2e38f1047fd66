#!/usr/bin/env python3
"""What a cache's hit costs, beside Redis and a table, and a whole request: see docs/benchmarks.md.  Started by bench/run.sh."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common"))

import peers  # noqa: E402
from peers import Redis, compare, connect, pg, say_inside  # noqa: E402

KEYS = 1000
SIZE = 1024


def fill(cursor, redis):
    for statement in (
            "CREATE EXTENSION plinth",
            "SELECT plinth.cache_create('bench', ttl => '1 day', per_user => false)",
            "SELECT plinth.rate_limit_create('bench', 1000000000, '1 hour')",
            "CREATE UNLOGGED TABLE bench_cache (key text PRIMARY KEY, value text, expires_at timestamptz)",
            "CREATE TABLE bench_rows (key text PRIMARY KEY, body text)",
            "INSERT INTO bench_cache SELECT 'k' || g, repeat('x', %d), now() + interval '1 day' "
            "FROM generate_series(0, %d) g" % (SIZE, KEYS - 1),
            "INSERT INTO bench_rows SELECT key, left(value, 200) FROM bench_cache",
            "VACUUM ANALYZE bench_cache", "VACUUM ANALYZE bench_rows",
            "SELECT count(plinth.cache_set_text('bench', key, value)) FROM bench_cache"):
        cursor.execute(statement)
    redis.command(text="".join("SET k%d %s\nHSET session:k%d user_id %d role member aal 1 expires 99\n"
                               % (i, "x" * SIZE, i, i) for i in range(KEYS)))


def sign_in(cursor):
    cursor.execute("SELECT plinth.sign_up('bench@example.com', 'correct horse battery')")
    cursor.execute("SELECT token FROM plinth.sign_in('bench@example.com', 'correct horse battery')")
    return cursor.fetchone()[0]


def main():
    connection = connect()
    cursor = connection.cursor()
    redis = Redis()
    try:
        fill(cursor, redis)
        token = sign_in(cursor)
        tcp = peers.PG.replace("host=" + os.environ["PGHOST"], "host=127.0.0.1")
        get = "SELECT plinth.cache_get_text('bench', $1)"
        contestants = {
            "SELECT 1": [pg("SELECT 1")],
            "cache_get, 1 kB": [pg(get)],
            "cache_get, 1 kB, TCP": [["pg", tcp, get]],
            "Redis GET, unix socket": [redis.step("unix", "GET", "%k")],
            "Redis GET, TCP": [redis.step("tcp", "GET", "%k")],
            "table, UNLOGGED": [pg("SELECT value FROM bench_cache WHERE key = $1 AND expires_at > now()")],
        }
        for clients in (1, 8):
            compare("a hit over the wire", contestants,
                    ["SELECT 1", "Redis GET, unix socket", "Redis GET, TCP", "table, UNLOGGED"], clients, KEYS)
        sets = {
            "cache_set, 1 kB": [pg("SELECT plinth.cache_set_text('bench', $1, '%s')" % ("y" * SIZE))],
            "Redis SET, unix socket": [redis.step("unix", "SET", "%k", "y" * SIZE)],
            "upsert, UNLOGGED": [pg("INSERT INTO bench_cache VALUES ($1, '%s', now() + interval '1 day') ON CONFLICT (key) "
                                    "DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at RETURNING key"
                                    % ("y" * SIZE))],
        }
        for clients in (1, 8):
            compare("a value set", sets, list(sets)[1:], clients, KEYS)

        # One request of an application: who is it, may he, what was computed before, and one row.
        row = "SELECT body FROM bench_rows WHERE key = $1"
        request = {
            "one statement": [pg(
                "SELECT s.user_id, l.allowed, plinth.cache_get_text('bench', $1), r.body "
                "FROM plinth.session_verify('%s') s, plinth.rate_limit_check('bench', $1) l, bench_rows r WHERE r.key = $1"
                % token)],
            "Redis x 3, PostgreSQL": [redis.step("unix", "HGETALL", "session:%k"),
                                      redis.limit("unix"), redis.step("unix", "GET", "%k"), pg(row)],
            "the row alone": [pg(row)],
        }
        for clients in (1, 8):
            compare("session, limit, cache and one row", request, list(request)[1:], clients, KEYS)
    finally:
        redis.stop()
    say_inside("a hit of 1 kB", "plinth.cache_get_text('bench', %s)", KEYS)


main()
