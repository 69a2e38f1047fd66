-- identity: users as administrators and they themselves manage them.
--
-- plinth.NAME, in C, asks who calls and runs plinth._NAME as plinth_owner.

CREATE OR REPLACE FUNCTION plinth._email_check(email text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_check';
CREATE OR REPLACE FUNCTION plinth._username_check(username text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_username_check';

-- What a row of users was refused for, as an error that an application can show.
CREATE OR REPLACE FUNCTION plinth._users_refuse(state text, constraint_name text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    field text := regexp_replace(constraint_name, '^users_(.*)_(key|check|fkey)$', '\1');
BEGIN
    IF state = '23505' AND field IN ('email', 'username') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = field || ' is taken';
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = coalesce(nullif(field, ''), 'user') || ' is not valid';
END
$$;

-- The row, locked as everybody locks it who changes credentials or sessions.
CREATE OR REPLACE FUNCTION plinth._users_lock(user_id uuid) RETURNS plinth.users
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_user plinth.users;
BEGIN
    SELECT u.* INTO found_user FROM plinth.users u WHERE u.id = _users_lock.user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'user not found';
    END IF;
    RETURN found_user;
END
$$;

CREATE OR REPLACE FUNCTION plinth._users_end_sessions(user_id uuid, reason text) RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE plinth.sessions s SET revoked_at = pg_catalog.clock_timestamp(), revoked_reason = $2
        WHERE s.user_id = $1 AND s.revoked_at IS NULL
$$;

-- An entry about a user; what is NULL in details is left out.
CREATE OR REPLACE FUNCTION plinth._users_audit(action text, user_id uuid, details jsonb DEFAULT '{}') RETURNS void
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT plinth._audit_record('plinth.' || $1, 'user:' || $2, 'success', pg_catalog.jsonb_strip_nulls($3))
$$;

-- ---- create and change ------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth.user_create(email text DEFAULT NULL, username text DEFAULT NULL, full_name text DEFAULT NULL,
        role text DEFAULT NULL, tier text DEFAULT NULL, password text DEFAULT NULL, email_verified boolean DEFAULT false,
        metadata jsonb DEFAULT NULL, app_metadata jsonb DEFAULT NULL) RETURNS plinth.users
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_create';
COMMENT ON FUNCTION plinth.user_create(text, text, text, text, text, text, boolean, jsonb, jsonb) IS
'Creates a user, for administrators.
Every argument may be left out; role is then "user" and tier "free". password: as in sign_up; without one the user signs in some other way. email_verified: take the address as verified. metadata, app_metadata: JSON objects.
Returns the user. Errors: PT400 for an argument out of bounds, PT409 "email is taken" or "username is taken", PT401 or PT403 for who is no administrator.';

-- phc: a password hash
CREATE OR REPLACE FUNCTION plinth._user_create(email text, username text, full_name text, role text, tier text, phc text,
        email_verified boolean, metadata jsonb, app_metadata jsonb) RETURNS plinth.users
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    made plinth.users;
    state text;
    name text;
BEGIN
    INSERT INTO plinth.users (email, email_verified_at, username, full_name, role, tier, metadata, app_metadata)
        VALUES (plinth._email_check($1), CASE WHEN $7 AND $1 IS NOT NULL THEN now() END, plinth._username_check($2), $3,
            coalesce($4, 'user'), coalesce($5, 'free'), coalesce($8, '{}'), coalesce($9, '{}'))
        RETURNING * INTO made;
    IF $6 IS NOT NULL THEN
        INSERT INTO plinth.passwords (user_id, phc) VALUES (made.id, $6);
    END IF;
    PERFORM plinth._users_audit('user_create', made.id, jsonb_build_object('role', made.role, 'tier', made.tier));
    RETURN made;
EXCEPTION WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
    PERFORM plinth._users_refuse(state, name);
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_update(user_id uuid, email text DEFAULT NULL, username text DEFAULT NULL,
        full_name text DEFAULT NULL, avatar_url text DEFAULT NULL, role text DEFAULT NULL, tier text DEFAULT NULL,
        email_verified boolean DEFAULT NULL, metadata jsonb DEFAULT NULL, app_metadata jsonb DEFAULT NULL,
        clear_fields text[] DEFAULT '{}') RETURNS plinth.users
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_update(uuid, text, text, text, text, text, text, boolean, jsonb, jsonb, text[]) IS
'Changes what is given about a user, for administrators.
NULL leaves a value as it is. clear_fields: which of email, username, full_name and avatar_url become NULL. Another e-mail address is not verified unless email_verified says so. metadata and app_metadata replace what was there. A deleted user can be changed too.
Returns the user. Errors: PT404 for no such user, PT400 for an argument out of bounds, PT409 "email is taken" or "username is taken", PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_update(user_id uuid, email text, username text, full_name text, avatar_url text, role text,
        tier text, email_verified boolean, metadata jsonb, app_metadata jsonb, clear_fields text[]) RETURNS plinth.users
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    old plinth.users := plinth._users_lock($1);
    new plinth.users := old;
    state text;
    name text;
BEGIN
    IF NOT coalesce($11, '{}') <@ '{email,username,full_name,avatar_url}' THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'clear_fields is not valid';
    END IF;
    new.email := CASE WHEN 'email' = ANY ($11) THEN NULL ELSE coalesce(plinth._email_check($2), old.email) END;
    new.username := CASE WHEN 'username' = ANY ($11) THEN NULL ELSE coalesce(plinth._username_check($3), old.username) END;
    new.full_name := CASE WHEN 'full_name' = ANY ($11) THEN NULL ELSE coalesce($4, old.full_name) END;
    new.avatar_url := CASE WHEN 'avatar_url' = ANY ($11) THEN NULL ELSE coalesce($5, old.avatar_url) END;
    new.role := coalesce($6, old.role);
    new.tier := coalesce($7, old.tier);
    new.metadata := coalesce($9, old.metadata);
    new.app_metadata := coalesce($10, old.app_metadata);
    new.email_verified_at := CASE
        WHEN new.email IS NULL OR NOT $8 THEN NULL
        WHEN new.email = old.email AND old.email_verified_at IS NOT NULL THEN old.email_verified_at
        WHEN $8 THEN now() END;
    UPDATE plinth.users u SET email = new.email, email_verified_at = new.email_verified_at, username = new.username,
            full_name = new.full_name, avatar_url = new.avatar_url, role = new.role, tier = new.tier, metadata = new.metadata,
            app_metadata = new.app_metadata
        WHERE u.id = $1 AND new IS DISTINCT FROM old
        RETURNING u.* INTO new;
    IF NOT FOUND THEN
        RETURN old;
    END IF;
    -- What changed, by name: the values are in the row.
    PERFORM plinth._users_audit('user_update', $1, jsonb_build_object('changed', (
        SELECT jsonb_agg(n.key ORDER BY n.key) FROM jsonb_each(to_jsonb(new)) n
            WHERE n.key <> 'updated_at' AND n.value IS DISTINCT FROM to_jsonb(old) -> n.key)));
    RETURN new;
EXCEPTION WHEN integrity_constraint_violation THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
    PERFORM plinth._users_refuse(state, name);
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_verify(user_id uuid) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_verify(uuid) IS
'Takes a user''s e-mail address as verified, for administrators.
Returns false when it was already. Errors: PT404 for no such user, PT409 for one without an address, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_verify(user_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
BEGIN
    IF u.email IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'user has no email';
    ELSIF u.email_verified_at IS NOT NULL THEN
        RETURN false;
    END IF;
    UPDATE plinth.users SET email_verified_at = now() WHERE id = u.id;
    PERFORM plinth._users_audit('user_verify', u.id);
    RETURN true;
END
$$;

-- ---- lock and ban -------------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth._users_set_status(u plinth.users, new_status text, until timestamptz, reason text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(reason) > 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'reason is too long';
    ELSIF u.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'user not found';
    END IF;
    UPDATE plinth.users SET status = new_status, banned_until = until, status_reason = reason WHERE id = u.id;
    IF new_status <> 'active' THEN
        PERFORM plinth._users_end_sessions(u.id, 'user was ' || new_status);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_lock(user_id uuid, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_lock(uuid, text) IS
'Locks a user out until user_unlock, and ends their sessions, for administrators.
reason: at most 1000 bytes. Returns false when they were locked already. Errors: PT404 for no such user, PT409 for one who is banned, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_lock(user_id uuid, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
BEGIN
    IF u.status = 'banned' AND NOT coalesce(u.banned_until <= clock_timestamp(), false) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'user is banned';
    END IF;
    PERFORM plinth._users_set_status(u, 'locked', NULL, $2);
    IF u.status = 'locked' THEN
        RETURN false;
    END IF;
    PERFORM plinth._users_audit('user_lock', u.id, jsonb_build_object('reason', $2));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_unlock(user_id uuid, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_unlock(uuid, text) IS
'Ends what user_lock did, for administrators.
Sessions that ended stay ended. reason: for the audit entry. Returns false when the user was not locked. Errors: PT404 for no such user, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_unlock(user_id uuid, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
BEGIN
    IF u.status <> 'locked' THEN
        RETURN false;
    END IF;
    PERFORM plinth._users_set_status(u, 'active', NULL, NULL);
    PERFORM plinth._users_audit('user_unlock', u.id, jsonb_build_object('reason', $2));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_ban(user_id uuid, until timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_ban(uuid, timestamptz, text) IS
'Bans a user, until a time or for good, and ends their sessions, for administrators.
until: when the ban ends by itself; NULL for good. A ban in force is replaced. reason: at most 1000 bytes. Returns true. Errors: PT404 for no such user, PT400 for a time that has passed, PT409 for one who is locked, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_ban(user_id uuid, until timestamptz, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
BEGIN
    IF $2 <= clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'until is in the past';
    ELSIF u.status = 'locked' THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'user is locked';
    END IF;
    PERFORM plinth._users_set_status(u, 'banned', nullif($2, 'infinity'), $3);
    PERFORM plinth._users_audit('user_ban', u.id, jsonb_build_object('until', $2, 'reason', $3));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_unban(user_id uuid, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_unban(uuid, text) IS
'Ends a ban, for administrators.
Sessions that ended stay ended. reason: for the audit entry. Returns false when the user was not banned. Errors: PT404 for no such user, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_unban(user_id uuid, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
BEGIN
    IF u.status <> 'banned' THEN
        RETURN false;
    END IF;
    PERFORM plinth._users_set_status(u, 'active', NULL, NULL);
    PERFORM plinth._users_audit('user_unban', u.id, jsonb_build_object('reason', $2));
    RETURN true;
END
$$;

-- ---- delete and restore ---------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth._users_delete(u plinth.users, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF u.deleted_at IS NOT NULL THEN
        RETURN false;
    END IF;
    UPDATE plinth.users SET deleted_at = clock_timestamp() WHERE id = u.id;
    PERFORM plinth._users_end_sessions(u.id, 'user was deleted');
    DELETE FROM plinth.one_time_tokens t WHERE t.user_id = u.id;
    PERFORM plinth._users_audit('user_delete', u.id, jsonb_build_object('reason', left(reason, 1000)));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_delete(user_id uuid, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_delete(uuid, text) IS
'Deletes a user so that user_restore can bring them back, for administrators.
Their sessions end, their API keys do not work any more, unless user_restore brings the user back, and e-mail address and username become free. The row stays, with deleted_at. reason: for the audit entry. Returns false when they were deleted already. Errors: PT404 for no such user, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_delete(user_id uuid, reason text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN plinth._users_delete(plinth._users_lock($1), $2);
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_restore(user_id uuid) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_restore(uuid) IS
'Brings a deleted user back, for administrators.
Sessions that ended stay ended. Returns false when they were not deleted. Errors: PT404 for no such user, PT409 "email is taken" or "username is taken" when another user has it by now (user_update changes a deleted user''s), PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_restore(user_id uuid) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users := plinth._users_lock($1);
    state text;
    name text;
BEGIN
    IF u.deleted_at IS NULL THEN
        RETURN false;
    END IF;
    UPDATE plinth.users SET deleted_at = NULL WHERE id = u.id;
    PERFORM plinth._users_audit('user_restore', u.id);
    RETURN true;
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
    PERFORM plinth._users_refuse(state, name);
END
$$;

-- ---- look up --------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth.user_get(user_id uuid) RETURNS plinth.users
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.user_get(uuid) IS
'A user, deleted or not, for administrators.
Errors: PT404 for no such user, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_get(user_id uuid) RETURNS plinth.users
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users;
BEGIN
    SELECT * INTO u FROM plinth.users WHERE id = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'user not found';
    END IF;
    RETURN u;
END
$$;

CREATE OR REPLACE FUNCTION plinth.users_search(query text DEFAULT NULL, status text DEFAULT NULL, role text DEFAULT NULL,
        tier text DEFAULT NULL, limit_count integer DEFAULT 50, after uuid DEFAULT NULL) RETURNS SETOF plinth.users
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 50 AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.users_search(text, text, text, text, integer, uuid) IS
'Users, a page at a time in the order they were created, for administrators.
query: the beginning of an e-mail address or username, without regard to case, or a whole id. status: active, locked, banned or deleted; NULL for all but deleted. role, tier: exactly. limit_count: 1 to 1000. after: the id of the last user of the page before.
Errors: PT400 for an argument out of bounds, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._users_search(query text, status text, role text, tier text, limit_count integer, after uuid)
        RETURNS SETOF plinth.users
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED ROWS 50 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    prefix text := regexp_replace(lower(nullif(query, '')), '([\\%_])', '\\\1', 'g') || '%';
    id uuid;
    conditions text := '';
BEGIN
    IF limit_count IS NULL OR limit_count NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'limit_count must be 1 to 1000';
    ELSIF status NOT IN ('active', 'locked', 'banned', 'deleted') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'status is not valid';
    ELSIF octet_length(query) > 254 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'query is too long';
    END IF;
    IF query ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' THEN
        id := query::uuid;
        conditions := ' AND u.id = $1';
    ELSIF prefix IS NOT NULL THEN
        conditions := ' AND (lower(u.email) LIKE $2 OR lower(u.username) LIKE $2)';
    END IF;
    -- The texts here are constants; every value is a parameter, and known to the planner.
    RETURN QUERY EXECUTE 'SELECT u.* FROM plinth.users u WHERE u.deleted_at IS '
            || CASE WHEN status = 'deleted' THEN 'NOT NULL' ELSE 'NULL' END || conditions
            || CASE WHEN status <> 'deleted' THEN ' AND u.status = $3' ELSE '' END
            || CASE WHEN role IS NOT NULL THEN ' AND u.role = $4' ELSE '' END
            || CASE WHEN tier IS NOT NULL THEN ' AND u.tier = $5' ELSE '' END
            || CASE WHEN after IS NOT NULL THEN ' AND u.id > $6' ELSE '' END
            || ' ORDER BY u.id LIMIT $7'
        USING id, prefix, status, role, tier, after, limit_count;
END
$$;

-- ---- about oneself ----------------------------------------------------------------------

CREATE OR REPLACE FUNCTION plinth.me() RETURNS plinth.users
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_identity_reader_call';
COMMENT ON FUNCTION plinth.me() IS
'The user whose request this is.
Errors: PT401 without a request context.';

CREATE OR REPLACE FUNCTION plinth._me() RETURNS plinth.users
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN plinth._user_get(plinth.current_user_id());
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_update_me(full_name text DEFAULT NULL, avatar_url text DEFAULT NULL, username text DEFAULT NULL,
        metadata jsonb DEFAULT NULL, clear_fields text[] DEFAULT '{}') RETURNS plinth.users
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
COMMENT ON FUNCTION plinth.user_update_me(text, text, text, jsonb, text[]) IS
'Changes what is given about the user whose request this is.
NULL leaves a value as it is. clear_fields: which of username, full_name and avatar_url become NULL. metadata replaces what was there. The e-mail address changes by another way, since it is to be verified.
Who impersonates the user may change all but the username, and the audit entry names them. Returns the user. Errors: PT401 without a request context, PT403 with an API key, and for the username while impersonating, PT400 for an argument out of bounds, PT409 "username is taken".';

CREATE OR REPLACE FUNCTION plinth._user_update_me(full_name text, avatar_url text, username text, metadata jsonb, clear_fields text[])
        RETURNS plinth.users
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF 'email' = ANY ($5) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'clear_fields is not valid';
    ELSIF $3 IS NOT NULL OR 'username' = ANY ($5) THEN
        -- By which the user signs in.
        PERFORM plinth._require_self();
    END IF;
    RETURN plinth._user_update(plinth.current_user_id(), NULL, $3, $1, $2, NULL, NULL, NULL, $4, NULL, $5);
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_delete_me() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
COMMENT ON FUNCTION plinth.user_delete_me() IS
'Deletes the user whose request this is, as user_delete does.
The session must have been signed in to within plinth.recent_sign_in, by the user and no impersonator. Their sessions end with the commit. Returns true. Errors: PT401 without a request context, PT403 otherwise.';

CREATE OR REPLACE FUNCTION plinth._user_delete_me() RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM plinth.sessions s WHERE s.id = plinth.current_session_id() AND s.impersonation_reason IS NULL
        AND s.authenticated_at > clock_timestamp() - current_setting('plinth.recent_sign_in')::interval;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PT403', MESSAGE = 'sign in again first';
    END IF;
    RETURN plinth._users_delete(plinth._users_lock(plinth.current_user_id()), 'by the user');
END
$$;

REVOKE ALL ON FUNCTION plinth._user_delete_me(), plinth.user_delete_me(), plinth._email_check(text), plinth._username_check(text), plinth._users_refuse(text, text),
    plinth._users_lock(uuid), plinth._users_end_sessions(uuid, text), plinth._users_audit(text, uuid, jsonb),
    plinth._user_create(text, text, text, text, text, text, boolean, jsonb, jsonb),
    plinth._user_update(uuid, text, text, text, text, text, text, boolean, jsonb, jsonb, text[]), plinth._user_verify(uuid),
    plinth._users_set_status(plinth.users, text, timestamptz, text), plinth._user_lock(uuid, text), plinth._user_unlock(uuid, text),
    plinth._user_ban(uuid, timestamptz, text), plinth._user_unban(uuid, text), plinth._users_delete(plinth.users, text),
    plinth._user_delete(uuid, text), plinth._user_restore(uuid), plinth._user_get(uuid),
    plinth._users_search(text, text, text, text, integer, uuid), plinth._me(),
    plinth._user_update_me(text, text, text, jsonb, text[]),
    plinth.user_create(text, text, text, text, text, text, boolean, jsonb, jsonb),
    plinth.user_update(uuid, text, text, text, text, text, text, boolean, jsonb, jsonb, text[]), plinth.user_verify(uuid),
    plinth.user_lock(uuid, text), plinth.user_unlock(uuid, text), plinth.user_ban(uuid, timestamptz, text),
    plinth.user_unban(uuid, text), plinth.user_delete(uuid, text), plinth.user_restore(uuid), plinth.user_get(uuid),
    plinth.users_search(text, text, text, text, integer, uuid), plinth.me(),
    plinth.user_update_me(text, text, text, jsonb, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._email_check(text), plinth._username_check(text), plinth._users_refuse(text, text),
    plinth._users_lock(uuid), plinth._users_end_sessions(uuid, text), plinth._users_audit(text, uuid, jsonb),
    plinth._user_create(text, text, text, text, text, text, boolean, jsonb, jsonb),
    plinth._user_update(uuid, text, text, text, text, text, text, boolean, jsonb, jsonb, text[]),
    plinth._users_set_status(plinth.users, text, timestamptz, text), plinth._users_delete(plinth.users, text),
    plinth._user_get(uuid) TO plinth_owner;
-- The administrators of a request context come as authenticated; the functions ask who they are.
GRANT EXECUTE ON FUNCTION plinth.user_create(text, text, text, text, text, text, boolean, jsonb, jsonb),
    plinth.user_update(uuid, text, text, text, text, text, text, boolean, jsonb, jsonb, text[]), plinth.user_verify(uuid),
    plinth.user_lock(uuid, text), plinth.user_unlock(uuid, text), plinth.user_ban(uuid, timestamptz, text),
    plinth.user_unban(uuid, text), plinth.user_delete(uuid, text), plinth.user_restore(uuid), plinth.user_get(uuid),
    plinth.users_search(text, text, text, text, integer, uuid) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.me(), plinth.user_delete_me(), plinth.user_update_me(text, text, text, jsonb, text[]) TO authenticated, plinth_admin;
