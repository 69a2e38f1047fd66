-- session: what users and administrators do with sessions.
--
-- plinth.NAME, in C, asks who calls and runs plinth._NAME as plinth_owner.

-- Refuses (PT403) what neither an administrator who acts as a user nor an API key may do.
CREATE OR REPLACE FUNCTION plinth._require_self() RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_session_require_self_sql';
-- The later of what the table and what shared memory knows.
CREATE OR REPLACE FUNCTION plinth._session_last_active(session_id uuid, written timestamptz) RETURNS timestamptz
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_last_active';
REVOKE ALL ON FUNCTION plinth._require_self(), plinth._session_last_active(uuid, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._require_self(), plinth._session_last_active(uuid, timestamptz) TO plinth_owner;

-- ---- one's own sessions -----------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth.session_list() RETURNS TABLE (session_id uuid, is_current boolean, label text, device_type text,
        device_fingerprint text, address inet, user_agent text, aal integer, created_at timestamptz, authenticated_at timestamptz,
        last_active_at timestamptz, expires_at timestamptz, is_impersonated boolean)
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_identity_reader_call';
CREATE OR REPLACE FUNCTION plinth._session_list() RETURNS TABLE (session_id uuid, is_current boolean, label text, device_type text,
        device_fingerprint text, address inet, user_agent text, aal integer, created_at timestamptz, authenticated_at timestamptz,
        last_active_at timestamptz, expires_at timestamptz, is_impersonated boolean)
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_self();
    RETURN QUERY SELECT s.id, s.id IS NOT DISTINCT FROM plinth.current_session_id(), s.label, s.device_type, s.device_fingerprint,
            s.address, s.user_agent, s.aal::integer, s.created_at, s.authenticated_at, a.last_active_at, s.expires_at,
            s.impersonation_reason IS NOT NULL
        FROM plinth.sessions s, LATERAL (SELECT plinth._session_last_active(s.id, s.last_active_at) OFFSET 0) a (last_active_at)
        WHERE s.user_id = plinth.current_user_id() AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
            AND (s.idle_timeout IS NULL OR a.last_active_at + s.idle_timeout > clock_timestamp())
        ORDER BY a.last_active_at DESC, s.id DESC;
END
$$;
COMMENT ON FUNCTION plinth.session_list() IS
'Lists the sessions of the current user that go on, the one last used first.
is_current: the one of this request context. is_impersonated: an administrator''s who acts as the user. last_active_at is exact.
Errors: PT401 without a request context, PT403 while impersonating and with an API key.';

CREATE OR REPLACE FUNCTION plinth.session_revoke_others() RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_revoke_others';
COMMENT ON FUNCTION plinth.session_revoke_others() IS
'Ends all sessions of the current user but the one of this request context.
Returns how many sessions ended.
Errors: PT401 without a request context, PT403 while impersonating, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.session_label(session_id uuid, label text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
CREATE OR REPLACE FUNCTION plinth._session_label(session_id uuid, label text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_self();
    IF octet_length(_session_label.label) > 200 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'label is too long';
    END IF;
    UPDATE plinth.sessions s SET label = nullif(_session_label.label, '')
        WHERE s.id = _session_label.session_id AND s.user_id = plinth.current_user_id() AND s.revoked_at IS NULL;
    IF FOUND THEN
        PERFORM plinth._audit_record('plinth.session_label', 'session:' || _session_label.session_id, 'success', '{}');
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION plinth.session_label(uuid, text) IS
'Names a session of the current user in their list.
label: at most 200 bytes; NULL or empty for none. Returns false when there is no such session.
Errors: PT400 for a longer label, PT401 without a request context, PT403 while impersonating and with an API key.';

-- ---- step-up ----------------------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth.session_confirm(password text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_confirm';
COMMENT ON FUNCTION plinth.session_confirm(text) IS
'Verifies the current user''s password once more, so that require_recent is content with this session.
Returns status "ok", or "invalid_credentials", "locked" or "rate_limited" as sign_in does; wrong ones count as those do.
Errors: PT400 without a password, PT401 without a session in the request context, PT403 while impersonating, 25006 in a read-only transaction.';

CREATE OR REPLACE FUNCTION plinth.require_recent(max_age interval DEFAULT '10 minutes') RETURNS void
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_session_require_recent';
COMMENT ON FUNCTION plinth.require_recent(interval) IS
'Passes when the user of this request context signed in, or confirmed their password, a short time ago.
max_age: how long ago at most; in days of 24 hours.
Errors: PT401 without a request context or when its session has ended, PT403 "recent sign-in required" otherwise, for API keys and while impersonating too.';

CREATE OR REPLACE FUNCTION plinth.require_aal(minimum integer) RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_session_require_aal';
COMMENT ON FUNCTION plinth.require_aal(integer) IS
'Passes when the request context has at least this assurance level.
minimum: 1 a password, 2 a second factor, 3 a key that cannot be copied.
Errors: PT401 without a request context, PT403 otherwise.';

-- ---- devices ----------------------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth.device_ban(device_fingerprint text, user_id uuid DEFAULT NULL, until timestamptz DEFAULT NULL,
        reason text DEFAULT NULL) RETURNS integer
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
CREATE OR REPLACE FUNCTION plinth._device_ban(device_fingerprint text, user_id uuid, until timestamptz, reason text) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended integer;
BEGIN
    IF _device_ban.device_fingerprint IS NULL OR _device_ban.device_fingerprint = ''
            OR octet_length(_device_ban.device_fingerprint) > 200 OR octet_length(_device_ban.reason) > 1000
            OR _device_ban.until <= clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'device, time or reason is not valid';
    END IF;
    -- Waits for who is signing in now: by the user, or by the table.
    IF _device_ban.user_id IS NOT NULL THEN
        PERFORM plinth._users_lock(_device_ban.user_id);
    ELSE
        LOCK TABLE plinth.sessions IN SHARE ROW EXCLUSIVE MODE;
    END IF;
    INSERT INTO plinth.device_bans AS b (user_id, device_fingerprint, banned_until, reason)
        VALUES (_device_ban.user_id, _device_ban.device_fingerprint, _device_ban.until, _device_ban.reason)
        ON CONFLICT ON CONSTRAINT device_bans_device_key
        DO UPDATE SET banned_until = excluded.banned_until, reason = excluded.reason;
    UPDATE plinth.sessions s SET revoked_at = clock_timestamp(), revoked_reason = 'the device was banned'
        WHERE s.device_fingerprint = _device_ban.device_fingerprint AND s.revoked_at IS NULL
            AND (_device_ban.user_id IS NULL OR s.user_id = _device_ban.user_id);
    GET DIAGNOSTICS ended = ROW_COUNT;
    PERFORM plinth._audit_record('plinth.device_ban', coalesce('user:' || _device_ban.user_id, 'everybody'), 'success',
        jsonb_strip_nulls(jsonb_build_object('device_fingerprint', _device_ban.device_fingerprint, 'until', _device_ban.until,
            'reason', _device_ban.reason, 'sessions', ended)));
    RETURN ended;
END
$$;
COMMENT ON FUNCTION plinth.device_ban(text, uuid, timestamptz, text) IS
'Bans a device: ends its sessions and lets it begin none.
device_fingerprint: as it is passed to sign_in. user_id: whose; NULL for everybody''s. until: NULL for good. reason: at most 1000 bytes. A ban that exists is replaced. Returns how many sessions ended. For everybody it waits for those who are signing in, and they for it.
Errors: PT400 for an argument out of bounds, PT401 and PT403 for others than administrators, PT404 for no such user.';

CREATE OR REPLACE FUNCTION plinth.device_unban(device_fingerprint text, user_id uuid DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
CREATE OR REPLACE FUNCTION plinth._device_unban(device_fingerprint text, user_id uuid) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM plinth.device_bans b WHERE b.device_fingerprint = _device_unban.device_fingerprint
        AND b.user_id IS NOT DISTINCT FROM _device_unban.user_id;
    IF FOUND THEN
        PERFORM plinth._audit_record('plinth.device_unban', coalesce('user:' || _device_unban.user_id, 'everybody'), 'success',
            jsonb_build_object('device_fingerprint', _device_unban.device_fingerprint));
    END IF;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION plinth.device_unban(text, uuid) IS
'Ends the ban of a device.
user_id: as it was given to device_ban. Returns false when there was none.
Errors: PT401 and PT403 for others than administrators.';

-- ---- impersonation ----------------------------------------------------------------
CREATE OR REPLACE FUNCTION plinth.session_impersonate(user_id uuid, reason text, lifetime interval DEFAULT '30 minutes',
        OUT session_id uuid, OUT token text, OUT expires_at timestamptz) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_session_impersonate';
COMMENT ON FUNCTION plinth.session_impersonate(uuid, text, interval) IS
'Begins a session in which an administrator acts as a user.
reason: 1 to 1000 bytes, kept with the session and in the audit. lifetime: at most 1 day, and no longer than the administrator''s own session. Every audit entry of it names the administrator (or 00000000-0000-0000-0000-000000000000 where a database role began it). It ends with the administrator''s session, account or right, and can neither administer, list, name or end other sessions, nor step up.
Errors: PT400 for an argument out of bounds, PT401 and PT403 for others than administrators and while impersonating, PT404 for a user who is not there or not active, 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.session_list(), plinth._session_list(), plinth.session_revoke_others(), plinth.session_label(uuid, text),
    plinth._session_label(uuid, text), plinth.session_confirm(text), plinth.require_recent(interval), plinth.require_aal(integer),
    plinth.device_ban(text, uuid, timestamptz, text), plinth._device_ban(text, uuid, timestamptz, text), plinth.device_unban(text, uuid),
    plinth._device_unban(text, uuid), plinth.session_impersonate(uuid, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._session_list(), plinth._session_label(uuid, text), plinth._device_ban(text, uuid, timestamptz, text),
    plinth._device_unban(text, uuid) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.session_list(), plinth.session_revoke_others(), plinth.session_label(uuid, text),
    plinth.session_confirm(text), plinth.require_recent(interval), plinth.require_aal(integer) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.require_recent(interval), plinth.require_aal(integer) TO anon;
-- Each asks whether the caller is an administrator.
GRANT EXECUTE ON FUNCTION plinth.device_ban(text, uuid, timestamptz, text), plinth.device_unban(text, uuid),
    plinth.session_impersonate(uuid, text, interval) TO authenticated, plinth_admin;

GRANT SELECT ON plinth.device_bans TO plinth_admin;
DROP POLICY IF EXISTS device_bans_admin ON plinth.device_bans;
CREATE POLICY device_bans_admin ON plinth.device_bans FOR SELECT TO plinth_admin USING (true);
