-- identity: the application's own keys of users.
--
-- They stand in users.user_key, so that a request context has them without a
-- look at the application's table; triggers on that table keep them in step.

CREATE OR REPLACE FUNCTION plinth._user_key_forget() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_identity_user_key_changed';
CREATE OR REPLACE TRIGGER users_user_key_new AFTER INSERT ON plinth.users
    FOR EACH ROW WHEN (NEW.user_key IS NOT NULL) EXECUTE FUNCTION plinth._user_key_forget();
CREATE OR REPLACE TRIGGER users_user_key_other AFTER UPDATE ON plinth.users
    FOR EACH ROW WHEN (NEW.user_key IS DISTINCT FROM OLD.user_key) EXECUTE FUNCTION plinth._user_key_forget();
CREATE OR REPLACE TRIGGER user_key_sources_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.user_key_sources
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._user_key_forget();
ALTER TABLE plinth.users ENABLE ALWAYS TRIGGER users_user_key_new, ENABLE ALWAYS TRIGGER users_user_key_other;
ALTER TABLE plinth.user_key_sources ENABLE ALWAYS TRIGGER user_key_sources_changed;

-- An application's row; casts of its types run without anybody's rights.
CREATE OR REPLACE FUNCTION plinth._row_jsonb(r record) RETURNS jsonb
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_identity_row_jsonb';

CREATE OR REPLACE FUNCTION plinth._user_key_end(key text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    u plinth.users;
BEGIN
    SELECT * INTO u FROM plinth.users WHERE user_key = key FOR NO KEY UPDATE;
    IF FOUND THEN
        PERFORM plinth._users_delete(u, 'row was deleted');
    END IF;
END
$$;

-- A user as an adopted row has it.  What its columns do not say stays as it is.
CREATE OR REPLACE FUNCTION plinth._user_key_adopt(key text, columns jsonb, r jsonb, old jsonb) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v jsonb;
    was jsonb;
    u plinth.users;
BEGIN
    SELECT coalesce(jsonb_object_agg(c.key, r -> c.value), '{}'), coalesce(jsonb_object_agg(c.key, old -> c.value), '{}')
        INTO v, was FROM jsonb_each_text(columns) c;
    SELECT * INTO u FROM plinth.users WHERE user_key = $1 FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO plinth.users (user_key, created_at) VALUES ($1, coalesce((v ->> 'created_at')::timestamptz, now()))
            RETURNING * INTO u;
    ELSIF v = was THEN
        RETURN;
    END IF;
    UPDATE plinth.users t SET
        email = CASE WHEN v ? 'email' THEN plinth._email_check(v ->> 'email') ELSE t.email END,
        email_verified_at = CASE
            WHEN v ? 'email_verified' AND (v ->> 'email_verified')::boolean AND v ->> 'email' IS NOT NULL
                THEN coalesce(t.email_verified_at, now())
            WHEN v ? 'email_verified' OR v ->> 'email' IS DISTINCT FROM t.email THEN NULL
            ELSE t.email_verified_at END,
        username = CASE WHEN v ? 'username' THEN v ->> 'username' ELSE t.username END,
        full_name = CASE WHEN v ? 'full_name' THEN v ->> 'full_name' ELSE t.full_name END,
        avatar_url = CASE WHEN v ? 'avatar_url' THEN v ->> 'avatar_url' ELSE t.avatar_url END,
        role = coalesce(v ->> 'role', t.role),
        tier = coalesce(v ->> 'tier', t.tier),
        metadata = CASE WHEN jsonb_typeof(v -> 'metadata') = 'object' THEN v -> 'metadata' ELSE t.metadata END,
        status = CASE
            WHEN v -> 'locked' = 'true' OR v -> 'active' = 'false' THEN 'locked'
            WHEN (v ? 'locked' OR v ? 'active') AND t.status = 'locked' THEN 'active' ELSE t.status END,
        banned_until = CASE WHEN v -> 'locked' = 'true' OR v -> 'active' = 'false' THEN NULL ELSE t.banned_until END,
        deleted_at = CASE
            WHEN v ? 'deleted_at' AND jsonb_typeof(v -> 'deleted_at') = 'boolean'
                THEN CASE WHEN (v ->> 'deleted_at')::boolean THEN coalesce(t.deleted_at, now()) END
            WHEN v ? 'deleted_at' THEN (v ->> 'deleted_at')::timestamptz ELSE t.deleted_at END
        WHERE t.id = u.id RETURNING t.* INTO u;
    IF u.deleted_at IS NOT NULL OR u.status = 'locked' THEN
        PERFORM plinth._users_end_sessions(u.id, 'user was ' || CASE WHEN u.deleted_at IS NULL THEN 'locked' ELSE 'deleted' END);
        DELETE FROM plinth.one_time_tokens t WHERE t.user_id = u.id AND u.deleted_at IS NOT NULL;
    END IF;
    IF v ->> 'password_hash' <> '' AND v -> 'password_hash' IS DISTINCT FROM was -> 'password_hash' THEN
        PERFORM plinth._password_hash_check(v ->> 'password_hash');
        IF old IS NULL THEN
            -- A password that was changed here is newer than a row that is only read again.
            INSERT INTO plinth.passwords (user_id, phc) VALUES (u.id, v ->> 'password_hash') ON CONFLICT DO NOTHING;
        ELSE
            INSERT INTO plinth.passwords (user_id, phc) VALUES (u.id, v ->> 'password_hash')
                ON CONFLICT (user_id) DO UPDATE SET phc = excluded.phc, changed_at = now();
            PERFORM plinth._users_end_sessions(u.id, 'password was changed');
        END IF;
    END IF;
END
$$;

-- What a change of the registered table means for users.user_key; does nothing on another table.
CREATE OR REPLACE FUNCTION plinth._user_key_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    source plinth.user_key_sources;
    old_row jsonb := CASE WHEN TG_LEVEL = 'ROW' AND TG_OP <> 'INSERT' THEN plinth._row_jsonb(OLD) END;
    new_row jsonb := CASE WHEN TG_LEVEL = 'ROW' AND TG_OP <> 'DELETE' THEN plinth._row_jsonb(NEW) END;
    old_key text;
    new_key text;
BEGIN
    SELECT * INTO source FROM plinth.user_key_sources WHERE relation = TG_RELID;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF TG_OP = 'TRUNCATE' THEN
        IF source.user_column IS NULL THEN
            PERFORM plinth._user_key_end(user_key) FROM plinth.users WHERE user_key IS NOT NULL AND deleted_at IS NULL;
        ELSE
            UPDATE plinth.users SET user_key = NULL WHERE user_key IS NOT NULL;
        END IF;
        RETURN NULL;
    END IF;
    old_key := old_row ->> source.key_column;
    new_key := new_row ->> source.key_column;
    IF source.user_column IS NULL THEN
        IF old_key <> new_key THEN
            UPDATE plinth.users SET user_key = new_key WHERE user_key = old_key;
        ELSIF new_key IS NULL THEN
            PERFORM plinth._user_key_end(old_key);
            RETURN NULL;
        END IF;
        PERFORM plinth._user_key_adopt(new_key, source.columns, new_row, old_row);
        RETURN NULL;
    END IF;
    IF old_key IS NOT NULL AND (old_key, old_row ->> source.user_column)
            IS DISTINCT FROM (new_key, new_row ->> source.user_column) THEN
        UPDATE plinth.users SET user_key = NULL WHERE id = (old_row ->> source.user_column)::uuid AND user_key = old_key;
    END IF;
    UPDATE plinth.users SET user_key = new_key
        WHERE id = (new_row ->> source.user_column)::uuid AND user_key IS DISTINCT FROM new_key;
    RETURN NULL;
END
$$;
ALTER FUNCTION plinth._user_key_changed() OWNER TO plinth_owner;

-- Registers, or forgets when all is NULL.  For the functions below, which their callers' rights bound.
CREATE OR REPLACE FUNCTION plinth._user_key_register(relation regclass, key_column name, user_column name, columns jsonb, provider text)
        RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM plinth.user_key_sources;
    IF $1 IS NOT NULL OR $5 IS NOT NULL THEN
        INSERT INTO plinth.user_key_sources (relation, key_column, user_column, columns, provider) VALUES ($1, $2, $3, $4, $5);
    END IF;
    -- Those of an adopted table are how its rows are found again.
    IF $3 IS NOT NULL OR $5 IS NOT NULL THEN
        UPDATE plinth.users SET user_key = NULL WHERE user_key IS NOT NULL;
    END IF;
    IF $5 IS NOT NULL THEN
        UPDATE plinth.users u SET user_key = i.subject FROM plinth.identities i WHERE i.provider = $5 AND i.user_id = u.id;
    END IF;
    PERFORM plinth._audit_record('plinth.user_key_source', coalesce('table:' || $1::text, 'provider:' || $5), 'success',
        jsonb_strip_nulls(jsonb_build_object('key_column', $2, 'user_column', $3)));
END
$$;
ALTER FUNCTION plinth._user_key_register(regclass, name, name, jsonb, text) OWNER TO plinth_owner;

-- Users and their keys, of rows that were there before.
CREATE OR REPLACE FUNCTION plinth._user_key_fill(user_ids uuid[], keys text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE plinth.users u SET user_key = k.key FROM unnest(user_ids, keys) k(user_id, key) WHERE u.id = k.user_id
$$;
ALTER FUNCTION plinth._user_key_fill(uuid[], text[]) OWNER TO plinth_owner;

CREATE OR REPLACE FUNCTION plinth._user_key_fill_adopted(key text, columns jsonb, r jsonb) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._user_key_adopt($1, $2, $3, NULL);
    RETURN true;
END
$$;
ALTER FUNCTION plinth._user_key_fill_adopted(text, jsonb, jsonb) OWNER TO plinth_owner;

-- A table whose rows can be followed, and which is the caller's own to put triggers on.
CREATE OR REPLACE FUNCTION plinth._user_key_watch(relation regclass, wanted name[]) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing name;
    r record;
BEGIN
    FOR r IN SELECT s.relation FROM plinth.user_key_sources s JOIN pg_class c ON c.oid = s.relation LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS plinth_user_key ON %s', r.relation);
        EXECUTE format('DROP TRIGGER IF EXISTS plinth_user_key_truncate ON %s', r.relation);
    END LOOP;
    IF relation IS NULL THEN
        RETURN;
    END IF;
    PERFORM FROM pg_class c WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.relispartition
        AND c.relnamespace <> 'plinth'::regnamespace;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type', MESSAGE = format('"%s" is not a plain table of the application', relation);
    END IF;
    SELECT w INTO missing FROM unnest(wanted) w WHERE w IS NOT NULL AND NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = w AND a.attnum > 0 AND NOT a.attisdropped);
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column', MESSAGE = format('"%s" has no column "%s"', relation, missing);
    END IF;
    EXECUTE format('CREATE TRIGGER plinth_user_key AFTER INSERT OR UPDATE OR DELETE ON %s
        FOR EACH ROW EXECUTE FUNCTION plinth._user_key_changed()', relation);
    EXECUTE format('CREATE TRIGGER plinth_user_key_truncate AFTER TRUNCATE ON %s
        FOR EACH STATEMENT EXECUTE FUNCTION plinth._user_key_changed()', relation);
END
$$;

CREATE OR REPLACE FUNCTION plinth.user_key_source(relation regclass DEFAULT NULL, key_column name DEFAULT NULL,
        user_column name DEFAULT NULL, provider text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    user_ids uuid[];
    keys text[];
BEGIN
    IF (relation IS NULL) <> (key_column IS NULL) OR (relation IS NULL) <> (user_column IS NULL)
            OR relation IS NOT NULL AND provider IS NOT NULL OR provider = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a source of user keys is a table with two columns, or a provider';
    END IF;
    PERFORM plinth._user_key_watch(relation, ARRAY[key_column, user_column]);
    PERFORM plinth._user_key_register(relation, key_column, user_column, NULL, provider);
    IF relation IS NOT NULL THEN
        EXECUTE format('SELECT array_agg((r.row ->> $1)::uuid), array_agg(r.row ->> $2)
            FROM (SELECT plinth._row_jsonb(t) AS row FROM %s t) r WHERE r.row ->> $1 IS NOT NULL AND r.row ->> $2 IS NOT NULL', relation)
            USING user_column, key_column INTO user_ids, keys;
        PERFORM plinth._user_key_fill(user_ids, keys);
    END IF;
END
$$;
COMMENT ON FUNCTION plinth.user_key_source(regclass, name, name, text) IS
'Says what the application''s own keys of users are, for current_user_key() and the request context.
relation: a table of the application, which the caller owns; key_column: its key, of any type; user_column: the column with plinth''s id of the user. Or provider: the key is the user''s subject there, as in identities. All NULL: users have no key but their id. There is one source; another replaces it.
A user''s key follows changes of the table, for running sessions too. Errors: 22023 for other combinations, 42809 for what is no plain table, 42703 for a column that is not there, 23505 for two rows of one key, 42501 for another''s table.';

CREATE OR REPLACE FUNCTION plinth.users_adopt(relation regclass, key_column name, columns jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    adopted bigint;
    unknown text;
BEGIN
    IF relation IS NULL OR key_column IS NULL OR jsonb_typeof(columns) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'relation, key_column and columns are needed';
    END IF;
    SELECT k INTO unknown FROM jsonb_object_keys(columns) k WHERE k NOT IN ('email', 'email_verified', 'username', 'full_name',
        'avatar_url', 'role', 'tier', 'metadata', 'locked', 'active', 'deleted_at', 'created_at', 'password_hash');
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('users have no "%s" to adopt', unknown);
    END IF;
    -- Of two rows with one key, each would change the other's user.
    IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = relation AND a.attname = key_column AND i.indnkeyatts = 1 AND i.indisunique AND i.indimmediate
                AND i.indisvalid AND i.indpred IS NULL)
        AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = key_column AND a.attnum > 0 AND NOT a.attisdropped)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_table_definition',
            MESSAGE = format('column "%s" of "%s" is not unique', key_column, relation),
            HINT = 'Make it the primary key, or give it a unique constraint that is not deferrable.';
    END IF;
    PERFORM plinth._user_key_watch(relation, (SELECT array_agg(c.value::name) FROM jsonb_each_text(columns) c) || key_column);
    PERFORM plinth._user_key_register(relation, key_column, NULL, columns, NULL);
    EXECUTE format('SELECT count(plinth._user_key_fill_adopted(r.row ->> $1, $2, r.row))
        FROM (SELECT plinth._row_jsonb(t) AS row FROM %s t OFFSET 0) r', relation)
        USING key_column, columns INTO adopted;
    RETURN adopted;
END
$$;
COMMENT ON FUNCTION plinth.users_adopt(regclass, name, jsonb) IS
'Makes users of the rows of an application''s own users table, now and from now on.
relation: the table, which the caller owns. key_column: its key, which becomes current_user_key(). columns: which of its columns are email, email_verified, username, full_name, avatar_url, role, tier, metadata, locked, active, deleted_at (a time or a boolean), created_at and password_hash (as for users_import), as a JSON object of texts.
Inserting, changing and deleting rows creates, changes and deletes users; nothing is written back to the table. Returns how many rows it had. Errors: 22023 for another name, 42809 for what is no plain table, 42703 for a column that is not there, 42P16 for a key_column that is not unique, PT400 and 23505 for a row that cannot be a user, 42501 for another''s table.';

REVOKE ALL ON FUNCTION plinth._row_jsonb(record), plinth._user_key_forget(), plinth._user_key_end(text), plinth._user_key_adopt(text, jsonb, jsonb, jsonb), plinth._user_key_changed(),
    plinth._user_key_register(regclass, name, name, jsonb, text), plinth._user_key_fill(uuid[], text[]),
    plinth._user_key_fill_adopted(text, jsonb, jsonb), plinth._user_key_watch(regclass, name[]),
    plinth.user_key_source(regclass, name, name, text), plinth.users_adopt(regclass, name, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._row_jsonb(record) TO plinth_owner, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._user_key_end(text), plinth._user_key_adopt(text, jsonb, jsonb, jsonb) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth._user_key_changed(), plinth._user_key_register(regclass, name, name, jsonb, text),
    plinth._user_key_fill(uuid[], text[]), plinth._user_key_fill_adopted(text, jsonb, jsonb),
    plinth._user_key_watch(regclass, name[]), plinth.user_key_source(regclass, name, name, text),
    plinth.users_adopt(regclass, name, jsonb) TO plinth_admin;
GRANT SELECT ON plinth.user_key_sources TO plinth_admin;
