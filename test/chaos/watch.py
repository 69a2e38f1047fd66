#!/usr/bin/env python3
"""Watches whether documents go back in time, until a file appears.

    watch.py MONGO_URI DATABASE STOPFILE FAULTS ALLOWED [COLLECTION,...]

n of a document may only grow.  FAULTS is a file to which the time of each
fault is appended; a document may go back within ALLOWED seconds after one.
Prints what it saw as JSON.
"""

import json
import os
import sys
import time

import pymongo

uri, database, stopfile, faults, allowed = sys.argv[1:6]
allowed = float(allowed)
collections = sys.argv[6].split(",") if len(sys.argv) > 6 else ("plain", "parts", "seats")
seen = {}
looks = back = 0
excused = 0
worst = []

db = pymongo.MongoClient(uri, serverSelectionTimeoutMS=20000)[database]
while not os.path.exists(stopfile):
    for collection in collections:
        started = time.time()
        for document in db[collection].find({}, {"n": 1}):
            key = collection, json.dumps(document["_id"], sort_keys=True)
            n = document["n"]
            if n < seen.get(key, n):
                last = 0
                if os.path.exists(faults):
                    with open(faults) as lines:
                        last = max([float(line) for line in lines] or [0])
                if started - last <= allowed:
                    excused += 1
                else:
                    back += 1
                    worst.append((key, n, seen[key], started - last))
            seen[key] = n
        looks += 1
    time.sleep(0.05)
print(json.dumps({"looks": looks, "keys": len(seen), "back": back, "excused": excused,
                  "worst": worst[:5]}))
