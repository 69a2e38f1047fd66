// jose_peer.mjs NODE_MODULES: tokens by npm's jose, which is not ours.
//
// Answers one JSON object a line:
//	{"op": "verify", "token", "jwks" or "secret", "issuer", "audience", "typ"}   its claims, or {"error"}
//	{"op": "sign", "alg", "pem" or "secret", "header", "claims"}                 a token
//	{"op": "thumbprint", "jwk"}
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const jose = await import(pathToFileURL(process.argv[2] + '/jose/dist/node/esm/index.js'));

async function answer(ask) {
	switch (ask.op) {
		case 'verify': {
			const key = ask.secret ? new TextEncoder().encode(ask.secret) : jose.createLocalJWKSet(ask.jwks);
			const { payload } = await jose.jwtVerify(ask.token, key,
				{ issuer: ask.issuer, audience: ask.audience, typ: ask.typ, requiredClaims: ['exp', 'sub', 'sid', 'jti'] });
			return payload;
		}
		case 'sign': {
			const key = ask.secret ? new TextEncoder().encode(ask.secret) : await jose.importPKCS8(ask.pem, ask.alg);
			return await new jose.SignJWT(ask.claims).setProtectedHeader(ask.header).sign(key);
		}
		case 'thumbprint':
			return await jose.calculateJwkThumbprint(ask.jwk);
	}
}

for await (const line of createInterface({ input: process.stdin })) {
	let result;
	try {
		result = await answer(JSON.parse(line));
	} catch (e) {
		result = { error: String(e) };
	}
	console.log(JSON.stringify(result));
}
