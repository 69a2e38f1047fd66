-- Users: what sign_up takes and refuses, uniqueness among the living, who sees what.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE identity_user IN ROLE authenticated;
CREATE ROLE identity_admin IN ROLE plinth_admin;
CREATE ROLE identity_app;
\set VERBOSITY terse
\pset null -
SELECT plinth.uuid_v7() AS start \gset

-- Signing up.
SELECT status, user_id > :'start' AS has_id FROM plinth.sign_up('Ann@Identity.test', 'correct horse', 'Ann', 'Ann Example', '{"plan": "x"}');
SELECT email, email_verified_at, username, full_name, avatar_url, role, tier, status, metadata, app_metadata,
       created_at = updated_at AS unchanged, last_login_at, deleted_at
    FROM plinth.users WHERE id > :'start';
SELECT left(phc, 15) AS phc, phc ~ 'horse' AS in_clear FROM plinth.passwords WHERE user_id > :'start';
SELECT status, user_id IS NOT NULL AS has_id FROM plinth.sign_up('least@identity.test', '12345678');
SELECT status, user_id IS NOT NULL AS has_id FROM plinth.sign_up('nulls@identity.test', '12345678', NULL, NULL, NULL);
SELECT username, full_name, metadata FROM plinth.users WHERE email = 'nulls@identity.test';

-- Taken: without regard to case, and nothing is left behind.
SELECT * FROM plinth.sign_up('ann@identity.TEST', 'correct horse');
SELECT * FROM plinth.sign_up('other@identity.test', 'correct horse', 'aNN');
SELECT * FROM plinth.sign_up('ANN@identity.test', 'correct horse', 'ANN');
SELECT count(*) FROM plinth.users WHERE id > :'start';

-- Deleted users give their names back.
UPDATE plinth.users SET deleted_at = now() WHERE email = 'Ann@Identity.test';
SELECT status FROM plinth.sign_up('ann@identity.test', 'correct horse', 'ann');
UPDATE plinth.users SET deleted_at = NULL WHERE email = 'Ann@Identity.test';

-- What is refused, and with which SQLSTATE.
SELECT plinth.sign_up(NULL, 'correct horse');
SELECT plinth.sign_up('a@identity.test', NULL);
SELECT plinth.sign_up('', 'correct horse');
SELECT plinth.sign_up('a@identity.test', '1234567');
SELECT plinth.sign_up('a@identity.test', 'äöüäöüä');
SELECT plinth.sign_up('a@identity.test', repeat('x', 1025));
SELECT plinth.sign_up('a@identity.test', repeat('x', 1000000));
SELECT plinth.sign_up(repeat('x', 1000000), 'correct horse');
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'x');
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'has space');
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'a@b');
SELECT plinth.sign_up('a@identity.test', 'correct horse', repeat('x', 65));
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'ok', repeat('x', 401));
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'ok', NULL, '[]');
SELECT plinth.sign_up('a@identity.test', 'correct horse', 'ok', NULL, jsonb_build_object('a', repeat('x', 70000)));
BEGIN READ ONLY;
SELECT plinth.sign_up('a@identity.test', 'correct horse');
ROLLBACK;
\set VERBOSITY sqlstate
SELECT plinth.sign_up('', 'correct horse');
\set VERBOSITY terse
SELECT email, (SELECT status FROM plinth.sign_up(e.email, 'correct horse')) FROM (VALUES ('o''hara+tag@sub.identity.test')) e (email);
SELECT plinth.sign_up(email, 'correct horse') FROM (VALUES ('no-at')) e (email);
DO $$
DECLARE
    bad text;
BEGIN
    FOREACH bad IN ARRAY ARRAY['@x.test', 'a@', 'a@@x.test', 'a b@x.test', '.a@x.test', 'a.@x.test', 'a..b@x.test', 'a@.test', 'a@x.',
        'a@x..test', 'a@-x.test', 'a@x-.test', 'a@x_y.test', 'a"b@x.test', 'a(b)@x.test', 'a@[127.0.0.1]', E'a\n@x.test', E'a@x.test\n',
        U&'a\00A0@x.test', U&'a\0085@x.test', repeat('a', 65) || '@x.test', 'a@' || repeat('b', 64) || '.test',
        repeat('a', 64) || '@' || repeat(repeat('b', 60) || '.', 4) || 'test'] LOOP
        BEGIN
            PERFORM plinth.sign_up(bad, 'correct horse');
            RAISE WARNING 'accepted %', bad;
        EXCEPTION WHEN SQLSTATE 'PT400' THEN
            NULL;
        END;
    END LOOP;
END
$$;

-- One user, however their name is composed (U+00FC, or u and U+0308).
SELECT status FROM plinth.sign_up(U&'m\00FCller@identity.test', 'correct horse');
SELECT status FROM plinth.sign_up(U&'mu\0308ller@identity.test', 'correct horse');

-- updated_at moves with the user, not with last_login_at.
BEGIN;
UPDATE plinth.users SET updated_at = '2001-01-01', last_login_at = now() WHERE email = 'ann@identity.test';
SELECT updated_at < '2002-01-01' AS unmoved FROM plinth.users WHERE email = 'ann@identity.test';
UPDATE plinth.users SET full_name = 'Anna' WHERE email = 'ann@identity.test';
SELECT updated_at = now() AS moved FROM plinth.users WHERE email = 'ann@identity.test';
ROLLBACK;

-- The table's own rules.
UPDATE plinth.users SET status = 'sleeping' WHERE email = 'ann@identity.test';
UPDATE plinth.users SET role = '' WHERE email = 'ann@identity.test';
UPDATE plinth.users SET metadata = '1' WHERE email = 'ann@identity.test';
UPDATE plinth.users SET username = 'a@b' WHERE email = 'ann@identity.test';
UPDATE plinth.users SET email = 'LEAST@identity.test' WHERE email = 'ann@identity.test';

-- An application's table refers to users; whoever owns it needs REFERENCES.
CREATE SCHEMA identity_app AUTHORIZATION identity_app;
GRANT USAGE ON SCHEMA plinth TO identity_app;
SET ROLE identity_app;
CREATE TABLE identity_app.threads (id int PRIMARY KEY, author_id uuid REFERENCES plinth.users (id) ON DELETE CASCADE);
RESET ROLE;
GRANT REFERENCES (id) ON plinth.users TO identity_app;
SELECT id AS least FROM plinth.users WHERE email = 'least@identity.test' \gset
SET ROLE identity_app;
CREATE TABLE identity_app.threads (id int PRIMARY KEY, author_id uuid REFERENCES plinth.users (id) ON DELETE CASCADE);
INSERT INTO identity_app.threads VALUES (1, :'least');
INSERT INTO identity_app.threads VALUES (2, '00000000-0000-7000-8000-000000000000');
SELECT id FROM plinth.users;
RESET ROLE;
DELETE FROM plinth.users WHERE id = :'least';
SELECT count(*) FROM identity_app.threads;
SELECT count(*) FROM plinth.passwords WHERE user_id = :'least';

-- Without a context nobody but administrators sees users; passwords nobody.
SET ROLE identity_user;
SELECT count(*) FROM plinth.users;
UPDATE plinth.users SET full_name = 'x';
UPDATE plinth.users SET role = 'admin';
SELECT FROM plinth.passwords;
SET ROLE identity_admin;
SELECT count(*) > 0 AS sees FROM plinth.users WHERE id > :'start';
SELECT FROM plinth.passwords;
UPDATE plinth.users SET role = 'admin';
SET ROLE anon;
SELECT FROM plinth.users;
SELECT status FROM plinth.sign_up('by.anon@identity.test', 'correct horse');
SET ROLE identity_app;
SELECT plinth.sign_up('a@identity.test', 'correct horse');
RESET ROLE;

-- One audit entry for each attempt that was not refused.
SELECT action, result, metadata, count(*), bool_and(resource = 'user:' || coalesce(actor_user_id::text, split_part(resource, ':', 2))) AS names_user
    FROM plinth.audit_entries WHERE id > :'start' AND action LIKE 'plinth.%' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;

DELETE FROM plinth.users WHERE id > :'start';
DROP SCHEMA identity_app CASCADE;
REVOKE USAGE ON SCHEMA plinth FROM identity_app;
REVOKE REFERENCES (id) ON plinth.users FROM identity_app;
DROP ROLE identity_user, identity_admin, identity_app;
