#!/usr/bin/env python3
"""context_clients.py CONNINFO SECONDS CLIENTS: requests of many users by psycopg2.

Reads "token user_id" lines, one for each client.  Each client is its user in
one transaction after another, in all ways in which a transaction can end, and
looks between them whether something of anybody is left.  Prints the number of
transactions, or what was seen that must not be, and fails.
"""

import random
import sys
import threading
import time

import psycopg2

NOBODY = (None, None, 0, "authenticator", 0)
LOOK = ("SELECT plinth.current_user_id()::text, plinth.current_session_id()::text, plinth.current_aal(), current_user::text, "
        "(SELECT count(*) FROM marks)")
conninfo, seconds, clients = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
users = [line.split() for line in sys.stdin][:clients]
end = time.monotonic() + seconds
wrong = []
done = [0] * clients


def look(cursor):
    cursor.execute(LOOK)
    return cursor.fetchone()


def expect(what, seen, user):
    good = seen == NOBODY if user is None else seen[0] == user and seen[2:] == (1, "authenticated", 1)
    if not good:
        wrong.append("%s: %r, expected %s" % (what, seen, user or "nobody"))


def transaction(connection, token, user):
    with connection.cursor() as cursor:
        way = random.choice(("commit", "commit", "rollback", "error", "savepoint", "prepared role", "leave"))
        cursor.execute("BEGIN" if way != "leave" else "BEGIN READ ONLY")
        expect("at the start", look(cursor), None)
        cursor.execute("SELECT plinth.context_begin(%s)::text", (token,))
        if cursor.fetchone()[0] != user:
            wrong.append("context_begin returned somebody else")
        expect("in the transaction", look(cursor), user)
        if random.random() < 0.3:
            time.sleep(random.uniform(0, 0.01))
            expect("later in it", look(cursor), user)
        if way == "error":
            try:
                cursor.execute("SELECT 1 / 0")
            except psycopg2.Error:
                pass
        elif way == "savepoint":
            cursor.execute("SAVEPOINT a")
            cursor.execute("SELECT plinth.context_begin(%s)", (token,))
            cursor.execute("ROLLBACK TO a")
            expect("after a savepoint", look(cursor), user)
        elif way == "prepared role":
            cursor.execute("RESET ROLE; SET LOCAL ROLE authenticated")
            expect("after RESET ROLE", look(cursor), user)
        elif way == "leave":
            return False
        cursor.execute("ROLLBACK" if way in ("rollback", "error") else "COMMIT")
        expect("between transactions", look(cursor), None)
    return True


def client(number):
    token, user = users[number]
    try:
        while time.monotonic() < end and not wrong:
            connection = psycopg2.connect(conninfo)
            connection.autocommit = True
            for _ in range(20):
                done[number] += 1
                if not transaction(connection, token, user) or time.monotonic() > end:
                    break
                time.sleep(random.uniform(0, 0.04))
            connection.close()
    except Exception as error:  # whatever it is, it must be seen
        wrong.append("client %d: %s" % (number, error))


threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if wrong:
    sys.exit("\n".join(wrong[:5]))
print(sum(done))
