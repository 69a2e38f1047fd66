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

CREATE OR REPLACE FUNCTION plinth.session_verify(token text) RETURNS plinth.session_verified
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

-- Policies ask it.
CREATE OR REPLACE FUNCTION plinth.is_impersonated() RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_session_is_impersonated';
COMMENT ON FUNCTION plinth.is_impersonated() IS
'Tells whether an administrator acts as the user of this request context.
Returns false without a context. Audit entries name the administrator.
Errors: none of its own.';
REVOKE ALL ON FUNCTION plinth.is_impersonated() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.is_impersonated() TO anon, authenticated, authenticator, plinth_admin, plinth_owner;

-- All but the hash of the token.
GRANT SELECT (id, user_id, aal, authenticated_at, device_fingerprint, device_type, address, user_agent, label, created_at,
    last_active_at, expires_at, idle_timeout, revoked_at, revoked_reason, impersonator_id, impersonation_reason, impersonator_session_id)
    ON plinth.sessions TO authenticated, plinth_admin;
DROP POLICY IF EXISTS sessions_admin ON plinth.sessions;
CREATE POLICY sessions_admin ON plinth.sessions FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS sessions_own ON plinth.sessions;
CREATE POLICY sessions_own ON plinth.sessions FOR SELECT TO authenticated
    USING (user_id = (SELECT plinth.current_user_id()) AND (SELECT plinth.current_api_key_id()) IS NULL
           AND (id = (SELECT plinth.current_session_id()) OR NOT (SELECT plinth.is_impersonated())));

-- ---------------------------------------------------------------------------
-- What sessions in shared memory depend on: ENABLE ALWAYS, so that a change by
-- hand, a cascade and a replica's apply count as much as the API.
-- ---------------------------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth._session_user_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_session_user_changed';
CREATE OR REPLACE FUNCTION plinth._session_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_session_changed';
CREATE OR REPLACE FUNCTION plinth._session_truncated() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_session_truncated';
REVOKE ALL ON FUNCTION plinth._session_user_changed(), plinth._session_changed(), plinth._session_truncated() FROM PUBLIC;

CREATE OR REPLACE TRIGGER sessions_changed AFTER UPDATE OR DELETE ON plinth.sessions
    FOR EACH ROW EXECUTE FUNCTION plinth._session_changed();
CREATE OR REPLACE TRIGGER sessions_truncated AFTER TRUNCATE ON plinth.sessions
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._session_truncated();
ALTER TABLE plinth.sessions ENABLE ALWAYS TRIGGER sessions_changed, ENABLE ALWAYS TRIGGER sessions_truncated;
-- Signing in sets last_login_at, and users change what describes them: neither counts.
CREATE OR REPLACE TRIGGER users_sessions_changed AFTER UPDATE OR DELETE ON plinth.users
    FOR EACH ROW EXECUTE FUNCTION plinth._session_user_changed('id', 'id', 'role', 'tier', 'status', 'banned_until', 'deleted_at');
CREATE OR REPLACE TRIGGER users_sessions_truncated AFTER TRUNCATE ON plinth.users
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._session_truncated();
ALTER TABLE plinth.users ENABLE ALWAYS TRIGGER users_sessions_changed, ENABLE ALWAYS TRIGGER users_sessions_truncated;

-- What is granted to them; what roles come to moves the generation of identity.
CREATE OR REPLACE TRIGGER user_roles_sessions_changed AFTER INSERT OR UPDATE OR DELETE ON plinth.user_roles
    FOR EACH ROW EXECUTE FUNCTION plinth._session_user_changed('user_id');
CREATE OR REPLACE TRIGGER user_roles_sessions_truncated AFTER TRUNCATE ON plinth.user_roles
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._session_truncated();
ALTER TABLE plinth.user_roles ENABLE ALWAYS TRIGGER user_roles_sessions_changed, ENABLE ALWAYS TRIGGER user_roles_sessions_truncated;
CREATE OR REPLACE TRIGGER user_permissions_sessions_changed AFTER INSERT OR UPDATE OR DELETE ON plinth.user_permissions
    FOR EACH ROW EXECUTE FUNCTION plinth._session_user_changed('user_id');
CREATE OR REPLACE TRIGGER user_permissions_sessions_truncated AFTER TRUNCATE ON plinth.user_permissions
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._session_truncated();
ALTER TABLE plinth.user_permissions ENABLE ALWAYS TRIGGER user_permissions_sessions_changed,
    ENABLE ALWAYS TRIGGER user_permissions_sessions_truncated;

CREATE OR REPLACE FUNCTION plinth.session_flush() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_flush';
COMMENT ON FUNCTION plinth.session_flush() IS
'Writes when sessions were last in use, as far as that is in shared memory only, to plinth.sessions.
Returns how many rows were written; those that somebody has locked are left for the next time. A worker does so every plinth.session_flush_interval.
Errors: 25006 in a read-only transaction.';
REVOKE ALL ON FUNCTION plinth.session_flush() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.session_flush() TO plinth_admin;

CREATE OR REPLACE FUNCTION plinth.session_stats(OUT entries bigint, OUT capacity bigint, OUT unwritten bigint, OUT hits bigint,
        OUT misses bigint, OUT evictions bigint, OUT refused bigint, OUT lost_uses bigint) RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_stats';
COMMENT ON FUNCTION plinth.session_stats() IS
'Returns counters of the sessions in shared memory: of all databases of this server, since its start.
entries of capacity are taken; of unwritten ones the last use is not in the table yet. hits were answered from memory, misses from the tables. refused: sessions for which no other made room; lost_uses: uses of such in transactions that could not write it either.
Errors: none of its own.';
CREATE OR REPLACE VIEW plinth.stat_sessions AS SELECT * FROM plinth.session_stats();
COMMENT ON VIEW plinth.stat_sessions IS 'Counters of the sessions in shared memory: see session_stats.';
ALTER VIEW plinth.stat_sessions OWNER TO plinth_owner;
CREATE OR REPLACE FUNCTION plinth._session_check(OUT entries bigint, OUT with_roles bigint, OUT role_references bigint,
        OUT in_flux bigint) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_check';
COMMENT ON FUNCTION plinth._session_check() IS
'Accounts for the sessions'' shared memory, for tests and for diagnosis.
Returns how many sessions there are, how many of them refer to roles, the references that the roles count, and the slots of users that are in flux.
Errors: XX001 where something does not add up.';
REVOKE ALL ON FUNCTION plinth.session_stats(), plinth._session_check() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.session_stats() TO plinth_owner, plinth_admin, pg_monitor;
GRANT EXECUTE ON FUNCTION plinth._session_check() TO plinth_admin;
GRANT SELECT ON plinth.stat_sessions TO plinth_admin, pg_monitor;
