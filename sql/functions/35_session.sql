-- session: signing in, verifying, revoking, and beginning a request context.

CREATE OR REPLACE FUNCTION plinth.sign_in(identifier text, password text, device_fingerprint text DEFAULT NULL,
        device_type text DEFAULT NULL, user_agent text DEFAULT NULL, label text DEFAULT NULL,
        OUT status text, OUT user_id uuid, OUT session_id uuid, OUT token text, OUT expires_at timestamptz,
        OUT retry_after interval) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_sign_in';
COMMENT ON FUNCTION plinth.sign_in(text, text, text, text, text, text) IS
'Verifies a password and begins a session.
identifier: e-mail address or username. device_fingerprint (at most 200 bytes), device_type (50), user_agent (1000; longer ones are cut) and label (200) describe the device in the list of sessions.
Returns status "ok" with user, session, token and its expiry; the token is shown only here. Otherwise NULLs and "invalid_credentials"; "locked", with retry_after, after too many wrong passwords for this account from this address, or without it for the right password of a user who is locked or banned; "rate_limited", with retry_after; or "unverified" for the right password where plinth.require_verified_email is on; so that the audit entry of the attempt commits. "mfa_required" is reserved: take every status but "ok" as a refusal. A try is counted before the password is looked at, and stays counted when the transaction rolls back.
Errors: PT400 for a missing or too long argument, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.session_verify(token text, OUT session_id uuid, OUT user_id uuid,
        OUT expires_at timestamptz, OUT aal integer, OUT role text, OUT impersonator_id uuid) RETURNS record
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_verify';
COMMENT ON FUNCTION plinth.session_verify(text) IS
'Tells whose session a token is of.
token: as sign_in returned it. Returns NULLs for a token that is malformed, unknown, expired, idle for too long or revoked, or whose user is deleted, locked or banned. expires_at is when the session ends at the latest, used or not. Works in read-only transactions and on a hot standby, where it is exact as of what is replayed.
Errors: none of its own.';

CREATE OR REPLACE FUNCTION plinth.context_begin(token text) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_context_begin';
COMMENT ON FUNCTION plinth.context_begin(text) IS
'Begins a request context: for the rest of the transaction, the caller is the user of this session.
token: as sign_in returned it, or an access token of this database (jwt_issue). Returns the user''s id, and sets the role plinth.role_authenticated locally where the login role may take it. Outside a transaction block it warns, and holds to the end of the statement.
Errors: PT401 for a token that session_verify or jwt_verify would not accept, PT403 when another identity was fixed in this transaction, 0A000 inside a security-definer function.';

CREATE OR REPLACE FUNCTION plinth.session_revoke(session_id uuid DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_revoke';
COMMENT ON FUNCTION plinth.session_revoke(uuid) IS
'Ends a session: the current one, or another of the same user.
session_id: NULL for the current session. Without a request context a member of plinth_admin ends anybody''s. Returns false when there is no such session, it is another user''s, or it was revoked before.
Errors: PT401 without a request context, unless as said; 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.session_revoke_all(user_id uuid DEFAULT NULL, keep_current boolean DEFAULT false) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_revoke_all';
COMMENT ON FUNCTION plinth.session_revoke_all(uuid, boolean) IS
'Ends all sessions of a user.
user_id: NULL for the current user; somebody else only without a request context, by a member of plinth_admin. keep_current: whether the current session goes on. Returns how many sessions ended.
Errors: PT401 without a request context, unless as said; PT403 for another user; 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.sign_in(text, text, text, text, text, text), plinth.session_verify(text),
    plinth.context_begin(text), plinth.session_revoke(uuid), plinth.session_revoke_all(uuid, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.sign_in(text, text, text, text, text, text), plinth.session_verify(text),
    plinth.context_begin(text) TO anon, authenticated, authenticator, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.session_revoke(uuid), plinth.session_revoke_all(uuid, boolean)
    TO authenticated, plinth_admin;

-- All but the hash of the token.
GRANT SELECT (id, user_id, aal, authenticated_at, device_fingerprint, device_type, address, user_agent, label, created_at,
    last_active_at, expires_at, idle_timeout, revoked_at, revoked_reason, impersonator_id, impersonation_reason)
    ON plinth.sessions TO authenticated, plinth_admin;
DROP POLICY IF EXISTS sessions_admin ON plinth.sessions;
CREATE POLICY sessions_admin ON plinth.sessions FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS sessions_own ON plinth.sessions;
CREATE POLICY sessions_own ON plinth.sessions FOR SELECT TO authenticated
    USING (user_id = (SELECT plinth.current_user_id()));
