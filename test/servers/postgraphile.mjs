// postgraphile.mjs NODE_MODULES SOCKET_DIRECTORY PGPORT: PostGraphile over schema api, as docs/postgrest.md has it.
// Says "port N", and ends when its standard input does.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const [modules, host, port] = process.argv.slice(2);
const require = createRequire(modules + '/postgraphile/package.json');
const { postgraphile, makePluginHook } = require('postgraphile');

function cookies(req) {
	return Object.fromEntries((req.headers.cookie ?? '').split(/; */).filter(Boolean).map((one) => {
		const at = one.indexOf('=');
		return [one.slice(0, at), one.slice(at + 1)];
	}));
}

const preRequest = {
	withPostGraphileContext: (begin) => (options, run) =>
		begin(options, async (context) => {
			await context.pgClient.query('SELECT plinth.pre_request()');
			return run(context);
		}),
};

const handler = postgraphile({ host, port: Number(port), user: 'authenticator', database: 'postgres', max: 4 }, ['api'], {
	pluginHook: makePluginHook([preRequest]),
	pgSettings: (req) => ({
		role: 'anon',
		'request.method': req.method,
		'request.headers': JSON.stringify(req.headers),
		'request.cookies': JSON.stringify(cookies(req)),
	}),
	extendedErrors: ['errcode'],
	disableQueryLog: true,
	retryOnInitFail: false,
});
const server = createServer(handler);
server.listen(0, '127.0.0.1', () => console.log('port ' + server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
