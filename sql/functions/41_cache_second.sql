-- cache: the second level, which entries in it are valid, and purging.

-- An entry is valid for whoever reads it when the snapshot under which it was
-- computed sees all invalidations that the reader sees.  Those before the
-- horizon are gone: entries that the purge saw were held against them, others
-- must be computed since.

CREATE OR REPLACE VIEW plinth._cache_valid_durable AS
SELECT e.* FROM plinth.cache_durable_entries e LEFT JOIN plinth.cache_horizons h ON h.cache_id = e.cache_id
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
    AND NOT (e.fill AND EXISTS (SELECT FROM plinth.cache_durable_entries s
        WHERE s.cache_id = e.cache_id AND s.user_id = e.user_id AND s.key = e.key AND NOT s.fill AND s.xid <> e.xid
            AND NOT pg_catalog.pg_visible_in_snapshot(s.xid, e.snapshot)));
COMMENT ON VIEW plinth._cache_valid_durable IS 'Entries of durable caches that were not invalidated since they were computed.';

CREATE OR REPLACE VIEW plinth._cache_valid_overflow AS
SELECT e.* FROM plinth.cache_entries e LEFT JOIN plinth.cache_horizons h ON h.cache_id = e.cache_id
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
    AND NOT (e.fill AND EXISTS (SELECT FROM plinth.cache_entries s
        WHERE s.cache_id = e.cache_id AND s.user_id = e.user_id AND s.key = e.key AND NOT s.fill AND s.xid <> e.xid
            AND NOT pg_catalog.pg_visible_in_snapshot(s.xid, e.snapshot)));
COMMENT ON VIEW plinth._cache_valid_overflow IS 'Entries of caches with overflow that were not invalidated since they were computed.';

ALTER VIEW plinth._cache_valid_durable OWNER TO plinth_owner;
ALTER VIEW plinth._cache_valid_overflow OWNER TO plinth_owner;
REVOKE ALL ON plinth._cache_valid_durable, plinth._cache_valid_overflow FROM PUBLIC;
