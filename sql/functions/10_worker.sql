-- worker: what runs, and the clone guard.

CREATE OR REPLACE FUNCTION plinth._stat_workers(
    OUT database text, OUT service text, OUT instance integer, OUT pid integer, OUT state text,
    OUT message text, OUT started_at timestamptz, OUT restarts integer)
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_worker_stat';
REVOKE ALL ON FUNCTION plinth._stat_workers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._stat_workers() TO plinth_admin, pg_monitor;
COMMENT ON FUNCTION plinth._stat_workers() IS
'The workers of all databases, for plinth.stat_workers.';

CREATE OR REPLACE VIEW plinth.stat_workers AS
SELECT database, service, instance, pid, state, message, started_at, restarts
  FROM plinth._stat_workers();
ALTER VIEW plinth.stat_workers OWNER TO plinth_owner;
REVOKE ALL ON plinth.stat_workers FROM PUBLIC;
GRANT SELECT ON plinth.stat_workers TO plinth_admin, pg_monitor;
COMMENT ON VIEW plinth.stat_workers IS
'The launcher and each worker of each database: which process it is, what it does or why it does not run, and how often it was started again.';

CREATE OR REPLACE FUNCTION plinth._bind(force boolean DEFAULT true) RETURNS boolean
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'plinth_worker_bind_sql';
REVOKE ALL ON FUNCTION plinth._bind(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._bind(boolean) TO plinth_owner;
COMMENT ON FUNCTION plinth._bind(boolean) IS
'Binds deliveries to this database; true when the binding changed. Without force only where there is none yet.';

CREATE OR REPLACE FUNCTION plinth._is_adopted() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'plinth_worker_is_adopted_sql';
REVOKE ALL ON FUNCTION plinth._is_adopted() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._is_adopted() TO plinth_owner;
COMMENT ON FUNCTION plinth._is_adopted() IS
'Whether deliveries belong to this database, or to none yet.';
