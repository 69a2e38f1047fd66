-- cache: the second level, and which entries in it are valid.

-- An entry is valid for whoever reads it when the snapshot under which it was
-- computed sees all invalidations that the reader sees, and no newer entry of
-- its key saw it.  Invalidations before the horizon are gone: entries that the
-- purge saw were held against them, others must be computed since.  While a pass
-- of the purge is under way both horizons hold, of the last pass and of this one.

DO $do$
DECLARE
    v record;
BEGIN
    FOR v IN SELECT * FROM (VALUES
            ('_cache_valid_durable', 'cache_durable_entries', 'durable caches'),
            ('_cache_valid_overflow', 'cache_entries', 'caches with overflow')) AS x (name, entries, whose) LOOP
        EXECUTE pg_catalog.format($view$
CREATE OR REPLACE VIEW plinth.%1$I AS
SELECT e.* FROM plinth.%2$I e LEFT JOIN plinth.cache_horizons h ON h.cache_id = e.cache_id
WHERE (h.xid IS NULL OR pg_catalog.pg_snapshot_xmin(e.snapshot) >= h.xid
        OR pg_catalog.pg_visible_in_snapshot(e.xid, h.snapshot))
    AND (h.pass_xid IS NULL OR pg_catalog.pg_snapshot_xmin(e.snapshot) >= h.pass_xid
        OR pg_catalog.pg_visible_in_snapshot(e.xid, h.pass_snapshot))
    -- Not as NOT EXISTS: asked before all that follows, of one row after the other.
    AND CASE WHEN EXISTS (SELECT FROM plinth.%2$I r
        WHERE r.cache_id = e.cache_id AND r.user_id = e.user_id AND r.key = e.key AND r.id > e.id
            AND (r.xid = e.xid OR pg_catalog.pg_visible_in_snapshot(e.xid, r.snapshot))) THEN false ELSE true END
    AND NOT EXISTS (SELECT FROM plinth.cache_invalidations i
        WHERE i.cache_id = e.cache_id AND i.kind = 'k' AND i.key = e.key AND (i.user_id IS NULL OR i.user_id = e.user_id)
            AND CASE WHEN i.xid = e.xid THEN i.id > e.id ELSE NOT pg_catalog.pg_visible_in_snapshot(i.xid, e.snapshot) END)
    AND NOT EXISTS (SELECT FROM plinth.cache_invalidations i
        WHERE i.cache_id = e.cache_id AND i.kind = 't' AND i.tag = ANY (e.tags)
            AND CASE WHEN i.xid = e.xid THEN i.id > e.id ELSE NOT pg_catalog.pg_visible_in_snapshot(i.xid, e.snapshot) END)
    AND NOT EXISTS (SELECT FROM plinth.cache_invalidations i
        WHERE i.cache_id = e.cache_id AND i.kind = 'p' AND pg_catalog.starts_with(e.key, i.key)
            AND (i.user_id IS NULL OR i.user_id = e.user_id)
            AND CASE WHEN i.xid = e.xid THEN i.id > e.id ELSE NOT pg_catalog.pg_visible_in_snapshot(i.xid, e.snapshot) END)
    AND NOT EXISTS (SELECT FROM plinth.cache_invalidations i
        WHERE i.cache_id = e.cache_id AND i.kind = 'a' AND (i.user_id IS NULL OR i.user_id = e.user_id)
            AND CASE WHEN i.xid = e.xid THEN i.id > e.id ELSE NOT pg_catalog.pg_visible_in_snapshot(i.xid, e.snapshot) END)
    AND NOT (e.fill AND EXISTS (SELECT FROM plinth.%2$I s
        WHERE s.cache_id = e.cache_id AND s.user_id = e.user_id AND s.key = e.key AND NOT s.fill AND s.xid <> e.xid
            AND NOT pg_catalog.pg_visible_in_snapshot(s.xid, e.snapshot)))$view$, v.name, v.entries);
        EXECUTE pg_catalog.format('COMMENT ON VIEW plinth.%I IS %L', v.name,
            pg_catalog.format('Entries of %s that were neither invalidated since they were computed nor replaced by one that saw them.', v.whose));
        EXECUTE pg_catalog.format('ALTER VIEW plinth.%I OWNER TO plinth_owner', v.name);
        EXECUTE pg_catalog.format('REVOKE ALL ON plinth.%I FROM PUBLIC', v.name);
    END LOOP;
END
$do$;

-- A DBA's own changes of entries count too; requests and the purge change memory themselves, or need not.

CREATE OR REPLACE FUNCTION plinth._cache_entry_touched() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_cache_entry_touched';
COMMENT ON FUNCTION plinth._cache_entry_touched() IS
'Forgets in memory what somebody changed by hand in a table of entries.
A trigger for each row, and for TRUNCATE.';

CREATE OR REPLACE TRIGGER cache_durable_entries_touched AFTER INSERT OR UPDATE OR DELETE ON plinth.cache_durable_entries
    FOR EACH ROW WHEN (current_user <> 'plinth_owner') EXECUTE FUNCTION plinth._cache_entry_touched();
CREATE OR REPLACE TRIGGER cache_durable_entries_truncated AFTER TRUNCATE ON plinth.cache_durable_entries
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._cache_entry_touched();
CREATE OR REPLACE TRIGGER cache_entries_touched AFTER INSERT OR UPDATE OR DELETE ON plinth.cache_entries
    FOR EACH ROW WHEN (current_user <> 'plinth_owner') EXECUTE FUNCTION plinth._cache_entry_touched();
CREATE OR REPLACE TRIGGER cache_entries_truncated AFTER TRUNCATE ON plinth.cache_entries
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._cache_entry_touched();
ALTER TABLE plinth.cache_durable_entries
    ENABLE ALWAYS TRIGGER cache_durable_entries_touched,
    ENABLE ALWAYS TRIGGER cache_durable_entries_truncated;
ALTER TABLE plinth.cache_entries
    ENABLE ALWAYS TRIGGER cache_entries_touched,
    ENABLE ALWAYS TRIGGER cache_entries_truncated;
REVOKE ALL ON FUNCTION plinth._cache_entry_touched() FROM PUBLIC;
