-- Users from elsewhere, with password hashes that others made.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset
-- Hashes of other libraries: crypt_blowfish's own vectors, and argon2-cffi's example.
SELECT row_number, status, user_id IS NOT NULL AS made FROM plinth.users_import('[
    {"email": "u1@import.test", "username": "import1", "password_hash": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "email_verified": true},
    {"email": "u2@import.test", "password_hash": "$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK", "role": "editor", "tier": "pro"},
    {"email": "u3@import.test", "password_hash": "$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a", "metadata": {"a": 1}},
    {"email": "u4@import.test", "password_hash": "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg",
        "created_at": "2020-01-01T00:00:00Z", "full_name": "Four", "avatar_url": "https://img.test/4", "provider": "clerk", "subject": "u4"},
    {"email": "u5@import.test", "password_hash": null, "username": null, "metadata": null, "id": "018f0000-0000-7000-8000-000000000005", "user_key": "5"}]');
SELECT email, email_verified_at IS NOT NULL AS verified, username, full_name, avatar_url, role, tier, metadata, app_metadata, extract(year FROM created_at) = 2020 AS old,
    user_key, (SELECT subject FROM plinth.identities i WHERE i.user_id = u.id) AS subject FROM plinth.users u WHERE email LIKE '%@import.test' ORDER BY email;
SELECT id FROM plinth.users WHERE user_key = '5';

-- What is not good does not keep the others out.
SELECT row_number, status, user_id IS NOT NULL AS made FROM plinth.users_import('[
    {"email": "U1@import.test"}, {"username": "IMPORT1"}, {"id": "018f0000-0000-7000-8000-000000000005"}, {"user_key": "5"}, {"provider": "clerk", "subject": "u4"},
    {"email": "new@import.test"}, {"email": "NEW@import.test"},
    7, null, [], {"email": 7}, {"email": "none"}, {"mail": "x@import.test"}, {"username": "a b"}, {"username": "x"}, {"role": ""}, {"tier": "a b"}, {"metadata": []},
    {"email_verified": "yes"}, {"created_at": "2020-02-30"}, {"created_at": "soon"}, {"id": "5"}, {"provider": "clerk"}, {"subject": "x"}, {"user_key": ""},
    {"password_hash": ""}, {"password_hash": "plain"}, {"password_hash": "5f4dcc3b5aa765d61d8327deb882cf99"},
    {"password_hash": "$1$salt$qJH7.N4xYta3aEG/dfqo/0"},
    {"password_hash": "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
    {"password_hash": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe"},
    {"password_hash": "$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
    {"password_hash": "$argon2id$v=19$m=4194304,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=65536,t=3000,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2d$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA"},
    {"password_hash": "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$"},
    {"password_hash": "$argon2id$v=19$m=65536,t=3,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQb!"},
    {"password_hash": "$argon2id$v=19$m=1048576,t=5,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=0,t=3,p=1$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=8,t=0,p=1$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=8,t=1,p=0$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=8,t=1,p=4$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m= 64,t=1,p=1$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=64,t=+1,p=1$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=064,t=1,p=1$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"},
    {"password_hash": "$argon2id$v=19$m=64,t=1,p=1$$MIIRqgvgQbgj220jfp0MPA$YfwJSVjtjSU0zzV/P3S9nnQ/USre2wvJMjfCIjrTQbg"}]');
SELECT plinth.users_import('{}');
SELECT plinth.users_import(NULL);
SELECT count(*) FROM plinth.users_import('[]');
SELECT status FROM plinth.user_import('one@import.test', '$2b$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a', 'one', 'One', true, 'editor');
SELECT status, user_id FROM plinth.user_import('one@import.test');

-- They sign in with the password that they had, and then with a hash of ours.
SELECT status FROM plinth.sign_in('u1@import.test', 'U*U');
SELECT status FROM plinth.sign_in('u1@import.test', 'U*V');
SELECT status FROM plinth.sign_in('u2@import.test', 'U*U*');
SELECT status FROM plinth.sign_in('u3@import.test', 'U*U*U');
SELECT status FROM plinth.sign_in('u4@import.test', 'correct horse battery staple');
SELECT status FROM plinth.sign_in('u5@import.test', '');
SELECT email, left(phc, 9) AS hash FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE email LIKE '%@import.test' ORDER BY email;

-- An adopted table brings its hashes along, and another hash when it changes.
CREATE TABLE import_users (id int PRIMARY KEY, email text, hash text);
INSERT INTO import_users VALUES (71, 'a71@import.test', '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW'), (72, 'a72@import.test', NULL);
SELECT plinth.users_adopt('import_users', 'id', '{"email": "email", "password_hash": "hash"}');
SELECT status FROM plinth.sign_in('a71@import.test', 'U*U');
UPDATE import_users SET email = 'a710@import.test' WHERE id = 71;
SELECT left(phc, 9) AS hash FROM plinth.passwords p JOIN plinth.users u ON u.id = p.user_id WHERE email = 'a710@import.test';
UPDATE import_users SET hash = '$2y$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK' WHERE id = 71;
SELECT status FROM plinth.sign_in('a710@import.test', 'U*U*');
UPDATE import_users SET hash = 'plain' WHERE id = 72;
-- Again, with other columns: the same users.
ALTER TABLE import_users ADD name text DEFAULT 'Somebody';
SELECT plinth.user_key_source();
SELECT plinth.users_adopt('import_users', 'id', '{"email": "email", "full_name": "name"}');
SELECT user_key, email, full_name FROM plinth.users WHERE user_key LIKE '7_' ORDER BY 1;
SELECT plinth.user_key_source();
DROP TABLE import_users;

SELECT action, metadata FROM plinth.audit_entries WHERE id > :'start' AND action LIKE '%import' ORDER BY id;
SELECT count(*) AS secrets FROM plinth.audit_entries a WHERE id > :'start' AND a::text ~ 'argon2|\$2[aby]|U\*U';
SET ROLE authenticated;
SELECT plinth.users_import('[]');
SELECT plinth.user_import('x@import.test');
RESET ROLE;
DELETE FROM plinth.users WHERE email LIKE '%@import.test' OR user_key = '5';
