-- decode: the decoder as seen from SQL.

CREATE OR REPLACE FUNCTION plinth._decode_shared(
    OUT pid integer, OUT decoded pg_lsn, OUT confirmed pg_lsn, OUT slot_generation bigint)
LANGUAGE c VOLATILE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_decode_shared';
REVOKE ALL ON FUNCTION plinth._decode_shared() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._decode_shared() TO plinth_owner, plinth_admin, pg_monitor;
COMMENT ON FUNCTION plinth._decode_shared() IS
'What the decoder of this database published in shared memory; NULL for what it has not.';

CREATE OR REPLACE FUNCTION plinth._decode_request_slot() RETURNS boolean
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'plinth_decode_request_slot_sql';
REVOKE ALL ON FUNCTION plinth._decode_request_slot() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._decode_request_slot() TO plinth_owner;
COMMENT ON FUNCTION plinth._decode_request_slot() IS
'Asks for a new replication slot where this database''s was lost; true when it was. Takes effect at commit.';

CREATE OR REPLACE FUNCTION plinth._decode_require() RETURNS void
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'plinth_decode_require_sql';
REVOKE ALL ON FUNCTION plinth._decode_require() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth._decode_require() TO plinth_owner;
COMMENT ON FUNCTION plinth._decode_require() IS
'Does nothing where logical decoding can work; otherwise raises 55000 or 53400 with the hint that mends it.';

CREATE OR REPLACE VIEW plinth.stat_decode AS
SELECT pg_catalog.current_database() AS database,
       d.slot_name,
       d.slot_generation,
       d.state,
       s.pid,
       s.decoded,
       coalesce(s.confirmed, r.confirmed_flush_lsn) AS confirmed,
       CASE WHEN r.slot_name IS NOT NULL AND NOT pg_catalog.pg_is_in_recovery() THEN
           greatest(0, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(),
                                                  coalesce(s.confirmed, r.confirmed_flush_lsn)))
       END::bigint AS lag_bytes,
       CASE WHEN r.slot_name IS NOT NULL AND NOT pg_catalog.pg_is_in_recovery() THEN
           greatest(0, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(),
                                                  r.restart_lsn))
       END::bigint AS kept_wal_bytes,
       r.wal_status,
       d.created_at,
       d.lost_at,
       d.lost_reason
  FROM plinth.decode_state d
 CROSS JOIN plinth._decode_shared() s
  LEFT JOIN pg_catalog.pg_replication_slots r
    ON r.slot_name = d.slot_name AND r.plugin = 'plinth'
 WHERE d.state <> 'none';
ALTER VIEW plinth.stat_decode OWNER TO plinth_owner;
REVOKE ALL ON plinth.stat_decode FROM PUBLIC;
GRANT SELECT ON plinth.stat_decode TO plinth_admin, pg_monitor;
COMMENT ON VIEW plinth.stat_decode IS
'The decoder of this database: its slot, how far it has read and confirmed, and how much WAL the slot keeps. No row where nothing is decoded.';
