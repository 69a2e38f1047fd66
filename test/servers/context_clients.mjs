// context_clients.mjs NODE_MODULES HOST PORT SECONDS CLIENTS: as context_clients.py, by node-postgres.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [modules, host, port, seconds, clients] = process.argv.slice(2);
const { Client } = createRequire(modules + '/pg/package.json')('pg');
const LOOK = `SELECT plinth.current_user_id()::text AS id, plinth.current_aal() AS aal, current_user::text AS role,
	(SELECT count(*)::int FROM marks) AS marks`;
const end = Date.now() + Number(seconds) * 1000;
const wrong = [];
let done = 0;

function expect(what, seen, user) {
	const wanted = user === null ? { id: null, aal: 0, role: 'authenticator', marks: 0 } : { id: user, aal: 1, role: 'authenticated', marks: 1 };
	if (JSON.stringify(seen) !== JSON.stringify(wanted)) wrong.push(`${what}: ${JSON.stringify(seen)}, expected ${user}`);
}

async function look(client) {
	return (await client.query(LOOK)).rows[0];
}

async function transaction(client, token, user) {
	const rolledBack = Math.random() < 0.3;
	await client.query('BEGIN');
	await client.query('SELECT plinth.context_begin($1)', [token]);
	// Sent at once: both are of one transaction.
	for (const seen of await Promise.all([look(client), look(client)])) expect('in the transaction', seen, user);
	if (rolledBack) await client.query('SELECT plinth.context_begin($1)', ['pls_nobody']).catch(() => {});
	await client.query(rolledBack ? 'ROLLBACK' : 'COMMIT');
	expect('between transactions', await look(client), null);
	done++;
}

async function run(token, user) {
	const client = new Client({ host, port: Number(port), user: 'authenticator', database: 'postgres' });
	await client.connect();
	while (Date.now() < end && wrong.length === 0) {
		await transaction(client, token, user);
		await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
	}
	await client.end();
}

const users = [];
for await (const line of createInterface({ input: process.stdin })) users.push(line.split(' '));
await Promise.all(users.slice(0, Number(clients)).map(([token, user]) => run(token, user).catch((error) => wrong.push(String(error)))));
if (wrong.length > 0) {
	console.error(wrong.slice(0, 5).join('\n'));
	process.exit(1);
}
console.log(done);
