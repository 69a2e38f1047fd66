-- cache: purging tables of entries.

-- A pass over a cache removes what nobody can read any more: entries that are
-- invalid, replaced by newer ones, expired or too many, and the invalidations
-- before the horizon h.  It is done in bounded parts, each in a transaction of its
-- own, and goes on where it stood, whoever ends in between.
--
--	begin	S, the snapshot of this statement, and h, where the oldest running
--			transaction was at the beginning of the pass before, are written down.
--			From then on an entry must either be in S or be computed since h.  That
--			comes on top of what the last pass left: an entry which its horizon hides
--			may well be in S, and stays hidden until it is judged.
--	judge	entries, by ranges of user and key, all of a key at once, so that what goes
--			uncovers nothing older.  What was set (not computed) counts as an
--			invalidation of what was computed: it goes only if it is before h, and is
--			emptied till then.
--	evict	where more was kept than max_bytes: the oldest, by the same ranges.
--	settle	invalidations before h: what is in S was held against them by now, all
--			else that is valid was computed since.  After the last the new horizon takes
--			the place of the old one.
--
-- S stays what it was as the pass began.  A later snapshot would let in entries of
-- ranges that are done, of which nobody asked what they were computed before.
-- docs/cache.md has the argument.

-- Where a part of so many entries ends: the user and key of its last one; none when there are fewer.

CREATE OR REPLACE FUNCTION plinth._cache_purge_range(entries regclass, pass plinth.cache_horizons, size integer,
        OUT upto_user uuid, OUT upto_key text) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
BEGIN
    EXECUTE format('SELECT e.user_id, e.key FROM %s e WHERE e.cache_id = $1 %s ORDER BY e.user_id, e.key OFFSET $4 - 1 LIMIT 1',
        entries, CASE WHEN pass.at_user IS NOT NULL THEN 'AND (e.user_id, e.key) > ($2, $3)' END)
        INTO upto_user, upto_key USING pass.cache_id, pass.at_user, pass.at_key, size;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge_range(regclass, plinth.cache_horizons, integer) IS
'Returns where a part of a purge ends: user and key of its last entry, NULL when it goes to the end.
entries: the table. pass: where the part begins. size: how many entries.';

-- The entries from where a pass stands up to a key.

CREATE OR REPLACE FUNCTION plinth._cache_purge_part(entries regclass, valid regclass, pass plinth.cache_horizons, upto_user uuid, upto_key text,
        OUT seen bigint, OUT removed bigint, OUT kept_bytes bigint, OUT young boolean) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    -- Statistics know nothing of tables that fill and empty within seconds: whatever they say, go by the indexes.
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    range text := concat(CASE WHEN pass.at_user IS NOT NULL THEN ' AND (e.user_id, e.key) > ($2, $3)' END,
        CASE WHEN upto_user IS NOT NULL THEN ' AND (e.user_id, e.key) <= ($4, $5)' END);
    judged text;
BEGIN
    IF pass.stage = 'judge' THEN
        judged := format($q$
            SELECT p.*, NOT p.valid OR p.expired OR p.place > 1 AS doomed FROM (
                SELECT h.*, row_number() OVER (PARTITION BY h.user_id, h.key, h.valid ORDER BY h.id DESC) AS place FROM (
                    SELECT o.*, CASE WHEN o.alone AND o.expired THEN false ELSE coalesce((SELECT true FROM %2$s v
                            WHERE v.cache_id = o.cache_id AND v.user_id = o.user_id AND v.key = o.key AND v.id = o.id), false) END AS valid
                        FROM (
                        SELECT e.cache_id, e.user_id, e.key, e.id, e.fill OR e.xid < $6 AS removable, e.expires_at <= clock_timestamp() AS expired,
                            octet_length(e.key) + coalesce(octet_length(e.value), 0) AS bytes,
                            count(*) OVER (PARTITION BY e.user_id, e.key) = 1 AS alone
                            FROM %1$s e WHERE e.cache_id = $1 %3$s) o) h) p$q$, entries, valid, range);
    ELSE
        judged := format($q$
            SELECT e.cache_id, e.user_id, e.key, e.id, e.fill OR e.xid < $6 AS removable, 0 AS bytes, e.id <= $7 AS doomed
                FROM %1$s e WHERE e.cache_id = $1 %2$s$q$, entries, range);
    END IF;
    EXECUTE format($q$
        WITH judged AS MATERIALIZED (%2$s), gone AS (
            DELETE FROM %1$s e USING judged j
                WHERE j.doomed AND j.removable AND e.cache_id = j.cache_id AND e.user_id = j.user_id AND e.key = j.key AND e.id = j.id
                RETURNING 1
        ), emptied AS (
            UPDATE %1$s e SET kind = 0, value = NULL, tags = '{}', stale_at = '-infinity', expires_at = '-infinity' FROM judged j
                WHERE j.doomed AND NOT j.removable AND e.cache_id = j.cache_id AND e.user_id = j.user_id AND e.key = j.key AND e.id = j.id
                    AND e.expires_at > '-infinity'
        )
        SELECT count(*), (SELECT count(*) FROM gone), coalesce(sum(j.bytes) FILTER (WHERE NOT j.doomed), 0),
            coalesce(bool_or(j.doomed AND NOT j.removable), false) FROM judged j$q$, entries, judged)
        INTO seen, removed, kept_bytes, young
        USING pass.cache_id, pass.at_user, pass.at_key, upto_user, upto_key, pass.pass_xid, pass.cutoff;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge_part(regclass, regclass, plinth.cache_horizons, uuid, text) IS
'Removes entries of a range of users and keys that nobody can read any more, or that are too many.
entries, valid: the table, and the view of what is valid in it. pass: where the range begins. upto_user, upto_key: its end; NULL for the last one.
Returns how many entries it saw and removed, the bytes of those that stay, and whether some are too young to be removed.';

-- Up to which id entries are too many: what the pass has kept, the newest first.

CREATE OR REPLACE FUNCTION plinth._cache_purge_cutoff(entries regclass, pass plinth.cache_horizons, max_bytes bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = on SET jit = off AS $$
DECLARE
    cutoff bigint;
BEGIN
    EXECUTE format($q$
        SELECT max(t.id) FROM (
            SELECT b.id, sum(b.bytes) OVER (ORDER BY b.id DESC) AS total FROM (
                SELECT e.id, octet_length(e.key) + coalesce(octet_length(e.value), 0) AS bytes FROM %s e
                    WHERE e.cache_id = $1 AND e.expires_at > '-infinity' AND pg_visible_in_snapshot(e.xid, $2) OFFSET 0) b) t
            WHERE t.total > $3$q$, entries)
        INTO cutoff USING pass.cache_id, pass.pass_snapshot, max_bytes;
    RETURN cutoff;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge_cutoff(regclass, plinth.cache_horizons, bigint) IS
'Returns the newest entry that does not fit into max_bytes; NULL when all do.
entries: the table. pass: whose entries were judged. max_bytes: how much the entries after it may take. Reads all of the cache''s entries, but no values.';

-- What a cache that was dropped has left.

CREATE OR REPLACE FUNCTION plinth._cache_purge_dropped(cache integer, batch integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed bigint := 0;
    part bigint;
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cache_durable_entries', 'cache_entries', 'cache_invalidations', 'cache_horizons'] LOOP
        EXECUTE format('DELETE FROM plinth.%1$I WHERE ctid = ANY (ARRAY(
            SELECT d.ctid FROM plinth.%1$I d WHERE d.cache_id = $1 LIMIT $2))', t) USING cache, batch;
        GET DIAGNOSTICS part = ROW_COUNT;
        removed := removed + part;
    END LOOP;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge_dropped(integer, integer) IS
'Removes rows of a cache that does not exist, and returns how many.
cache: its id. batch: how many at most, of each table.';

CREATE OR REPLACE FUNCTION plinth._cache_purge(cache integer, batch integer DEFAULT 10000, OUT removed bigint, OUT again boolean) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
DECLARE
    c plinth.caches;
    z plinth.cache_horizons;
    entries regclass;
    valid regclass;
    last bigint := (SELECT s.last_value FROM plinth.cache_change_seq s);
    budget bigint := greatest(batch, 1);
    upto record;
    part record;
    n bigint;
BEGIN
    removed := 0;
    again := false;
    SELECT * INTO c FROM plinth.caches d WHERE d.id = cache;
    IF NOT FOUND THEN
        removed := plinth._cache_purge_dropped(cache, batch);
        again := removed > 0;
        RETURN;
    END IF;
    entries := CASE WHEN c.durable THEN 'plinth.cache_durable_entries' ELSE 'plinth.cache_entries' END;
    valid := CASE WHEN c.durable THEN 'plinth._cache_valid_durable' ELSE 'plinth._cache_valid_overflow' END;

    INSERT INTO plinth.cache_horizons (cache_id, xid, next_xid, snapshot, change_id, purged_at)
        VALUES (cache, '0', '0', '1:1:', -1, '-infinity') ON CONFLICT (cache_id) DO NOTHING;
    SELECT * INTO z FROM plinth.cache_horizons o WHERE o.cache_id = cache FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (z.stage IS NULL AND z.change_id = last AND z.purged_at > now() - interval '1 min') THEN
        RETURN;
    END IF;

    IF z.stage IS NULL THEN
        UPDATE plinth.cache_horizons o SET pass_xid = o.next_xid, pass_snapshot = pg_current_snapshot(),
                next_xid = pg_snapshot_xmin(pg_current_snapshot()), stage = 'judge', at_user = NULL, at_key = NULL,
                bytes = 0, cutoff = NULL, change_id = last
            WHERE o.cache_id = cache RETURNING * INTO z;
    END IF;

    WHILE budget > 0 AND z.stage <> 'settle' LOOP
        SELECT * INTO upto FROM plinth._cache_purge_range(entries, z, budget::integer);
        SELECT * INTO part FROM plinth._cache_purge_part(entries, valid, z, upto.upto_user, upto.upto_key);
        budget := budget - greatest(part.seen, 1);
        removed := removed + part.removed;
        z.bytes := z.bytes + part.kept_bytes;
        IF part.young AND z.next_xid > z.pass_xid THEN
            z.change_id := -1;  -- can go as soon as the horizon moves
        END IF;
        z.at_user := upto.upto_user;
        z.at_key := upto.upto_key;
        IF z.at_user IS NULL THEN
            z.stage := 'settle';
            IF z.cutoff IS NULL AND z.bytes > c.max_bytes THEN
                z.cutoff := plinth._cache_purge_cutoff(entries, z, c.max_bytes);
                z.stage := CASE WHEN z.cutoff IS NULL THEN 'settle' ELSE 'evict' END;
            END IF;
        END IF;
    END LOOP;

    IF budget > 0 THEN
        DELETE FROM plinth.cache_invalidations WHERE ctid = ANY (ARRAY(
            SELECT i.ctid FROM plinth.cache_invalidations i WHERE i.cache_id = cache AND i.xid < z.pass_xid LIMIT budget));
        GET DIAGNOSTICS n = ROW_COUNT;
        IF n < budget THEN
            IF z.next_xid > z.pass_xid AND EXISTS (SELECT FROM plinth.cache_invalidations i WHERE i.cache_id = cache AND i.xid >= z.pass_xid) THEN
                z.change_id := -1;
            END IF;
            z.xid := z.pass_xid;
            z.snapshot := z.pass_snapshot;
            z.pass_xid := NULL;
            z.pass_snapshot := NULL;
            z.stage := NULL;
            z.purged_at := now();
        END IF;
    END IF;
    again := z.stage IS NOT NULL;
    UPDATE plinth.cache_horizons o SET xid = z.xid, snapshot = z.snapshot, pass_xid = z.pass_xid, pass_snapshot = z.pass_snapshot,
            stage = z.stage, at_user = z.at_user, at_key = z.at_key, bytes = z.bytes, cutoff = z.cutoff, change_id = z.change_id,
            purged_at = z.purged_at
        WHERE o.cache_id = cache;
END
$$;
COMMENT ON FUNCTION plinth._cache_purge(integer, integer) IS
'Removes from a cache''s table what nobody can read any more, or a part of that; returns how many entries, and whether to call again.
cache: its id, also of a cache that was dropped. batch: how many rows it looks at, and those of the last key beyond them.
Begins a pass over the cache, or goes on with the one that is under way; 0 and false when nothing has changed, or somebody else is at it.';

-- Which dropped caches have left something.  By the indexes, from one id to the next: there may be millions of rows.

CREATE OR REPLACE FUNCTION plinth._cache_orphans() RETURNS SETOF integer
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['cache_durable_entries', 'cache_entries', 'cache_invalidations', 'cache_horizons'] LOOP
        RETURN QUERY EXECUTE format($q$
            WITH RECURSIVE ids (id) AS (
                (SELECT e.cache_id FROM plinth.%1$I e ORDER BY e.cache_id LIMIT 1)
                UNION ALL
                SELECT (SELECT e.cache_id FROM plinth.%1$I e WHERE e.cache_id > i.id ORDER BY e.cache_id LIMIT 1)
                    FROM ids i WHERE i.id IS NOT NULL
            )
            SELECT i.id FROM ids i WHERE i.id IS NOT NULL AND NOT EXISTS (SELECT FROM plinth.caches c WHERE c.id = i.id)$q$, t);
    END LOOP;
END
$$;
COMMENT ON FUNCTION plinth._cache_orphans() IS
'Returns ids of caches that were dropped and have left rows, some of them more than once.';

ALTER FUNCTION plinth._cache_purge_range(regclass, plinth.cache_horizons, integer) OWNER TO plinth_owner;
ALTER FUNCTION plinth._cache_purge_part(regclass, regclass, plinth.cache_horizons, uuid, text) OWNER TO plinth_owner;
ALTER FUNCTION plinth._cache_purge_cutoff(regclass, plinth.cache_horizons, bigint) OWNER TO plinth_owner;
ALTER FUNCTION plinth._cache_purge_dropped(integer, integer) OWNER TO plinth_owner;
ALTER FUNCTION plinth._cache_purge(integer, integer) OWNER TO plinth_owner;
ALTER FUNCTION plinth._cache_orphans() OWNER TO plinth_owner;
REVOKE ALL ON FUNCTION plinth._cache_purge_range(regclass, plinth.cache_horizons, integer),
    plinth._cache_purge_part(regclass, regclass, plinth.cache_horizons, uuid, text),
    plinth._cache_purge_cutoff(regclass, plinth.cache_horizons, bigint),
    plinth._cache_purge_dropped(integer, integer),
    plinth._cache_purge(integer, integer),
    plinth._cache_orphans() FROM PUBLIC;
