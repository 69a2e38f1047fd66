-- sync: several lanes of one mapping.

CREATE OR REPLACE FUNCTION plinth._sync_lane(key text, lanes integer) RETURNS smallint
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_sync_lane_of_key';
COMMENT ON FUNCTION plinth._sync_lane(text, integer) IS
'Which of so many lanes a key belongs to, from 0 on.
key: as sync_dirty holds it. Errors: 22P02 for a malformed key.';

CREATE OR REPLACE FUNCTION plinth._sync_is_shared(key_type oid) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_sync_type_is_shared';
COMMENT ON FUNCTION plinth._sync_is_shared(oid) IS
'Whether keys of a type can be shared out among lanes: no two texts of a value are one _id.';

CREATE OR REPLACE FUNCTION plinth._sync_lanes(mapping_id bigint) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN m.lanes = 1 OR m.kind IN ('files', 'append') THEN 1
                WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                              WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped
                                AND (a.attnum = ANY (s.key_attnums) OR a.attname = ANY (m.key_columns))
                                AND NOT plinth._sync_is_shared(a.atttypid)) THEN 1
                ELSE m.lanes END
      FROM plinth.sync_mappings AS m LEFT JOIN plinth.sync_states AS s ON s.mapping_id = m.id
     WHERE m.id = _sync_lanes.mapping_id
$$;
COMMENT ON FUNCTION plinth._sync_lanes(bigint) IS
'How many lanes write a mapping: as many as it asks for, or one where its key cannot be shared out.';

-- A snapshot is in as many shares as there are lanes.
CREATE OR REPLACE FUNCTION plinth._sync_task_added() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, cursor_key, sent_key, total, lane, old_filter)
    SELECT NEW.mapping_id, NEW.kind, NEW.relation, NEW.cursor_key, NEW.sent_key, 0, l, NEW.old_filter
      FROM pg_catalog.generate_series(1, plinth._sync_lanes(NEW.mapping_id) - 1) AS l;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION plinth._sync_task_added() IS
'Gives each further lane its share of a snapshot.
A row trigger.';
ALTER FUNCTION plinth._sync_task_added() OWNER TO plinth_owner;

-- A snapshot under way is shared out anew: where one lane had it all from where
-- that was, else from the start.
CREATE OR REPLACE FUNCTION plinth._sync_lanes_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    task record;
BEGIN
    IF plinth._sync_lanes(NEW.id) < NEW.lanes THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported',
            MESSAGE = 'this mapping cannot be shared out among lanes',
            DETAIL = 'Files, and rows that are appended in their order, have one lane; so has a key of whose type two texts may be one _id.',
            HINT = 'Use lanes => 1.';
    END IF;
    IF (SELECT pg_catalog.sum(p.n) FROM (SELECT pg_catalog.max(m.lanes) AS n FROM plinth.sync_mappings AS m
                                           GROUP BY m.server_name, m.owner) AS p) > 16 THEN
        RAISE EXCEPTION USING ERRCODE = 'configuration_limit_exceeded',
            MESSAGE = 'more than 16 pairs of server and owner, or lanes of them, cannot be synced from one database',
            HINT = 'Let fewer roles own the tables, fewer servers take them, or use fewer lanes.';
    END IF;
    FOR task IN
        WITH gone AS (DELETE FROM plinth.sync_tasks AS t
                       WHERE t.mapping_id = NEW.id AND t.kind = 'snapshot' RETURNING t.*)
        SELECT g.relation, g.old_filter, pg_catalog.min(g.id) AS first,
               CASE WHEN OLD.lanes = 1 THEN pg_catalog.min(g.cursor_key) END AS cursor_key,
               CASE WHEN OLD.lanes = 1 THEN pg_catalog.min(g.sent_key) END AS sent_key
          FROM gone AS g GROUP BY g.relation, g.old_filter, CASE WHEN OLD.lanes = 1 THEN g.id END ORDER BY 3
    LOOP
        INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, cursor_key, sent_key, total, old_filter)
        VALUES (NEW.id, 'snapshot', task.relation, task.cursor_key, task.sent_key, plinth._sync_rows(task.relation), task.old_filter);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION plinth._sync_lanes_changed() IS
'Shares a snapshot out anew when a mapping gets another number of lanes.
A row trigger. Errors: 0A000 for a key that cannot be shared out, 53400 where there are not so many lanes.';
ALTER FUNCTION plinth._sync_lanes_changed() OWNER TO plinth_owner;

CREATE OR REPLACE TRIGGER sync_tasks_added AFTER INSERT ON plinth.sync_tasks
    FOR EACH ROW WHEN (NEW.kind = 'snapshot' AND NEW.lane = 0) EXECUTE FUNCTION plinth._sync_task_added();
CREATE OR REPLACE TRIGGER sync_mappings_lanes AFTER UPDATE OF lanes ON plinth.sync_mappings
    FOR EACH ROW WHEN (OLD.lanes <> NEW.lanes) EXECUTE FUNCTION plinth._sync_lanes_changed();
ALTER TABLE plinth.sync_tasks ENABLE ALWAYS TRIGGER sync_tasks_added;
ALTER TABLE plinth.sync_mappings ENABLE ALWAYS TRIGGER sync_mappings_lanes;

REVOKE ALL ON FUNCTION plinth._sync_lane(text, integer), plinth._sync_is_shared(oid), plinth._sync_lanes(bigint),
    plinth._sync_task_added(), plinth._sync_lanes_changed() FROM PUBLIC;
-- What writes sync_dirty and sync_tasks does so as plinth_owner.
GRANT EXECUTE ON FUNCTION plinth._sync_lane(text, integer), plinth._sync_is_shared(oid), plinth._sync_lanes(bigint)
    TO plinth_owner;
