// compare.mjs NODE_MODULES DIR URI DATABASE: as compare.py, by MongoDB's own driver for Node.
import { createRequire } from 'node:module';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

const [modules, directory, uri, database] = process.argv.slice(2);
const { MongoClient, GridFSBucket, BSON: { EJSON } } = createRequire(modules + '/mongodb/package.json')('mongodb');
const client = new MongoClient(uri, { serverSelectionTimeoutMS: 60000 });
await client.connect();
const db = client.db(database);
const spec = JSON.parse(readFileSync(directory + '/spec.json', 'utf8'));

const lines = (name) => readFileSync(`${directory}/${name}`, 'utf8').split('\n').filter((line) => line.trim());
const isObject = (value) => value !== null && typeof value === 'object';
const sorted = (value) => (Array.isArray(value) ? value.map(sorted)
	: isObject(value) ? Object.fromEntries(Object.keys(value).sort().map((k) => [k, sorted(value[k])])) : value);
const byValue = (value) => (!isObject(value) ? value
	: value.$numberInt ?? value.$numberLong ?? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, byValue(v)])));

function text(document) {
	const value = sorted(JSON.parse(EJSON.stringify(document, { relaxed: false })));
	value._id = byValue(value._id);
	return [JSON.stringify(value._id), JSON.stringify(value)];
}

async function collection(name, fields) {
	const differences = [], want = new Map();
	let documents = 0;
	for (const row of lines(name)) {
		const [key, value] = text(EJSON.parse(row, { relaxed: false }));
		if (want.has(key)) differences.push('two rows with the _id ' + key);
		want.set(key, value);
	}
	const options = { promoteValues: false };
	if (fields) options.projection = Object.fromEntries(fields.map((f) => [f, 1]));
	for await (const document of db.collection(name).find({}, options)) {
		documents++;
		const [key, value] = text(document);
		const expected = want.get(key);
		want.delete(key);
		if (expected === undefined) differences.push('extra: ' + value);
		else if (expected !== value) differences.push(`different: ${expected} in MongoDB: ${value}`);
	}
	for (const value of want.values()) differences.push('missing: ' + value);
	return { documents, differences };
}

async function bucket(name) {
	const differences = [], want = new Map(), files = new GridFSBucket(db, { bucketName: name });
	let documents = 0;
	for (const row of lines(name + '.files.list')) {
		const expected = JSON.parse(row);
		want.set(expected.filename, expected._id);
		const hash = createHash('sha256');
		let length = 0, problem = '';
		try {
			for await (const part of files.openDownloadStreamByName(expected.filename)) {
				hash.update(part);
				length += part.length;
			}
		} catch (error) {
			problem = String(error);
		}
		const got = hash.digest('hex');
		if (problem || length !== expected.length || got !== expected.sha256)
			differences.push(`different: ${row} in MongoDB: ${length} ${got} ${problem}`);
	}
	for await (const file of files.find({})) {
		documents++;
		if (want.get(file.filename) !== file._id.toHexString()) differences.push(`extra: ${file.filename} ${file._id.toHexString()}`);
		else want.delete(file.filename);
	}
	for (const name of want.keys()) differences.push('missing: ' + name);
	return { documents, differences };
}

const result = [];
const add = (name, { documents, differences }) => result.push({ name, documents, differences: differences.slice(0, 10).map((d) => d.slice(0, 500)) });
for (const [name, fields] of Object.entries(spec.collections)) add(name, await collection(name, fields));
for (const name of spec.buckets) add(name, await bucket(name));
console.log(JSON.stringify(result));
process.exit(0);
