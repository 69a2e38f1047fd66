-- identity: who users are to outside providers.

CREATE OR REPLACE FUNCTION plinth._identity_provider_is_source(provider text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM plinth.user_key_sources s WHERE s.provider = $1)
$$;

-- Makes the identity the user's, who is locked.
CREATE OR REPLACE FUNCTION plinth._identity_put(u plinth.users, provider text, subject text, data jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holder uuid;
BEGIN
    IF provider IS NULL OR subject IS NULL OR octet_length(provider) NOT BETWEEN 1 AND 1000
            OR octet_length(subject) NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'provider or subject is not valid';
    ELSIF jsonb_typeof(data) <> 'object' OR octet_length(data::text) > 65536 THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'data is not valid';
    END IF;
    INSERT INTO plinth.identities AS i (provider, subject, user_id, data) VALUES ($2, $3, u.id, coalesce($4, '{}'))
        ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT i.user_id INTO holder FROM plinth.identities i WHERE i.provider = $2 AND i.subject = $3 FOR UPDATE;
        IF holder IS DISTINCT FROM u.id THEN
            RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'identity is another user''s';
        END IF;
        UPDATE plinth.identities i SET data = coalesce($4, i.data) WHERE i.provider = $2 AND i.subject = $3;
        RETURN false;
    END IF;
    IF plinth._identity_provider_is_source(provider) THEN
        UPDATE plinth.users SET user_key = $3 WHERE id = u.id;
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.identity_link(user_id uuid, provider text, subject text, data jsonb DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.identity_link(uuid, text, text, jsonb) IS
'Says who a user is to an outside provider, for administrators.
provider, subject: 1 to 1000 bytes each; provider is what jwt_issuer_set has for the issuer, whose tokens then begin contexts of this user. data: a JSON object of at most 64 KiB; NULL leaves what is there. A user may have several.
Returns false when it was this user''s already. Errors: PT404 for no such user, PT409 when it is another user''s, PT400 for an argument out of bounds, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._identity_link(user_id uuid, provider text, subject text, data jsonb) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT plinth._identity_put(plinth._users_lock($1), $2, $3, $4) THEN
        RETURN false;
    END IF;
    PERFORM plinth._users_audit('identity_link', $1, jsonb_build_object('provider', $2));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth._identity_remove(u plinth.users, provider text, subject text, force boolean) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM plinth.identities i WHERE i.provider = $2 AND i.subject = $3 AND i.user_id = u.id) THEN
        RETURN false;
    END IF;
    IF NOT coalesce(force, false) AND NOT EXISTS (SELECT FROM plinth.passwords p WHERE p.user_id = u.id) AND NOT EXISTS (
            SELECT FROM plinth.identities i WHERE i.user_id = u.id AND (i.provider, i.subject) <> ($2, $3)) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT409', MESSAGE = 'this is the last way to sign in';
    END IF;
    DELETE FROM plinth.identities i WHERE i.provider = $2 AND i.subject = $3;
    IF u.user_key = subject AND plinth._identity_provider_is_source(provider) THEN
        UPDATE plinth.users SET user_key = NULL WHERE id = u.id;
    END IF;
    PERFORM plinth._users_audit('identity_unlink', u.id, jsonb_build_object('provider', $2));
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION plinth.identity_unlink(user_id uuid, provider text, subject text, force boolean DEFAULT false) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.identity_unlink(uuid, text, text, boolean) IS
'Takes an identity from a user, for administrators.
force: also when the user is left with neither a password nor another identity. Returns false when the user has no such identity. Errors: PT404 for no such user, PT409 "this is the last way to sign in", PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._identity_unlink(user_id uuid, provider text, subject text, force boolean) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN plinth._identity_remove(plinth._users_lock($1), $2, $3, $4);
END
$$;

CREATE OR REPLACE FUNCTION plinth.identity_unlink_me(provider text, subject text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_user_call';
COMMENT ON FUNCTION plinth.identity_unlink_me(text, text) IS
'Takes an identity from the user whose request this is.
Returns false when they have no such identity. Errors: PT401 without a request context, PT403 with an API key or as an impersonator, PT409 "this is the last way to sign in" for one who has neither a password nor another identity.';

CREATE OR REPLACE FUNCTION plinth._identity_unlink_me(provider text, subject text) RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_self();
    RETURN plinth._identity_remove(plinth._users_lock(plinth.current_user_id()), $1, $2, false);
END
$$;

CREATE OR REPLACE FUNCTION plinth.identity_user(provider text, subject text) RETURNS uuid
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.identity_user(text, text) IS
'Whose an identity is, for administrators.
Returns the user''s id, deleted or not, or NULL. Errors: PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._identity_user(provider text, subject text) RETURNS uuid
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT i.user_id FROM plinth.identities i WHERE i.provider = $1 AND i.subject = $2);
END
$$;

CREATE OR REPLACE FUNCTION plinth.identity_sync(provider text, subject text, email text DEFAULT NULL, email_verified boolean DEFAULT false,
        username text DEFAULT NULL, full_name text DEFAULT NULL, avatar_url text DEFAULT NULL, metadata jsonb DEFAULT NULL,
        data jsonb DEFAULT NULL) RETURNS plinth.users
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_admin_call';
COMMENT ON FUNCTION plinth.identity_sync(text, text, text, boolean, text, text, text, jsonb, jsonb) IS
'Creates or changes the user with an identity, as an outside provider tells it, for administrators.
email, username, full_name and avatar_url replace what was there, NULL too; metadata and data only when given. Calling it again with the same changes nothing, so that a message can be delivered twice. A user who was deleted stays deleted.
Returns the user. Errors: PT400 for an argument out of bounds, PT409 "email is taken" or "username is taken", PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._identity_sync(provider text, subject text, email text, email_verified boolean, username text,
        full_name text, avatar_url text, metadata jsonb, data jsonb) RETURNS plinth.users
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users;
    id uuid := plinth._identity_user($1, $2);
BEGIN
    IF id IS NULL THEN
        BEGIN
            u := plinth._user_create(NULL, NULL, NULL, NULL, NULL, NULL, false, NULL, NULL);
            PERFORM plinth._identity_put(u, $1, $2, $9);
            id := u.id;
        EXCEPTION WHEN SQLSTATE 'PT409' THEN
            -- Somebody else made it meanwhile.
            id := plinth._identity_user($1, $2);
        END;
    ELSE
        PERFORM plinth._identity_put(plinth._users_lock(id), $1, $2, $9);
    END IF;
    RETURN plinth._user_update(id, $3, $5, $6, $7, NULL, NULL, $4 AND $3 IS NOT NULL, $8, NULL, array_remove(ARRAY[
        CASE WHEN $3 IS NULL THEN 'email' END, CASE WHEN $5 IS NULL THEN 'username' END,
        CASE WHEN $6 IS NULL THEN 'full_name' END, CASE WHEN $7 IS NULL THEN 'avatar_url' END], NULL));
END
$$;

-- The user of a subject that a token named for the first time.  An address is taken only when the issuer verified it and
-- nobody has it: whoever has it is not the same person because of that.
CREATE OR REPLACE FUNCTION plinth._identity_first_seen(provider text, subject text, by_user_key boolean, claims jsonb) RETURNS uuid
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    u plinth.users;
    address text := CASE WHEN claims -> 'email_verified' = 'true' AND jsonb_typeof(claims -> 'email') = 'string'
        THEN claims ->> 'email' END;
    shown_name text := CASE WHEN jsonb_typeof(claims -> 'name') = 'string' AND octet_length(claims ->> 'name') <= 400
        THEN claims ->> 'name' END;
BEGIN
    BEGIN
        address := plinth._email_check(address);
    EXCEPTION WHEN SQLSTATE 'PT400' THEN
        address := NULL;
    END;
    IF EXISTS (SELECT FROM plinth.users o WHERE lower(o.email) = lower(address) AND o.deleted_at IS NULL) THEN
        address := NULL;
    END IF;
    LOOP
        BEGIN
            INSERT INTO plinth.users (email, email_verified_at, full_name, user_key)
                VALUES (address, CASE WHEN address IS NOT NULL THEN now() END, shown_name, CASE WHEN $3 THEN $2 END)
                RETURNING * INTO u;
            IF NOT $3 THEN
                PERFORM plinth._identity_put(u, $1, $2, NULL);
            END IF;
            PERFORM plinth._users_audit('identity_first_seen', u.id, jsonb_build_object('provider', $1));
            RETURN u.id;
        EXCEPTION
            WHEN unique_violation THEN
                -- Somebody has come first: with the address, or with all of it.
                IF address IS NULL THEN
                    RETURN (SELECT o.id FROM plinth.users o WHERE $3 AND o.user_key = $2);
                END IF;
                address := NULL;
            WHEN SQLSTATE 'PT409' THEN
                RETURN plinth._identity_user($1, $2);
            WHEN check_violation THEN
                -- A constraint's own error would show the row.
                RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'subject is not valid';
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION plinth._identity_provider_is_source(text), plinth._identity_put(plinth.users, text, text, jsonb),
    plinth._identity_link(uuid, text, text, jsonb), plinth._identity_remove(plinth.users, text, text, boolean),
    plinth._identity_unlink(uuid, text, text, boolean), plinth._identity_unlink_me(text, text), plinth._identity_user(text, text),
    plinth._identity_sync(text, text, text, boolean, text, text, text, jsonb, jsonb),
    plinth._identity_first_seen(text, text, boolean, jsonb),
    plinth.identity_link(uuid, text, text, jsonb), plinth.identity_unlink(uuid, text, text, boolean),
    plinth.identity_unlink_me(text, text), plinth.identity_user(text, text),
    plinth.identity_sync(text, text, text, boolean, text, text, text, jsonb, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._identity_provider_is_source(text), plinth._identity_put(plinth.users, text, text, jsonb),
    plinth._identity_remove(plinth.users, text, text, boolean), plinth._identity_user(text, text),
    plinth._identity_first_seen(text, text, boolean, jsonb) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.identity_link(uuid, text, text, jsonb), plinth.identity_unlink(uuid, text, text, boolean),
    plinth.identity_user(text, text), plinth.identity_sync(text, text, text, boolean, text, text, text, jsonb, jsonb)
    TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth.identity_unlink_me(text, text) TO authenticated, plinth_admin;

GRANT SELECT ON plinth.identities TO authenticated, plinth_admin;
DROP POLICY IF EXISTS identities_admin ON plinth.identities;
CREATE POLICY identities_admin ON plinth.identities FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS identities_own ON plinth.identities;
CREATE POLICY identities_own ON plinth.identities FOR SELECT TO authenticated
    USING (user_id = (SELECT plinth.current_user_id()) AND (SELECT plinth.current_api_key_id()) IS NULL);
