-- crypto: randomness, hashes and an application's own secrets.

CREATE OR REPLACE FUNCTION plinth.random_bytes(length int) RETURNS bytea
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_crypto_random_bytes';
COMMENT ON FUNCTION plinth.random_bytes(int) IS
'Makes unpredictable bytes, fit for keys and tokens.
length: how many, 1 to 1048576. Errors: 22023 outside of that.';

CREATE OR REPLACE FUNCTION plinth._blake2b(data bytea) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_crypto_blake2b';
COMMENT ON FUNCTION plinth._blake2b(bytea) IS
'BLAKE2b-256 (RFC 7693), as the tokens are stored that carry 256 bits themselves.';

CREATE OR REPLACE FUNCTION plinth.secret_hash(secret text) RETURNS text
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_crypto_secret_hash';
COMMENT ON FUNCTION plinth.secret_hash(text) IS
'Hashes a secret of an application, such as a PIN, with Argon2id.
Returns a PHC string with a salt of its own, for secret_verify. It takes plinth.argon2_memory and tens of milliseconds; at most
plinth.password_max_concurrent run at once, others wait.';

CREATE OR REPLACE FUNCTION plinth.secret_verify(secret text, hash text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_crypto_secret_verify';
COMMENT ON FUNCTION plinth.secret_verify(text, text) IS
'Tells whether a secret fits a hash that secret_hash made.
hash: a PHC string of Argon2id or Argon2i, or one of bcrypt ($2a$, $2b$, $2y$); false for anything else. Errors: 22023 for costs above m=1048576,t=100,p=64 or bcrypt''s 16, and, unless the caller is a member of plinth_admin, above four times the memory, or memory times passes, of plinth.argon2_memory and plinth.argon2_ops, or bcrypt''s 12.
Limit the attempts: a PIN has few values.';

REVOKE ALL ON FUNCTION plinth.random_bytes(int), plinth._blake2b(bytea), plinth.secret_hash(text),
    plinth.secret_verify(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.random_bytes(int), plinth.secret_hash(text), plinth.secret_verify(text, text)
    TO plinth_owner, authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.random_bytes(int) TO anon;
GRANT EXECUTE ON FUNCTION plinth._blake2b(bytea) TO plinth_owner;
