#!/usr/bin/env python3
"""What a session costs to verify, beside Redis and a table: see docs/benchmarks.md.  Started by bench/run.sh."""

import os
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common"))

from peers import Redis, compare, connect, inside, make_sessions, pg, pipelined, say, spread  # noqa: E402

SESSIONS = int(os.environ.get("BENCH_ROWS", 100000))
CALLS = min(SESSIONS, 200000)
LOOK_UP = """
SELECT s.id, s.user_id, s.expires_at, s.aal, u.role FROM plinth.sessions s JOIN plinth.users u ON u.id = s.user_id
 WHERE s.token_hash = $1::bytea AND s.revoked_at IS NULL AND s.expires_at > now()
   AND s.last_active_at + s.idle_timeout > now() AND u.status = 'active' AND u.deleted_at IS NULL
"""


def say_memory(cursor):
    cursor.execute("""SELECT (SELECT sum(allocated_size) FROM pg_shmem_allocations WHERE name LIKE 'plinth session%')
                           / (SELECT capacity FROM plinth.stat_sessions), (SELECT entries FROM plinth.stat_sessions)""")
    say()
    say("shared memory of a session: %.0f bytes; %d are in it" % cursor.fetchone())


def main():
    cursor = connect().cursor()
    cursor.execute("CREATE EXTENSION plinth")
    redis = Redis()
    with tempfile.TemporaryDirectory() as place:
        keys = os.path.join(place, "keys")
        try:
            make_sessions(cursor, SESSIONS, keys)
            cursor.execute("CREATE UNLOGGED TABLE bench_tokens (key text, token text, user_id uuid)")
            with open(keys) as lines:
                cursor.copy_from(lines, "bench_tokens")
            cursor.execute("VACUUM ANALYZE bench_tokens")
            hashes = os.path.join(place, "hashes")
            cursor.execute("SELECT token_hash::text FROM plinth.sessions")
            with open(hashes, "w") as file:
                file.writelines(row[0] + "\n" for row in cursor.fetchall())
            with open(keys) as lines:
                redis.command(text="".join("HSET session:%s user_id %s role member aal 1 expires 99\n" % tuple(line.split()[1:])
                                           for line in lines))
            # Each is looked up once, so that what is measured is found in memory as far as it fits.
            cursor.execute("SELECT count((plinth.session_verify(token)).user_id) FROM bench_tokens")
            if cursor.fetchone()[0] != SESSIONS:
                raise RuntimeError("not every session is good")
            say_memory(cursor)
            contestants = {
                "SELECT 1": [pg("SELECT 1")],
                "session_verify": [pg("SELECT user_id, session_id, aal, role FROM plinth.session_verify($2)")],
                "session_verify, one column": [pg("SELECT user_id FROM plinth.session_verify($2)")],
                "(session_verify).user_id": [pg("SELECT (plinth.session_verify($2)).user_id")],
                "Redis HGETALL + EXPIRE": [pipelined(redis.step("unix", "HGETALL", "session:%2"),
                                                     redis.step("unix", "EXPIRE", "session:%2", "604800"))],
            }
            against = ["SELECT 1", "Redis HGETALL + EXPIRE"]
            for clients in (1, 8):
                compare("a session over the wire", contestants, against, clients, "@" + keys)
                compare("a look-up in the tables", {"SELECT 1": [pg("SELECT 1")], "tables": [pg(LOOK_UP)]}, ["SELECT 1"],
                        clients, "@" + hashes)
        finally:
            redis.stop()
    rows = "FROM (SELECT token AS g FROM bench_tokens LIMIT %d) t" % CALLS
    call = "(plinth.session_verify(g)).user_id"
    say()
    say("inside the server, processor time of a verification among %d sessions in us:" % SESSIONS)
    say("  one client     " + spread(inside(call, 1, CALLS, rows)))
    say("  8 clients      " + spread(inside(call, 8, CALLS, rows)))


main()
