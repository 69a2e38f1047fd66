# gridfs_peer.py URI DATABASE BUCKET: a GridFS client that knows nothing of
# plinth.  Answers a JSON command a line: {"op": …}.
import hashlib
import json
import sys
import threading

import gridfs
import pymongo
from bson import ObjectId

uri, database, name = sys.argv[1:4]
client = pymongo.MongoClient(uri, serverSelectionTimeoutMS=60000)
db = client[database]
bucket = gridfs.GridFSBucket(db, bucket_name=name)
CHUNK = 261120
wrong = []
seen = {'reads': 0, 'none': 0, 'looks': 0, 'versions': set()}
stop = threading.Event()


def content(version, size):
    """What version number `version` of a file holds."""
    text = b'%08d' % version
    return text * (size // 8) + text[:size % 8]


def whole(data):
    """Is this one version, from its first byte to its last?"""
    return len(data) >= 8 and data == content(int(data[:8]), len(data))


def read_on(filename, sizes, pause):
    """Reads a name again and again, by itself: whole, or not at all."""
    while not stop.wait(pause):
        try:
            data = bucket.open_download_stream_by_name(filename).read()
        except gridfs.NoFile:
            seen['none'] += 1
            continue
        except Exception as error:
            wrong.append('%s: %r' % (filename, error))
            continue
        seen['reads'] += 1
        if not whole(data) or len(data) not in sizes:
            wrong.append('%s: torn, %d bytes from %r' % (filename, len(data), data[:8]))
        else:
            seen['versions'].add(data[:8])


def look_on(pause):
    """At any moment each file that is there has all of its chunks."""
    while not stop.wait(pause):
        for doc in db[name + '.files'].find():
            needed = -(-doc['length'] // doc['chunkSize'])
            got = db[name + '.chunks'].count_documents({'files_id': doc['_id']})
            if got != needed:
                wrong.append('%s has %d chunks, not %d' % (doc['_id'], got, needed))
        seen['looks'] += 1


def answer(ask):
    if ask['op'] == 'read':
        try:
            out = bucket.open_download_stream_by_name(ask['name'])
        except gridfs.NoFile:
            return None
        # The embedded server answers with all of a cursor at once, which drivers refuse beyond 48 MB.
        parts = [out.read()] if out.length < 40000000 else (
            db[name + '.chunks'].find_one({'files_id': out._id, 'n': n})['data'] for n in range(-(-out.length // out.chunk_size)))
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return {'sha256': digest.hexdigest(), 'length': out.length, 'id': str(out._id),
                'chunk_size': out.chunk_size, 'type': out.content_type, 'metadata': out.metadata,
                'date': out.upload_date.isoformat(timespec='milliseconds')}
    if ask['op'] == 'write':
        data = content(ask['version'], ask['size'])
        return str(bucket.upload_from_stream(ask['name'], data, metadata=ask.get('metadata')))
    if ask['op'] == 'docs':
        return {'files': db[name + '.files'].count_documents({}), 'chunks': db[name + '.chunks'].count_documents({})}
    if ask['op'] == 'types':
        out = {}
        for part, key in (('files', '_id'), ('chunks', 'files_id')):
            doc = db[name + '.' + part].find_one({key: ObjectId(ask['id'])})
            out[part] = {k: type(v).__name__ for k, v in doc.items()}
            out[part + ' indexes'] = sorted(
                (list(map(list, i['key'])), bool(i.get('unique'))) for i in db[name + '.' + part].index_information().values())
        return out
    if ask['op'] == 'watch':
        pause = ask.get('pause', 0)
        for filename in ask['names']:
            threading.Thread(target=read_on, args=(filename, ask['sizes'], pause), daemon=True).start()
        threading.Thread(target=look_on, args=(pause,), daemon=True).start()
        return True
    if ask['op'] == 'seen':
        return {'reads': seen['reads'], 'none': seen['none'], 'looks': seen['looks'],
                'versions': len(seen['versions']), 'wrong': wrong[:10]}
    if ask['op'] == 'stop':
        stop.set()
        return True
    return 'unknown'


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
