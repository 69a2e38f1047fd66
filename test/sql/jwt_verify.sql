-- Access tokens as a caller sees them: who may, in which transactions, and what a context is worth.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS plinth;
SELECT (plinth.sign_up('verify@jwt.test', 'correct horse')).user_id IS NOT NULL AS signed_up;
SELECT user_id, session_id, token AS session FROM plinth.sign_in('verify@jwt.test', 'correct horse') \gset
SELECT plinth.signing_key_create('ES256') IS NOT NULL AS made;
SELECT access_token, refresh_token FROM plinth.tokens_issue(:'session') \gset

-- The examples of RFC 7515 (A.1, A.2, A.3, A.5) and 8037 are good signatures by keys that nobody here trusts.
SELECT plinth.jwt_verify('eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk');
SELECT plinth.jwt_verify('eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q');
SELECT plinth.jwt_verify('eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.');
SELECT plinth.jwt_verify('eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg');
SELECT plinth.jwt_verify(NULL);
SELECT plinth.jwt_verify('');
SELECT plinth.jwt_user_key(NULL);
SELECT plinth.jwt_issue(NULL);
SELECT plinth.jwt_issue('');
SELECT plinth.jwt_issue(:'access_token');
SELECT plinth.jwt_issue(:'refresh_token');
SELECT * FROM plinth.tokens_issue(NULL);
SELECT * FROM plinth.tokens_issue(:'access_token');
SELECT * FROM plinth.session_refresh(NULL);
SELECT * FROM plinth.session_verify(:'access_token');
DO $$ BEGIN PERFORM plinth.jwt_verify('x.y.z'); EXCEPTION WHEN SQLSTATE 'PT401' THEN RAISE WARNING 'PT401 %', SQLERRM; END $$;

-- By the login role of an application: an access token is as good as the session's.
SET SESSION AUTHORIZATION authenticator;
BEGIN;
SELECT plinth.context_begin(:'access_token') = :'user_id' AS ann;
SELECT current_user, plinth.current_user_id() = :'user_id' AS ann, plinth.current_session_id() = :'session_id' AS session, plinth.current_aal(), plinth.has_role('user');
SELECT email FROM plinth.users;
SELECT plinth.context_begin(:'session') = :'user_id' AS the_same_session;
SAVEPOINT s;
SELECT plinth.context_begin(left(:'access_token', -1));
ROLLBACK TO s;
SELECT plinth.current_user_id() = :'user_id' AS still;
COMMIT;
SELECT plinth.current_user_id() IS NULL AS over;
BEGIN READ ONLY;
SELECT plinth.context_begin(:'access_token') = :'user_id' AS ann;
SELECT plinth.jwt_verify(:'access_token') ->> 'role' AS role;
ROLLBACK;
SELECT kid FROM plinth.signing_keys;
SELECT issuer FROM plinth.jwt_issuers;
SELECT id FROM plinth.refresh_tokens;
SELECT count(*) AS keys FROM jsonb_array_elements(plinth.jwks() -> 'keys');
RESET SESSION AUTHORIZATION;

-- A long transaction sees the end of a session and of a key all the same.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM plinth.sessions WHERE revoked_at IS NULL AND id = :'session_id';
\setenv PGDATABASE :DBNAME
\! psql -X -q -c "UPDATE plinth.sessions SET revoked_at = now(), revoked_reason = 'test' WHERE user_id = (SELECT id FROM plinth.users WHERE email = 'verify@jwt.test')"
SELECT count(*) FROM plinth.sessions WHERE revoked_at IS NULL AND id = :'session_id';
SELECT plinth.jwt_verify(:'access_token');
ROLLBACK;
SELECT status FROM plinth.session_refresh(:'refresh_token');

-- In parallel workers nothing is verified; in the leader of a parallel query it is.
SELECT session_id, token AS session FROM plinth.sign_in('verify@jwt.test', 'correct horse') \gset
SELECT plinth.jwt_issue(:'session') AS access_token \gset
CREATE TABLE jwt_rows AS SELECT n FROM generate_series(1, 1000) n;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT count(*) FROM jwt_rows WHERE n < 3 AND plinth.jwt_verify(:'access_token' || repeat('', n)) ->> 'sid' = :'session_id';
RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size;
DROP TABLE jwt_rows;

-- Who was found out ends the session in that transaction: it cannot be prepared, and can be rolled back.
SELECT refresh_token AS first FROM plinth.tokens_issue(:'session') \gset
SELECT refresh_token_next AS second FROM plinth.session_refresh(:'first') \gset
BEGIN;
SET LOCAL plinth.refresh_grace = 0;
SELECT status FROM plinth.session_refresh(:'first');
SELECT status FROM plinth.session_refresh(:'second');
PREPARE TRANSACTION 'jwt_verify';
SELECT status FROM plinth.session_refresh(:'second');

DELETE FROM plinth.signing_keys;
DELETE FROM plinth.users WHERE email = 'verify@jwt.test';
