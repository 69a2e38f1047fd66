-- session: access tokens, their keys, and refresh tokens.

CREATE OR REPLACE FUNCTION plinth.signing_key_create(alg text, file text DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_signing_key_create';
COMMENT ON FUNCTION plinth.signing_key_create(text, text) IS
'Makes a key that signs access tokens, or takes one from a file.
alg: HS256, EdDSA, ES256 or RS256. file: NULL to make a new key, whose private part is kept sealed under the root key; or the name of a file in plinth.signing_key_directory, which holds the private part from then on: PKCS #8 in PEM, or for HS256 the secret as it is, at least 32 bytes.
Returns the key''s kid. The first key signs at once; another one is next: jwks() shows it, and signing_key_rotate() lets it sign.
Errors: 22023 for another alg, 42710 when there is a next key already, 55000 without a root key or directory, F0000 for a file that is no such key.';

CREATE OR REPLACE FUNCTION plinth.signing_key_rotate() RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_signing_key_rotate';
COMMENT ON FUNCTION plinth.signing_key_rotate() IS
'Lets the next key sign, and retires the one that did.
Tokens of the retired key stay good until the last of them has expired (plinth.jwt_lifetime from now); then the key is forgotten at the next rotation. Make the next key so early that every verifier has fetched jwks() since. Returns the kid of the key that signs now.
Errors: 55000 when there is no next key.';

CREATE OR REPLACE FUNCTION plinth.signing_key_revoke(kid text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_signing_key_revoke';
COMMENT ON FUNCTION plinth.signing_key_revoke(text) IS
'Ends a key at once: every token that it signed is refused from now on.
kid: the key. If it is the one that signs, the next key takes over; without one, no token can be issued until another is made. Returns false when there is no such key, or its time was over.
Errors: none of its own.';

CREATE OR REPLACE FUNCTION plinth.jwks() RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT jsonb_build_object('keys', coalesce(jsonb_agg(k.public_jwk || jsonb_build_object('kid', k.kid, 'alg', k.alg, 'use', 'sig')
        ORDER BY k.status, k.created_at DESC, k.kid), '[]'))
    FROM plinth.signing_keys k
    WHERE k.public_jwk IS NOT NULL AND (k.not_after IS NULL OR k.not_after > clock_timestamp());
END;
ALTER FUNCTION plinth.jwks() OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.jwks() IS
'The public keys of access tokens, as a JWK set (RFC 7517).
Returns the key that signs, the next one, and retired ones whose tokens are still good. A key of HS256 is never in it, since whoever verifies with it can sign.
Errors: none.';

CREATE OR REPLACE FUNCTION plinth.jwk_thumbprint(jwk jsonb) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_session_jwk_thumbprint';
COMMENT ON FUNCTION plinth.jwk_thumbprint(jsonb) IS
'The thumbprint of a public key (RFC 7638, SHA-256).
jwk: a key of RSA, P-256 or Ed25519. Returns 43 characters of base64url.
Errors: 22023 for another key, or one with a missing or malformed member.';

CREATE OR REPLACE FUNCTION plinth.jwt_issuer_set(issuer text, jwks jsonb, audience text[] DEFAULT NULL,
        authorized_parties text[] DEFAULT NULL, user_key_claim text DEFAULT 'sub', provider text DEFAULT NULL,
        create_users boolean DEFAULT false, by_user_key boolean DEFAULT false) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_jwt_issuer_set';
COMMENT ON FUNCTION plinth.jwt_issuer_set(text, jsonb, text[], text[], text, text, boolean, boolean) IS
'Accepts the tokens of another issuer, or changes with which keys.
issuer: as the tokens name it (iss). jwks: its JWK set; each key needs a kid, and is for the algorithm of its kind: RS256, ES256 (P-256) or EdDSA (Ed25519). audience: one of these must be in aud; NULL accepts only tokens without aud. authorized_parties: azp must be one of these; NULL does not look at azp. user_key_claim: the claim that names the user, for jwt_user_key and request contexts. provider: whose subjects in identities these are; NULL for the issuer itself. by_user_key: they are the application''s own keys of users (user_key_source) instead. create_users: whether who is not known becomes a user with their first token, rather than being refused.
Returns how many keys of the set can verify; those of other kinds are left out.
Errors: 22023 when there is none, for a private key, a malformed one or two with one kid, or for the issuer of this database''s own tokens.';

CREATE OR REPLACE FUNCTION plinth.jwt_issuer_remove(issuer text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_jwt_issuer_remove';
COMMENT ON FUNCTION plinth.jwt_issuer_remove(text) IS
'Accepts no more tokens of another issuer.
issuer: as given to jwt_issuer_set. Returns false when there was none.
Errors: none of its own.';

CREATE OR REPLACE FUNCTION plinth.jwt_issue(session_token text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_jwt_issue_sql';
COMMENT ON FUNCTION plinth.jwt_issue(text) IS
'Makes an access token (JWT) for a session.
session_token: as sign_in returned it. Returns a token that is good for plinth.jwt_lifetime, as long as the session is: iss, aud, sub (the user), sid (the session), role (plinth.role_authenticated, for PostgREST), roles (the user''s), aal, iat, nbf, exp, jti, and act of an impersonator. Works in read-only transactions.
Errors: PT401 for a token that session_verify would not accept, 55000 without a signing key.';

CREATE OR REPLACE FUNCTION plinth.jwt_verify(token text) RETURNS jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_jwt_verify_sql';
COMMENT ON FUNCTION plinth.jwt_verify(text) IS
'Verifies an access token of this database, or a token of an issuer in jwt_issuers.
token: a JWT of at most 8192 bytes. Returns its claims. One of this database''s own is good only while its session is. Works in read-only transactions and on a hot standby.
Errors: PT401 for anything wrong, with one message that does not tell what.';

CREATE OR REPLACE FUNCTION plinth.jwt_user_key(token text) RETURNS text
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_jwt_user_key';
COMMENT ON FUNCTION plinth.jwt_user_key(text) IS
'Verifies a token as jwt_verify does, and returns whose it is.
token: a JWT. Returns the user''s id for one of this database''s own, else the issuer''s user_key_claim.
Errors: PT401 as jwt_verify, and for a token without that claim.';

CREATE OR REPLACE FUNCTION plinth.tokens_issue(session_token text, OUT access_token text, OUT access_expires_at timestamptz,
        OUT refresh_token text, OUT refresh_expires_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_tokens_issue';
COMMENT ON FUNCTION plinth.tokens_issue(text) IS
'Makes an access token and a refresh token for a session.
session_token: as sign_in returned it. Returns both tokens, shown only here, and until when they are good at the latest. A session keeps its ten newest refresh tokens.
Errors: PT401 for a token that session_verify would not accept, 55000 without a signing key, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.session_refresh(refresh_token text, OUT status text, OUT access_token text,
        OUT access_expires_at timestamptz, OUT refresh_token_next text, OUT refresh_expires_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_refresh';
COMMENT ON FUNCTION plinth.session_refresh(text) IS
'Exchanges a refresh token for a new access token and the next refresh token.
refresh_token: as tokens_issue or this function returned it. Returns status "ok", the tokens, and until when they are good at the latest; or "invalid_token" and NULLs. Whoever asks again with a token that was used within plinth.refresh_grace gets the newest refresh token of its family; used later, a token ends the session, and an audit entry says so.
Errors: 55000 without a signing key, 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.signing_key_create(text, text), plinth.signing_key_rotate(), plinth.signing_key_revoke(text),
    plinth.jwks(), plinth.jwk_thumbprint(jsonb), plinth.jwt_issuer_set(text, jsonb, text[], text[], text, text, boolean, boolean),
    plinth.jwt_issuer_remove(text), plinth.jwt_issue(text), plinth.jwt_verify(text), plinth.jwt_user_key(text),
    plinth.tokens_issue(text), plinth.session_refresh(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.signing_key_create(text, text), plinth.signing_key_rotate(), plinth.signing_key_revoke(text),
    plinth.jwt_issuer_set(text, jsonb, text[], text[], text, text, boolean, boolean), plinth.jwt_issuer_remove(text) TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.jwks(), plinth.jwk_thumbprint(jsonb), plinth.jwt_issue(text), plinth.jwt_verify(text),
    plinth.jwt_user_key(text), plinth.tokens_issue(text), plinth.session_refresh(text)
    TO anon, authenticated, authenticator, plinth_admin;

-- All but the private part.
GRANT SELECT (kid, alg, status, public_jwk, private_file, created_at, activated_at, retired_at, not_after)
    ON plinth.signing_keys TO plinth_admin;
GRANT SELECT ON plinth.jwt_issuers TO plinth_admin;

CREATE OR REPLACE FUNCTION plinth.identity_link_me(token text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_identity_link_me';
COMMENT ON FUNCTION plinth.identity_link_me(text) IS
'Links the outside identity that a token names to the user whose request this is.
token: of an issuer in jwt_issuers, whose next tokens begin contexts of this user. Returns false when it was linked already.
Errors: PT401 without a request context, and for a token that is not good or not another issuer''s; PT403 with an API key or as an impersonator; PT409 when the identity is another user''s.';
REVOKE ALL ON FUNCTION plinth.identity_link_me(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.identity_link_me(text) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._identity_link(uuid, text, text, jsonb) TO plinth_owner;
