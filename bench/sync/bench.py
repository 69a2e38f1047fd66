#!/usr/bin/env python3
"""What sync can do, beside what else could do it: see docs/benchmarks.md.

Started by bench/run.sh, which made the cluster.  Everything that is compared
runs alternately, several rounds; figures are medians over the rounds.
"""

import glob
import os
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import threading
import time

import psycopg2
import pymongo
from bson.raw_bson import RawBSONDocument

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.environ["BENCH_BIN"]
ROWS = int(os.environ.get("BENCH_ROWS", 50000))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
SECONDS = int(os.environ.get("BENCH_SECONDS", 8))
PARTS = os.environ.get("BENCH_PARTS", "throughput sink lanes app lag memory").split()
BATCH = 1000  # plinth.sync_batch_rows
AT_ONCE = 100  # rows of a transaction of the stream
LARGE = int(os.environ.get("BENCH_LARGE", 10000000))
PROBES = 150
DATABASE = "plinth_bench"
INSERT = ("INSERT INTO bench.replies SELECT $1::bigint, thread_id, author_id, body, tags, score, likes, hidden, "
          "created_at, edited_at FROM bench.fill(7, 7)")


def say(text=""):
    print(text, flush=True)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def spread(values):
    return "%.2f (%.2f-%.2f)" % (statistics.median(values), min(values), max(values))


class Server:
    """A program that says "port N" and ends with its standard input."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("port "):
            raise RuntimeError("%s did not start" % command[0])
        self.uri = "mongodb://127.0.0.1:%d/" % int(line.split()[1])

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


class Memory(threading.Thread):
    """Watches the memory that the workers have for themselves."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids = pids
        self.peak = {name: 0 for name in pids}
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.05):
            for name, pid in self.pids.items():
                self.peak[name] = max(self.peak[name], private_memory(pid))

    def stop(self):
        self.done.set()
        self.join()
        return self.peak


def private_memory(pid):
    """MB that are the process's own, shared buffers left out."""
    with open("/proc/%d/status" % pid) as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0


def processor(pid):
    """Microseconds of processor time that it has had."""
    with open("/proc/%d/schedstat" % pid) as stat:
        return int(stat.read().split()[0]) / 1000


class Bench:
    def __init__(self):
        self.db = psycopg2.connect(dbname="postgres")
        self.db.autocommit = True
        self.number = 0
        self.folder = tempfile.mkdtemp(prefix="plinth-bench-")
        self.file = os.path.join(self.folder, "documents.bson")
        self.changed = os.path.join(self.folder, "changed.bson")

    def sql(self, text, *arguments):
        with self.db.cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, text, *arguments):
        return self.sql(text, *arguments)[0][0]

    def wait(self):
        if not self.value("SELECT plinth.sync_wait('10 minutes')"):
            raise RuntimeError("sync did not come to an end: %s" % self.sql("SELECT * FROM plinth.stat_sync"))

    def new_collection(self):
        self.number += 1
        return "c%d" % self.number

    def set_up(self, mongo_uri):
        with open(os.path.join(HERE, "schema.sql")) as script:
            self.sql(script.read())
        self.sql("INSERT INTO bench.replies SELECT * FROM bench.fill(1, %s)", ROWS)
        self.sql("VACUUM ANALYZE")
        self.add_server("docs", mongo_uri)

    def add_server(self, name, uri):
        self.sql("CREATE SERVER %s FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri '%s', database '%s')"
                 % (name, uri, DATABASE))
        self.sql("CREATE USER MAPPING FOR PUBLIC SERVER %s" % name)

    def keep_alive(self, server):
        """A mapping that keeps the decoder and the server's lane running."""
        self.sql("SELECT plinth.sync_table('bench.quiet', %s, name => %s, collection => 'quiet')", server,
                 "quiet_" + server)
        self.wait()

    def worker(self, service, server=None):
        where = "" if server is None else " AND message = '%s'" % server
        deadline = time.time() + 30
        while time.time() < deadline:
            found = self.sql("SELECT pid FROM plinth.stat_workers WHERE service = %s AND pid <> 0" + where, service)
            if found:
                return found[0][0]
            time.sleep(0.1)
        raise RuntimeError("no %s is running" % service)

    # ---- throughput ----

    def snapshot(self, server, collection):
        start = time.monotonic()
        self.sql("SELECT plinth.sync_table('bench.replies', %s, collection => %s)", server, collection)
        self.wait()
        return ROWS / (time.monotonic() - start)

    def stream(self):
        """Rows that are in the WAL already, so that who wrote them takes no time of the machine."""
        decoder = self.worker("decoder")
        time.sleep(0.3)
        os.kill(decoder, signal.SIGSTOP)
        try:
            self.sql("CALL bench.touch_all(%d, %d)" % (ROWS, AT_ONCE))
        finally:
            start = time.monotonic()
            os.kill(decoder, signal.SIGCONT)
        self.wait()
        return ROWS / (time.monotonic() - start)

    def live(self):
        start = time.monotonic()
        self.sql("CALL bench.touch_all(%d, %d)" % (ROWS, AT_ONCE))
        self.wait()
        return ROWS / (time.monotonic() - start)

    def raw(self, uri, collection, file):
        out = subprocess.check_output([BIN + "/raw_writer", uri, DATABASE, collection, file, str(BATCH)], text=True)
        rows, seconds = out.split()
        return int(rows) / float(seconds)

    def making(self, server):
        """Seconds until a mapping of a table without rows is there and has nothing left to do."""
        start = time.monotonic()
        self.sql("SELECT plinth.sync_table('bench.empty', %s, collection => %s)", server, self.new_collection())
        self.wait()
        seconds = time.monotonic() - start
        self.sql("SELECT plinth.sync_drop('empty')")
        return seconds

    def export(self, uri, collection):
        """The documents as they are, and as the stream's UPDATEs leave them: replacing by the same is no work."""
        count = 0
        likes = b"\x10likes\0"
        with pymongo.MongoClient(uri, document_class=RawBSONDocument) as client, open(self.file, "wb") as out, \
                open(self.changed, "wb") as changed:
            for document in client[DATABASE][collection].find():
                raw = document.raw
                at = raw.index(likes) + len(likes)
                out.write(raw)
                changed.write(raw[:at] + struct.pack("<i", struct.unpack_from("<i", raw, at)[0] + 1) + raw[at + 4:])
                count += 1
        if count != ROWS:
            raise RuntimeError("%d documents of %d" % (count, ROWS))

    def throughput(self, server, uri, title):
        self.keep_alive(server)
        if not os.path.exists(self.file):
            collection = self.new_collection()
            self.snapshot(server, collection)
            self.export(uri, collection)
            self.sql("SELECT plinth.sync_drop('replies')")
        figures = {name: [] for name in ("snapshot", "raw insert", "stream", "raw replace", "live")}
        pids = {"decoder": self.worker("decoder"), "lane": self.worker("lane", server)}
        costs = {name: [] for name in ("snapshot", "stream", "live")}
        making = []

        def counted(name, work):
            before = {worker: processor(pid) for worker, pid in pids.items()}
            figures[name].append(work())
            costs[name].append({worker: (processor(pid) - before[worker]) / ROWS for worker, pid in pids.items()})

        for _ in range(ROUNDS):
            collection = self.new_collection()
            other = self.new_collection()
            making.append(self.making(server))
            figures["raw insert"].append(self.raw(uri, other, self.file))
            counted("snapshot", lambda: self.snapshot(server, collection))
            counted("stream", self.stream)
            figures["raw replace"].append(self.raw(uri, other, self.changed))
            counted("live", self.live)
            self.sql("SELECT plinth.sync_drop('replies')")
            self.sql("VACUUM bench.replies")
            with pymongo.MongoClient(uri) as client:
                client[DATABASE].drop_collection(collection)
                client[DATABASE].drop_collection(other)
        self.sql("SELECT plinth.sync_drop(%s)", "quiet_" + server)

        def ratio(name, raw):
            return spread([a / b for a, b in zip(figures[name], figures[raw])])

        say("\n%s: %d documents of %d bytes, %d rounds, batches of %d" %
            (title, ROWS, os.path.getsize(self.file) / ROWS, ROUNDS, BATCH))
        for name, values in figures.items():
            say("  %-34s %9.0f rows/s" % (name, statistics.median(values)))
        say("  %-34s %s" % ("snapshot / raw insert", ratio("snapshot", "raw insert")))
        say("  %-34s %s" % ("  once the mapping is made", spread(
            [ROWS / (ROWS / a - seconds) / b for a, b, seconds in zip(figures["snapshot"], figures["raw insert"], making)])))
        say("  %-34s %s ms" % ("  making a mapping", spread([seconds * 1000 for seconds in making])))
        say("  %-34s %s" % ("stream / raw replace", ratio("stream", "raw replace")))
        say("  %-34s %s" % ("live stream / raw replace", ratio("live", "raw replace")))
        for name, values in costs.items():
            say("  %-34s decoder %.2f, lane %.2f us a row" % ("processor time of " + name, *[
                statistics.median(value[worker] for value in values) for worker in ("decoder", "lane")]))

    # ---- lanes ----

    def lanes(self, server, uri, title):
        """The same rows by 1, 2 and 4 lanes, alternately; the stream with its rows in the WAL already."""
        self.keep_alive(server)
        counts = (1, 2, 4)
        figures = {(name, n): [] for name in ("snapshot", "stream") for n in counts}
        for number in range(ROUNDS):
            for step in range(len(counts)):
                n = counts[(number + step) % len(counts)]
                collection = self.new_collection()
                # The lanes that it needs run before the clock does.
                self.sql("SELECT plinth.sync_alter(%s, lanes => %s)", "quiet_" + server, n)
                while self.value("SELECT count(*) FROM plinth.stat_workers WHERE service = 'lane' AND pid > 0"
                                 " AND message = %s", server) < n:
                    time.sleep(0.1)
                self.wait()
                start = time.monotonic()
                self.sql("SELECT plinth.sync_table('bench.replies', %s, collection => %s, lanes => %s)", server, collection, n)
                self.wait()
                figures["snapshot", n].append(ROWS / (time.monotonic() - start))
                figures["stream", n].append(self.stream())
                self.sql("SELECT plinth.sync_drop('replies')")
                self.sql("VACUUM bench.replies")
                with pymongo.MongoClient(uri) as client:
                    client[DATABASE].drop_collection(collection)
        self.sql("SELECT plinth.sync_drop(%s)", "quiet_" + server)
        say("\n%s, by several lanes: %d rows, %d rounds, rows/s and how much of one lane's" % (title, ROWS, ROUNDS))
        for name in ("snapshot", "stream"):
            say("  %-10s" % name + "".join("  %d lane%s %9.0f (x %.2f)" %
                (n, " " if n == 1 else "s", statistics.median(figures[name, n]),
                 statistics.median([a / b for a, b in zip(figures[name, n], figures[name, 1])])) for n in counts))

    # ---- the writing application ----

    def pgbench(self, seconds, rate=0):
        """Transactions a second and their times in ms, waiting in the schedule included."""
        for file in glob.glob(self.folder + "/log.*"):
            os.unlink(file)
        command = ["pgbench", "-n", "-M", "prepared", "-c", "4", "-j", "2", "-T", str(seconds), "-l",
                   "--log-prefix", self.folder + "/log", "-D", "rows=%d" % ROWS, "-f", HERE + "/app.sql", "postgres"]
        if rate > 0:
            command[1:1] = ["-R", str(int(rate))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times = []
        for file in glob.glob(self.folder + "/log.*"):
            with open(file) as log:
                times += [int(line.split()[2]) / 1000 for line in log]
        return len(times) / seconds, times

    def switch(self, kind):
        if kind == "sync":
            self.sql("SELECT plinth.sync_table('bench.replies', 'docs', collection => %s, snapshot => false)",
                     self.new_collection())
            self.wait()
            time.sleep(1)
        elif kind == "outbox":
            self.sql("CREATE TRIGGER outbox AFTER INSERT OR UPDATE OR DELETE ON bench.replies "
                     "FOR EACH ROW EXECUTE FUNCTION bench.to_outbox()")

    def switch_off(self, kind):
        if kind == "sync":
            self.wait()
            self.sql("SELECT plinth.sync_drop('replies')")
            while self.sql("SELECT FROM pg_replication_slots"):
                time.sleep(0.1)
        elif kind == "outbox":
            self.sql("DROP TRIGGER outbox ON bench.replies")
            self.sql("TRUNCATE bench.outbox")

    def application(self):
        kinds = ("off", "sync", "outbox")
        full = {kind: [] for kind in kinds}
        half = {kind: [] for kind in kinds}
        rate = self.pgbench(SECONDS)[0] / 2
        for number in range(ROUNDS):
            self.sql("VACUUM bench.replies")
            self.sql("CHECKPOINT")
            for step in range(3):
                kind = kinds[(number + step) % 3]
                self.switch(kind)
                half[kind].append(self.pgbench(SECONDS, rate)[1])
                full[kind].append(self.pgbench(SECONDS))
                self.switch_off(kind)
        say("\nThe writing application: pgbench -M prepared, 4 clients, updates of one row, %d rounds of %d s" %
            (ROUNDS, SECONDS))
        say("  %-10s %10s %10s %10s | half load, %d/s: %8s %8s" % ("", "tps", "p50 ms", "p99 ms", rate, "p50 ms", "p99 ms"))
        for kind in kinds:
            say("  %-10s %10.0f %10.2f %10.2f | %20s %8.2f %8.2f" %
                (kind, statistics.median(f[0] for f in full[kind]),
                 statistics.median(percentile(f[1], 0.5) for f in full[kind]),
                 statistics.median(percentile(f[1], 0.99) for f in full[kind]), "",
                 statistics.median(percentile(t, 0.5) for t in half[kind]),
                 statistics.median(percentile(t, 0.99) for t in half[kind])))
        for kind in kinds[1:]:
            say("  %-10s tps / off %s   p99 / off at half load %s" %
                (kind, spread([a[0] / b[0] for a, b in zip(full[kind], full["off"])]),
                 spread([percentile(a, 0.99) / percentile(b, 0.99) for a, b in zip(half[kind], half["off"])])))
        return rate

    # ---- lag ----

    def times(self, *arguments):
        out = subprocess.check_output([BIN + "/lag", *[str(a) for a in arguments]], text=True)
        return [int(line) / 1000 for line in out.split()]

    def lag(self, uri, rate):
        if not os.path.exists(self.file):
            collection = self.new_collection()
            self.snapshot("docs", collection)
            self.export(uri, collection)
            self.sql("SELECT plinth.sync_drop('replies')")
        rate = rate or self.pgbench(SECONDS)[0] / 2
        collection = self.new_collection()
        self.sql("SELECT plinth.sync_table('bench.replies', 'docs', collection => %s, snapshot => false)", collection)
        self.wait()
        figures = {(load, kind): [] for load in ("idle", "half load") for kind in ("raw", "sync")}
        for _ in range(ROUNDS):
            for load in ("idle", "half load"):
                for kind in ("raw", "sync"):
                    writer = None
                    if load != "idle":
                        writer = threading.Thread(target=self.pgbench, args=(PROBES // 20 + 4, rate))
                        writer.start()
                        time.sleep(2)
                    if kind == "raw":
                        figures[load, kind] += self.times("raw", uri, DATABASE, "raw_" + collection, self.file, PROBES)
                    else:
                        figures[load, kind] += self.times("sync", "dbname=postgres", INSERT, uri, DATABASE, collection,
                                                          PROBES)
                    if writer is not None:
                        writer.join()
                        self.wait()
        self.sql("SELECT plinth.sync_drop('replies')")
        self.sql("DELETE FROM bench.replies WHERE id < 0")
        say("\nLag in ms: from the return of COMMIT to a find that sees the document; raw: one write, acknowledged")
        for load in ("idle", "half load"):
            line = "  %-10s" % load
            for kind in ("raw", "sync"):
                times = figures[load, kind]
                line += "  %s p50 %6.2f p99 %7.2f" % (kind, percentile(times, 0.5), percentile(times, 0.99))
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                line += "  %s +%.2f" % (name, percentile(figures[load, "sync"], share) -
                                        percentile(figures[load, "raw"], share))
            say(line + ("" if load == "idle" else "  (%d transactions/s)" % rate))

    # ---- memory ----

    def memory(self):
        self.keep_alive("sink")
        self.snapshot("sink", self.new_collection())
        pids = {"decoder": self.worker("decoder"), "lane": self.worker("lane", "sink")}
        idle = {name: private_memory(pid) for name, pid in pids.items()}
        many = max(ROWS, 1000000)
        watch = Memory(pids)
        watch.start()
        self.sql("INSERT INTO bench.replies SELECT * FROM bench.fill(%s, %s)", ROWS + 1, ROWS + many)
        start = time.monotonic()
        self.wait()
        seconds = time.monotonic() - start
        peak = watch.stop()
        say("\nPrivate memory in MB: after a snapshot; at most in a transaction of %d rows (plinth.sync_memory = %s)" %
            (many, self.value("SHOW plinth.sync_memory")))
        for name in pids:
            say("  %-10s %8.1f %8.1f" % (name, idle[name], peak[name]))
        say("  delivered to the sink within %.1f s of its commit, %.0f rows/s; sync_dirty then takes %d bytes" %
            (seconds, many / seconds, self.value("SELECT pg_relation_size('plinth.sync_dirty')")))
        self.sql("SELECT plinth.sync_drop('replies'), plinth.sync_drop('quiet_sink')")
        self.sql("DELETE FROM bench.replies WHERE id > %s", ROWS)

    # ---- large ----

    def large(self):
        """A snapshot of many rows against the sink, and what it takes; the rows are narrow for the disk's sake."""
        self.sql("CREATE TABLE bench.many (id bigint PRIMARY KEY, v text NOT NULL)")
        self.sql("INSERT INTO bench.many SELECT g, md5(g::text) || ' of many' FROM generate_series(1, %s) g", LARGE)
        self.sql("VACUUM ANALYZE bench.many")
        self.keep_alive("sink")
        watch = Memory({"decoder": self.worker("decoder"), "lane": self.worker("lane", "sink")})
        watch.start()
        start = time.monotonic()
        self.sql("SELECT plinth.sync_table('bench.many', 'sink', collection => %s)", self.new_collection())
        if not self.value("SELECT plinth.sync_wait('2 hours')"):
            raise RuntimeError("the snapshot did not come to an end")
        seconds = time.monotonic() - start
        peak = watch.stop()
        say("\nA snapshot of %d rows to the sink: %.0f s, %.0f rows/s; at most %s MB private" %
            (LARGE, seconds, LARGE / seconds, ", ".join("%s %.1f" % p for p in peak.items())))
        self.sql("SELECT plinth.sync_drop('many'), plinth.sync_drop('quiet_sink')")
        self.sql("DROP TABLE bench.many")

    def run(self):
        mongo = None
        uri = os.environ.get("MONGODB_URI")
        if not uri:
            mongo = Server([ROOT + "/test/servers/mongo.sh", "--stdin"])
            uri = mongo.uri
        sink = Server([BIN + "/sink"])
        rate = 0
        self.set_up(uri)
        self.add_server("sink", sink.uri)
        with pymongo.MongoClient(uri) as client:
            client.drop_database(DATABASE)
        say("PostgreSQL %s, %d processors, load %.1f before the start" %
            (self.value("SHOW server_version"), os.cpu_count(), os.getloadavg()[0]))
        if "throughput" in PARTS:
            self.throughput("docs", uri, "Against the MongoDB")
        if "sink" in PARTS and os.path.exists(self.file):
            self.throughput("sink", sink.uri, "Against a server that acknowledges and drops")
        if "lanes" in PARTS:
            self.lanes("docs", uri, "Against the MongoDB")
            self.lanes("sink", sink.uri, "Against a server that acknowledges and drops")
        if "app" in PARTS:
            rate = self.application()
        if "lag" in PARTS:
            self.lag(uri, rate)
        if "memory" in PARTS:
            self.memory()
        if "large" in PARTS:
            self.large()
        sink.stop()
        if mongo is not None:
            mongo.stop()
        shutil.rmtree(self.folder)


if __name__ == "__main__":
    Bench().run()
