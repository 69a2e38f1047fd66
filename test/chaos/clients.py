#!/usr/bin/env python3
"""Clients that write at full speed until a file appears.

    clients.py DSN COUNT SEED STOPFILE [TABLE,... [changing]]

Each client runs transactions of 1 to 8 random statements on five tables, or those named:
inserts, updates, deletes, changed keys, swapped unique values, rows that move
(gear belongs to crew, and crew to seats), savepoints that are rolled back, and
transactions that are.  A client whose connection breaks
connects again.  With "changing" the tables' definitions change meanwhile (changes.py): a
transaction that meets what is not there for a moment is tried no more.  Prints what was
committed as JSON.

Every version of a row carries n, which only grows for each key: writers of a
key take turns by an advisory lock, and n is the clock then.
"""

import json
import multiprocessing
import os
import random
import sys
import time

import psycopg2

KEYS = 400
NOW = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
TABLES = ("plain", "parts", "seats", "crew", "gear", "coded")
MOOD = "(SELECT m FROM unnest(enum_range(NULL::mood)) m ORDER BY random() LIMIT 1)"
# What a change of the definitions may meet: a table, column, partition, key or label that is not there,
# a plan made for the former type.
CHANGING = (psycopg2.errors.UndefinedTable, psycopg2.errors.UndefinedColumn, psycopg2.errors.CheckViolation,
            psycopg2.errors.InvalidColumnReference, psycopg2.errors.FeatureNotSupported,
            psycopg2.errors.InvalidTextRepresentation, psycopg2.errors.SerializationFailure)
BELONGS = {"crew": "seat", "gear": "crew"}


def lock(cur, table, *keys):
    for key in sorted(set(keys)):
        cur.execute("SELECT pg_advisory_xact_lock(%s, %s)", (TABLES.index(table), key))


def where(table, key):
    if table == "plain":
        return "id = 'k%d'" % key
    return "id = %d" % key


def insert(cur, rng, table, key):
    if table == "plain":
        cur.execute("INSERT INTO plain VALUES ('k%d', %s, repeat(%%s, %%s)) ON CONFLICT (id)"
                    " DO UPDATE SET n = excluded.n, body = excluded.body" % (key, NOW),
                    (chr(97 + key % 26), rng.choice((1, 10, 100, 5000))))
    elif table == "parts":
        cur.execute("INSERT INTO parts VALUES (%d, '%s', %s) ON CONFLICT (id, region) DO UPDATE"
                    " SET n = excluded.n" % (key, rng.choice("abc"), NOW))
    elif table in BELONGS:
        cur.execute("INSERT INTO %s VALUES (%d, %d, %s) ON CONFLICT (id) DO UPDATE SET n = excluded.n, %s = excluded.%s"
                    % (table, key, rng.randrange(KEYS), NOW, BELONGS[table], BELONGS[table]))
    elif table == "coded":
        cur.execute("INSERT INTO coded (id, code, n, m) VALUES (%d, 'c%d', %s, %s) ON CONFLICT (id) DO UPDATE"
                    " SET n = excluded.n, m = excluded.m" % (key, key, NOW, MOOD))
    else:
        cur.execute("INSERT INTO seats VALUES (%d, %d, %s) ON CONFLICT (id) DO UPDATE"
                    " SET n = excluded.n" % (key, 100000 + key, NOW))


def step(cur, rng, tables, changing):
    table = rng.choice(tables)
    key, other = rng.randrange(KEYS), rng.randrange(KEYS)
    lock(cur, table, key, other)
    what = rng.random()
    if changing and table in ("plain", "parts") and what < 0.05:
        cur.execute("UPDATE %s SET extra = '%d', n = %s WHERE %s" % (table, key, NOW, where(table, key)))
    elif what < 0.35:
        insert(cur, rng, table, key)
    elif what < 0.70:
        cur.execute("UPDATE %s SET n = %s WHERE %s" % (table, NOW, where(table, key)))
    elif what < 0.82:
        cur.execute("DELETE FROM %s WHERE %s" % (table, where(table, key)))
    elif what < 0.90 and table == "parts":
        cur.execute("UPDATE parts SET region = '%s', n = %s WHERE id = %d AND region = '%s'"
                    " AND NOT EXISTS (SELECT FROM parts p WHERE p.id = %d AND p.region <> parts.region)"
                    % (rng.choice("abc"), NOW, key, rng.choice("abc"), key))
    elif what < 0.90 and table == "seats":
        cur.execute("UPDATE seats s SET place = o.place, n = %s FROM seats o"
                    " WHERE (s.id, o.id) IN ((%d, %d), (%d, %d)) AND s.id <> o.id"
                    % (NOW, key, other, other, key))
    elif what < 0.90 and table in BELONGS:
        cur.execute("UPDATE %s SET %s = %d, n = %s WHERE id = %d"
                    % (table, BELONGS[table], rng.randrange(KEYS), NOW, key))
    elif what < 0.90 and table == "plain":
        cur.execute("UPDATE plain SET id = 'k%d', n = %s WHERE id = 'k%d'"
                    " AND NOT EXISTS (SELECT FROM plain WHERE id = 'k%d')"
                    % (other, NOW, key, other))
    elif what < 0.90:
        cur.execute("UPDATE coded SET m = %s, n = %s WHERE code = 'c%d'" % (MOOD, NOW, key))
    else:
        cur.execute("SAVEPOINT s")
        insert(cur, rng, table, key)
        cur.execute("ROLLBACK TO s")


def back(connection):
    """Rolls back; None when the connection is broken meanwhile."""
    try:
        connection.rollback()
        return connection
    except psycopg2.Error:
        return None


def client(dsn, seed, stopfile, tables, changing, result):
    rng = random.Random(seed)
    committed = broken = met = 0
    connection = None
    while not os.path.exists(stopfile):
        try:
            if connection is None:
                connection = psycopg2.connect(dsn)
            with connection.cursor() as cur:
                for _ in range(rng.randint(1, 8)):
                    step(cur, rng, tables, changing)
                if rng.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                    committed += 1
        except (psycopg2.errors.DeadlockDetected, psycopg2.errors.UniqueViolation):
            connection = back(connection)
        except CHANGING:
            if not changing:
                raise
            connection = back(connection)
            met += 1
        except (psycopg2.DatabaseError, psycopg2.InterfaceError) as error:
            # A connection that ends at the wrong instant is a plain DatabaseError, without a code of the server's.
            if not isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)) and error.pgcode is not None:
                raise
            broken += 1
            connection = None
            time.sleep(0.1)
    result.put((committed, broken, met))


def main():
    dsn, count, seed, stopfile = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    tables = sys.argv[5].split(",") if len(sys.argv) > 5 else TABLES[:5]
    changing = len(sys.argv) > 6
    result = multiprocessing.Queue()
    clients = [multiprocessing.Process(target=client, args=(dsn, seed * 1000 + i, stopfile, tables, changing, result))
               for i in range(count)]
    for process in clients:
        process.start()
    for process in clients:
        process.join()
    totals = [result.get(timeout=5) for _ in clients if _.exitcode == 0]
    print(json.dumps({"committed": sum(t[0] for t in totals), "broken": sum(t[1] for t in totals),
                      "met": sum(t[2] for t in totals), "failed": sum(1 for c in clients if c.exitcode != 0)}))


main()
