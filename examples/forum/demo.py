#!/usr/bin/env python3
"""The main job on the forum of seed 001, with what it shows: see demo.sh.

People sign up and sign in, write threads and replies as themselves, and each
reply is read back from MongoDB by PyMongo.  Then the MongoDB is cut off while
writing goes on, and at the end both sides are compared by this program too.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import psycopg2
import psycopg2.extras
import pymongo

PEOPLE = 8
THREADS = 6
WRITERS = 4
WORDS = ("the row is the truth and the document its copy so what commits here arrives there "
         "whoever asks and whatever breaks in between").split()


def say(text=""):
    print(text, flush=True)


def sentence():
    return " ".join(random.choices(WORDS, k=random.randint(4, 14))).capitalize() + "."


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Person:
    """A user with a session; every transaction begins with what proves it."""

    def __init__(self, number):
        self.name = "user%02d" % number
        self.email = self.name + "@example.org"
        self.password = "correct horse %d battery" % random.getrandbits(64)
        self.connection = psycopg2.connect(dbname="forum", user="authenticator")
        status, _ = self.anonymous("SELECT status, user_id FROM plinth.sign_up(%s, %s, %s)",
                                   self.email, self.password, self.name)
        assert status == "ok", status
        status, self.token = self.anonymous("SELECT status, token FROM plinth.sign_in(%s, %s)",
                                            self.email, self.password)
        assert status == "ok", status
        self.key = self.run("SELECT forum.join_forum(%s)", self.name)[0]

    def anonymous(self, sql, *arguments):
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE anon")
            cursor.execute(sql, arguments)
            return cursor.fetchone()

    def run(self, sql, *arguments):
        """One transaction as this person; the first row, or how many it touched."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute("SELECT plinth.context_begin(%s)", (self.token,))
            cursor.execute(sql, arguments)
            return cursor.fetchone() if cursor.description else cursor.rowcount


class Demo:
    def __init__(self, options):
        self.options = options
        self.documents = pymongo.MongoClient(options.read_uri)[options.database]
        self.admin = psycopg2.connect(dbname="forum", user="postgres")
        self.admin.autocommit = True
        self.lags = []
        self.table = []
        self.lock = threading.Lock()

    def ask(self, sql, *arguments):
        with self.admin.cursor() as cursor:
            cursor.execute(sql, arguments)
            return cursor.fetchone() if cursor.description else None

    def row(self, what, count, lags=()):
        self.table.append((what, str(count), "%.1f" % percentile(lags, 0.5) if lags else "",
                           "%.1f" % percentile(lags, 0.99) if lags else ""))

    def proxy(self, command):
        with socket.create_connection(("127.0.0.1", self.options.control)) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = connection.makefile().readline()
        assert answer.startswith("ok"), answer

    # ---- the parts --------------------------------------------------------
    def schema(self):
        """Loads schema.sql and sync.sql; credentials of the MongoDB go into the user mapping."""
        credentials = urllib.parse.urlsplit(self.options.read_uri)
        mapping = ""
        if credentials.username:
            quote = lambda text: "'" + urllib.parse.unquote(text).replace("'", "''") + "'"
            mapping = "OPTIONS (username %s, password %s)" % (quote(credentials.username),
                                                          quote(credentials.password or ""))
        uri = urllib.parse.urlsplit(self.options.uri)
        uri = urllib.parse.urlunsplit(uri._replace(netloc=uri.netloc.rpartition("@")[2]))
        # What an earlier demo left there; the database is the demo's own.
        self.documents.client.drop_database(self.options.database)
        head = "".join("\\set %s '%s'\n" % (name, value.replace("\\", "\\\\").replace("'", "''"))
                       for name, value in (("uri", uri), ("database", self.options.database),
                                           ("mapping", mapping)))
        parts = [os.path.join(self.options.schema, name) for name in ("schema.sql", "sync.sql")]
        subprocess.run(["psql", "-qX", "-d", "forum", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"],
                       input=head + "".join(open(part).read() for part in parts), text=True, check=True)

    def people(self):
        self.users = [Person(number) for number in range(1, PEOPLE + 1)]
        self.row("people signed up, signed in", PEOPLE)

    def threads(self):
        self.thread_ids = []
        for number in range(THREADS):
            author = self.users[number % PEOPLE]
            self.thread_ids.append(author.run(
                "INSERT INTO forum.threads (title, summary, content_json, category_id) "
                "VALUES (%s, %s, %s, %s) RETURNING id",
                sentence(), sentence(), psycopg2.extras.Json({"blocks": [{"type": "p", "text": sentence()}]}),
                1 + number % 3)[0])
        self.row("threads", THREADS)

    def write_reply(self, person):
        return person.run("INSERT INTO forum.replies (thread_id, content) VALUES (%s, %s) RETURNING id, content",
                          random.choice(self.thread_ids), sentence())

    def find(self, reply, seconds=60):
        """Waits for the document of a reply; milliseconds since the call."""
        start = time.monotonic()
        while True:
            document = self.documents.replies.find_one({"_id": reply[0]})
            if document is not None and document["content"] == reply[1]:
                return (time.monotonic() - start) * 1000
            if time.monotonic() - start > seconds:
                sys.exit("reply %s did not arrive within %d s" % (reply[0], seconds))
            time.sleep(0.001)

    def writer(self, person, count):
        for _ in range(count):
            reply = self.write_reply(person)
            lag = self.find(reply)
            with self.lock:
                self.lags.append(lag)
                number = len(self.lags)
            if number <= 3 or number % 40 == 0:
                say("  %3d  %s  %-7s %5.1f ms  %s" % (number, reply[0], person.name, lag, reply[1][:40]))
            time.sleep(random.uniform(0, 0.02))

    def replies(self):
        workers = [threading.Thread(target=self.writer, args=(person, self.options.replies // WRITERS))
                   for person in self.users[:WRITERS]]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if len(self.lags) != self.options.replies // WRITERS * WRITERS:
            sys.exit("a writer failed")
        self.row("replies, each read back from MongoDB", len(self.lags), self.lags)

    def reactions(self):
        count = 0
        for person in self.users:
            for thread in self.thread_ids:
                person.run("INSERT INTO forum.reactions (thread_id, type) VALUES (%s, %s)",
                           thread, random.choice(["like", "love", "laugh"]))
                count += 1
        self.row("reactions", count)

    def others(self):
        """What somebody else's session may not do."""
        author, stranger = self.users[0], self.users[1]
        reply = self.write_reply(author)
        assert stranger.run("UPDATE forum.replies SET content = 'mine now' WHERE id = %s", reply[0]) == 0
        try:
            stranger.run("INSERT INTO forum.replies (thread_id, content, user_id, username) VALUES (%s, 'x', %s, %s)",
                         self.thread_ids[0], author.key, author.name)
            sys.exit("wrote as somebody else")
        except psycopg2.errors.InsufficientPrivilege:
            say("  %s can neither change %s's reply nor write in that name" % (stranger.name, author.name))
        return author, reply

    def edit_and_delete(self, author, reply):
        self.find(reply)
        edited = author.run("UPDATE forum.replies SET content = %s, updated_at = now() WHERE id = %s "
                            "RETURNING id, content", "Edited: " + sentence(), reply[0])
        lag = self.find(edited)
        say("  edited  %s: there after %.1f ms" % (reply[0], lag))
        self.row("reply edited", 1, [lag])
        gone = self.write_reply(author)
        self.find(gone)
        author.run("DELETE FROM forum.replies WHERE id = %s", gone[0])
        start = time.monotonic()
        while self.documents.replies.find_one({"_id": gone[0]}) is not None:
            time.sleep(0.001)
        lag = (time.monotonic() - start) * 1000
        say("  deleted %s: gone after %.1f ms" % (gone[0], lag))
        self.row("reply deleted", 1, [lag])

    def cut(self):
        if not self.options.control:
            say("  skipped: this MongoDB is not one that a proxy can stand in front of")
            return
        seconds, replies = self.options.cut_seconds, self.options.replies // 2
        self.proxy("refuse")
        start = time.monotonic()
        commits = []
        for number in range(replies):
            before = time.monotonic()
            reply = self.write_reply(self.users[number % PEOPLE])
            commits.append((time.monotonic() - before) * 1000)
            time.sleep(max(0, start + seconds * (number + 1) / replies - time.monotonic()))
        state, error = self.ask("SELECT state, last_error FROM plinth.stat_sync WHERE name = 'replies'")
        there = self.documents.replies.count_documents({})
        here = self.ask("SELECT count(*) FROM forum.replies")[0]
        say("  cut off for %d s: %d replies committed (p99 %.1f ms), %d of %d are in MongoDB" %
            (seconds, replies, percentile(commits, 0.99), there, here))
        say("  stat_sync says: %s, %s" % (state, error))
        self.proxy("pass")
        start = time.monotonic()
        self.find(reply)
        if not self.ask("SELECT plinth.sync_wait('60 s')")[0]:
            sys.exit("MongoDB did not catch up")
        lag = (time.monotonic() - start) * 1000
        say("  back: caught up after %.0f ms" % lag)
        self.row("replies while MongoDB was away, caught up", replies, [lag])

    def compare(self):
        """Both sides, by plinth and by a program that knows nothing of it."""
        if not self.ask("SELECT plinth.sync_wait('60 s')")[0]:
            sys.exit("MongoDB did not catch up")
        for name in ("replies", "reactions", "threads"):
            differences = self.ask("SELECT count(*) FROM plinth.sync_verify(%s)", name)[0]
            rows = {}
            with self.admin.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
                cursor.execute("SELECT * FROM forum." + name)
                for row in cursor:
                    rows[row["id"]] = {self.field(key): self.value(key, value) for key, value in row.items()}
            documents = {document["_id"]: document for document in self.documents[name].find()}
            if differences or rows != documents:
                for key in set(rows) | set(documents):
                    if rows.get(key) != documents.get(key):
                        say("  %s: %s\n  %s" % (key, rows.get(key), documents.get(key)))
                sys.exit("%s differ" % name)
            say("  %-9s %4d rows, %4d documents: equal" % (name, len(rows), len(documents)))
            self.row("compared: " + name, len(rows))

    @staticmethod
    def field(column):
        head, *rest = column.split("_")
        return "_id" if column == "id" else head + "".join(word.capitalize() for word in rest)

    @staticmethod
    def value(column, value):
        if column == "thread_id":
            return str(value)
        if column.endswith("_at"):
            naive = (value - value.utcoffset()).replace(tzinfo=None)
            return naive.replace(microsecond=naive.microsecond // 1000 * 1000)
        return value

    def summary(self):
        width = max(len(row[0]) for row in self.table)
        say("%-*s  %8s  %10s  %10s" % (width, "what", "how many", "lag p50 ms", "lag p99 ms"))
        say("-" * (width + 34))
        for row in self.table:
            say(("%-*s  %8s  %10s  %10s" % ((width,) + row)).rstrip())


def main():
    parser = argparse.ArgumentParser()
    for name in ("--schema", "--uri", "--database"):
        parser.add_argument(name, required=True)
    parser.add_argument("--control", type=int, default=0)
    parser.add_argument("--replies", type=int, default=240)
    parser.add_argument("--cut-seconds", type=int, default=5)
    # The environment is no place where others look for a password.
    parser.set_defaults(read_uri=os.environ["READ_URI"])
    demo = Demo(parser.parse_args())

    demo.schema()
    say("\n%d people sign up and sign in" % PEOPLE)
    demo.people()
    say("They open %d threads and write %d replies, each as themselves" % (THREADS, demo.options.replies))
    demo.threads()
    demo.replies()
    demo.reactions()
    say("One reply is edited, one deleted")
    demo.edit_and_delete(*demo.others())
    say("The MongoDB is cut off while writing goes on")
    demo.cut()
    say("Both sides are compared")
    demo.compare()
    say()
    demo.summary()


if __name__ == "__main__":
    main()
