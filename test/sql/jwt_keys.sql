-- Signing keys: making, rotating, revoking, and what is shown of them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE jwt_keys_client IN ROLE authenticated;
CREATE ROLE jwt_keys_admin IN ROLE plinth_admin;
SELECT count(*) FROM plinth.signing_keys;
SELECT plinth.jwks();

SELECT (plinth.sign_up('keys@jwt.test', 'correct horse')).user_id IS NOT NULL AS signed_up;
SELECT token AS session FROM plinth.sign_in('keys@jwt.test', 'correct horse') \gset

-- Nothing is signed without a key.
SELECT plinth.jwt_issue(:'session');
SELECT plinth.signing_key_rotate();
SELECT plinth.signing_key_revoke('none');
SELECT plinth.signing_key_create(NULL);
SELECT plinth.signing_key_create('none');
SELECT plinth.signing_key_create('es256');
SELECT plinth.signing_key_create('RS512');
SELECT plinth.signing_key_create('ES256', 'key.pem');
SELECT plinth.signing_key_create('ES256', '../key.pem');
SELECT plinth.signing_key_create('ES256', '');
BEGIN READ ONLY;
SELECT plinth.signing_key_create('ES256');
ROLLBACK;

-- Only plinth_admin, and nobody reads the private part.
SET ROLE jwt_keys_client;
SELECT plinth.signing_key_create('ES256');
SELECT plinth.signing_key_rotate();
SELECT plinth.signing_key_revoke('x');
SELECT plinth.jwt_issuer_set('x', '{"keys": []}');
SELECT kid FROM plinth.signing_keys;
SELECT salt FROM plinth.refresh_tokens;
SET ROLE jwt_keys_admin;
SELECT plinth.signing_key_create('ES256') AS first \gset
SELECT kid = :'first' AS same, alg, status FROM plinth.signing_keys;
SELECT private_sealed FROM plinth.signing_keys;
SELECT * FROM plinth.signing_keys;
SELECT salt FROM plinth.refresh_tokens;
RESET ROLE;

-- The first signs at once; the second is next; there is no third.
SELECT plinth.signing_key_create('RS256') AS second \gset
SELECT plinth.signing_key_create('EdDSA');
SELECT k ->> 'alg' AS alg, k ->> 'use' AS use, k ->> 'kid' = plinth.jwk_thumbprint(k) AS thumbprint,
    array(SELECT jsonb_object_keys(k) ORDER BY 1) AS members
    FROM jsonb_array_elements(plinth.jwks() -> 'keys') k ORDER BY 1;
SELECT plinth.jwt_issue(:'session') AS by_first \gset
SELECT plinth.jwt_verify(:'by_first') ->> 'iss' AS iss;

-- Rotation: what was signed before stays good, and a private part that nobody needs is gone.
SELECT plinth.signing_key_rotate() = :'second' AS rotated;
SELECT kid = :'first' AS first, alg, status, private_sealed IS NULL AS forgotten, activated_at IS NOT NULL AS activated,
    not_after - retired_at BETWEEN interval '15 min' AND interval '16 min' AS until
    FROM plinth.signing_keys ORDER BY status;
SELECT plinth.jwt_issue(:'session') AS by_second \gset
SELECT plinth.jwt_verify(:'by_first') ->> 'iss' AS first, plinth.jwt_verify(:'by_second') ->> 'iss' AS second;
SELECT jsonb_array_length(plinth.jwks() -> 'keys') AS shown;
SELECT plinth.signing_key_rotate();
SELECT status, count(*) FROM plinth.signing_keys GROUP BY 1 ORDER BY 1;

-- When its time is over it verifies nothing, and the next rotation forgets it.
BEGIN;
UPDATE plinth.signing_keys SET not_after = now() WHERE kid = :'first';
SELECT jsonb_array_length(plinth.jwks() -> 'keys') AS shown;
SAVEPOINT s;
SELECT plinth.jwt_verify(:'by_first');
ROLLBACK TO s;
SELECT plinth.signing_key_create('EdDSA') IS NOT NULL AS made, plinth.signing_key_rotate() IS NOT NULL AS rotated;
SELECT count(*) FROM plinth.signing_keys WHERE kid = :'first';
ROLLBACK;

-- HS256 signs and verifies, and is never shown.
SELECT plinth.signing_key_create('HS256') AS third \gset
SELECT length(:'third') AS random_name;
SELECT plinth.signing_key_rotate() = :'third' AS rotated;
SELECT plinth.jwt_issue(:'session') AS by_third \gset
SELECT plinth.jwt_verify(:'by_third') ->> 'iss' AS third;
SELECT k ->> 'alg' AS alg FROM jsonb_array_elements(plinth.jwks() -> 'keys') k ORDER BY 1;
SELECT public_jwk IS NULL AS nothing_public, private_sealed IS NOT NULL AS sealed, substr(private_sealed, 1, 1) AS version
    FROM plinth.signing_keys WHERE kid = :'third';

-- Revoked: nothing that it signed is good any more; the next key takes over.
SELECT plinth.signing_key_create('EdDSA') AS fourth \gset
SELECT plinth.signing_key_revoke(:'third');
SELECT plinth.signing_key_revoke(:'third');
SELECT plinth.jwt_verify(:'by_third');
SELECT kid = :'fourth' AS fourth, alg FROM plinth.signing_keys WHERE status = 'active';
SELECT plinth.jwt_issue(:'session') AS by_fourth \gset
SELECT plinth.jwt_verify(:'by_fourth') ->> 'iss' AS fourth;
SELECT plinth.signing_key_revoke(:'fourth');
SELECT plinth.jwt_issue(:'session');
SELECT plinth.jwt_verify(:'by_second') ->> 'iss' AS second_retired_still;
SELECT plinth.signing_key_revoke(:'second');
SELECT plinth.jwt_verify(:'by_second');

-- A private part opens in its own row only, and fits its public part only.
SELECT plinth.signing_key_create('ES256') AS fifth \gset
SELECT plinth.signing_key_create('ES256') AS sixth \gset
BEGIN;
UPDATE plinth.signing_keys SET private_sealed = (SELECT private_sealed FROM plinth.signing_keys WHERE kid = :'sixth') WHERE kid = :'fifth';
DO $$ BEGIN
    PERFORM plinth.jwt_issue((SELECT token FROM plinth.sign_in('keys@jwt.test', 'correct horse')));
EXCEPTION WHEN OTHERS THEN RAISE WARNING '% %', SQLSTATE, regexp_replace(SQLERRM, '".*"', '"KID"');
END $$;
ROLLBACK;
BEGIN;
UPDATE plinth.signing_keys SET private_sealed = set_byte(private_sealed, 60, get_byte(private_sealed, 60) # 1) WHERE kid = :'fifth';
DO $$ BEGIN
    PERFORM plinth.jwt_issue((SELECT token FROM plinth.sign_in('keys@jwt.test', 'correct horse')));
EXCEPTION WHEN OTHERS THEN RAISE WARNING '% %', SQLSTATE, regexp_replace(SQLERRM, '".*"', '"KID"');
END $$;
ROLLBACK;
BEGIN;
UPDATE plinth.signing_keys SET private_sealed = '\x00' WHERE kid = :'fifth';
DO $$ BEGIN
    PERFORM plinth.jwt_issue((SELECT token FROM plinth.sign_in('keys@jwt.test', 'correct horse')));
EXCEPTION WHEN OTHERS THEN RAISE WARNING '% %', SQLSTATE, regexp_replace(SQLERRM, '".*"', '"KID"');
END $$;
ROLLBACK;
BEGIN;
UPDATE plinth.signing_keys SET public_jwk = (SELECT public_jwk FROM plinth.signing_keys WHERE kid = :'sixth') WHERE kid = :'fifth';
DO $$ BEGIN
    PERFORM plinth.jwt_issue((SELECT token FROM plinth.sign_in('keys@jwt.test', 'correct horse')));
EXCEPTION WHEN OTHERS THEN RAISE WARNING '% %', SQLSTATE, regexp_replace(SQLERRM, '".*"', '"KID"');
END $$;
ROLLBACK;

-- Two active keys, or one without a private part, cannot be.
\set VERBOSITY terse
UPDATE plinth.signing_keys SET status = 'active', activated_at = now() WHERE kid = :'sixth';
UPDATE plinth.signing_keys SET private_sealed = NULL WHERE kid = :'fifth';
\set VERBOSITY default

SELECT action, count(*), bool_and(resource ~ '^signing_key:') AS named FROM plinth.audit_entries WHERE action ~ 'signing_key' GROUP BY 1 ORDER BY 1;

-- Thumbprints: RFC 7638 section 3.1, RFC 8037 A.3.
SELECT plinth.jwk_thumbprint('{"kty": "RSA", "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw", "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}');
SELECT plinth.jwk_thumbprint('{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}');
SELECT plinth.jwk_thumbprint('{"kty": "oct", "k": "AAAA"}');
SELECT plinth.jwk_thumbprint('{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}');
SELECT plinth.jwk_thumbprint('{"kty": "EC", "crv": "P-256", "x": 1, "y": 2}');
SELECT plinth.jwk_thumbprint('[]');

DELETE FROM plinth.signing_keys;
DELETE FROM plinth.users WHERE email = 'keys@jwt.test';
DROP ROLE jwt_keys_client, jwt_keys_admin;
