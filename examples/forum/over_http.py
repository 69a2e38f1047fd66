#!/usr/bin/env python3
"""over_http.py URL MONGODB_URI DATABASE: the forum over HTTP, by PostgREST: see demo.sh.

Does each request as it prints the curl line for it, and looks at the answers.
"""

import json
import secrets
import sys
import time
import urllib.error
import urllib.request

import pymongo

url, mongodb, database = sys.argv[1:4]


def request(method, path, body=None, headers=()):
    """Prints it as a curl line; returns the status and the parsed answer."""
    headers = dict(headers)
    line = "curl -s" + ("" if method in ("GET", "POST") else " -X " + method)
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body)
    line += "".join(" -H '%s: %s'" % header for header in headers.items())
    if data is not None:
        line += " -d '%s'" % data
    print("  %s '%s/%s'" % (line, url, path), flush=True)
    asked = urllib.request.Request("%s/%s" % (url, path), data and data.encode(), headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    print("      %d %s" % (status, text if len(text) < 160 else text[:157] + "..."), flush=True)
    return status, json.loads(text) if text else None


def expect(good, what):
    if not good:
        sys.exit("the forum over HTTP: " + what)


name = "guest" + secrets.token_hex(3)
password = secrets.token_urlsafe(12)
who = {"email": name + "@example.org", "password": password, "username": name}
expect(request("POST", "rpc/sign_up", who) == (200, "ok"), "signing up")
expect(request("POST", "rpc/sign_in", {"identifier": name, "password": "wrong"})[0] == 401, "a wrong password")
status, session = request("POST", "rpc/sign_in", {"identifier": name, "password": password})
expect(status == 200 and session["token"], "signing in")
me = {"X-Plinth-Session": session["token"]}
expect(request("POST", "rpc/join_forum", {"username": name}, me)[0] == 200, "joining")
status, threads = request("GET", "threads?select=id,title&order=id&limit=1")
expect(status == 200 and threads, "reading threads, not signed in")
reply = {"thread_id": threads[0]["id"], "content": "Hello from curl"}
expect(request("POST", "replies", reply)[0] == 401, "writing, not signed in")
status, written = request("POST", "replies?select=id", reply, {**me, "Prefer": "return=representation"})
expect(status == 201, "writing a reply")
expect(request("DELETE", "replies?username=neq." + name, None, me)[0] == 204, "deleting what others wrote")

start = time.monotonic()
replies = pymongo.MongoClient(mongodb)[database].replies
while replies.find_one({"_id": written[0]["id"], "content": reply["content"]}) is None:
    expect(time.monotonic() - start < 60, "the reply did not arrive in MongoDB")
    time.sleep(0.01)
expect(replies.count_documents({}) > 1, "somebody deleted what others wrote")
print("  and %s is in MongoDB" % written[0]["id"])
expect(request("POST", "rpc/sign_out", {}, me) == (200, True), "signing out")
expect(request("GET", "rpc/me", None, me)[0] == 401, "a session that is over")
