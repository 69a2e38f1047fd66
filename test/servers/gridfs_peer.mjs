// gridfs_peer.mjs NODE_MODULES URI DATABASE BUCKET: as gridfs_peer.py, by MongoDB's own driver for Node.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const [modules, uri, database, name] = process.argv.slice(2);
const { MongoClient, GridFSBucket } = createRequire(modules + '/mongodb/package.json')('mongodb');
const client = new MongoClient(uri, { serverSelectionTimeoutMS: 60000 });
await client.connect();
const bucket = new GridFSBucket(client.db(database), { bucketName: name });

async function read(filename) {
	const [doc] = await bucket.find({ filename }).sort({ uploadDate: -1 }).limit(1).toArray();
	if (!doc) return null;
	const hash = createHash('sha256');
	let length = 0;
	for await (const part of bucket.openDownloadStreamByName(filename)) {
		hash.update(part);
		length += part.length;
	}
	return { sha256: hash.digest('hex'), length, id: doc._id.toHexString(), chunk_size: doc.chunkSize,
		type: doc.contentType, metadata: doc.metadata, date: doc.uploadDate.toISOString().replace('Z', '') };
}

async function answer(ask) {
	if (ask.op === 'read') return read(ask.name);
	if (ask.op === 'range') {
		const parts = [];
		for await (const part of bucket.openDownloadStreamByName(ask.name, { start: ask.start, end: ask.end })) parts.push(part);
		return Buffer.concat(parts).toString('hex');
	}
	if (ask.op === 'write') {
		const text = String(ask.version).padStart(8, '0');
		const upload = bucket.openUploadStream(ask.name, { metadata: ask.metadata });
		await pipeline(Readable.from([Buffer.from(text.repeat(ask.size / 8 + 1).slice(0, ask.size))]), upload);
		return upload.id.toHexString();
	}
	return 'unknown';
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await answer(JSON.parse(line))));
process.exit(0);
