-- audit: the entries.  The parent has neither primary key nor index, so that
-- its monthly partitions, which are no members of the extension, are dumped
-- and restored as ordinary tables (docs/audit.md).

CREATE TABLE plinth.audit_entries (
    id                  uuid NOT NULL DEFAULT plinth.uuid_v7(),
    recorded_at         timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    recorded_xid        xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    -- What may stand here is checked by audit_record and audit_event: a CHECK would be a quarter of an entry's price.
    action              text NOT NULL,
    resource            text,
    result              text NOT NULL,
    actor_user_id       uuid,           -- no foreign key: an entry outlives its actor
    actor_user_key      text,
    session_id          uuid,
    impersonator_id     uuid,
    api_key_id          uuid,           -- by which the actor came
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

-- Events (audit_event): whether they are enabled, the secret that authenticates them in the WAL, and those that
-- could not be stored among the entries yet.
CREATE TABLE plinth.audit_event_settings (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    enabled_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
ALTER TABLE plinth.audit_event_settings OWNER TO plinth_owner;
ALTER TABLE plinth.audit_event_settings ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON plinth.audit_event_settings FROM PUBLIC;
COMMENT ON TABLE plinth.audit_event_settings IS 'Whether audit events are enabled: one row, or none.';
SELECT pg_catalog.pg_extension_config_dump('plinth.audit_event_settings', '');

CREATE TABLE plinth.audit_event_keys (
    singleton       boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    slot_generation bigint NOT NULL,    -- of the one slot whose messages it authenticates
    rooted          boolean NOT NULL,   -- used under the root key
    secret          bytea NOT NULL CHECK (pg_catalog.octet_length(secret) = 32)
);
ALTER TABLE plinth.audit_event_keys OWNER TO plinth_owner;
ALTER TABLE plinth.audit_event_keys ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON plinth.audit_event_keys FROM PUBLIC;
COMMENT ON TABLE plinth.audit_event_keys IS 'The secret that authenticates audit events in the WAL. Never dumped: each slot has its own.';

CREATE TABLE plinth.audit_pending (
    LIKE plinth.audit_entries INCLUDING DEFAULTS,
    reason   text NOT NULL,             -- why it could not be stored
    tried_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (id)
);
CREATE INDEX audit_pending_tried_at ON plinth.audit_pending (tried_at);
ALTER TABLE plinth.audit_pending OWNER TO plinth_owner;
ALTER TABLE plinth.audit_pending ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON plinth.audit_pending FROM PUBLIC;
COMMENT ON TABLE plinth.audit_pending IS 'Audit events that could not be stored among the entries yet, and why; the decoder goes on trying.';
SELECT pg_catalog.pg_extension_config_dump('plinth.audit_pending', '');

-- Partitions are made when the first entry of a month is recorded.
GRANT CREATE ON SCHEMA plinth TO plinth_owner;
