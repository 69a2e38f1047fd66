-- Cascades by rule: what goes, what becomes anonymous, in which order, and as whom.
SET client_min_messages = warning;
SET datestyle = ISO;
CREATE EXTENSION IF NOT EXISTS plinth;
CREATE ROLE regress_cascade_owner;
CREATE ROLE regress_cascade_other;
CREATE ROLE regress_cascade_app;
CREATE SCHEMA cascades AUTHORIZATION regress_cascade_owner;
CREATE SCHEMA cascades_other AUTHORIZATION regress_cascade_other;
GRANT USAGE ON SCHEMA cascades TO regress_cascade_other, regress_cascade_app;
GRANT USAGE ON SCHEMA plinth TO regress_cascade_owner, regress_cascade_other, regress_cascade_app;
RESET client_min_messages;
SET ROLE regress_cascade_owner;
SET search_path = cascades;
CREATE TABLE users (id int PRIMARY KEY, name text);
CREATE TABLE threads (id int PRIMARY KEY, author_id int NOT NULL REFERENCES users ON DELETE CASCADE, title text);
CREATE TABLE replies (id int PRIMARY KEY, thread_id int NOT NULL REFERENCES threads ON DELETE CASCADE, user_id int REFERENCES users ON DELETE CASCADE,
    username text NOT NULL, parent_id int REFERENCES replies ON DELETE CASCADE, tags text[], extra jsonb);
CREATE TABLE wallets (id text PRIMARY KEY, user_id int NOT NULL UNIQUE);
CREATE TABLE transactions (id int PRIMARY KEY, user_id int, wallet_id text REFERENCES wallets ON DELETE SET NULL);
CREATE TABLE warnings (id int, user_id int, admin_id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE warnings_old PARTITION OF warnings FOR VALUES FROM ('2020-01-01') TO ('2024-01-01');
CREATE TABLE warnings_new PARTITION OF warnings FOR VALUES FROM ('2024-01-01') TO ('2030-01-01');
CREATE TABLE log (what text, by_whom text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO cascades.log VALUES (TG_TABLE_NAME, current_user); RETURN NULL; END $$;
CREATE TRIGGER note AFTER DELETE ON wallets FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER note AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION note();

-- Rules are looked at when they are made.
SELECT plinth.sync_cascade('user', '1');
SELECT plinth.sync_cascade_rule('user', 'users', 'nothing');
SELECT plinth.sync_cascade_rule('user', 'users', 'id', 'burn');
SELECT plinth.sync_cascade_rule('user', 'users', NULL);
SELECT plinth.sync_cascade_rule('', 'users', 'id');
SELECT plinth.sync_cascade_rule('user', 'users', 'id', 'delete', '{"name": null}');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id', 'anonymise');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id', 'anonymise', '[]');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id', 'anonymise', '{"nothing": 1}');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id', 'anonymise', '{"username": null}');
CREATE VIEW v AS SELECT * FROM users;
SELECT plinth.sync_cascade_rule('user', 'v', 'id');
CREATE TABLE p (id int, place json);
SELECT plinth.sync_cascade_rule('user', 'p', 'place');
SELECT plinth.sync_cascade_rule('user', 'plinth.users', 'id');
SELECT count(*) FROM plinth.sync_cascade_rules;

SELECT plinth.sync_cascade_rule('user', 'users', 'id');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'replies', 'user_id', 'anonymise', '{"user_id": null, "username": "[gone]", "tags": [], "extra": {"was": "here"}}');
SELECT plinth.sync_cascade_rule('user', 'wallets', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'transactions', 'user_id', 'keep');
SELECT plinth.sync_cascade_rule('user', 'warnings', 'user_id');
SELECT plinth.sync_cascade_rule('user', 'warnings', 'admin_id', 'anonymise', '{"admin_id": null}');
SELECT name, relation, owner, key_column, action, assignments FROM plinth.sync_cascade_rules ORDER BY id;

INSERT INTO users SELECT g, 'user ' || g FROM generate_series(1, 4) g;
INSERT INTO threads VALUES (1, 1, 'by one'), (2, 2, 'by two');
INSERT INTO replies VALUES (1, 2, 1, 'one', NULL, '{a,b}', '{}'), (2, 2, 3, 'three', 1, NULL, NULL), (3, 1, 3, 'three', NULL, NULL, NULL), (4, 1, 1, 'one', 3, NULL, NULL);
INSERT INTO wallets VALUES ('w1', 1), ('w2', 2);
INSERT INTO transactions VALUES (1, 1, 'w1'), (2, 2, 'w2'), (3, 1, 'w1');
INSERT INTO warnings VALUES (1, 1, 2, '2020-05-01'), (2, 1, 2, '2025-05-01'), (3, 3, 1, '2025-06-01');

-- Those who may not.
SET ROLE regress_cascade_other;
SELECT plinth.sync_cascade('user', '1');
SELECT plinth.sync_cascade_drop('user');
SELECT plinth.sync_cascade_rule('user', 'users', 'id');
CREATE TEMP TABLE short (id int);
SELECT plinth.sync_cascade_rule('user', 'short', 'id');
CREATE TABLE cascades_other.mine (id int);
SELECT plinth.sync_cascade_rule('user', 'cascades_other.mine', 'id');
SELECT count(*) FROM plinth.sync_cascade_rules;
SET ROLE regress_cascade_owner;

-- One goes: replies stay without a name, also under the thread that goes with its foreign key.
BEGIN;
SELECT * FROM plinth.sync_cascade('user', '1');
SELECT * FROM users ORDER BY id;
SELECT * FROM threads ORDER BY id;
SELECT * FROM replies ORDER BY id;
SELECT * FROM wallets ORDER BY id;
SELECT * FROM transactions ORDER BY id;
SELECT * FROM warnings ORDER BY id;
SELECT * FROM log ORDER BY what;
-- Once more: nothing is left; and what the transaction did before is not told again.
SELECT * FROM plinth.sync_cascade('user', '1');
ROLLBACK;
SELECT count(*) FROM users;
BEGIN READ ONLY;
SELECT * FROM plinth.sync_cascade('user', '1');
ROLLBACK;
SELECT * FROM plinth.sync_cascade('user', 'one');
SELECT * FROM plinth.sync_cascade('user', NULL);

-- A superuser calls: triggers have the owner's rights all the same, and what they set is put back.
RESET ROLE;
SET search_path = cascades;
CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO cascades.log VALUES (TG_TABLE_NAME, current_user);
    PERFORM set_config('search_path', 'nowhere', false);
    RETURN NULL;
END $$;
BEGIN;
SELECT relation, action, by_rule, row_count FROM plinth.sync_cascade('user', '2');
SELECT * FROM log ORDER BY what;
SHOW search_path;
ROLLBACK;
-- Mappings are named to those who may see them.
CREATE FUNCTION named(role name) RETURNS text[] LANGUAGE plpgsql AS $$
DECLARE named text[];
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', role);
    SELECT s.mappings || s.collections INTO named FROM plinth.sync_cascade('user', '2') AS s WHERE relation = 'cascades.users'::regclass;
    RETURN named;
END $$;
BEGIN;
INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection, key_columns)
    VALUES ('theirs', 'users', 'regress_cascade_other', 'none', 'users_of_theirs', '{id}'), ('ours', 'users', 'regress_cascade_owner', 'none', 'users', '{id}');
SAVEPOINT before;
SELECT named('regress_cascade_owner');
ROLLBACK TO before;
GRANT regress_cascade_other TO regress_cascade_owner;
SELECT named('regress_cascade_owner');
ROLLBACK;
-- Nor may row-level security keep a row back.
ALTER TABLE wallets ENABLE ROW LEVEL SECURITY;
ALTER TABLE wallets FORCE ROW LEVEL SECURITY;
SET ROLE regress_cascade_owner;
BEGIN;
SELECT relation, action, row_count FROM plinth.sync_cascade('user', '2') WHERE relation = 'wallets'::regclass;
ROLLBACK;
-- A wrapper lets an application's role do it.
CREATE FUNCTION forget_me(id int) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT sum(row_count) FROM plinth.sync_cascade('user', id::text) $$;
SET ROLE regress_cascade_app;
BEGIN;
SELECT cascades.forget_me(2);
ROLLBACK;
RESET ROLE;

-- What has changed since: a column renamed, a table dropped, another owner.
ALTER TABLE transactions RENAME user_id TO member_id;
SELECT * FROM plinth.sync_cascade('user', '1');
SELECT plinth.sync_cascade_drop('user', 'transactions');
SELECT plinth.sync_cascade_drop('user', 'transactions');
DROP TABLE warnings;
BEGIN;
SELECT relation, action, by_rule, row_count FROM plinth.sync_cascade('user', '1');
ROLLBACK;
ALTER TABLE wallets OWNER TO regress_cascade_other;
SELECT * FROM plinth.sync_cascade('user', '1');
SELECT count(*) FROM users;
SELECT plinth.sync_cascade_drop('user');
SELECT plinth.sync_cascade_drop('user');
SELECT action, resource, result FROM plinth.audit_entries WHERE action = 'plinth.sync_cascade';

SET client_min_messages = warning;
DROP SCHEMA cascades, cascades_other CASCADE;
DROP OWNED BY regress_cascade_owner, regress_cascade_other, regress_cascade_app;
DROP ROLE regress_cascade_owner, regress_cascade_other, regress_cascade_app;
