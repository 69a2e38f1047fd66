-- worker: which database deliveries belong to.

CREATE TABLE plinth.bindings (
    id                boolean PRIMARY KEY DEFAULT true CHECK (id),
    system_identifier text NOT NULL CHECK (system_identifier ~ '^[0-9]{1,20}$'),
    database_oid      oid NOT NULL,
    bound_at          timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE plinth.bindings OWNER TO plinth_owner;
REVOKE ALL ON plinth.bindings FROM PUBLIC;
GRANT SELECT ON plinth.bindings TO plinth_admin;
COMMENT ON TABLE plinth.bindings IS
'The cluster and the database in which something was first delivered to the outside; elsewhere (a restored dump, a copy) nothing is delivered until plinth.adopt().';
SELECT pg_catalog.pg_extension_config_dump('plinth.bindings', '');

-- For stat_workers and the other stat_* views.
GRANT USAGE ON SCHEMA plinth TO pg_monitor;
