#!/usr/bin/env python3
"""Changes definitions while clients write, until a file appears.

    changes.py DSN SEED STOPFILE

One random change after another, each of what the catalog says there is: columns,
partitions, keys, enum values, names, schemas, mappings, indexes.  What a change leaves
for a moment (a table under another name, a detached partition, no key) is put right by
the next, or at the end.  Prints how many of each kind were made, and what was refused,
as JSON.
"""

import json
import os
import random
import sys
import time

import psycopg2

NOW = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
TYPES = ("integer", "bigint", "text")


class Changes:
    def __init__(self, dsn, seed, stopfile):
        self.dsn, self.stopfile, self.rng = dsn, stopfile, random.Random(seed)
        self.connection = None
        self.did, self.refused, self.broken = {}, {}, 0

    # ---- statements --------------------------------------------------------
    def connect(self):
        if self.connection is None:
            connection = psycopg2.connect(self.dsn)
            connection.autocommit = True
            with connection.cursor() as cur:
                cur.execute("SET lock_timeout = '3s'; SET statement_timeout = '60s'")
            self.connection = connection

    def run(self, sql, *values):
        with self.connection.cursor() as cur:
            cur.execute(sql, values or None)
            return cur.fetchall() if cur.description else []

    def value(self, sql, *values):
        rows = self.run(sql, *values)
        return rows[0][0] if rows else None

    def a_moment(self):
        time.sleep(self.rng.uniform(0.1, 1.0))

    def type_of(self, table, column):
        return self.value("SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = to_regclass(%s)"
                          " AND attname = %s AND NOT attisdropped", table, column)

    def until_done(self, sql):
        """What must be there again before anything else: those who write may be in its way."""
        for _ in range(20):
            try:
                return self.run(sql)
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
                pass
        return self.run(sql)

    # ---- put right ---------------------------------------------------------
    def mend(self):
        """Everything by its own name, in its place, with its key, and running."""
        if self.value("SELECT to_regclass('plain_was') IS NOT NULL"):
            self.until_done("ALTER TABLE plain_was RENAME TO plain")
        if self.value("SELECT to_regclass('attic.seats') IS NOT NULL"):
            self.until_done("ALTER TABLE attic.seats SET SCHEMA public")
        for table, column in (("gear", "n"), ("coded", "id"), ("plain", "extra")):
            if self.type_of(table, column + "_was"):
                self.until_done("ALTER TABLE %s RENAME %s_was TO %s" % (table, column, column))
        if not self.value("SELECT count(*) FROM pg_inherits WHERE inhrelid = 'parts_c'::regclass"):
            self.until_done("ALTER TABLE parts ATTACH PARTITION parts_c FOR VALUES IN ('c')")
        if not self.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 'coded'::regclass AND contype = 'p'"):
            self.until_done("ALTER TABLE coded ADD PRIMARY KEY (id)")
        for name, in self.run("SELECT name FROM plinth.sync_mappings WHERE paused"):
            self.run("SELECT plinth.sync_resume(%s)", name)

    # ---- the changes -------------------------------------------------------
    def column(self, table):
        current = self.type_of(table, "extra")
        if current is None:
            kind = self.rng.choice(TYPES)
            self.run("ALTER TABLE %s ADD COLUMN extra %s %s" % (table, kind, self.rng.choice(("", "DEFAULT '7'", "NOT NULL DEFAULT '7'"))))
            return "column added"
        if self.rng.random() < 0.5:
            self.run("ALTER TABLE %s DROP COLUMN extra" % table)
            return "column dropped"
        kind = self.rng.choice([t for t in TYPES if t != current])
        self.run("ALTER TABLE %s ALTER extra DROP DEFAULT, ALTER extra DROP NOT NULL, ALTER extra TYPE %s USING extra::%s" % (table, kind, kind))
        return "column retyped"

    def columns(self):
        return self.column(self.rng.choice(("plain", "parts", "gear", "journal")))

    def column_renamed(self):
        table, column = self.rng.choice((("gear", "n"), ("coded", "id"), ("plain", "extra")))
        if self.type_of(table, column) is None:
            return None
        self.run("ALTER TABLE %s RENAME %s TO %s_was" % (table, column, column))
        self.a_moment()
        return {"gear": "column of a document renamed", "coded": "column of the key renamed", "plain": "column renamed"}[table]

    def table_renamed(self):
        if self.rng.random() < 0.5:
            self.run("ALTER TABLE plain RENAME TO plain_was")
            self.a_moment()
            return "table renamed"
        self.run("ALTER TABLE seats SET SCHEMA attic")
        self.a_moment()
        return "table moved"

    def part_moved(self):
        self.run("ALTER TABLE parts_a SET SCHEMA %s" % ("attic" if self.value("SELECT to_regclass('public.parts_a') IS NOT NULL") else "public"))
        return "partition moved"

    def part_detached(self):
        self.run("ALTER TABLE parts DETACH PARTITION parts_c")
        self.run("DELETE FROM parts_c WHERE id %% 7 = %d; UPDATE parts_c SET n = %s WHERE id %% 7 = %d"
                 % (self.rng.randrange(7), NOW, self.rng.randrange(7)))
        self.a_moment()
        return "partition detached, changed and attached"

    def part_new(self):
        if self.value("SELECT to_regclass('parts_d') IS NOT NULL"):
            if self.value("SELECT count(*) FROM pg_inherits WHERE inhrelid = 'parts_d'::regclass") and self.rng.random() < 0.5:
                self.run("ALTER TABLE parts DETACH PARTITION parts_d")
            self.run("DROP TABLE parts_d")
            return "partition dropped"
        rows = "INSERT INTO parts_d SELECT g, 'd', %s FROM generate_series(1, 60) g" % NOW
        if self.rng.random() < 0.5:
            self.run("CREATE TABLE parts_d PARTITION OF parts FOR VALUES IN ('d'); " + rows)
            return "partition added"
        self.run("CREATE TABLE parts_d (LIKE parts INCLUDING ALL); " + rows)
        self.a_moment()
        self.run("ALTER TABLE parts ATTACH PARTITION parts_d FOR VALUES IN ('d')")
        return "partition with rows attached"

    def truncated(self):
        self.run("TRUNCATE parts_b")
        return "partition truncated"

    def label(self):
        labels = [row[0] for row in self.run("SELECT unnest(enum_range(NULL::mood))::text")]
        one = self.rng.choice(labels)
        if self.rng.random() < 0.5 and len(labels) < 30:
            self.run("ALTER TYPE mood ADD VALUE 'm%d' %s '%s'" % (time.time() * 1000, self.rng.choice(("BEFORE", "AFTER")), one))
            return "enum value added"
        self.run("ALTER TYPE mood RENAME VALUE '%s' TO 'm%d'" % (one, time.time() * 1000))
        return "enum value renamed"

    def key(self):
        what = self.rng.randrange(4)
        if what == 0:
            self.run("ALTER TABLE coded ALTER id TYPE %s" % ("bigint" if self.type_of("coded", "id") == "integer" else "integer"))
            return "key retyped"
        if what == 1:
            full = self.value("SELECT relreplident = 'f' FROM pg_class WHERE oid = 'coded'::regclass")
            self.run("ALTER TABLE coded REPLICA IDENTITY %s" % ("DEFAULT" if full else "FULL"))
            return "replica identity changed"
        if what == 2:
            name = self.value("SELECT conname FROM pg_constraint WHERE conrelid = 'coded'::regclass AND contype = 'p'")
            self.run("BEGIN; CREATE UNIQUE INDEX coded_%d ON coded (id); ALTER TABLE coded DROP CONSTRAINT %s;"
                     " ALTER TABLE coded ADD PRIMARY KEY USING INDEX coded_%d; COMMIT" % ((lambda n: (n, name, n))(int(time.time() * 1000))))
            return "key by another index"
        name = self.value("SELECT conname FROM pg_constraint WHERE conrelid = 'coded'::regclass AND contype = 'p'")
        self.run("ALTER TABLE coded DROP CONSTRAINT %s" % name)
        self.a_moment()
        return "key dropped and made again"

    def altered(self):
        what = self.rng.randrange(3)
        if what == 0:
            choice = self.rng.choice(("columns => '{n,body}'", "columns => '{id,n}'", "columns => '{n}'", "reset => '{columns}'"))
            self.run("SELECT plinth.sync_alter('plain', %s)" % choice)
            return "mapping's columns altered"
        if what == 1:
            choice = self.rng.choice(("filter => 'n % 3 <> 0'", "filter => 'region <> ''b'''", "reset => '{filter}'", "reset => '{filter}'"))
            self.run("SELECT plinth.sync_alter('parts', %s)" % choice)
            return "mapping's filter altered"
        self.run("SELECT plinth.sync_alter(%s, lanes => %s)", self.rng.choice(("plain", "seats", "coded", "rooms", "parts")), self.rng.randint(1, 4))
        return "mapping's lanes altered"

    def index(self):
        table = self.rng.choice(("plain", "coded", "parts"))
        names = [row[0] for row in self.run("SELECT index FROM plinth.stat_sync_indexes WHERE name = %s", table)]
        if len(names) < 2 or (len(names) < 4 and self.rng.random() < 0.6):
            self.run("SELECT plinth.sync_index(%s, %s)", table, self.rng.choice((
                '{"keys": {"n": 1}}', '{"keys": {"n": -1, "_id": 1}}', '{"keys": {"n": 1}, "name": "few", "sparse": true}',
                '{"keys": {"n": "hashed"}, "when": "after"}')))
            return "index declared"
        self.run("SELECT plinth.sync_index_drop(%s, %s)", table, self.rng.choice(names))
        return "index dropped"

    def paused(self):
        name = self.rng.choice([row[0] for row in self.run("SELECT name FROM plinth.sync_mappings ORDER BY name")])
        if self.rng.random() < 0.5:
            self.run("SELECT plinth.sync_resync(%s)", name)
            return "everything again"
        self.run("SELECT plinth.sync_pause(%s)", name)
        self.a_moment()
        return "paused"

    def rewritten(self):
        if self.rng.random() < 0.5:
            self.run("VACUUM FULL %s" % self.rng.choice(("plain", "coded", "crew")))
            return "rewritten"
        self.run("BEGIN; LOCK TABLE %s" % self.rng.choice(("plain", "seats", "gear")))
        self.a_moment()
        self.run("COMMIT")
        return "locked"

    # ---- one after another -------------------------------------------------
    def one(self, change):
        """Makes one change, or finds out that it cannot be made now."""
        try:
            self.connect()
            self.mend()
            if change is None:
                return True
            try:
                name = change()
                if name:
                    self.did[name] = self.did.get(name, 0) + 1
            except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected, psycopg2.errors.QueryCanceled):
                self.did["waited in vain"] = self.did.get("waited in vain", 0) + 1
            self.run("ROLLBACK")
            self.mend()
            return True
        except (psycopg2.DatabaseError, psycopg2.InterfaceError) as error:
            if isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) or error.pgcode is None:
                self.broken += 1
                time.sleep(0.1)
            else:
                text = "%s %s" % (error.pgcode, str(error).split("\n")[0])
                self.refused[text] = self.refused.get(text, 0) + 1
            try:
                self.connection.close()
            except (AttributeError, psycopg2.Error):
                pass
            self.connection = None
            return False

    def all(self):
        kinds = [self.columns, self.columns, self.column_renamed, self.table_renamed, self.part_moved, self.part_detached,
                 self.part_new, self.truncated, self.label, self.key, self.key, self.altered, self.altered, self.index,
                 self.paused, self.rewritten]
        bag = []
        while not os.path.exists(self.stopfile):
            if not bag:
                bag = self.rng.sample(kinds, len(kinds))
            self.one(bag.pop())
            time.sleep(self.rng.uniform(0.1, 0.8))
        end = time.time() + 120
        while not self.one(None) and time.time() < end:
            pass
        print(json.dumps({"did": self.did, "refused": self.refused, "broken": self.broken}))


Changes(sys.argv[1], int(sys.argv[2]), sys.argv[3]).all()
