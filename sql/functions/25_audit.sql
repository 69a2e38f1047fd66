-- audit: recording and reading entries.

CREATE OR REPLACE FUNCTION plinth.audit_record(action text, resource text DEFAULT NULL, result text DEFAULT 'success',
        metadata jsonb DEFAULT '{}') RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_audit_record_sql';
COMMENT ON FUNCTION plinth.audit_record(text, text, text, jsonb) IS
'Records an audit entry in the running transaction.
action: what was done, 1 to 200 bytes; names that begin with "plinth." are plinth''s own. resource: to what, at most 1000 bytes. result: success, failure or denied. metadata: a JSON object of at most 64 KiB; put no secret into it.
Who acts, and from where, is taken from the request context and cannot be given. Returns the entry''s id. The entry commits or rolls back with the transaction.
Errors: PT400 for an argument outside these bounds, 25006 in a read-only transaction.';

-- For plinth's own functions, whose actions begin with "plinth.".
CREATE OR REPLACE FUNCTION plinth._audit_record(action text, resource text DEFAULT NULL, result text DEFAULT 'success',
        metadata jsonb DEFAULT '{}') RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_audit_record_own';

CREATE OR REPLACE FUNCTION plinth.audit_event(action text, resource text DEFAULT NULL, result text DEFAULT 'success',
        metadata jsonb DEFAULT '{}', flush boolean DEFAULT false) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_audit_event_sql';
COMMENT ON FUNCTION plinth.audit_event(text, text, text, jsonb, boolean) IS
'Records an audit entry that outlives the transaction, in READ ONLY transactions too.
action, resource, result, metadata: as of audit_record; put no secret into them: they stand in the WAL. flush: wait until the entry is on disk; without, a crash may lose the entries of the last three times wal_writer_delay, as synchronous_commit = off does.
Who acts, and from where, is taken from the request context and cannot be given. Returns the entry''s id; the entry is in audit_entries within about a second, with the time of the call, whatever becomes of the transaction.
Errors: PT400 for an argument outside these bounds, 25006 on a standby, 55000 while events are not enabled (audit_event_enable) or there is no replication slot that would keep the entry.';

CREATE OR REPLACE FUNCTION plinth.audit_event_enable() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_audit_event_enable';
COMMENT ON FUNCTION plinth.audit_event_enable() IS
'Enables audit_event in this database, which then has a logical replication slot and a decoder.
Takes effect some seconds after the commit, once running transactions have ended: stat_audit.ready tells. Enabled again, nothing changes. A dump keeps it.
Errors: 55000 where wal_level is not logical or output_plugin_libraries does not list plinth, 53400 where no replication slot or worker is free, each with the setting to change.';

CREATE OR REPLACE FUNCTION plinth.audit_event_disable() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_audit_event_disable';
COMMENT ON FUNCTION plinth.audit_event_disable() IS
'Disables audit_event in this database; the replication slot goes unless something else needs it.
Events that are not stored by then are lost: let stat_audit.lag_bytes come to rest first. Stored entries stay.';

CREATE OR REPLACE FUNCTION plinth._audit_event_ready() RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_audit_event_ready';
COMMENT ON FUNCTION plinth._audit_event_ready() IS
'Whether audit_event can be called now.';

CREATE OR REPLACE VIEW plinth.stat_audit AS
SELECT s.enabled_at,
       s.enabled_at IS NOT NULL AND plinth._audit_event_ready() AS ready,
       d.state AS slot_state,
       d.pid AS decoder_pid,
       d.lag_bytes,
       p.entries AS pending_entries,
       p.oldest AS pending_since,
       p.reason AS pending_reason
  FROM (VALUES (1)) AS one
  LEFT JOIN plinth.audit_event_settings s ON true
  LEFT JOIN plinth.stat_decode d ON true
 CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS entries, pg_catalog.min(q.recorded_at) AS oldest,
                            pg_catalog.min(q.reason) AS reason FROM plinth.audit_pending q) AS p;
ALTER VIEW plinth.stat_audit OWNER TO plinth_owner;
REVOKE ALL ON plinth.stat_audit FROM PUBLIC;
GRANT SELECT ON plinth.stat_audit TO plinth_admin, pg_monitor;
COMMENT ON VIEW plinth.stat_audit IS
'Audit events of this database: whether they are enabled and can be recorded now, and how many are decoded but could not be stored yet.';

CREATE OR REPLACE FUNCTION plinth._audit_partition_create(month timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- What the caller's session has for these is not for our tables.
    SET timezone = 'UTC' SET datestyle = 'ISO' SET default_tablespace = '' SET default_table_access_method = 'heap' AS $$
DECLARE
    partition text := 'audit_entries_' || to_char(month, 'YYYY_MM');
BEGIN
    -- Whoever waited for another session's partition finds it here.
    LOCK TABLE plinth.audit_entries IN SHARE UPDATE EXCLUSIVE MODE;
    IF to_regclass(format('plinth.%I', partition)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE plinth.%I (LIKE plinth.audit_entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition);
    EXECUTE format('ALTER TABLE plinth.%I ADD PRIMARY KEY (id)', partition);
    EXECUTE format('CREATE INDEX ON plinth.%I (recorded_at)', partition);
    EXECUTE format('CREATE INDEX ON plinth.%I (actor_user_id, recorded_at)', partition);
    EXECUTE format('CREATE INDEX ON plinth.%I (resource, recorded_at)', partition);
    EXECUTE format('ALTER TABLE plinth.%I ENABLE ROW LEVEL SECURITY', partition);
    EXECUTE format('CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON plinth.%I
        FOR EACH STATEMENT EXECUTE FUNCTION plinth._audit_refuse_change()', partition);
    EXECUTE format('ALTER TABLE plinth.%I ENABLE ALWAYS TRIGGER audit_entries_no_truncate', partition);
    EXECUTE format('ALTER TABLE plinth.audit_entries ATTACH PARTITION plinth.%I FOR VALUES FROM (%L) TO (%L)',
        partition, month, month + interval '1 month');
END
$$;
ALTER FUNCTION plinth._audit_partition_create(timestamptz) OWNER TO plinth_owner;

REVOKE ALL ON FUNCTION plinth.audit_record(text, text, text, jsonb), plinth._audit_record(text, text, text, jsonb),
    plinth.audit_event(text, text, text, jsonb, boolean),
    plinth.audit_event_enable(), plinth.audit_event_disable(), plinth._audit_event_ready(), plinth._audit_partition_create(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.audit_record(text, text, text, jsonb), plinth.audit_event(text, text, text, jsonb, boolean)
    TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._audit_record(text, text, text, jsonb) TO plinth_owner;
GRANT EXECUTE ON FUNCTION plinth.audit_event_enable(), plinth.audit_event_disable() TO plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._audit_event_ready() TO plinth_owner, plinth_admin, pg_monitor;

GRANT SELECT ON plinth.audit_entries TO authenticated, plinth_admin;
DROP POLICY IF EXISTS audit_entries_admin ON plinth.audit_entries;
CREATE POLICY audit_entries_admin ON plinth.audit_entries FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS audit_entries_own ON plinth.audit_entries;
CREATE POLICY audit_entries_own ON plinth.audit_entries FOR SELECT TO authenticated
    USING (actor_user_id = (SELECT plinth.current_user_id())
           AND ((SELECT plinth.current_api_key_id()) IS NULL OR api_key_id = (SELECT plinth.current_api_key_id())));
