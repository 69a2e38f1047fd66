"""What the benchmarks of requests share: load on PostgreSQL and on Redis, alternating rounds, and how they are printed."""

import base64
import hashlib
import io
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

import psycopg2

BIN = os.environ["BENCH_BIN"]
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 10))
SECONDS = float(os.environ.get("BENCH_SECONDS", 1))
PG = "host=%s port=%s user=%s dbname=postgres" % (os.environ["PGHOST"], os.environ["PGPORT"], os.environ["PGUSER"])

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
  return DENIED
end
redis.call('SET', KEYS[1], after, 'PX', math.ceil((after - now) / 1000))
return ALLOWED
"""
# What it says: all that rate_limit_check does, or the answer alone.
GCRA_SAYS = {
    "all": ("{0, burst, math.floor((now + burst * interval - full) / interval), -room, full - now}",
            "{1, burst, math.floor(room / interval), 0, after - now}"),
    "answer": ("0", "1"),
}


def say(text=""):
    print(text, flush=True)


def connect():
    connection = psycopg2.connect(PG)
    connection.autocommit = True
    return connection


def make_sessions(cursor, count, path):
    """Users, each with a good session; path gets a line "k<number>, token, user's id" of each, separated by tabs."""
    cursor.execute("INSERT INTO plinth.users (id, email) SELECT plinth.uuid_v7(), 'u' || g || '@bench.test' "
                   "FROM generate_series(0, %s) g RETURNING id", (count - 1,))
    users = [row[0] for row in cursor.fetchall()]
    rows = io.StringIO()
    with open(path, "w") as keys:
        for number, user in enumerate(users):
            secret = os.urandom(32)
            token = "pls_" + base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
            rows.write("%s\t\\\\x%s\tinfinity\t168:00:00\n"
                       % (user, hashlib.blake2b(secret, digest_size=32).hexdigest()))
            keys.write("k%d\t%s\t%s\n" % (number, token, user))
    rows.seek(0)
    cursor.copy_expert("COPY plinth.sessions (user_id, token_hash, expires_at, idle_timeout) FROM STDIN", rows)
    cursor.execute("VACUUM ANALYZE plinth.users, plinth.sessions")


def spread(values):
    return "%.2f (%.2f-%.2f)" % (statistics.median(values), min(values), max(values))


def pg(sql):
    return ["pg", PG, sql]


class Redis:
    """A Redis of its own, in memory only, on a unix socket and a TCP port of the loopback."""

    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="plinth-bench-redis-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.socket = os.path.join(self.place, "redis.sock")
        self.scripts = {}
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket,
             "--save", "", "--appendonly", "no", "--dir", self.place], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("redis-server did not start")
            time.sleep(0.05)

    def command(self, *words, text=None):
        done = subprocess.run(["redis-cli", "-s", self.socket, *words], input=text, text=True, check=True,
                              capture_output=True)
        return done.stdout.strip()

    def step(self, transport, *words):
        """Words of one command, or of several with "&" between."""
        return ["redis", "unix:" + self.socket if transport == "unix" else "tcp:%d" % self.port, *words]

    def limit(self, transport, says="all"):
        """A decision of a limit of 1,000,000,000 an hour."""
        if says not in self.scripts:
            denied, allowed = GCRA_SAYS[says]
            self.scripts[says] = self.command("-x", "SCRIPT", "LOAD",
                                              text=GCRA.replace("DENIED", denied).replace("ALLOWED", allowed))
        return self.step(transport, "EVALSHA", self.scripts[says], "1", "limit:%k", "4", "1000000000", "1")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.place)


def joined(separator, parts):
    words = []
    for part in parts:
        words += ([separator] if words else []) + part
    return words


def pipelined(*steps):
    """One round trip out of several steps to the same target."""
    return steps[0][:2] + joined("&", [step[2:] for step in steps])


def load(clients, keys, *steps, delay=0):
    """Requests a second, and the percentiles of their times in microseconds.  keys: how many, or "@FILE"; delay: that of the
    network in microseconds, for each round trip."""
    done = subprocess.run([os.path.join(BIN, "load"), str(clients), str(SECONDS), str(keys), *joined("+", steps)],
                          text=True, check=True, stdout=subprocess.PIPE, env={**os.environ, "LOAD_DELAY": str(delay)})
    return [float(word) for word in done.stdout.split()]


def compare(title, contestants, against, clients, keys, delay=0, after=None):
    """Rounds in which all take turns; prints each one's rate and times, and the ratios of its rate and of its 95th percentile
    to those of each of against within the rounds.  after: for a contestant, what is to be waited for after its turn; its rate
    with that time counted in is another line."""
    after = after or {}
    rates = {name: [] for name in contestants}
    times = {name: [] for name in contestants}
    whole = {name: [] for name in after if name in contestants}
    for turn in range(ROUNDS):
        names = list(contestants)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            rate, *percentiles = load(clients, keys, *contestants[name], delay=delay)
            rates[name].append(rate)
            times[name].append(percentiles)
            if name in whole:
                begin = time.monotonic()
                after[name]()
                whole[name].append(rate * SECONDS / (SECONDS + time.monotonic() - begin))

    def ratios(mine, theirs):
        return spread([a / b for a, b in zip(mine, theirs)])

    say()
    say("%s: %d client%s, %s" % (title, clients, "s" * (clients > 1),
                                 "%d key%s" % (keys, "s" * (keys > 1)) if isinstance(keys, int) else "keys of a file"))
    for name in contestants:
        p95 = [t[1] for t in times[name]]
        others = ["%s / %s, p95 %s" % (ratios(rates[name], rates[other]), other, ratios(p95, [t[1] for t in times[other]]))
                  for other in against if other != name]
        say("  %-28s %9.0f/s  p50, p95, p99 %6.0f %6.0f %6.0f us   %s"
            % (name, statistics.median(rates[name]), *(statistics.median(t[i] for t in times[name]) for i in range(3)),
               "   ".join(others)))
        if name in whole:
            say("  %-28s %9.0f/s  %s" % ("  until all is stored", statistics.median(whole[name]),
                                         "   ".join("%s / %s" % (ratios(whole[name], rates[other]), other)
                                                    for other in against if other != name)))
    return rates


class Backend:
    """A connection, and the processor time that its backend has used so far."""

    def __init__(self):
        self.cursor = connect().cursor()
        self.cursor.execute("SELECT pg_backend_pid()")
        self.pid = self.cursor.fetchone()[0]

    def used(self):
        """In microseconds; whatever else runs on the machine does not count."""
        with open("/proc/%d/schedstat" % self.pid) as stat:
            return int(stat.read().split()[0]) / 1000

    def cost(self, query):
        before = self.used()
        self.cursor.execute(query)
        return self.used() - before


def inside(expression, clients=1, calls=200000, rows=None):
    """Microseconds of processor time that a call takes inside the server, by several clients at once; what a row costs by
    itself is taken off.  rows: a FROM clause that yields g, as often as there are calls.  One figure a round."""
    backends = [Backend() for _ in range(clients)]
    costs = []

    def one(backend, found):
        source = rows or "FROM generate_series(1, %d) g" % calls
        alone = backend.cost("SELECT count(g) " + source)
        found.append((backend.cost("SELECT count(%s) %s" % (expression, source)) - alone) / calls)

    for _ in range(ROUNDS):
        found = []
        threads = [threading.Thread(target=one, args=(backend, found)) for backend in backends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(found) < clients:
            raise RuntimeError("a client failed")
        costs.append(statistics.median(found))
    return costs


def say_inside(what, call, keys):
    """Prints what a call costs inside the server; call holds %s for its key."""
    key = "'k' || g %% %d" % keys
    say()
    say("inside the server, processor time of %s in us:" % what)
    say("  one client     " + spread(inside(call % "'k7'")))
    say("  8 on one key   " + spread(inside(call % "'k7'", 8)))
    say("  %-14s %s  with making the key, %s" % ("{:,} keys".format(keys), spread(inside(call % key)), spread(inside(key))))
