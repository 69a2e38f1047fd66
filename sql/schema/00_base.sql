-- base: the schema must be ours alone, and the roles that everything belongs to.

DO $$
DECLARE
    schema_owner oid;
    what text;
    member text;
    r record;
    wanted text;
BEGIN
    -- Whoever owns the schema, or what stands in it, could have prepared it for us.
    SELECT n.nspowner INTO schema_owner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'plinth';
    IF NOT (SELECT a.rolsuper FROM pg_catalog.pg_authid a WHERE a.oid = schema_owner) THEN
        RAISE EXCEPTION 'schema "plinth" belongs to "%", who is no superuser', pg_catalog.pg_get_userbyid(schema_owner)
            USING ERRCODE = 'invalid_schema_definition', HINT = 'DROP SCHEMA plinth, and let CREATE EXTENSION create it.';
    END IF;
    SELECT o.thing INTO what FROM (
        SELECT 'relation "' || c.relname || '"' AS thing FROM pg_catalog.pg_class c
            WHERE c.relnamespace = 'plinth'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'function "' || p.proname || '"' FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'plinth'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'type "' || t.typname || '"' FROM pg_catalog.pg_type t
            WHERE t.typnamespace = 'plinth'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'operator "' || o.oprname || '"' FROM pg_catalog.pg_operator o
            WHERE o.oprnamespace = 'plinth'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'default privileges' FROM pg_catalog.pg_default_acl d
            WHERE d.defaclnamespace = 'plinth'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'the privilege CREATE of others' FROM pg_catalog.pg_namespace n,
            LATERAL pg_catalog.aclexplode(n.nspacl) a
            WHERE n.nspname = 'plinth' AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
                -- Ours from an earlier CREATE EXTENSION; that nobody else is this role is checked below.
                AND a.grantee IS DISTINCT FROM pg_catalog.to_regrole('plinth_owner')) o
    LIMIT 1;
    IF what IS NOT NULL THEN
        RAISE EXCEPTION 'schema "plinth" is not empty: it has %', what
            USING ERRCODE = 'duplicate_schema', HINT = 'DROP SCHEMA plinth CASCADE, if nothing in it is needed, and let CREATE EXTENSION create it.';
    END IF;

    -- plinth_owner owns tables and SECURITY DEFINER functions: whoever can become it reads passwords.
    SELECT * INTO r FROM pg_catalog.pg_authid a WHERE a.rolname = 'plinth_owner';
    IF NOT FOUND THEN
        CREATE ROLE plinth_owner NOLOGIN NOINHERIT;
    ELSE
        wanted := pg_catalog.concat_ws(', ',
            CASE WHEN r.rolcanlogin THEN 'LOGIN' END, CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
            CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
            CASE WHEN r.rolreplication THEN 'REPLICATION' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END);
        IF wanted <> '' THEN
            RAISE EXCEPTION 'role "plinth_owner" exists with %', wanted
                USING ERRCODE = 'invalid_role_specification', HINT = 'ALTER ROLE plinth_owner without these, or drop it and let CREATE EXTENSION create it.';
        END IF;
        SELECT pg_catalog.pg_get_userbyid(m.member), pg_catalog.pg_get_userbyid(m.roleid) INTO member, what
            FROM pg_catalog.pg_auth_members m
            WHERE m.roleid = r.oid OR m.member = r.oid LIMIT 1;
        IF member IS NOT NULL THEN
            RAISE EXCEPTION 'role "%" is a member of "%"', member, what
                USING ERRCODE = 'invalid_role_specification',
                DETAIL = 'Role "plinth_owner" must neither have members nor be a member.',
                HINT = pg_catalog.format('REVOKE %I FROM %I.', what, member);
        END IF;
    END IF;

    -- The roles of requests, shared by all databases of the server.
    FOREACH wanted IN ARRAY ARRAY['anon', 'authenticated', 'authenticator', 'plinth_admin'] LOOP
        SELECT * INTO r FROM pg_catalog.pg_authid a WHERE a.rolname = wanted;
        IF NOT FOUND THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted,
                CASE wanted WHEN 'authenticator' THEN 'LOGIN NOINHERIT' ELSE 'NOLOGIN' END);
        ELSIF r.rolsuper OR r.rolbypassrls THEN
            RAISE EXCEPTION 'role "%" exists with %', wanted, CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'BYPASSRLS' END
                USING ERRCODE = 'invalid_role_specification',
                DETAIL = 'Requests of clients run under this role: row-level security must hold for it.',
                HINT = pg_catalog.format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS.', wanted);
        ELSIF wanted = 'authenticator' AND r.rolinherit THEN
            RAISE EXCEPTION 'role "authenticator" exists with INHERIT'
                USING ERRCODE = 'invalid_role_specification',
                DETAIL = 'It would have the rights of every role that it can switch to.',
                HINT = 'ALTER ROLE authenticator NOINHERIT.';
        END IF;
    END LOOP;
END
$$;

GRANT anon, authenticated TO authenticator;
GRANT USAGE ON SCHEMA plinth TO plinth_owner, anon, authenticated, authenticator, plinth_admin, pg_monitor;

-- Here, not among the functions: columns of the next files have it as their default.
CREATE FUNCTION plinth.uuid_v7() RETURNS uuid
    LANGUAGE c VOLATILE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_base_uuid_v7';
