"""jose_peer.py DIR: keys and tokens by PyJWT and cryptography, which are not ours.

Makes a private key of each algorithm in DIR (NAME.pem, hs.key for HS256), then
answers one JSON object a line:
	{"op": "jwks"}                          the public keys as a JWK set
	{"op": "sign", "key", "alg", "input"}   a raw signature, in base64url
	{"op": "hmac", "secret", "input"}       HS256 with any secret (base64url)
	{"op": "encode", "key", "alg", "claims", "headers"}   a token by PyJWT
	{"op": "decode", "token", "alg", "jwk" or "secret", ...}  its claims by PyJWT, or {"error"}
"""
import base64
import hashlib
import hmac
import json
import os
import sys

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b'=').decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, 'big'))


def public_jwk(key):
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        n = public.public_numbers()
        return {'kty': 'RSA', 'alg': 'RS256', 'n': number(n.n), 'e': number(n.e)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        n = public.public_numbers()
        return {'kty': 'EC', 'crv': 'P-256', 'x': number(n.x, 32), 'y': number(n.y, 32)}
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {'kty': 'OKP', 'crv': 'Ed25519', 'x': b64(raw)}


def write(path, data):
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), 'wb') as f:
        f.write(data)


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


def sign(key, alg, data):
    if alg == 'EdDSA':
        return key.sign(data)
    if alg.startswith('ES'):
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, 'big') + s.to_bytes(32, 'big')
    if alg == 'DER':
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if alg == 'PS256':
        return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    if alg == 'RS512':
        return key.sign(data, padding.PKCS1v15(), hashes.SHA512())
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


directory = sys.argv[1]
keys = {
    'rs': rsa.generate_private_key(65537, 2048),
    'es': ec.generate_private_key(ec.SECP256R1()),
    'ed': ed25519.Ed25519PrivateKey.generate(),
    'rs_own': rsa.generate_private_key(65537, 3072),
    'es_own': ec.generate_private_key(ec.SECP256R1()),
    'ed_own': ed25519.Ed25519PrivateKey.generate(),
    'weak': rsa.generate_private_key(65537, 1024),
    'p384': ec.generate_private_key(ec.SECP384R1()),
}
for name, key in keys.items():
    write(f'{directory}/{name}.pem', pem(key))
keys['hs'] = os.urandom(48).hex().encode()
write(f'{directory}/hs.key', keys['hs'])
write(f'{directory}/short.key', b'x' * 31)
write(f'{directory}/locked.pem', keys['es'].private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b'x')))

for line in sys.stdin:
    ask = json.loads(line)
    op = ask['op']
    if op == 'jwks':
        answer = {name: public_jwk(keys[name]) for name in ('rs', 'es', 'ed', 'rs_own', 'es_own', 'ed_own', 'weak')}
    elif op == 'secret':
        answer = keys['hs'].decode()
    elif op == 'public':
        public = keys[ask['key']].public_key()
        answer = [b64(public.public_bytes(e, serialization.PublicFormat.SubjectPublicKeyInfo))
                  for e in (serialization.Encoding.PEM, serialization.Encoding.DER)]
    elif op == 'hmac':
        answer = b64(hmac.new(unb64(ask['secret']), ask['input'].encode(), hashlib.sha256).digest())
    elif op == 'sign' and ask['key'] == 'hs':
        answer = b64(hmac.new(keys['hs'], ask['input'].encode(), hashlib.sha256).digest())
    elif op == 'sign':
        answer = b64(sign(keys[ask['key']], ask['alg'], ask['input'].encode()))
    elif op == 'encode':
        answer = jwt.encode(ask['claims'], keys[ask['key']], algorithm=ask['alg'], headers=ask['headers'])
    elif op == 'decode':
        try:
            key = ask['secret'] if 'secret' in ask else jwt.PyJWK(ask['jwk']).key
            answer = jwt.decode(ask['token'], key, algorithms=[ask['alg']], audience=ask['audience'],
                                issuer=ask['issuer'], options={'require': ['exp', 'iat', 'nbf', 'aud', 'iss']})
        except Exception as e:
            answer = {'error': repr(e)}
    print(json.dumps(answer), flush=True)
