-- sync: for those who run it.

-- A number with its thousands apart.
CREATE OR REPLACE FUNCTION plinth._sync_number(n bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT pg_catalog.ltrim(pg_catalog.to_char(n, '999,999,999,999,999')) $$;

-- A time as people say it.
CREATE OR REPLACE FUNCTION plinth._sync_span(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN seconds < 1 THEN pg_catalog.ceil(greatest(seconds, 0) * 1000) || ' ms'
                WHEN seconds < 120 THEN pg_catalog.ceil(seconds) || ' s'
                WHEN seconds < 7200 THEN pg_catalog.ceil(seconds / 60) || ' min'
                WHEN seconds < 172800 THEN pg_catalog.ceil(seconds / 3600) || ' h'
                ELSE pg_catalog.ceil(seconds / 86400) || ' days' END
$$;

-- How long writing so much takes by what was measured.
CREATE OR REPLACE FUNCTION plinth._sync_left(n bigint, rate double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN rate > 0
                THEN pg_catalog.format('about %s at the %s documents a second measured',
                                       plinth._sync_span(n / rate), plinth._sync_number(greatest(rate, 1)::bigint))
                ELSE 'for how long is unknown: nothing has been measured yet' END
$$;

CREATE OR REPLACE FUNCTION plinth.sync_status(
        OUT name text, OUT ok boolean, OUT status text, OUT action text)
    RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT v.name,
           CASE WHEN NOT w.adopted OR w.late OR v.dead_letters > 0 THEN false
                ELSE v.state NOT IN ('blocked', 'unreachable', 'retrying')
                     AND (w.state IS NOT NULL OR v.state = 'paused') END
           OR pg_is_in_recovery(),
           pg_catalog.format('%s to %s/%s: ', v.relation::text, v.server_name, v.collection)
           || CASE
              WHEN pg_is_in_recovery() THEN 'this server is a standby, its primary delivers'
              WHEN NOT w.adopted THEN 'this database is a copy of the one that delivers'
              WHEN v.state = 'blocked' THEN
                   'nothing is written: ' || v.reason || pg_catalog.format('; %s wait', k.keys)
              WHEN v.state = 'paused' THEN pg_catalog.format('paused; %s wait', k.keys)
              WHEN w.state IS NULL THEN pg_catalog.format('no worker delivers it; %s wait', k.keys)
              WHEN v.state IN ('unreachable', 'retrying') THEN
                   pg_catalog.format('%s for %s; %s wait, %s; tries again in %s; %s',
                       CASE v.state WHEN 'unreachable' THEN 'MongoDB is away' ELSE 'it fails' END,
                       plinth._sync_span(extract(epoch FROM clock_timestamp() - v.state_since)),
                       k.keys || k.rows,
                       CASE WHEN v.keys_owed + k.left > 0
                            THEN plinth._sync_left(v.keys_owed + k.left, v.documents_per_second)
                            ELSE 'so nothing is to be made up' END,
                       plinth._sync_span(extract(epoch FROM v.next_try_at - clock_timestamp())),
                       coalesce(v.last_error, 'no reason is known'))
              WHEN v.state = 'waiting' THEN
                   'waits for the transactions to end that wrote the table before it was synced; then copies' || k.rows
              WHEN v.state = 'snapshot' THEN
                   pg_catalog.format('copies rows: %s%s, %s; changes go on meanwhile, %s wait',
                       plinth._sync_number(k.done),
                       CASE WHEN k.total > 0
                            THEN pg_catalog.format(' of about %s (%s %%)', plinth._sync_number(k.total),
                                                   100 * k.done / k.total)
                            ELSE '' END,
                       plinth._sync_left(k.left, v.documents_per_second), k.keys)
              WHEN v.state = 'sweep' THEN
                   pg_catalog.format('looks for documents without a row: %s so far; %s wait',
                                     plinth._sync_number(v.task_done), k.keys)
              WHEN v.state = 'catchup' THEN
                   pg_catalog.format('catches up: %s wait, %s', k.keys,
                                     plinth._sync_left(v.keys_owed, v.documents_per_second))
              WHEN v.state = 'streaming' AND v.keys_owed = 0 THEN 'follows, nothing waits'
              WHEN v.state = 'streaming' THEN pg_catalog.format('follows, %s wait', k.keys)
              ELSE pg_catalog.format('%s; %s wait', v.state, k.keys) END
           || CASE WHEN v.lag_ms > 0 AND NOT pg_is_in_recovery()
                   THEN pg_catalog.format('; behind by %s%s and %s of WAL', CASE WHEN w.lag_at_least THEN 'at least ' END,
                                          plinth._sync_span(v.lag_ms / 1000.0), pg_catalog.pg_size_pretty(v.lag_bytes))
                   ELSE '' END
           || CASE WHEN v.dead_letters > 0
                   THEN pg_catalog.format('; refused: %s, the last one as %s', plinth._sync_number(v.dead_letters),
                       (SELECT pg_catalog.left(l.reason, 200) FROM plinth.sync_dead_letters AS l
                         WHERE l.mapping_id = m.id ORDER BY l.id DESC LIMIT 1))
                   ELSE '' END,
           CASE WHEN pg_is_in_recovery() THEN NULL
                WHEN NOT w.adopted THEN 'If it is to deliver from now on, and the other one has stopped: SELECT plinth.adopt();'
                WHEN v.state = 'blocked' THEN coalesce(v.hint, 'See the server''s log.')
                WHEN v.state = 'paused' THEN pg_catalog.format('SELECT plinth.sync_resume(%L);', v.name)
                WHEN w.state IS NULL THEN 'See plinth.stat_workers and the server''s log.'
                WHEN v.state = 'unreachable' THEN pg_catalog.format('Mend MongoDB, the network, or server %I and its user mapping; it goes on by itself then.', v.server_name)
                WHEN v.state = 'retrying' THEN 'Mend what is told, if it does not pass; it goes on by itself then.'
                WHEN v.dead_letters > 0 THEN 'Mend the rows in plinth.sync_dead_letters, or what refuses them; then SELECT plinth.sync_retry(id).'
                WHEN w.late THEN 'See whether MongoDB, or what is written here, is slower or more than usual.' END
      FROM plinth.stat_sync AS v
      JOIN plinth.sync_mappings AS m ON m.name = v.name
     CROSS JOIN LATERAL plinth._sync_stat(m.id) AS w
     CROSS JOIN LATERAL (
           SELECT t.done, t.total, t.left,
                  plinth._sync_number(v.keys_owed) || CASE v.keys_owed WHEN 1 THEN ' changed key' ELSE ' changed keys' END AS keys,
                  CASE WHEN t.left > 0 THEN pg_catalog.format(' and about %s rows', plinth._sync_number(t.left)) ELSE '' END AS rows
             FROM (SELECT coalesce(sum(a.done), 0)::bigint AS done,
                          coalesce(sum(greatest(a.total, a.done)), 0)::bigint AS total,
                          coalesce(sum(greatest(a.total - a.done, 0)), 0)::bigint AS left
                     FROM plinth.sync_tasks AS a
                    WHERE a.mapping_id = m.id AND a.kind = 'snapshot') AS t) AS k
     ORDER BY v.name
$$;
COMMENT ON FUNCTION plinth.sync_status() IS
'What each sync mapping does, how far it is, what is wrong, and what to do about it: for people; programs read plinth.stat_sync.
ok: false where somebody should look. status: one line; how long something takes is by the rate measured last, or "unknown". action: what to do, NULL for nothing.
Shows the caller''s own mappings, all of them to members of plinth_admin.';

CREATE OR REPLACE FUNCTION plinth.sync_alter(
        name text, columns name[] DEFAULT NULL, field_names text DEFAULT NULL, fields jsonb DEFAULT NULL,
        casts jsonb DEFAULT NULL, filter text DEFAULT NULL, paused boolean DEFAULT NULL,
        rename_to text DEFAULT NULL, lanes integer DEFAULT NULL, reset text[] DEFAULT NULL, query text DEFAULT NULL, via jsonb DEFAULT NULL)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_alter';
COMMENT ON FUNCTION plinth.sync_alter(text, name[], text, jsonb, jsonb, text, boolean, text, integer, text[], text, jsonb) IS
'Changes a mapping in place; only what that changes is sent again.
name: of the mapping. columns, field_names, fields, casts, filter: as of sync_table; NULL leaves them as they are.
paused: as sync_pause and sync_resume. rename_to: the mapping''s new name. lanes: how many workers write it. reset: which of the five go back to the default of sync_table.
query, via: of documents, as of sync_document; another query has none of the via that the one before had.
Errors: 42704 when there is no such mapping, 42501 for those who are not its owner (plinth_admin may pause, rename and change lanes), 42710 for a name in use, 42703 where a declared index is on a field that goes, 42809 for what this kind of mapping does not have, and those of sync_table and sync_document for wrong arguments.';

-- Everything again, as this server was promoted; the lane looks at the fence first.
CREATE OR REPLACE FUNCTION plinth._sync_promoted(mapping_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE plinth.sync_states AS s SET resyncing = true, promoted = true WHERE s.mapping_id = _sync_promoted.mapping_id;
    SELECT plinth._sync_send_again(_sync_promoted.mapping_id);
$$;

CREATE OR REPLACE TRIGGER sync_verify_schedules_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.sync_verify_schedules
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._sync_touch();
ALTER TABLE plinth.sync_verify_schedules ENABLE ALWAYS TRIGGER sync_verify_schedules_touch;

CREATE OR REPLACE FUNCTION plinth.sync_verify_schedule(name text, every interval, repair boolean DEFAULT false)
    RETURNS void LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_verify_schedule';
COMMENT ON FUNCTION plinth.sync_verify_schedule(text, interval, boolean) IS
'Has a mapping verified by itself, as sync_verify does, from now on.
name: of the mapping. every: how long after the beginning of one run the next begins, a second at least; NULL ends the schedule. repair: have what differs written again.
What was found stands in plinth.sync_verify_runs, and is told on channel plinth_sync.
Errors: 42704, 42501 as sync_drop; 22023 for too short a time.';

REVOKE ALL ON FUNCTION plinth._sync_promoted(bigint), plinth._sync_number(bigint), plinth._sync_span(double precision),
    plinth._sync_left(bigint, double precision), plinth.sync_status(), plinth.sync_verify_schedule(text, interval, boolean),
    plinth.sync_alter(text, name[], text, jsonb, jsonb, text, boolean, text, integer, text[], text, jsonb) FROM PUBLIC;
-- On purpose to PUBLIC: each sees what the policies of the tables show, and the others ask who calls.
GRANT EXECUTE ON FUNCTION plinth._sync_number(bigint), plinth._sync_span(double precision),
    plinth._sync_left(bigint, double precision), plinth.sync_status(), plinth.sync_verify_schedule(text, interval, boolean),
    plinth.sync_alter(text, name[], text, jsonb, jsonb, text, boolean, text, integer, text[], text, jsonb) TO PUBLIC;
