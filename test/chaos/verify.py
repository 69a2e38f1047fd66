#!/usr/bin/env python3
"""Calls sync_verify all the time, until a file appears.

    verify.py DSN MONGO_URI DATABASE STOPFILE FAULTS

FAULTS is a file to which the time of each fault is appended.  A difference that is told
of a key which is to be written once more (a write of it that a fault cut off may land
still, or has: "Zombie writes" in docs/sync.md) is explained, any other is not.  Prints what
was told as JSON, with both sides as they were right after it.
"""

import json
import os
import sys
import time

import psycopg2
import pymongo
from bson import json_util

dsn, uri, database, stopfile, faults = sys.argv[1:6]
# Not while its definition changes, or MongoDB is away, or without a free worker, or when it was terminated.
ALLOWED = ("55000", "53400", "HV000", "57014", "42P01", "42704")
SUSPECTS = "SELECT d.key FROM plinth.sync_dirty d JOIN plinth.sync_mappings m ON m.id = d.mapping_id WHERE m.name = %s"


def last_fault():
    if not os.path.exists(faults):
        return 0
    with open(faults) as lines:
        return max([float(line) for line in lines] or [0])


class Verifier:
    def __init__(self):
        self.connection = None
        self.mongo = pymongo.MongoClient(uri, serverSelectionTimeoutMS=20000)[database]
        self.runs, self.errors, self.explained, self.unexplained, self.failed = {}, {}, [], [], []

    def rows(self, sql, *values):
        with self.connection.cursor() as cur:
            cur.execute(sql, values)
            return cur.fetchall()

    def verify(self, name, collection):
        began = time.time()
        suspects = {row[0] for row in self.rows(SUSPECTS, name)}
        told = self.rows("SELECT key, difference, document_id FROM plinth.sync_verify(%s)", name)
        self.runs[name] = self.runs.get(name, 0) + 1
        if not told:
            return
        suspects |= {row[0] for row in self.rows(SUSPECTS, name)}
        for key, difference, document_id in told:
            if key is None and difference.startswith("index"):
                # It is built, dropped or awaited: indexes are compared at the end.
                continue
            document = None
            if document_id is not None:
                document = self.mongo[collection].find_one({"_id": json_util.loads(document_id)["_id"] if '"_id"' in document_id
                                                            else json_util.loads(document_id)})
            seen = {"mapping": name, "key": key, "difference": difference, "document_id": document_id, "began": began, "took": time.time() - began,
                    "after": began - last_fault(), "there": json_util.dumps(document)[:300], "here": self.here(name, key)}
            is_suspect = key is not None and (key in suspects or "{%s}" % key in suspects)
            (self.explained if is_suspect else self.unexplained).append(seen)

    def here(self, name, key):
        """The row, as text."""
        try:
            relation, columns = self.rows("SELECT relation::text, key_columns::text[] FROM plinth.sync_mappings WHERE name = %s", name)[0]
            texts = ["%s::text" % column for column in columns]
            found = self.rows("SELECT t::text FROM %s t WHERE %s = %%s"
                              % (relation, texts[0] if len(texts) == 1 else "ARRAY[%s]::text" % ", ".join(texts)), key)
            return str(found)[:300]
        except psycopg2.Error as error:
            return str(error)

    def all(self):
        names, some, end = [], None, None
        # Each mapping once at least, however slow the machine: then it is quick.
        while end is None or (time.time() < end and (some is None or len(self.runs) < some)):
            if end is None and os.path.exists(stopfile):
                end = time.time() + 60
            try:
                if self.connection is None:
                    self.connection = psycopg2.connect(dsn)
                    self.connection.autocommit = True
                    self.rows("SELECT set_config('statement_timeout', '60s', false)")
                if not names:
                    names = self.rows("SELECT name, collection FROM plinth.sync_mappings ORDER BY random()")
                    some = len(names)
                self.verify(*names.pop())
            except (psycopg2.DatabaseError, psycopg2.InterfaceError) as error:
                code = getattr(error, "pgcode", None)
                text = "%s %s" % (code, str(error).split("\n")[0])
                self.errors[text] = self.errors.get(text, 0) + 1
                if code is not None and code not in ALLOWED and not isinstance(error, psycopg2.OperationalError):
                    self.failed.append(text)
                if code not in ALLOWED:
                    self.connection = None
                time.sleep(0.1)
        print(json.dumps({"runs": self.runs, "errors": self.errors, "explained": self.explained, "unexplained": self.unexplained,
                          "failed": self.failed}))


Verifier().all()
