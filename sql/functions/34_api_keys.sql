-- identity: API keys.

CREATE OR REPLACE FUNCTION plinth.api_key_create(name text, scopes text[] DEFAULT '{}', expires_at timestamptz DEFAULT NULL,
        limit_policy text DEFAULT NULL, user_id uuid DEFAULT NULL, OUT id uuid, OUT key text, OUT prefix text) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_api_key_create';
COMMENT ON FUNCTION plinth.api_key_create(text, text[], timestamptz, text, uuid) IS
'Makes an API key, with which context_begin begins a context of its user.
name: 1 to 200 bytes, for the list. scopes: the only permissions it gives (resource:action, resource:* or *:*), at most 100; empty for all that the user has. expires_at: NULL for never. limit_policy: a rate limit that every request with the key counts against, with a key of its own. user_id: NULL for the user of the request context; somebody else''s by administrators.
Returns the key, which is shown only here, and its first characters, by which the list tells it. A user has at most 100 that are good.
Errors: PT400 for an argument out of bounds, PT401 without a request context, PT403 in one that an API key or an impersonator began or whose session was not signed in to within plinth.recent_sign_in, and for another user, PT404 for no such user, PT409 for too many.';

CREATE OR REPLACE FUNCTION plinth._api_key_create(user_id uuid, name text, scopes text[], expires_at timestamptz, limit_policy text,
        prefix text, key_hash bytea) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    u plinth.users := plinth._users_lock($1);
    made uuid;
BEGIN
    IF u.deleted_at IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'PT404', MESSAGE = 'user not found';
    ELSIF $2 IS NULL OR octet_length($2) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'name is not valid';
    ELSIF cardinality($3) > 100 OR EXISTS (SELECT FROM unnest($3) s
            WHERE s IS NULL OR s !~ '^([A-Za-z0-9_.-]{1,60}:([A-Za-z0-9_.-]{1,60}|[*])|[*]:[*])$') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'scopes is not valid';
    ELSIF $4 <= clock_timestamp() THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'expires_at is in the past';
    ELSIF $5 IS NOT NULL AND NOT EXISTS (SELECT FROM plinth.rate_limits l WHERE l.name = $5) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'limit_policy does not exist';
    ELSIF (SELECT count(*) FROM plinth.api_keys k WHERE k.user_id = $1 AND k.revoked_at IS NULL
            AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())) >= 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'user has too many API keys';
    END IF;
    INSERT INTO plinth.api_keys (user_id, name, prefix, key_hash, scopes, expires_at, limit_policy)
        VALUES ($1, $2, $6, $7, coalesce((SELECT array_agg(DISTINCT s COLLATE "C" ORDER BY s COLLATE "C") FROM unnest($3) s), '{}'),
            nullif($4, 'infinity'), $5)
        RETURNING id INTO made;
    PERFORM plinth._audit_record('plinth.api_key_create', 'api_key:' || made, 'success',
        jsonb_build_object('user_id', $1, 'name', $2, 'prefix', $6));
    RETURN made;
END
$$;

-- Whose keys a caller may see and end: their own, or by administrators anybody's.
CREATE OR REPLACE FUNCTION plinth._api_key_user(user_id uuid) RETURNS uuid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF plinth.current_user_id() IS NULL OR user_id <> plinth.current_user_id() THEN
        PERFORM plinth._require_admin();
    END IF;
    RETURN coalesce(user_id, plinth.current_user_id());
END
$$;

CREATE OR REPLACE FUNCTION plinth.api_keys_list(user_id uuid DEFAULT NULL) RETURNS TABLE (id uuid, name text, prefix text,
        scopes text[], limit_policy text, created_at timestamptz, expires_at timestamptz, last_used_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whose uuid := plinth._api_key_user($1);
BEGIN
    RETURN QUERY SELECT k.id, k.name, k.prefix, k.scopes, k.limit_policy, k.created_at, k.expires_at, k.last_used_at
        FROM plinth.api_keys k WHERE k.user_id = whose AND k.revoked_at IS NULL ORDER BY k.id;
END
$$;
ALTER FUNCTION plinth.api_keys_list(uuid) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.api_keys_list(uuid) IS
'The API keys of a user that were not revoked, without the keys themselves.
user_id: NULL for the user of the request context; somebody else''s for administrators. last_used_at is written some time after the use.
Errors: PT401 without a request context, PT403 for another user.';

CREATE OR REPLACE FUNCTION plinth.api_key_revoke(id uuid, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    whose uuid := plinth._api_key_user(NULL);
BEGIN
    IF plinth.has_permission('plinth:admin') AND NOT plinth.is_impersonated() THEN
        whose := NULL;
    ELSIF whose IS NOT NULL THEN
        PERFORM plinth._require_self();
    END IF;
    IF octet_length($2) > 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'reason is too long';
    END IF;
    UPDATE plinth.api_keys k SET revoked_at = clock_timestamp(), revoked_reason = $2
        WHERE k.id = $1 AND k.revoked_at IS NULL AND (whose IS NULL OR k.user_id = whose);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM plinth._audit_record('plinth.api_key_revoke', 'api_key:' || $1, 'success',
        jsonb_strip_nulls(jsonb_build_object('reason', $2)));
    RETURN true;
END
$$;
ALTER FUNCTION plinth.api_key_revoke(uuid, text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.api_key_revoke(uuid, text) IS
'Ends an API key of the user of the request context, or for administrators anybody''s.
reason: at most 1000 bytes, for the audit entry. The key is refused from the commit on. Returns false when there is no such key, it is another user''s, or it was revoked before. Errors: PT400 for a longer reason, PT401 without a request context, PT403 in one that an API key or an impersonator began, but for an administrator''s key.';

CREATE OR REPLACE FUNCTION plinth.api_key_flush() RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_api_key_flush_sql';
COMMENT ON FUNCTION plinth.api_key_flush() IS
'Writes when API keys were last used.
Returns how many rows were written; those that somebody has locked are left for the next time. A worker does so by itself. Errors: 25006 in a read-only transaction.';

REVOKE ALL ON FUNCTION plinth.api_key_create(text, text[], timestamptz, text, uuid),
    plinth._api_key_create(uuid, text, text[], timestamptz, text, text, bytea), plinth._api_key_user(uuid),
    plinth.api_keys_list(uuid), plinth.api_key_revoke(uuid, text), plinth.api_key_flush() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._api_key_create(uuid, text, text[], timestamptz, text, text, bytea), plinth._api_key_user(uuid)
    TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.api_key_create(text, text[], timestamptz, text, uuid), plinth.api_keys_list(uuid),
    plinth.api_key_revoke(uuid, text) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.api_key_flush() TO plinth_admin;

-- All but the hash.
GRANT SELECT (id, user_id, name, prefix, scopes, limit_policy, created_at, expires_at, last_used_at, revoked_at, revoked_reason)
    ON plinth.api_keys TO authenticated, plinth_admin;
DROP POLICY IF EXISTS api_keys_admin ON plinth.api_keys;
CREATE POLICY api_keys_admin ON plinth.api_keys FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS api_keys_own ON plinth.api_keys;
CREATE POLICY api_keys_own ON plinth.api_keys FOR SELECT TO authenticated
    USING (user_id = (SELECT plinth.current_user_id()));
