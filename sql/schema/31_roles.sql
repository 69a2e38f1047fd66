-- identity: roles, what they inherit, and what they permit.

CREATE TABLE plinth.roles (
    name        text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}$'),
    description text CHECK (pg_catalog.octet_length(description) <= 1000),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE plinth.roles OWNER TO plinth_owner;
ALTER TABLE plinth.roles ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('plinth.roles', '');
COMMENT ON TABLE plinth.roles IS 'Roles of the application. A role named tier:NAME is everybody''s whose tier is NAME.';

CREATE TABLE plinth.role_inherits (
    role     text NOT NULL REFERENCES plinth.roles ON UPDATE CASCADE ON DELETE CASCADE,
    inherits text NOT NULL REFERENCES plinth.roles ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (role, inherits),
    CONSTRAINT role_inherits_check CHECK (role <> inherits)
);
ALTER TABLE plinth.role_inherits OWNER TO plinth_owner;
ALTER TABLE plinth.role_inherits ENABLE ROW LEVEL SECURITY;
CREATE INDEX role_inherits_inherits_idx ON plinth.role_inherits (inherits);
SELECT pg_catalog.pg_extension_config_dump('plinth.role_inherits', '');
COMMENT ON TABLE plinth.role_inherits IS 'Whoever has the role has what it inherits as well.';

CREATE TABLE plinth.permissions (
    name        text PRIMARY KEY CHECK (name ~ '^([A-Za-z0-9_.-]{1,60}:([A-Za-z0-9_.-]{1,60}|[*])|[*]:[*])$'),
    description text CHECK (pg_catalog.octet_length(description) <= 1000),
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
ALTER TABLE plinth.permissions OWNER TO plinth_owner;
ALTER TABLE plinth.permissions ENABLE ROW LEVEL SECURITY;
SELECT pg_catalog.pg_extension_config_dump('plinth.permissions', '');
COMMENT ON TABLE plinth.permissions IS 'What may be granted: resource:action, resource:* for all of its actions, or *:*.';

CREATE TABLE plinth.role_permissions (
    role       text NOT NULL REFERENCES plinth.roles ON UPDATE CASCADE ON DELETE CASCADE,
    permission text NOT NULL REFERENCES plinth.permissions ON UPDATE CASCADE ON DELETE CASCADE,
    PRIMARY KEY (role, permission)
);
ALTER TABLE plinth.role_permissions OWNER TO plinth_owner;
ALTER TABLE plinth.role_permissions ENABLE ROW LEVEL SECURITY;
CREATE INDEX role_permissions_permission_idx ON plinth.role_permissions (permission);
SELECT pg_catalog.pg_extension_config_dump('plinth.role_permissions', '');
COMMENT ON TABLE plinth.role_permissions IS 'What a role permits, besides what it inherits.';

CREATE TABLE plinth.user_roles (
    user_id    uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    role       text NOT NULL REFERENCES plinth.roles ON UPDATE CASCADE ON DELETE CASCADE,
    granted_by uuid REFERENCES plinth.users ON DELETE SET NULL,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at timestamptz,
    reason     text CHECK (pg_catalog.octet_length(reason) <= 1000),
    PRIMARY KEY (user_id, role)
);
ALTER TABLE plinth.user_roles OWNER TO plinth_owner;
ALTER TABLE plinth.user_roles ENABLE ROW LEVEL SECURITY;
CREATE INDEX user_roles_role_idx ON plinth.user_roles (role);
CREATE INDEX user_roles_granted_by_idx ON plinth.user_roles (granted_by) WHERE granted_by IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('plinth.user_roles', '');
COMMENT ON TABLE plinth.user_roles IS 'Roles of users, besides users.role.';

CREATE TABLE plinth.user_permissions (
    user_id    uuid NOT NULL REFERENCES plinth.users ON DELETE CASCADE,
    permission text NOT NULL REFERENCES plinth.permissions ON UPDATE CASCADE ON DELETE CASCADE,
    granted_by uuid REFERENCES plinth.users ON DELETE SET NULL,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    expires_at timestamptz,
    reason     text CHECK (pg_catalog.octet_length(reason) <= 1000),
    PRIMARY KEY (user_id, permission)
);
ALTER TABLE plinth.user_permissions OWNER TO plinth_owner;
ALTER TABLE plinth.user_permissions ENABLE ROW LEVEL SECURITY;
CREATE INDEX user_permissions_permission_idx ON plinth.user_permissions (permission);
CREATE INDEX user_permissions_granted_by_idx ON plinth.user_permissions (granted_by) WHERE granted_by IS NOT NULL;
SELECT pg_catalog.pg_extension_config_dump('plinth.user_permissions', '');
COMMENT ON TABLE plinth.user_permissions IS 'Permissions of users, besides those of their roles.';
