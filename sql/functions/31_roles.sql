-- identity: roles, permissions, and asking for them.

CREATE OR REPLACE FUNCTION plinth._roles_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_identity_roles_changed';
REVOKE ALL ON FUNCTION plinth._roles_changed() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._roles_changed() TO plinth_owner;
-- By row, since a subscription's apply fires no others; TRUNCATE has no rows.
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['roles', 'role_inherits', 'role_permissions'] LOOP
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON plinth.%I
            FOR EACH ROW EXECUTE FUNCTION plinth._roles_changed()', relation || '_changed', relation);
        EXECUTE pg_catalog.format('CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON plinth.%I
            FOR EACH STATEMENT EXECUTE FUNCTION plinth._roles_changed()', relation || '_emptied', relation);
        EXECUTE pg_catalog.format('ALTER TABLE plinth.%I ENABLE ALWAYS TRIGGER %I, ENABLE ALWAYS TRIGGER %I',
            relation, relation || '_changed', relation || '_emptied');
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION plinth.has_role(role text) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_has_role';
COMMENT ON FUNCTION plinth.has_role(text) IS
'Tells whether the user whose request this transaction is has a role.
role: its name, exactly; these are roles of the application, not of PostgreSQL. A role that the user''s roles inherit counts as well. false without a context; NULL for NULL.';

CREATE OR REPLACE FUNCTION plinth.has_permission(permission text) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_has_permission';
COMMENT ON FUNCTION plinth.has_permission(text) IS
'Tells whether the user whose request this transaction is may do something.
permission: resource:action. It may be granted to one of the user''s roles, to a role that these inherit, or to the user; as it is, as resource:*, or as *:*. In the request of an API key with scopes, one of these must permit it too. false without a context; NULL for NULL.';

CREATE OR REPLACE FUNCTION plinth.current_roles() RETURNS text[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_current_roles';
COMMENT ON FUNCTION plinth.current_roles() IS
'The roles of the user whose request this transaction is, with all that they inherit.
NULL without a context.';

CREATE OR REPLACE FUNCTION plinth.current_permissions() RETURNS text[]
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_current_permissions';
COMMENT ON FUNCTION plinth.current_permissions() IS
'The permissions of the user whose request this transaction is, as they are granted.
Ask has_permission whether one of them permits something. NULL without a context.';

CREATE OR REPLACE FUNCTION plinth.require_permission(permission text) RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_require_permission';
COMMENT ON FUNCTION plinth.require_permission(text) IS
'Refuses the request of a user who may not do something.
permission: as for has_permission. Returns nothing.
Errors: PT401 without a user, PT403 when has_permission says false, 22004 for NULL.';

REVOKE ALL ON FUNCTION plinth.has_role(text), plinth.has_permission(text), plinth.current_roles(),
    plinth.current_permissions(), plinth.require_permission(text) FROM PUBLIC;
-- On purpose to PUBLIC: policies call them as whoever reads the table, and they tell a caller only about itself.
GRANT EXECUTE ON FUNCTION plinth.has_role(text), plinth.has_permission(text), plinth.current_roles(),
    plinth.current_permissions(), plinth.require_permission(text) TO PUBLIC;

CREATE OR REPLACE FUNCTION plinth._require_admin() RETURNS void
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_identity_require_admin_sql';
REVOKE ALL ON FUNCTION plinth._require_admin() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._require_admin() TO plinth_owner;

-- Administration.  Each asks first, and each leaves an audit entry.

CREATE OR REPLACE FUNCTION plinth.role_create(name text, description text DEFAULT NULL, inherits text[] DEFAULT '{}',
        permissions text[] DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    INSERT INTO plinth.roles AS r (name, description) VALUES (role_create.name, role_create.description)
        ON CONFLICT ON CONSTRAINT roles_pkey DO UPDATE SET description = coalesce(excluded.description, r.description);
    INSERT INTO plinth.role_inherits (role, inherits)
        SELECT role_create.name, i FROM unnest(role_create.inherits) i ON CONFLICT DO NOTHING;
    INSERT INTO plinth.permissions (name) SELECT p FROM unnest(role_create.permissions) p ON CONFLICT DO NOTHING;
    INSERT INTO plinth.role_permissions (role, permission)
        SELECT role_create.name, p FROM unnest(role_create.permissions) p ON CONFLICT DO NOTHING;
    PERFORM plinth._audit_record('plinth.role_create', 'role:' || role_create.name, 'success',
        jsonb_build_object('inherits', role_create.inherits, 'permissions', role_create.permissions));
END
$$;
ALTER FUNCTION plinth.role_create(text, text, text[], text[]) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.role_create(text, text, text[], text[]) IS
'Makes a role of the application, or adds to one.
name: 1 to 63 of A-Z, a-z, 0-9, "_", ".", ":" and "-"; tier:NAME is everybody''s whose tier is NAME. description: at most 1000 bytes. inherits: roles whose permissions it has too. permissions: resource:action, resource:* or *:*; unknown ones are made. What the role had before stays.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin; 23503 for an unknown role in inherits, 23514 for a malformed name.';

CREATE OR REPLACE FUNCTION plinth.role_drop(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    DELETE FROM plinth.roles r WHERE r.name = role_drop.name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM plinth._audit_record('plinth.role_drop', 'role:' || role_drop.name);
    RETURN true;
END
$$;
ALTER FUNCTION plinth.role_drop(text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.role_drop(text) IS
'Removes a role, from all who have it or inherit it.
name: the role. users.role is left as it is. Returns false when there is no such role.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin.';

CREATE OR REPLACE FUNCTION plinth.role_grant(role text, permissions text[] DEFAULT '{}', inherits text[] DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    INSERT INTO plinth.permissions (name) SELECT p FROM unnest(role_grant.permissions) p ON CONFLICT DO NOTHING;
    INSERT INTO plinth.role_permissions (role, permission)
        SELECT role_grant.role, p FROM unnest(role_grant.permissions) p ON CONFLICT DO NOTHING;
    INSERT INTO plinth.role_inherits (role, inherits)
        SELECT role_grant.role, i FROM unnest(role_grant.inherits) i ON CONFLICT DO NOTHING;
    PERFORM plinth._audit_record('plinth.role_grant', 'role:' || role_grant.role, 'success',
        jsonb_build_object('inherits', role_grant.inherits, 'permissions', role_grant.permissions));
END
$$;
ALTER FUNCTION plinth.role_grant(text, text[], text[]) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.role_grant(text, text[], text[]) IS
'Gives permissions, and other roles to inherit, to a role.
role: an existing role. permissions: as for role_create. inherits: existing roles.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin; 23503 for an unknown role, 23514 for a malformed permission.';

CREATE OR REPLACE FUNCTION plinth.role_revoke(role text, permissions text[] DEFAULT '{}', inherits text[] DEFAULT '{}') RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    taken integer;
    disinherited integer;
BEGIN
    PERFORM plinth._require_admin();
    DELETE FROM plinth.role_permissions rp WHERE rp.role = role_revoke.role AND rp.permission = ANY (role_revoke.permissions);
    GET DIAGNOSTICS taken = ROW_COUNT;
    DELETE FROM plinth.role_inherits ri WHERE ri.role = role_revoke.role AND ri.inherits = ANY (role_revoke.inherits);
    GET DIAGNOSTICS disinherited = ROW_COUNT;
    PERFORM plinth._audit_record('plinth.role_revoke', 'role:' || role_revoke.role, 'success',
        jsonb_build_object('inherits', role_revoke.inherits, 'permissions', role_revoke.permissions));
    RETURN taken + disinherited;
END
$$;
ALTER FUNCTION plinth.role_revoke(text, text[], text[]) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.role_revoke(text, text[], text[]) IS
'Takes permissions, and roles that it inherits, from a role.
Returns how many it had of them. What it has through another role, or by resource:*, stays.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin.';

CREATE OR REPLACE FUNCTION plinth.user_role_grant(user_id uuid, role text, expires_at timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    INSERT INTO plinth.user_roles AS r (user_id, role, granted_by, expires_at, reason)
        VALUES (user_role_grant.user_id, user_role_grant.role, plinth.current_user_id(), user_role_grant.expires_at, user_role_grant.reason)
        ON CONFLICT ON CONSTRAINT user_roles_pkey DO UPDATE SET granted_by = excluded.granted_by,
            granted_at = clock_timestamp(), expires_at = excluded.expires_at, reason = excluded.reason;
    PERFORM plinth._audit_record('plinth.user_role_grant', 'user:' || user_role_grant.user_id, 'success',
        jsonb_build_object('role', user_role_grant.role, 'expires_at', user_role_grant.expires_at, 'reason', user_role_grant.reason));
END
$$;
ALTER FUNCTION plinth.user_role_grant(uuid, text, timestamptz, text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.user_role_grant(uuid, text, timestamptz, text) IS
'Gives a user a role, besides users.role.
role: an existing role. expires_at: until when; NULL for good. reason: at most 1000 bytes, for the audit trail. Whoever has it already gets the new end and reason.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin; 23503 for an unknown user or role.';

CREATE OR REPLACE FUNCTION plinth.user_role_revoke(user_id uuid, role text, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    DELETE FROM plinth.user_roles r WHERE r.user_id = user_role_revoke.user_id AND r.role = user_role_revoke.role;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM plinth._audit_record('plinth.user_role_revoke', 'user:' || user_role_revoke.user_id, 'success',
        jsonb_build_object('role', user_role_revoke.role, 'reason', user_role_revoke.reason));
    RETURN true;
END
$$;
ALTER FUNCTION plinth.user_role_revoke(uuid, text, text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.user_role_revoke(uuid, text, text) IS
'Takes a role from a user.
role: one that user_role_grant gave; users.role is not touched. reason: for the audit trail. Returns false when the user did not have it.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin.';

CREATE OR REPLACE FUNCTION plinth.user_permission_grant(user_id uuid, permission text, expires_at timestamptz DEFAULT NULL, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    INSERT INTO plinth.permissions (name) VALUES (user_permission_grant.permission) ON CONFLICT DO NOTHING;
    INSERT INTO plinth.user_permissions AS p (user_id, permission, granted_by, expires_at, reason)
        VALUES (user_permission_grant.user_id, user_permission_grant.permission, plinth.current_user_id(),
            user_permission_grant.expires_at, user_permission_grant.reason)
        ON CONFLICT ON CONSTRAINT user_permissions_pkey DO UPDATE SET granted_by = excluded.granted_by,
            granted_at = clock_timestamp(), expires_at = excluded.expires_at, reason = excluded.reason;
    PERFORM plinth._audit_record('plinth.user_permission_grant', 'user:' || user_permission_grant.user_id, 'success',
        jsonb_build_object('permission', user_permission_grant.permission, 'expires_at', user_permission_grant.expires_at,
            'reason', user_permission_grant.reason));
END
$$;
ALTER FUNCTION plinth.user_permission_grant(uuid, text, timestamptz, text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.user_permission_grant(uuid, text, timestamptz, text) IS
'Gives a user a permission of their own, besides those of their roles.
permission: resource:action, resource:* or *:*. expires_at: until when; NULL for good. reason: at most 1000 bytes, for the audit trail.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin; 23503 for an unknown user, 23514 for a malformed permission.';

CREATE OR REPLACE FUNCTION plinth.user_permission_revoke(user_id uuid, permission text, reason text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM plinth._require_admin();
    DELETE FROM plinth.user_permissions p
        WHERE p.user_id = user_permission_revoke.user_id AND p.permission = user_permission_revoke.permission;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM plinth._audit_record('plinth.user_permission_revoke', 'user:' || user_permission_revoke.user_id, 'success',
        jsonb_build_object('permission', user_permission_revoke.permission, 'reason', user_permission_revoke.reason));
    RETURN true;
END
$$;
ALTER FUNCTION plinth.user_permission_revoke(uuid, text, text) OWNER TO plinth_owner;
COMMENT ON FUNCTION plinth.user_permission_revoke(uuid, text, text) IS
'Takes a permission of their own from a user.
permission: as it was granted. reason: for the audit trail. Returns false when the user did not have it; what their roles permit stays.
Errors: PT401, PT403 unless by a member of plinth_admin or a user with the permission plinth:admin.';

REVOKE ALL ON FUNCTION plinth.role_create(text, text, text[], text[]), plinth.role_drop(text), plinth.role_grant(text, text[], text[]),
    plinth.role_revoke(text, text[], text[]), plinth.user_role_grant(uuid, text, timestamptz, text),
    plinth.user_role_revoke(uuid, text, text), plinth.user_permission_grant(uuid, text, timestamptz, text),
    plinth.user_permission_revoke(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.role_create(text, text, text[], text[]), plinth.role_drop(text), plinth.role_grant(text, text[], text[]),
    plinth.role_revoke(text, text[], text[]), plinth.user_role_grant(uuid, text, timestamptz, text),
    plinth.user_role_revoke(uuid, text, text), plinth.user_permission_grant(uuid, text, timestamptz, text),
    plinth.user_permission_revoke(uuid, text, text) TO authenticated, plinth_admin;

-- What there is, is for everybody who is signed in; who has it, for themselves.
GRANT SELECT ON plinth.roles, plinth.role_inherits, plinth.permissions, plinth.role_permissions TO authenticated, plinth_admin;
GRANT SELECT ON plinth.user_roles, plinth.user_permissions TO authenticated, plinth_admin;
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY['roles', 'role_inherits', 'permissions', 'role_permissions'] LOOP
        EXECUTE pg_catalog.format('DROP POLICY IF EXISTS %I ON plinth.%I', relation || '_all', relation);
        EXECUTE pg_catalog.format('CREATE POLICY %I ON plinth.%I FOR SELECT TO authenticated, plinth_admin USING (true)',
            relation || '_all', relation);
    END LOOP;
    FOREACH relation IN ARRAY ARRAY['user_roles', 'user_permissions'] LOOP
        EXECUTE pg_catalog.format('DROP POLICY IF EXISTS %I ON plinth.%I', relation || '_admin', relation);
        EXECUTE pg_catalog.format('CREATE POLICY %I ON plinth.%I FOR SELECT TO plinth_admin USING (true)', relation || '_admin', relation);
        EXECUTE pg_catalog.format('DROP POLICY IF EXISTS %I ON plinth.%I', relation || '_own', relation);
        EXECUTE pg_catalog.format('CREATE POLICY %I ON plinth.%I FOR SELECT TO authenticated
            USING (user_id = (SELECT plinth.current_user_id()))', relation || '_own', relation);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION plinth.owner_policy(relation regclass, owner_column name, admin_permission text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind regtype := (SELECT a.atttypid FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attname = owner_column AND a.attnum > 0 AND NOT a.attisdropped);
    rule text;
BEGIN
    IF kind IS NULL THEN
        RAISE EXCEPTION 'column "%" of relation % does not exist', owner_column, relation USING ERRCODE = 'undefined_column';
    END IF;
    rule := CASE
        WHEN kind = 'uuid'::regtype THEN '(SELECT plinth.current_user_id())'
        WHEN kind IN ('text'::regtype, 'varchar'::regtype) THEN '(SELECT plinth.current_user_key())'
        WHEN kind IN ('integer'::regtype, 'bigint'::regtype, 'smallint'::regtype, 'numeric'::regtype)
            THEN format('(SELECT plinth.current_user_key()::%s)', kind)
    END;
    IF rule IS NULL THEN
        RAISE EXCEPTION 'column "%" of type % cannot hold a user''s key', owner_column, kind
            USING ERRCODE = 'datatype_mismatch', HINT = 'It must be uuid, text, or a whole number.';
    END IF;
    rule := format('%I = %s', owner_column, rule);
    IF admin_permission IS NOT NULL THEN
        rule := format('%s OR (SELECT plinth.has_permission(%L))', rule, admin_permission);
    END IF;
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', relation);
    EXECUTE format('DROP POLICY IF EXISTS plinth_owner_policy ON %s', relation);
    EXECUTE format('CREATE POLICY plinth_owner_policy ON %s USING (%s) WITH CHECK (%s)', relation, rule, rule);
END
$$;
COMMENT ON FUNCTION plinth.owner_policy(regclass, name, text) IS
'Lets each user of the application see and change only their own rows of a table.
relation: a table that the caller owns. owner_column: its column with the user''s id (uuid) or application key (text or a whole number). admin_permission: who has it sees and changes all rows. Enables row-level security and makes the policy plinth_owner_policy, in place of an earlier one; grants nothing, and other policies stay.
Errors: 42501 unless the caller owns the table, 42703 for an unknown column, 42804 for one of another type.';
REVOKE ALL ON FUNCTION plinth.owner_policy(regclass, name, text) FROM PUBLIC;
-- On purpose to PUBLIC: it does nothing that the owner of a table may not.
GRANT EXECUTE ON FUNCTION plinth.owner_policy(regclass, name, text) TO PUBLIC;
