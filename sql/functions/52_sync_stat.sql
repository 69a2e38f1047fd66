-- sync: how far it is, and waiting for it.

CREATE OR REPLACE FUNCTION plinth.sync_wait(timeout interval DEFAULT NULL, name text DEFAULT NULL) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_wait';
COMMENT ON FUNCTION plinth.sync_wait(interval, text) IS
'Waits until all that committed before the call is in MongoDB; false when the timeout passes first, or a mapping is blocked.
timeout: how long at most; NULL for as long as it takes. What this transaction itself changed is not waited for.
name: of one mapping, which alone is waited for, whatever the others of its server are doing; NULL for all.
Mappings that were paused by sync_pause and dead letters are not waited for. Nor is a blocked mapping: when all else is delivered, a WARNING names it, if the caller may see it, and the result is false.
Of the one that is named both are told so at once. Errors: 55000 during recovery, 22023 for a timeout below 0, 42704 and 42501 for a name as sync_verify.';

CREATE OR REPLACE FUNCTION plinth._sync_stat(
        mapping_id bigint, OUT state text, OUT lag_bytes bigint, OUT lag_ms bigint, OUT documents_replaced bigint,
        OUT documents_deleted bigint, OUT bytes_sent bigint, OUT retries bigint, OUT keys_in_memory bigint,
        OUT last_error text, OUT last_error_at timestamptz, OUT next_try_at timestamptz, OUT delivered_lsn pg_lsn,
        OUT rate double precision, OUT state_since timestamptz, OUT lag_at_least boolean, OUT late boolean,
        OUT adopted boolean)
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_sync_stat';
COMMENT ON FUNCTION plinth._sync_stat(bigint) IS
'What the lane says of a mapping; NULLs when none has said anything, or the caller may not see the mapping.';

CREATE OR REPLACE VIEW plinth.stat_sync WITH (security_invoker = true) AS
SELECT m.name, m.relation, m.server_name, m.collection,
       CASE WHEN s.blocked IS NOT NULL THEN 'blocked' WHEN m.paused THEN 'paused'
            ELSE coalesce(t.state, 'starting') END AS state,
       coalesce(s.blocked, CASE WHEN t.state = 'blocked' THEN pg_catalog.split_part(t.last_error, E'\n', 1) END) AS reason,
       CASE WHEN s.blocked IS NOT NULL THEN s.blocked_hint
            WHEN t.state = 'blocked' THEN nullif(pg_catalog.split_part(t.last_error, E'\n', 2), '') END AS hint,
       t.lag_bytes, t.lag_ms, t.delivered_lsn,
       coalesce(t.documents_replaced, 0) AS documents_replaced,
       coalesce(t.documents_deleted, 0) AS documents_deleted,
       coalesce(t.bytes_sent, 0) AS bytes_sent,
       coalesce(t.retries, 0) AS retries,
       coalesce(t.keys_in_memory, 0)
           + (SELECT pg_catalog.count(*) FROM plinth.sync_dirty AS d
               WHERE d.mapping_id = m.id AND d.zombie_stage = 0)
           + (SELECT pg_catalog.count(*) FROM plinth.sync_via AS v WHERE v.mapping_id = m.id) AS keys_owed,
       (SELECT pg_catalog.count(*) FROM plinth.sync_dirty AS d
         WHERE d.mapping_id = m.id AND d.zombie_stage > 0) AS keys_to_rewrite,
       k.kind AS task, k.done AS task_done,
       k.total + greatest(k.done - k.total, 0) AS task_total,
       (SELECT pg_catalog.count(*) FROM plinth.sync_dead_letters AS l WHERE l.mapping_id = m.id) AS dead_letters,
       pg_catalog.replace(t.last_error, E'\n', '; ') AS last_error, t.last_error_at, t.next_try_at,
       t.rate AS documents_per_second, t.state_since
  FROM plinth.sync_mappings AS m
  LEFT JOIN plinth.sync_states AS s ON s.mapping_id = m.id
  CROSS JOIN LATERAL plinth._sync_stat(m.id) AS t
  LEFT JOIN LATERAL (SELECT a.kind, pg_catalog.sum(a.done)::bigint AS done, pg_catalog.sum(a.total)::bigint AS total
                       FROM plinth.sync_tasks AS a WHERE a.mapping_id = m.id
                      GROUP BY a.kind, a.relation ORDER BY pg_catalog.min(a.id) LIMIT 1) AS k ON true;
COMMENT ON VIEW plinth.stat_sync IS 'Each sync mapping: what it does, how far it is, what is wrong.';
ALTER VIEW plinth.stat_sync OWNER TO plinth_owner;

REVOKE ALL ON FUNCTION plinth.sync_wait(interval, text), plinth._sync_stat(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.sync_wait(interval, text), plinth._sync_stat(bigint) TO PUBLIC;
REVOKE ALL ON plinth.stat_sync FROM PUBLIC;
GRANT SELECT ON plinth.stat_sync TO PUBLIC;
