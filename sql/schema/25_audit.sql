-- audit: the entries.  The parent has neither primary key nor index, so that
-- its monthly partitions, which are no members of the extension, are dumped
-- and restored as ordinary tables (docs/audit.md).

CREATE TABLE plinth.audit_entries (
    id                  uuid NOT NULL DEFAULT plinth.uuid_v7(),
    recorded_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    recorded_xid        xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    action              text NOT NULL
        CONSTRAINT audit_entries_action_check CHECK (action <> '' AND pg_catalog.octet_length(action) <= 200),
    resource            text
        CONSTRAINT audit_entries_resource_check CHECK (pg_catalog.octet_length(resource) <= 1000),
    result              text NOT NULL
        CONSTRAINT audit_entries_result_check CHECK (result IN ('success', 'failure', 'denied')),
    actor_user_id       uuid,           -- no foreign key: an entry outlives its actor
    actor_user_key      text,
    session_id          uuid,
    impersonator_id     uuid,
    address             inet,
    user_agent          text,
    db_role             name NOT NULL DEFAULT SESSION_USER,
    application_name    text,
    metadata            jsonb NOT NULL DEFAULT '{}',
    source_lsn          pg_lsn,         -- where the entry stands in the WAL, when it came from there
    subject_id          uuid,           -- whose personal values are sealed below
    personal_sealed     bytea,          -- under the subject's key
    personal_commitment bytea           -- what the Merkle leaf holds in their place
) PARTITION BY RANGE (recorded_at);
ALTER TABLE plinth.audit_entries OWNER TO plinth_owner;
ALTER TABLE plinth.audit_entries ENABLE ROW LEVEL SECURITY;
COMMENT ON TABLE plinth.audit_entries IS 'Who did what, when, from where, and how it ended. Append only; written by plinth.audit_record.';

CREATE FUNCTION plinth._audit_refuse_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'audit entries can be neither changed nor removed'
        USING ERRCODE = 'insufficient_privilege', HINT = 'Record another entry that corrects this one.';
END
$$;
ALTER FUNCTION plinth._audit_refuse_change() OWNER TO plinth_owner;
REVOKE ALL ON FUNCTION plinth._audit_refuse_change() FROM PUBLIC;

CREATE TRIGGER audit_entries_append_only BEFORE UPDATE OR DELETE ON plinth.audit_entries
    FOR EACH ROW EXECUTE FUNCTION plinth._audit_refuse_change();
ALTER TABLE plinth.audit_entries ENABLE ALWAYS TRIGGER audit_entries_append_only;
-- Statement triggers do not reach partitions: each partition gets one of its own.
CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON plinth.audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._audit_refuse_change();
ALTER TABLE plinth.audit_entries ENABLE ALWAYS TRIGGER audit_entries_no_truncate;

-- Partitions are made when the first entry of a month is recorded.
GRANT CREATE ON SCHEMA plinth TO plinth_owner;
