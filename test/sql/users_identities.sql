-- Who users are to outside providers, and to the application.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
\set VERBOSITY terse
\pset null -
CREATE ROLE identities_app LOGIN IN ROLE plinth_admin;
CREATE ROLE identities_login LOGIN NOINHERIT IN ROLE anon, authenticated;
GRANT USAGE ON SCHEMA plinth TO identities_login;
GRANT EXECUTE ON FUNCTION plinth.context_begin(text) TO identities_login;
CREATE SCHEMA identities_app AUTHORIZATION identities_app;
SELECT id AS ann FROM plinth.user_create('ann@identities.test', 'ann', password => 'correct horse') \gset
SELECT id AS ben FROM plinth.user_create('ben@identities.test') \gset
SELECT token FROM plinth.sign_in('ann', 'correct horse') \gset

SET SESSION AUTHORIZATION identities_app;
-- ---- linked and unlinked ----
SELECT plinth.identity_link(:'ann', 'clerk', 'user_1', '{"a": 1}'), plinth.identity_link(:'ann', 'clerk', 'user_1');
SELECT plinth.identity_link(:'ben', 'clerk', 'user_1');
SELECT plinth.identity_link(:'ben', 'clerk', 'user_2');
SELECT plinth.identity_link(:'ben', '', 'user_2');
SELECT plinth.identity_link(:'ben', 'clerk', repeat('x', 1001));
SELECT plinth.identity_link(:'ben', 'clerk', 'user_2', '[]');
SELECT plinth.identity_link(plinth.uuid_v7(), 'clerk', 'user_3');
SELECT provider, subject, data, user_id = :'ann' AS ann FROM plinth.identities ORDER BY subject;
SELECT plinth.identity_user('clerk', 'user_1') = :'ann' AS ann, plinth.identity_user('clerk', 'user_9') AS nobody;
SELECT plinth.identity_unlink(:'ann', 'clerk', 'user_2'), plinth.identity_unlink(:'ann', 'clerk', 'user_1'), plinth.identity_unlink(:'ann', 'clerk', 'user_1');
SELECT plinth.identity_unlink(:'ben', 'clerk', 'user_2');
SELECT plinth.identity_link(:'ben', 'other', 'b'), plinth.identity_unlink(:'ben', 'clerk', 'user_2');
SELECT plinth.identity_unlink(:'ben', 'other', 'b');
SELECT plinth.identity_unlink(:'ben', 'other', 'b', force => true);

-- ---- as a provider tells ----
SELECT email, email_verified_at IS NOT NULL AS verified, username, full_name, metadata
    FROM plinth.identity_sync('clerk', 'user_7', 'cee@identities.test', true, 'cee', 'Cee', metadata => '{"plan": "x"}');
SELECT email, email_verified_at IS NOT NULL AS verified, username, full_name, metadata
    FROM plinth.identity_sync('clerk', 'user_7', 'cee2@identities.test');
SELECT updated_at AS before FROM plinth.user_get(plinth.identity_user('clerk', 'user_7')) \gset
SELECT updated_at = :'before' AS same FROM plinth.identity_sync('clerk', 'user_7', 'cee2@identities.test');
SELECT email FROM plinth.identity_sync('clerk', 'user_8', 'ANN@identities.test');
SELECT plinth.identity_user('clerk', 'user_8') AS rolled_back;
SELECT plinth.user_delete(plinth.identity_user('clerk', 'user_7'));
SELECT email, deleted_at IS NOT NULL AS deleted FROM plinth.identity_sync('clerk', 'user_7', 'cee3@identities.test');

-- ---- keys: a provider's subjects ----
SELECT plinth.identity_link(:'ann', 'clerk', 'user_1');
SELECT plinth.user_key_source(provider => 'clerk');
SELECT user_key FROM plinth.user_get(:'ann');
SELECT plinth.identity_link(:'ben', 'clerk', 'user_2'), plinth.identity_link(:'ben', 'other', 'b');
SELECT user_key FROM plinth.user_get(:'ben');
SELECT plinth.identity_unlink(:'ben', 'clerk', 'user_2');
SELECT user_key FROM plinth.user_get(:'ben');
SET SESSION AUTHORIZATION identities_login;
BEGIN;
SELECT plinth.context_begin(:'token') = :'ann' AS ann;
SELECT plinth.current_user_key();
SELECT provider, subject FROM plinth.identities;
SELECT plinth.identity_unlink_me('other', 'b'), plinth.identity_unlink_me('clerk', 'user_1');
ROLLBACK;

-- ---- a subject that cannot be a key ----
RESET SESSION AUTHORIZATION;
SELECT plinth._identity_first_seen('issuer', repeat('x', 201), true, '{"email": "private@identities.test", "email_verified": true}');

-- ---- keys: a table that has ours beside its own ----
SET SESSION AUTHORIZATION identities_app;
CREATE TABLE identities_app.accounts (id serial PRIMARY KEY, plinth_id uuid UNIQUE, name text);
INSERT INTO identities_app.accounts (plinth_id) VALUES (NULL), (:'ann');
SELECT plinth.user_key_source('identities_app.accounts', 'id', 'plinth_id');
CREATE FUNCTION identities_app.key_of(token text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN PERFORM plinth.context_begin(token); RETURN plinth.current_user_key(); END$$;
SELECT identities_app.key_of(:'token');
UPDATE identities_app.accounts SET id = 77 WHERE id = 2;
SELECT identities_app.key_of(:'token');
-- What rolls back was not so, for others and for the same backend.
BEGIN;
UPDATE identities_app.accounts SET id = 78 WHERE id = 77;
SAVEPOINT s;
SELECT plinth.context_begin(:'token') IS NOT NULL AS begun, plinth.current_user_key();
ROLLBACK;
SELECT identities_app.key_of(:'token');
UPDATE identities_app.accounts SET plinth_id = NULL WHERE id = 77;
SELECT identities_app.key_of(:'token') = :'ann' AS own_id;
UPDATE identities_app.accounts SET plinth_id = :'ann' WHERE id = 1;
SELECT identities_app.key_of(:'token');
TRUNCATE identities_app.accounts;
SELECT identities_app.key_of(:'token') = :'ann' AS own_id;
-- The source says which table: this is another.
CREATE TABLE identities_app.fake (id int, plinth_id uuid);
CREATE TRIGGER fake AFTER INSERT ON identities_app.fake FOR EACH ROW EXECUTE FUNCTION plinth._user_key_changed();
INSERT INTO identities_app.fake VALUES (1, :'ann');
SELECT identities_app.key_of(:'token') = :'ann' AS own_id;
SELECT plinth.user_key_source('identities_app.accounts', 'id');
SELECT plinth.user_key_source('identities_app.accounts', 'id', 'no such');
SELECT plinth.user_key_source('plinth.users', 'user_key', 'id');
SELECT plinth.user_key_source('pg_catalog.pg_class', 'oid', 'relname');

-- ---- adopted ----
CREATE TABLE identities_app.users (id serial PRIMARY KEY, mail text UNIQUE, login text, name text, is_verified boolean NOT NULL DEFAULT false,
    is_locked boolean NOT NULL DEFAULT false, del timestamptz);
INSERT INTO identities_app.users (mail, login, is_verified) SELECT 'l' || n || '@identities.test', 'login' || n, n % 2 = 0
    FROM generate_series(1, 4) n;
SELECT plinth.users_adopt('identities_app.users', 'id', '{"mail": "mail"}');
SELECT plinth.users_adopt('identities_app.users', 'id', '{"email": "no such"}');
SELECT plinth.users_adopt('identities_app.users', 'name', '{"email": "mail"}');
SELECT plinth.users_adopt('identities_app.users', 'id', '{"email": "mail", "username": "login", "full_name": "name",
    "email_verified": "is_verified", "locked": "is_locked", "deleted_at": "del"}');
CREATE VIEW identities_app.seen AS SELECT user_key, email, username, email_verified_at IS NOT NULL AS verified, full_name, status,
    deleted_at IS NOT NULL AS deleted FROM plinth.users WHERE user_key IS NOT NULL ORDER BY user_key::int;
TABLE identities_app.seen;
UPDATE identities_app.users SET is_locked = true WHERE id = 1;
UPDATE identities_app.users SET mail = 'new@identities.test' WHERE id = 2;
DELETE FROM identities_app.users WHERE id = 3;
UPDATE identities_app.users SET id = 100, name = 'Four' WHERE id = 4;
INSERT INTO identities_app.users (mail, login) VALUES ('l5@identities.test', 'login5');
INSERT INTO identities_app.users (mail, login) VALUES ('no address', 'login6');
INSERT INTO identities_app.users (mail, login) VALUES ('ANN@identities.test', 'login6');
TABLE identities_app.seen;
UPDATE identities_app.users SET is_locked = false WHERE id = 1;
SELECT status FROM plinth.magic_link_request('new@identities.test');
UPDATE identities_app.users SET del = now() WHERE id = 2;
SELECT count(*) AS mailed FROM plinth.outbox_claim('test') WHERE recipient = 'new@identities.test';
UPDATE identities_app.users SET del = NULL WHERE id = 2;
-- What the table does not say stays.
SELECT plinth.user_ban(id) FROM plinth.users WHERE user_key = '5';
UPDATE identities_app.users SET name = 'Five' WHERE id = 5;
TABLE identities_app.seen;
-- Casts of a column's type are code of the table's owner: it runs with nobody's rights.
CREATE TYPE identities_app.mood AS ENUM ('good', 'bad');
CREATE FUNCTION identities_app.mood_json(identities_app.mood) RETURNS json LANGUAGE sql AS 'SELECT to_json(current_user::text)';
CREATE CAST (identities_app.mood AS json) WITH FUNCTION identities_app.mood_json(identities_app.mood);
ALTER TABLE identities_app.users ADD mood identities_app.mood;
UPDATE identities_app.users SET mood = 'good', name = NULL WHERE id = 5;
SELECT plinth.user_key_source();
RESET SESSION AUTHORIZATION;
SELECT plinth.users_adopt('identities_app.users', 'id', '{"email": "mail", "username": "login", "full_name": "mood"}');
SET SESSION AUTHORIZATION identities_app;
TABLE identities_app.seen;
UPDATE identities_app.users SET mood = 'bad', mail = 'l6@identities.test' WHERE id = 5;
TABLE identities_app.seen;
TRUNCATE identities_app.users;
TABLE identities_app.seen;
SELECT plinth.user_key_source();
SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'plinth_user_key%' AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'identities_app'::regnamespace);

RESET SESSION AUTHORIZATION;
SET client_min_messages = error;
DROP SCHEMA identities_app CASCADE;
DELETE FROM plinth.users WHERE email LIKE '%@identities.test';
SELECT count(*) FROM plinth.identities;
DROP ROLE identities_app;
REVOKE ALL ON SCHEMA plinth FROM identities_login;
REVOKE ALL ON FUNCTION plinth.context_begin(text) FROM identities_login;
DROP ROLE identities_login;
