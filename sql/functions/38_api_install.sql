-- api: making those functions in a schema, and taking them away.

-- What several definitions share; each may use those after it.
CREATE OR REPLACE FUNCTION plinth._api_expand(definition text, same_site text) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $expand$
DECLARE
    macro text[];
BEGIN
    FOREACH macro SLICE 1 IN ARRAY ARRAY[
        ['user', 'OUT id uuid, OUT email text, OUT email_verified_at timestamptz, OUT username text, OUT full_name text, '
            'OUT avatar_url text, OUT role text, OUT tier text, OUT metadata jsonb, OUT created_at timestamptz, OUT last_login_at timestamptz, '
            'OUT roles text[], OUT permissions text[], OUT session_id uuid, OUT aal integer'],
        ['device', 'transport text DEFAULT ''token'', device_fingerprint text DEFAULT NULL, device_type text DEFAULT NULL, label text DEFAULT NULL'],
        ['session', 'OUT status text, OUT user_id uuid, OUT session_id uuid, OUT token text, OUT expires_at timestamptz, '
            'OUT access_token text, OUT access_expires_at timestamptz, OUT refresh_token text, OUT refresh_expires_at timestamptz'],
        ['check_transport', $$IF transport IS NULL OR transport NOT IN ('token', 'cookie', 'jwt') THEN
        RAISE EXCEPTION USING ERRCODE = 'PT400', MESSAGE = 'transport is not valid';
    END IF;$$],
        ['begin_session', $$status := plinth.api_respond(answer.status, answer.retry_after);
    IF answer.status = 'ok' THEN
        user_id := answer.user_id;
        session_id := answer.session_id;
        expires_at := answer.expires_at;
        IF transport = 'cookie' THEN
            PERFORM plinth.session_cookie_set(answer.token, answer.expires_at, {same_site});
        ELSIF transport = 'jwt' THEN
            SELECT t.access_token, t.access_expires_at, t.refresh_token, t.refresh_expires_at
                INTO access_token, access_expires_at, refresh_token, refresh_expires_at FROM plinth.tokens_issue(answer.token) t;
        ELSE
            token := answer.token;
        END IF;
    END IF;$$],
        ['verifications', 'TABLE (id uuid, user_id uuid, request_kind text, request_status text, documents jsonb, data jsonb, created_at timestamptz, '
            'reviewed_at timestamptz, review_reason text, granted_role text)'],
        ['verification', 'v.id, v.user_id, v.kind, v.status, v.documents, v.data, v.created_at, v.reviewed_at, v.reason, v.granted_role'],
        ['same_site', quote_literal(same_site)]]
    LOOP
        definition := replace(definition, '{' || macro[1] || '}', macro[2]);
    END LOOP;
    RETURN definition;
END
$expand$;

-- What will be made in a schema, with the options put in.
CREATE OR REPLACE FUNCTION plinth._api_wanted(areas text[], same_site text, OUT name text, OUT anonymous boolean, OUT volatility text,
        OUT arguments text, OUT result text, OUT body text, OUT comment text) RETURNS SETOF record
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.name, d.anonymous, d.volatility, plinth._api_expand(d.arguments, $2), plinth._api_expand(d.result, $2),
        plinth._api_expand(d.body, $2), d.comment
    FROM plinth._api_definitions() d WHERE d.area = ANY ($1)
$$;

-- Whether a function in a schema is the one that api_install made; NULL where there is none.
CREATE OR REPLACE FUNCTION plinth._api_is_ours(schema_name text, name text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) > 0 THEN count(*) = 1 AND coalesce(bool_and(p.prosrc = f.body), false) END
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        LEFT JOIN plinth.api_functions f ON f.schema_name = n.nspname AND f.name = p.proname
    WHERE n.nspname = _api_is_ours.schema_name AND p.proname = _api_is_ours.name
$$;

CREATE OR REPLACE FUNCTION plinth._api_drop(target text, name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours boolean := plinth._api_is_ours(target, name);
BEGIN
    IF ours THEN
        EXECUTE format('DROP FUNCTION %I.%I', target, name);
    END IF;
    DELETE FROM plinth.api_functions f WHERE f.schema_name = target AND f.name = _api_drop.name;
    RETURN coalesce(ours, false);
END
$$;

CREATE OR REPLACE FUNCTION plinth.api_install(target_schema text, areas text[] DEFAULT '{sign_in,account,admin}', same_site text DEFAULT 'Lax') RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    callers text := format('%I, %I', current_setting('plinth.role_anon'), current_setting('plinth.role_authenticated'));
    wanted record;
    old plinth.api_functions;
    made integer := 0;
    signature text;
BEGIN
    IF to_regnamespace(quote_ident(target_schema)) IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name', MESSAGE = format('schema "%s" does not exist', target_schema);
    ELSIF NOT coalesce(areas <@ (SELECT array_agg(d.area) FROM plinth._api_definitions() d), false) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = format('areas must be of %s',
            (SELECT string_agg(DISTINCT d.area, ', ') FROM plinth._api_definitions() d));
    ELSIF NOT coalesce(same_site IN ('Lax', 'Strict'), false) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'same_site must be Lax or Strict';
    END IF;
    LOCK TABLE plinth.api_functions IN SHARE ROW EXCLUSIVE MODE;

    SELECT string_agg(quote_ident(w.name), ', ' ORDER BY w.name) INTO signature FROM plinth._api_wanted(areas, same_site) w
        WHERE plinth._api_is_ours(target_schema, w.name) = false;
    IF signature IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_function',
            MESSAGE = format('schema "%s" has functions that are not of api_install, or were changed: %s', target_schema, signature),
            HINT = 'Drop or rename them, use another schema, or leave their area out.';
    END IF;

    FOR wanted IN SELECT w.* FROM plinth._api_wanted(areas, same_site) w LOOP
        SELECT f.* INTO old FROM plinth.api_functions f WHERE f.schema_name = target_schema AND f.name = wanted.name;
        IF FOUND AND (old.arguments, old.result) IS DISTINCT FROM (wanted.arguments, wanted.result) THEN
            PERFORM plinth._api_drop(target_schema, wanted.name);
        END IF;
        EXECUTE format('CREATE OR REPLACE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE plpgsql %s PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS %L',
            target_schema, wanted.name, wanted.arguments, wanted.result, wanted.volatility, wanted.body);
        SELECT p.oid::regprocedure::text INTO signature FROM pg_proc p
            WHERE p.pronamespace = to_regnamespace(quote_ident(target_schema)) AND p.proname = wanted.name;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', signature);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', signature,
            CASE WHEN wanted.anonymous THEN callers ELSE quote_ident(current_setting('plinth.role_authenticated')) END);
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', signature, wanted.comment);
        EXECUTE format('ALTER FUNCTION %s DEPENDS ON EXTENSION plinth', signature);
        INSERT INTO plinth.api_functions AS f (schema_name, name, arguments, result, body, version)
            VALUES (target_schema, wanted.name, wanted.arguments, wanted.result, wanted.body,
                (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'plinth'))
            ON CONFLICT ON CONSTRAINT api_functions_pkey DO UPDATE SET arguments = excluded.arguments, result = excluded.result,
                body = excluded.body, version = excluded.version, installed_at = excluded.installed_at;
        made := made + 1;
    END LOOP;

    -- What an earlier version or call made, and is not wanted now.
    PERFORM plinth._api_drop(target_schema, f.name) FROM plinth.api_functions f
        WHERE f.schema_name = target_schema AND f.name NOT IN (SELECT w.name FROM plinth._api_wanted(areas, same_site) w);
    IF NOT (has_schema_privilege(current_setting('plinth.role_anon'), target_schema, 'USAGE')
            AND has_schema_privilege(current_setting('plinth.role_authenticated'), target_schema, 'USAGE')) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %s', target_schema, callers);
    END IF;
    PERFORM pg_notify('pgrst', 'reload schema');
    RETURN made;
END
$$;
COMMENT ON FUNCTION plinth.api_install(text, text[], text) IS
'Makes functions for signing up, signing in and the rest in a schema that PostgREST or PostGraphile serves.
target_schema: an existing schema; who calls needs CREATE in it, and owns the functions. areas: which of sign_in, account and admin. same_site: Lax or Strict, of the cookie that signing in may give. The functions run as who calls them, are granted to plinth.role_anon and plinth.role_authenticated as far as each needs them, and tell PostgREST to read the schema again. Called again, it replaces what it made, and drops what is not wanted any more; call it after each update of the extension. They go with DROP EXTENSION.
Returns how many there are. Errors: 42723 for a function of such a name that it did not make, or that was changed since; 3F000 for no such schema, 22023 for other areas or same_site.';

CREATE OR REPLACE FUNCTION plinth.api_uninstall(target_schema text) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped integer;
BEGIN
    LOCK TABLE plinth.api_functions IN SHARE ROW EXCLUSIVE MODE;
    SELECT count(*) FILTER (WHERE plinth._api_drop(f.schema_name, f.name)) INTO dropped
        FROM plinth.api_functions f WHERE f.schema_name = target_schema;
    PERFORM pg_notify('pgrst', 'reload schema');
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION plinth.api_uninstall(text) IS
'Drops what api_install made in a schema.
target_schema: the schema. A function that was changed since stays. Returns how many were dropped. Errors: 42501 for functions of another owner, 2BP01 when something depends on one.';

REVOKE ALL ON FUNCTION plinth._api_definitions(), plinth._api_expand(text, text), plinth._api_wanted(text[], text), plinth._api_is_ours(text, text), plinth._api_drop(text, text),
    plinth.api_install(text, text[], text), plinth.api_uninstall(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._api_definitions(), plinth._api_expand(text, text), plinth._api_wanted(text[], text), plinth._api_is_ours(text, text), plinth._api_drop(text, text),
    plinth.api_install(text, text[], text), plinth.api_uninstall(text) TO plinth_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON plinth.api_functions TO plinth_admin;
