-- cache: the second level, which entries in it are valid, and purging.

-- An entry is valid for whoever reads it when the snapshot under which it was
-- computed sees all invalidations that the reader sees.  Those before the
-- horizon are gone: entries that the purge saw were held against them, others
-- must be computed since.

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
            pg_catalog.format('Entries of %s that were not invalidated since they were computed.', v.whose));
        EXECUTE pg_catalog.format('ALTER VIEW plinth.%I OWNER TO plinth_owner', v.name);
        EXECUTE pg_catalog.format('REVOKE ALL ON plinth.%I FROM PUBLIC', v.name);
    END LOOP;
END
$do$;

-- Purging.  In one statement, so under one snapshot S: entries that are invalid,
-- expired, replaced by newer ones or too many, and the invalidations before the
-- horizon.  What is computed under older snapshots, and is not in S, is invalid
-- from now on.  The horizon is where the oldest running transaction was at the
-- purge before, so that only what is open across two purges is that old.  An
-- entry that was set counts as an invalidation of others: it goes by the same
-- rule, and while it is too young and invalid, it is emptied.

CREATE OR REPLACE FUNCTION plinth._cache_purge(cache integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- Statistics know nothing of tables that fill and empty within seconds.
    SET enable_nestloop = off SET jit = off AS $$
DECLARE
    c plinth.caches;
    h plinth.cache_horizons;
    last bigint := (SELECT s.last_value FROM plinth.cache_change_seq s);
    removed bigint := 0;
    batch bigint;
    t text;
BEGIN
    SELECT * INTO c FROM plinth.caches d WHERE d.id = cache;
    IF NOT FOUND THEN
        FOREACH t IN ARRAY ARRAY['cache_durable_entries', 'cache_entries', 'cache_invalidations', 'cache_horizons'] LOOP
            EXECUTE format('DELETE FROM plinth.%1$I WHERE ctid = ANY (ARRAY(
                SELECT d.ctid FROM plinth.%1$I d WHERE d.cache_id = $1 LIMIT 20000))', t) USING cache;
            GET DIAGNOSTICS batch = ROW_COUNT;
            removed := removed + batch;
        END LOOP;
        RETURN removed;
    END IF;

    INSERT INTO plinth.cache_horizons (cache_id, xid, next_xid, snapshot, change_id, purged_at)
        VALUES (cache, '0', '0', '1:1:', -1, '-infinity') ON CONFLICT (cache_id) DO NOTHING;
    SELECT * INTO h FROM plinth.cache_horizons z WHERE z.cache_id = cache FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (h.change_id = last AND h.purged_at > now() - interval '1 min') THEN
        RETURN 0;
    END IF;

    EXECUTE format($q$
        WITH s AS MATERIALIZED (
            SELECT pg_current_snapshot() AS snapshot, pg_snapshot_xmin(pg_current_snapshot()) AS xid
        ), held AS MATERIALIZED (
            SELECT e.id, e.xid, e.fill, e.expires_at, octet_length(e.key) + coalesce(octet_length(e.value), 0) AS bytes,
                v.id IS NOT NULL AS valid,
                row_number() OVER (PARTITION BY e.user_id, e.key, v.id IS NULL ORDER BY e.id DESC) AS place
            FROM %1$s e LEFT JOIN %2$s v ON v.id = e.id AND v.cache_id = $1
            WHERE e.cache_id = $1
        ), judged AS MATERIALIZED (
            SELECT h.id, h.xid, h.fill, h.valid, NOT h.valid OR h.place > 1 OR h.expires_at <= clock_timestamp()
                OR sum(h.bytes) FILTER (WHERE h.valid AND h.place = 1) OVER (ORDER BY h.id DESC) > $2 AS doomed
            FROM held h
        ), gone AS (
            DELETE FROM %1$s e USING judged j
            WHERE e.id = j.id AND e.cache_id = $1 AND j.doomed AND (j.fill OR j.xid < $4) RETURNING 1
        ), emptied AS (
            UPDATE %1$s e SET kind = 0, value = NULL, tags = '{}', stale_at = '-infinity', expires_at = '-infinity'
            FROM judged j
            WHERE e.id = j.id AND e.cache_id = $1 AND NOT j.valid AND NOT j.fill AND j.xid >= $4
                AND e.expires_at > '-infinity'
        ), settled AS (
            DELETE FROM plinth.cache_invalidations i WHERE i.cache_id = $1 AND i.xid < $4
        ), kept AS (
            SELECT EXISTS (SELECT FROM judged j WHERE j.doomed AND NOT j.fill AND j.xid >= $4)
                OR EXISTS (SELECT FROM plinth.cache_invalidations i WHERE i.cache_id = $1 AND i.xid >= $4) AS some
        ), moved AS (
            UPDATE plinth.cache_horizons z SET xid = $4, next_xid = s.xid, snapshot = s.snapshot, purged_at = now(),
                -- What was kept can go as soon as the horizon moves.
                change_id = CASE WHEN k.some AND s.xid > $4 THEN -1 ELSE $3 END
            FROM s, kept k WHERE z.cache_id = $1
        )
        SELECT count(*) FROM gone$q$,
        CASE WHEN c.durable THEN 'plinth.cache_durable_entries' ELSE 'plinth.cache_entries' END,
        CASE WHEN c.durable THEN 'plinth._cache_valid_durable' ELSE 'plinth._cache_valid_overflow' END)
        INTO removed USING cache, c.max_bytes, last, h.next_xid;

    RETURN removed;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge(integer) IS
'Removes from a cache''s table what nobody can read any more; returns how many entries.
cache: its id, also of a cache that was dropped; of that it removes at most 20,000 rows of each table, and returns how many
rows, 0 when none is left.';
ALTER FUNCTION plinth._cache_purge(integer) OWNER TO plinth_owner;

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
REVOKE ALL ON FUNCTION plinth._cache_purge(integer), plinth._cache_entry_touched() FROM PUBLIC;
