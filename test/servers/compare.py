# compare.py DIR URI DATABASE: compares what was exported from PostgreSQL with a
# MongoDB, by PyMongo; compare.mjs and mongo/MongoCompare.java do it by other drivers.
#
# DIR/spec.json: {"collections": {name: [field, ...] or null}, "buckets": [name, ...]}.
# DIR/NAME: a document a line, as canonical extended JSON; of the fields named alone, where
# some are.  DIR/NAME.files.list of a bucket: {"filename", "_id", "length", "sha256"} a line, of
# every file that there is.  Integers within _id are compared by value, all else with its type.
# Prints [{"name", "documents", "differences": [...]}] as JSON.
import hashlib
import json
import sys

import gridfs
import pymongo
from bson import json_util
from bson.json_util import CANONICAL_JSON_OPTIONS

directory, uri, database = sys.argv[1:4]
db = pymongo.MongoClient(uri, serverSelectionTimeoutMS=60000)[database]
spec = json.load(open(directory + "/spec.json"))


def lines(name):
    with open("%s/%s" % (directory, name), encoding="utf-8", newline="\n") as rows:
        return [row for row in rows if row.strip()]


def by_value(value):
    if isinstance(value, dict):
        for kind in ("$numberInt", "$numberLong"):
            if kind in value:
                return int(value[kind])
        return {k: by_value(v) for k, v in value.items()}
    return value


def text(document):
    value = json.loads(json_util.dumps(document, json_options=CANONICAL_JSON_OPTIONS))
    value["_id"] = by_value(value["_id"])
    return json.dumps(value["_id"], sort_keys=True), json.dumps(value, sort_keys=True)


def collection(name, fields):
    differences, want, count = [], {}, 0
    for row in lines(name):
        key, value = text(json_util.loads(row, json_options=CANONICAL_JSON_OPTIONS))
        if key in want:
            differences.append("two rows with the _id " + key)
        want[key] = value
    for document in db[name].find({}, {f: 1 for f in fields} if fields else None):
        count += 1
        key, value = text(document)
        expected = want.pop(key, None)
        if expected is None:
            differences.append("extra: " + value)
        elif expected != value:
            differences.append("different: " + expected + " in MongoDB: " + value)
    return count, differences + ["missing: " + value for value in want.values()]


def bucket(name):
    differences, want = [], {}
    files = gridfs.GridFSBucket(db, bucket_name=name)
    for row in lines(name + ".files.list"):
        expected = json.loads(row)
        want[expected["filename"]] = expected
        try:
            file = files.open_download_stream_by_name(expected["filename"])
            data = file.read()
            got = {"filename": file.filename, "_id": str(file._id), "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        except gridfs.errors.GridFSError as error:
            got = repr(error)
        if got != expected:
            differences.append("different: %s in MongoDB: %s" % (expected, got))
    count = 0
    for file in files.find({}):
        count += 1
        if file.filename not in want or str(file._id) != want[file.filename]["_id"]:
            differences.append("extra: %s %s" % (file.filename, file._id))
    return count, differences


result = []
for name, fields in spec["collections"].items():
    count, differences = collection(name, fields)
    result.append({"name": name, "documents": count, "differences": [d[:500] for d in differences[:10]]})
for name in spec["buckets"]:
    count, differences = bucket(name)
    result.append({"name": name, "documents": count, "differences": [d[:500] for d in differences[:10]]})
print(json.dumps(result))
