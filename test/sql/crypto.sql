-- Randomness, hashes, and an application's own secrets.
SELECT octet_length(plinth.random_bytes(1)), octet_length(plinth.random_bytes(1048576)), plinth.random_bytes(32) <> plinth.random_bytes(32) AS differ,
    plinth.random_bytes(NULL);
SELECT plinth.random_bytes(0);
SELECT plinth.random_bytes(-1);
SELECT plinth.random_bytes(1048577);

-- BLAKE2b with 32 bytes of output: "abc", and nothing.
SELECT encode(plinth._blake2b('abc'), 'hex'), encode(plinth._blake2b(''), 'hex');

SELECT plinth.secret_hash('1234') AS hash \gset
SELECT :'hash' ~ '^\$argon2id\$v=19\$m=[0-9]+,t=[0-9]+,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$' AS phc,
    plinth.secret_hash('1234') <> :'hash' AS salted;
SELECT plinth.secret_verify('1234', :'hash') AS right, plinth.secret_verify('1235', :'hash') AS wrong, plinth.secret_verify('', :'hash') AS empty,
    plinth.secret_verify(NULL, :'hash') AS of_null;
SELECT plinth.secret_verify('', plinth.secret_hash('')) AS empty, plinth.secret_verify(repeat('ü', 5000), plinth.secret_hash(repeat('ü', 5000))) AS long;

-- Made by another implementation (the reference one), with other costs, lanes and kinds.
SELECT plinth.secret_verify('pw', h) AS right, plinth.secret_verify('Pw', h) AS wrong FROM (VALUES
    ('$argon2id$v=19$m=16384,t=3,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M'),
    ('$argon2id$v=19$m=16384,t=3,p=4$iuyROBDPaMdKa6K21xM/DA$MvKK39EWMPVG1uPNU2ZfktNEjG47jVvzhcoklDp7sP4'),
    ('$argon2i$v=19$m=16384,t=3,p=1$Uhpgswa2KJ3Hm7qrcMfOMg$Ld4hLyyiKwjF+jm7LjiRCz4uDXKETwPlILCjQ3CY0XY')) v(h);

-- What is no such hash fits nothing.
SELECT h, plinth.secret_verify('pw', h) FROM (VALUES (''), ('pw'), ('$argon2id$'), ('$argon2id$v=19$m=16384,t=3,p=1$'),
    ('$argon2id$v=19$m=x,t=3,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3'), ('$2b$04$abcdefghijklmnopqrstuu'),
    ('$argon2id$v=19$m=99999999999,t=3,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M')) v(h);
-- Nobody makes the server take all its memory, or an hour, by a hash.
SELECT plinth.secret_verify('pw', '$argon2id$v=19$m=1048577,t=1,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M');
SELECT plinth.secret_verify('pw', '$argon2id$v=19$m=8,t=101,p=1$CGR1N1LNI6hbrE9B8Hjrww$JMk3uR9/jaeci4uDtE0BmLj8upc8GqbW7Dibg0sN+5M');

-- No session lowers the costs for itself.
SET plinth.argon2_memory = '8MB';
SET plinth.argon2_ops = 1;

-- Who may.
SELECT r AS role, has_function_privilege(r, 'plinth.secret_hash(text)', 'EXECUTE') AS secret_hash,
    has_function_privilege(r, 'plinth.random_bytes(int)', 'EXECUTE') AS random_bytes,
    has_function_privilege(r, 'plinth._blake2b(bytea)', 'EXECUTE') AS blake2b
FROM unnest(ARRAY['anon', 'authenticated', 'authenticator', 'plinth_admin', 'plinth_owner']) r;
