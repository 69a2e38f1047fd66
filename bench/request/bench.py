#!/usr/bin/env python3
"""An authorised request in one statement, beside the usual stack: see docs/benchmarks.md.  Started by bench/run.sh."""

import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "common"))

import peers  # noqa: E402
import rest  # noqa: E402
from peers import Redis, compare, connect, make_sessions, pg, pipelined  # noqa: E402

USERS = 1000
DELAY = 500
PARTS = os.environ.get("BENCH_PARTS", "stack rest").split()

# Both sides: a note of each user, a page computed before of 1 kB, and where what was done is written down.
SETUP = """
CREATE EXTENSION plinth;
SELECT plinth.audit_event_enable();
SELECT plinth.cache_create('page', ttl => '1 day', per_user => false, roles => '{authenticated}');
SELECT plinth.rate_limit_create('bench', 1000000000, '1 hour');
CREATE ROLE bench_app LOGIN IN ROLE authenticated;
CREATE TABLE bench_notes (key text PRIMARY KEY, owner_id uuid NOT NULL, body text NOT NULL);
CREATE TABLE bench_audit (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), action text NOT NULL,
    resource text, actor uuid, metadata jsonb NOT NULL DEFAULT '{}');
CREATE INDEX ON bench_audit (at);
CREATE INDEX ON bench_audit (actor, at);
ALTER TABLE bench_notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bench_notes TO authenticated USING (owner_id = (SELECT plinth.current_user_id()));
GRANT SELECT ON bench_notes TO authenticated;
GRANT EXECUTE ON FUNCTION plinth.rate_limit_allow(text, text, bigint) TO authenticated;
"""

# The row is looked for only once the context has begun, of which the policy asks.
REQUEST = """
SELECT r.body, plinth.cache_get_text('page', $1), plinth.%s('note.read', $1)
  FROM plinth.context_begin($2) AS u (id),
       LATERAL (SELECT plinth.rate_limit_allow('bench', u.id::text)) AS l (allowed),
       LATERAL (SELECT n.body FROM bench_notes n WHERE l.allowed AND n.key = CASE WHEN u.id IS NOT NULL THEN $1 END) AS r
"""

# The same as an application would write it.
FUNCTION = """
CREATE FUNCTION bench_request(token text, note text, OUT body text, OUT page text, OUT event uuid) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM plinth.context_begin(token);
    IF NOT plinth.rate_limit_allow('bench', plinth.current_user_id()::text) THEN
        RAISE 'too many requests' USING ERRCODE = 'PT429';
    END IF;
    SELECT n.body INTO body FROM bench_notes n WHERE n.key = note;
    page := plinth.cache_get_text('page', note);
    event := plinth.audit_event('note.read', note);
END
$$
"""


def fill(cursor, redis, keys):
    for statement in SETUP.strip().split(";\n"):
        cursor.execute(statement)
    cursor.execute(FUNCTION)
    make_sessions(cursor, USERS, keys)
    with open(keys) as lines:
        users = [line.rstrip("\n").split("\t") for line in lines]
    cursor.executemany("INSERT INTO bench_notes VALUES (%s, %s, repeat('n', 200))", [(key, user) for key, _, user in users])
    cursor.execute("VACUUM ANALYZE bench_notes")
    cursor.execute("SELECT count(plinth.cache_set_text('page', key, repeat('x', 1024))) FROM bench_notes")
    redis.command(text="".join("SET page:%s %s\nHSET session:%s user_id %s role member aal 1 expires 99\n"
                               % (key, "x" * 1024, token, user) for key, token, user in users))
    while True:
        cursor.execute("SELECT ready FROM plinth.stat_audit")
        if cursor.fetchone()[0]:
            return
        time.sleep(0.1)


def until_stored(cursor):
    """Waits until the decoder has stored every event that was called."""
    cursor.execute("SELECT pg_logical_emit_message(true, 'mark', '')")
    lsn = cursor.fetchone()[0]
    while True:
        cursor.execute("SELECT decoded >= %s FROM plinth.stat_decode", (lsn,))
        if cursor.fetchone()[0]:
            return
        time.sleep(0.01)


def usual_stack(redis, target):
    """Two round trips: session, limit and page from Redis, then the row and the audit entry in one transaction."""
    return [
        pipelined(redis.step("unix", "HGETALL", "session:%2"), redis.limit("unix", "answer"),
                  redis.step("unix", "GET", "page:%k")),
        pipelined(["pg", target, "SELECT body FROM bench_notes WHERE key = $1 AND owner_id = $3::uuid"],
                  ["pg", target, "INSERT INTO bench_audit (action, resource, actor) "
                                 "VALUES ('note.read', $1, $3::uuid)"]),
    ]


def beside_usual_stack(cursor, redis, keys):
    # Outside of a transaction block context_begin warns the client that it ends with the statement, which is what is wanted.
    ours = peers.PG.replace("user=" + os.environ["PGUSER"], "user=bench_app") + " options='-c client_min_messages=error'"
    contestants = {
        "usual, flushed": usual_stack(redis, peers.PG),
        "usual, not flushed": usual_stack(redis, peers.PG + " options='-c synchronous_commit=off'"),
        "audit_event": [["pg", ours, REQUEST % "audit_event"]],
        "audit_event, PL/pgSQL": [["pg", ours, "SELECT body, page, event FROM bench_request($2, $1)"]],
        "audit_event, flushed": [["pg", ours, (REQUEST % "audit_event").replace("'note.read', $1", "'note.read', $1, flush => true")]],
        "audit_record, flushed": [["pg", ours, REQUEST % "audit_record"]],
        "audit_record, not flushed": [["pg", ours.replace("'-c", "'-c synchronous_commit=off -c"), REQUEST % "audit_record"]],
    }
    # What nobody can be faster than who waits for a flush.
    contestants["a flush and nothing else"] = [pg("SELECT pg_logical_emit_message(true, 'bench', '')")]
    after = {name: lambda: until_stored(cursor) for name in contestants if name.startswith("audit_event")}
    against = ["usual, flushed", "usual, not flushed"]
    for clients in (1, 8):
        compare("an authorised request", contestants, against, clients, "@" + keys, after=after)
    compare("the same, %.1f ms of network in each round trip" % (DELAY / 1000), contestants, against, 8, "@" + keys,
            delay=DELAY, after=after)


def main():
    cursor = connect().cursor()
    redis = Redis()
    with tempfile.TemporaryDirectory() as place:
        keys = os.path.join(place, "keys")
        try:
            fill(cursor, redis, keys)
            if "stack" in PARTS:
                beside_usual_stack(cursor, redis, keys)
            if "rest" in PARTS:
                rest.run(cursor, keys, lambda: until_stored(cursor))
        finally:
            redis.stop()


main()
