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
    EXECUTE format('CREATE INDEX ON plinth.%I (subject_id) WHERE subject_id IS NOT NULL', partition);
    EXECUTE format('CREATE UNIQUE INDEX ON plinth.%I (source_lsn) WHERE source_lsn IS NOT NULL', partition);
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
    plinth._audit_partition_create(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.audit_record(text, text, text, jsonb) TO authenticated, plinth_admin;
GRANT EXECUTE ON FUNCTION plinth._audit_record(text, text, text, jsonb) TO plinth_owner;

GRANT SELECT ON plinth.audit_entries TO authenticated, plinth_admin;
DROP POLICY IF EXISTS audit_entries_admin ON plinth.audit_entries;
CREATE POLICY audit_entries_admin ON plinth.audit_entries FOR SELECT TO plinth_admin USING (true);
DROP POLICY IF EXISTS audit_entries_own ON plinth.audit_entries;
CREATE POLICY audit_entries_own ON plinth.audit_entries FOR SELECT TO authenticated
    USING (actor_user_id = (SELECT plinth.current_user_id()));
