#!/usr/bin/env python3
"""Writes files until a file appears.

    files.py DSN COUNT SEED STOPFILE BUCKET NAME,... SIZE,...

Each client puts whole files, puts files piece by piece in several transactions, replaces
and deletes them, rolls back, and writes the bytea column of table photos, which is a bucket
too.  What a file holds tells its version: eight digits again and again, as gridfs_peer.py
knows it.  A client whose connection breaks connects again, and goes on with an upload where
it is.  Prints what was done as JSON.
"""

import json
import multiprocessing
import os
import random
import sys
import time

import psycopg2


def content(version, size):
    text = b"%08d" % version
    return text * (size // 8) + text[:size % 8]


class Client:
    def __init__(self, number, arguments):
        self.dsn, _, seed, self.stopfile, self.bucket, names, sizes = arguments
        self.names, self.sizes = names.split(","), [int(size) for size in sizes.split(",")]
        self.rng = random.Random(int(seed) * 1000 + number)
        self.version = number * 10000000
        self.connection = None
        self.upload = None
        self.did = {}

    def run(self, sql, *values):
        with self.connection.cursor() as cur:
            cur.execute(sql, values)
            return cur.fetchone()[0] if cur.description else None

    def count(self, what):
        self.did[what] = self.did.get(what, 0) + 1

    def new(self):
        self.version += 1
        return content(self.version, self.rng.choice(self.sizes))

    def put(self):
        self.run("SELECT plinth.file_put(%s, %s, %s, 'text/plain', %s)", self.bucket, self.rng.choice(self.names), self.new(),
                 json.dumps({"version": self.version}))
        self.connection.commit()
        return "put"

    def rolled_back(self):
        self.run("SELECT plinth.file_put(%s, %s, %s)", self.bucket, self.rng.choice(self.names), self.new())
        self.run("SAVEPOINT s")
        self.run("SELECT plinth.file_delete(%s, %s)", self.bucket, self.rng.choice(self.names))
        self.run("ROLLBACK TO s")
        self.connection.rollback()
        return "rolled back"

    def several(self):
        """The same name twice and another one gone, in one transaction."""
        one, other = self.rng.sample(self.names, 2)
        for name in sorted((one, other)):
            if name == one:
                self.run("SELECT plinth.file_put(%s, %s, %s)", self.bucket, one, self.new())
                self.run("SELECT plinth.file_put(%s, %s, %s)", self.bucket, one, self.new())
            else:
                self.run("SELECT plinth.file_delete(%s, %s)", self.bucket, other)
        self.connection.commit()
        return "put twice, another deleted"

    def delete(self):
        self.run("SELECT plinth.file_delete(%s, %s)", self.bucket, self.rng.choice(self.names))
        self.connection.commit()
        return "deleted"

    def append(self):
        """One more piece; what is there after a broken connection says where to go on."""
        if self.upload is None:
            data = self.new()
            begun = self.run("SELECT plinth.file_put(%s, %s, NULL, 'text/plain', finish => false)", self.bucket, self.rng.choice(self.names))
            self.connection.commit()
            self.upload = begun, data
            return "begun"
        upload, data = self.upload
        try:
            at = self.run("SELECT plinth.file_append(%s, NULL)", upload)
            piece = data[at:at + self.rng.choice((8, 100000, 261120, 500000))]
            ends = at + len(piece) == len(data)
            self.run("SELECT plinth.file_append(%s, %s, finish => %s, at_offset => %s)", upload, piece, ends, at)
            self.connection.commit()
        except psycopg2.errors.UndefinedObject:
            # The answer to its last piece was lost, or to its beginning.
            self.upload = None
            self.connection.rollback()
            return "finished before"
        if ends:
            self.upload = None
        return "finished" if ends else "appended"

    def photo(self):
        number = self.rng.randrange(8)
        if self.rng.random() < 0.2:
            self.run("DELETE FROM photos WHERE id = %s", number)
        else:
            self.run("INSERT INTO photos VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET photo = excluded.photo",
                     number, None if self.rng.random() < 0.1 else self.new())
        self.connection.commit()
        return "photo"

    def all(self, result):
        kinds = (self.put, self.put, self.put, self.rolled_back, self.several, self.delete, self.append, self.append,
                 self.append, self.append, self.photo, self.photo)
        while not os.path.exists(self.stopfile):
            try:
                if self.connection is None:
                    self.connection = psycopg2.connect(self.dsn)
                self.count(self.rng.choice(kinds)())
                time.sleep(self.rng.uniform(0, 0.3))
            except (psycopg2.DatabaseError, psycopg2.InterfaceError) as error:
                if not isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) and error.pgcode is not None:
                    raise
                self.count("broken")
                self.connection = None
                time.sleep(0.1)
        result.put(self.did)


def main():
    result = multiprocessing.Queue()
    clients = [multiprocessing.Process(target=Client(i, sys.argv[1:]).all, args=(result,)) for i in range(int(sys.argv[2]))]
    for process in clients:
        process.start()
    for process in clients:
        process.join()
    totals = {"failed": sum(1 for c in clients if c.exitcode != 0)}
    for _ in range(len(clients) - totals["failed"]):
        for what, count in result.get(timeout=5).items():
            totals[what] = totals.get(what, 0) + count
    print(json.dumps(totals))


main()
