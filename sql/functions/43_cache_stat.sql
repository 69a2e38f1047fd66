-- cache: warming and statistics.

CREATE OR REPLACE FUNCTION plinth.cache_warm(name text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_cache_warm';
COMMENT ON FUNCTION plinth.cache_warm(text) IS
'Runs a cache''s warming query and keeps what it returns; returns how many rows that were.
name: a cache that has one. Its query returns key (text) and value, runs as the cache''s owner, reads only, and finds names in pg_catalog unless they are qualified. It ends when the values exceed max_bytes.
Errors: 42704 and 42501 as cache_alter, 55000 for a cache without a query, 42804 for a query of other columns.';

CREATE OR REPLACE FUNCTION plinth.cache_stats(name text, OUT entries bigint, OUT bytes bigint, OUT hits bigint, OUT misses bigint,
        OUT stale_hits bigint, OUT evictions bigint, OUT expirations bigint, OUT invalidations bigint, OUT fills bigint,
        OUT refused_fills bigint, OUT waits bigint, OUT wait_timeouts bigint) RETURNS record
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_cache_stats';
COMMENT ON FUNCTION plinth.cache_stats(text) IS
'Returns counters of a cache: of this server''s memory, since it was first used after the server''s start.
entries and bytes are what memory holds now. misses counts lookups, of which a cache_fetch that computes makes two. refused_fills: values that were invalidated while they were computed. waits: callers of cache_fetch that waited for another, wait_timeouts of them in vain.
Errors: 42704 for an unknown cache, 42501 for others than its owner, plinth_admin and pg_monitor.';

CREATE OR REPLACE VIEW plinth.stat_cache AS
SELECT c.name, c.id, s.* FROM plinth.caches c, LATERAL plinth.cache_stats(c.name) s
WHERE pg_catalog.pg_has_role(c.owner, 'USAGE') OR pg_catalog.pg_has_role('plinth_admin', 'USAGE')
    OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW plinth.stat_cache IS 'Counters of the caches that one may alter or monitor: see cache_stats.';
ALTER VIEW plinth.stat_cache OWNER TO plinth_owner;

REVOKE ALL ON FUNCTION plinth.cache_warm(text), plinth.cache_stats(text) FROM PUBLIC;
-- On purpose to PUBLIC: each asks who calls, and the view shows each reader their own.
GRANT EXECUTE ON FUNCTION plinth.cache_warm(text), plinth.cache_stats(text) TO PUBLIC;
REVOKE ALL ON plinth.stat_cache FROM PUBLIC;
GRANT SELECT ON plinth.stat_cache TO PUBLIC;
