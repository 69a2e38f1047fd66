// seeds.mjs NODE_MODULES MONGODB_URI DATABASE: the chats of seed 004 as Node's driver reads them; prints JSON.
import { createRequire } from 'node:module';

const [modules, uri, database] = process.argv.slice(2);
const { MongoClient } = createRequire(modules + '/mongodb/package.json')('mongodb');
const client = await MongoClient.connect(uri, { serverSelectionTimeoutMS: 60000 });
const chats = client.db(database).collection('chats');
const result = { chats: 0, messages: 0, wrong: [] };
for await (const chat of chats.find().sort({ _id: 1 })) {
	result.chats++;
	result.messages += chat.messages.length;
	if (typeof chat._id !== 'string' || !(chat.createdAt instanceof Date)) result.wrong.push(chat._id);
	for (const [place, message] of chat.messages.entries()) {
		const role = place % 2 === 0 ? 'user' : 'assistant';
		if (message.role !== role || !message.content.startsWith(`Message ${place + 1} of `) || !(message.createdAt instanceof Date)) result.wrong.push(message.id);
	}
}
result.files = await client.db(database).collection('files').countDocuments({ fileSize: { $gt: 5000000000 } });
await client.close();
console.log(JSON.stringify(result));
