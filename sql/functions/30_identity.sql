-- identity: signing up, and what users see of themselves.

CREATE OR REPLACE FUNCTION plinth.sign_up(email text, password text, username text DEFAULT NULL,
        full_name text DEFAULT NULL, metadata jsonb DEFAULT '{}', OUT status text, OUT user_id uuid, OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_sign_up';
COMMENT ON FUNCTION plinth.sign_up(text, text, text, text, jsonb) IS
'Creates a user with a password.
email: at most 254 bytes. password: at least plinth.password_min_length characters, at most 1024 bytes. username: 2 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", or NULL. full_name: at most 400 bytes. metadata: a JSON object of at most 64 KiB.
Returns status "ok" and the new user''s id, or status "email_taken", "username_taken" or "rate_limited" (with retry_after, by the policy plinth.sign_up_address) and NULL, so that the audit entry of the attempt commits. E-mails and usernames are the same without regard to case. Do not pass "email_taken" on to somebody who is not signed in: it tells who has an account.
Errors: PT400 for an argument outside these bounds, 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.sign_up(text, text, text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.sign_up(text, text, text, text, jsonb) TO anon, authenticated, authenticator, plinth_admin;

GRANT SELECT ON plinth.users TO authenticated, plinth_admin;
GRANT UPDATE (full_name, avatar_url, metadata) ON plinth.users TO authenticated;
DROP POLICY IF EXISTS users_admin ON plinth.users;
CREATE POLICY users_admin ON plinth.users FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS users_own ON plinth.users;
CREATE POLICY users_own ON plinth.users FOR SELECT TO authenticated
    USING (id = (SELECT plinth.current_user_id()));
DROP POLICY IF EXISTS users_own_update ON plinth.users;
CREATE POLICY users_own_update ON plinth.users FOR UPDATE TO authenticated
    USING (id = (SELECT plinth.current_user_id()) AND deleted_at IS NULL);
