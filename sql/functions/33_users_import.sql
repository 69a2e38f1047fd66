-- identity: users from elsewhere, with their password hashes.

CREATE OR REPLACE FUNCTION plinth._email_normal(email text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_email_normal';
CREATE OR REPLACE FUNCTION plinth._password_hash_valid(hash text) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_password_hash_valid';

CREATE OR REPLACE FUNCTION plinth._password_hash_check(hash text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT plinth._password_hash_valid(hash) THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'password_hash is not valid';
    END IF;
END
$$;

-- What is wrong with a row: the name of a field, "row", or NULL.
CREATE OR REPLACE FUNCTION plinth._users_import_fault(e jsonb) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    field text;
BEGIN
    IF jsonb_typeof(e) IS DISTINCT FROM 'object' THEN
        RETURN 'row';
    END IF;
    SELECT f.key INTO field FROM jsonb_each(e) f WHERE NOT coalesce(CASE
        WHEN jsonb_typeof(f.value) = 'null' THEN true
        WHEN f.key = 'email_verified' THEN jsonb_typeof(f.value) = 'boolean'
        WHEN f.key IN ('metadata', 'app_metadata') THEN jsonb_typeof(f.value) = 'object' AND octet_length(f.value::text) <= 65536
        WHEN jsonb_typeof(f.value) <> 'string' THEN false
        WHEN f.key = 'email' THEN plinth._email_normal(f.value #>> '{}') IS NOT NULL
        WHEN f.key = 'username' THEN f.value #>> '{}' ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}[A-Za-z0-9]$'
        WHEN f.key = 'full_name' THEN octet_length(f.value #>> '{}') <= 400
        WHEN f.key = 'avatar_url' THEN octet_length(f.value #>> '{}') <= 2000
        WHEN f.key IN ('role', 'tier') THEN f.value #>> '{}' ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'
        WHEN f.key = 'password_hash' THEN plinth._password_hash_valid(f.value #>> '{}')
        WHEN f.key = 'user_key' THEN octet_length(f.value #>> '{}') BETWEEN 1 AND 200
        WHEN f.key IN ('provider', 'subject') THEN octet_length(f.value #>> '{}') BETWEEN 1 AND 1000
        WHEN f.key = 'id' THEN f.value #>> '{}' ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$'
        WHEN f.key = 'created_at' THEN true END, false) LIMIT 1;
    IF field IS NULL AND (e ->> 'provider' IS NULL) <> (e ->> 'subject' IS NULL) THEN
        field := 'subject';
    END IF;
    IF field IS NULL AND e ->> 'created_at' IS NOT NULL THEN
        BEGIN
            PERFORM (e ->> 'created_at')::timestamptz;
        EXCEPTION WHEN data_exception THEN
            field := 'created_at';
        END;
    END IF;
    RETURN field;
END
$$;

-- Who stands in the way of a row that could not be inserted.
CREATE OR REPLACE FUNCTION plinth._users_import_conflict(e jsonb) RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN EXISTS (SELECT FROM plinth.users u WHERE u.id = (e ->> 'id')::uuid) THEN 'id_taken'
        WHEN EXISTS (SELECT FROM plinth.users u WHERE u.user_key = e ->> 'user_key') THEN 'user_key_taken'
        WHEN EXISTS (SELECT FROM plinth.users u WHERE lower(u.username) = lower(e ->> 'username') AND u.deleted_at IS NULL)
            THEN 'username_taken'
        ELSE 'email_taken' END;
END
$$;

CREATE OR REPLACE FUNCTION plinth.users_import(users jsonb) RETURNS TABLE (row_number bigint, status text, user_id uuid)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1000 AS 'MODULE_PATHNAME', 'plinth_identity_users_import';
COMMENT ON FUNCTION plinth.users_import(jsonb) IS
'Creates users who come from elsewhere, for administrators.
users: a JSON array of objects with any of email, email_verified, username, full_name, avatar_url, role, tier, metadata, app_metadata, created_at, id (a uuid), user_key, provider and subject (an identity), and password_hash: a bcrypt ($2a$, $2b$, $2y$) or Argon2 ($argon2i$, $argon2id$) string, as which it verifies until the user''s next sign-in makes a new one of it.
Returns a row for each: its number from 1, status, and the new user''s id. status is ok, email_taken, username_taken, id_taken, user_key_taken, identity_taken, or invalid_ and the name of the field (invalid_row for what is no object), and what is not ok does not keep the others out. The audit has one entry for all.
Errors: PT400 for what is no array, PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._users_import(users jsonb) RETURNS TABLE (row_number bigint, status text, user_id uuid)
    LANGUAGE plpgsql ROWS 1000 SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    e jsonb;
    number bigint := 0;
    result text;
    made uuid;
    imported bigint := 0;
BEGIN
    IF jsonb_typeof($1) IS DISTINCT FROM 'array' THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'users must be a JSON array';
    END IF;
    FOR e IN SELECT a.value FROM jsonb_array_elements($1) a LOOP
        number := number + 1;
        made := NULL;
        result := 'invalid_' || plinth._users_import_fault(e);
        IF result IS NULL AND EXISTS (SELECT FROM plinth.identities i WHERE i.provider = e ->> 'provider' AND i.subject = e ->> 'subject') THEN
            result := 'identity_taken';
        END IF;
        IF result IS NULL THEN
            INSERT INTO plinth.users AS u (id, email, email_verified_at, username, full_name, avatar_url, role, tier, metadata,
                    app_metadata, created_at, user_key)
                VALUES (coalesce((e ->> 'id')::uuid, plinth.uuid_v7()), plinth._email_normal(e ->> 'email'),
                    CASE WHEN e -> 'email_verified' = 'true' AND e ->> 'email' IS NOT NULL THEN now() END,
                    e ->> 'username', e ->> 'full_name', e ->> 'avatar_url', coalesce(e ->> 'role', 'user'), coalesce(e ->> 'tier', 'free'),
                    coalesce(nullif(e -> 'metadata', 'null'), '{}'), coalesce(nullif(e -> 'app_metadata', 'null'), '{}'),
                    coalesce((e ->> 'created_at')::timestamptz, now()), e ->> 'user_key')
                ON CONFLICT DO NOTHING RETURNING u.id INTO made;
            result := CASE WHEN made IS NULL THEN plinth._users_import_conflict(e) ELSE 'ok' END;
        END IF;
        IF made IS NOT NULL THEN
            imported := imported + 1;
            IF e ->> 'password_hash' IS NOT NULL THEN
                INSERT INTO plinth.passwords (user_id, phc) VALUES (made, e ->> 'password_hash');
            END IF;
            IF e ->> 'provider' IS NOT NULL THEN
                INSERT INTO plinth.identities (provider, subject, user_id) VALUES (e ->> 'provider', e ->> 'subject', made);
            END IF;
        END IF;
        RETURN QUERY VALUES (number, result, made);
    END LOOP;
    UPDATE plinth.users u SET user_key = i.subject FROM plinth.identities i
        WHERE i.user_id = u.id AND u.user_key IS NULL AND i.provider = (SELECT s.provider FROM plinth.user_key_sources s);
    PERFORM plinth._audit_record('plinth.users_import', NULL, 'success',
        jsonb_build_object('imported', imported, 'refused', number - imported));
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_import(email text, password_hash text DEFAULT NULL, username text DEFAULT NULL,
        full_name text DEFAULT NULL, email_verified boolean DEFAULT false, role text DEFAULT NULL, tier text DEFAULT NULL,
        OUT status text, OUT user_id uuid) RETURNS record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_users_import';
COMMENT ON FUNCTION plinth.user_import(text, text, text, text, boolean, text, text) IS
'Creates one user who comes from elsewhere, for administrators.
Arguments and status as those of users_import. Errors: PT401 or PT403 for who is no administrator.';

CREATE OR REPLACE FUNCTION plinth._user_import(email text, password_hash text, username text, full_name text, email_verified boolean,
        role text, tier text, OUT status text, OUT user_id uuid) RETURNS record
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT i.status, i.user_id INTO status, user_id FROM plinth._users_import(jsonb_build_array(jsonb_build_object('email', $1,
        'password_hash', $2, 'username', $3, 'full_name', $4, 'email_verified', $5, 'role', $6, 'tier', $7))) i;
END
$$;

REVOKE ALL ON FUNCTION plinth._email_normal(text), plinth._password_hash_valid(text), plinth._password_hash_check(text),
    plinth._users_import_fault(jsonb), plinth._users_import_conflict(jsonb), plinth._users_import(jsonb),
    plinth._user_import(text, text, text, text, boolean, text, text), plinth.users_import(jsonb),
    plinth.user_import(text, text, text, text, boolean, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._email_normal(text), plinth._password_hash_valid(text), plinth._password_hash_check(text),
    plinth._users_import_fault(jsonb), plinth._users_import_conflict(jsonb), plinth._users_import(jsonb) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.users_import(jsonb), plinth.user_import(text, text, text, text, boolean, text, text)
    TO authenticated, plinth_admin;
