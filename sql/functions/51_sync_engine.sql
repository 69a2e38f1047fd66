-- sync: what the engine asks of the catalogs.

CREATE OR REPLACE FUNCTION plinth._sync_leaves(relation oid) RETURNS oid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.array_agg(t.relid::oid ORDER BY t.relid::oid), '{}')
      FROM pg_catalog.pg_partition_tree(relation::regclass) AS t
     WHERE t.isleaf AND t.relid::oid <> relation
$$;

CREATE OR REPLACE FUNCTION plinth._sync_columns(relation oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.jsonb_object_agg(a.attnum, a.attname)
      FROM pg_catalog.pg_attribute AS a
     WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- Which of a table and its partitions has rows that are not in the WAL: '' for none.
CREATE OR REPLACE FUNCTION plinth._sync_unseen(relation oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.string_agg(c.oid::text, ' ' ORDER BY c.oid), '')
      FROM pg_catalog.pg_class AS c
     WHERE c.oid IN (SELECT relation UNION ALL SELECT unnest(plinth._sync_leaves(relation)))
       AND (c.relpersistence <> 'p' OR c.relkind NOT IN ('r', 'p'))
$$;

CREATE OR REPLACE FUNCTION plinth._sync_rows(relation oid) RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'plinth_sync_rows';
COMMENT ON FUNCTION plinth._sync_rows(oid) IS
'About how many rows a table and its partitions have, by the statistics and the size that there is now.';

-- Whether a unique index still makes these columns a key; NULL when there is no such table.
CREATE OR REPLACE FUNCTION plinth._sync_is_keyed(relation oid, key_attnums smallint[]) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_catalog.pg_index AS i
                    WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                      AND i.indpred IS NULL AND i.indexprs IS NULL
                      AND (i.indkey::smallint[])[0:i.indnkeyatts - 1] <@ key_attnums)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                            WHERE a.attrelid = c.oid AND a.attnum = ANY (key_attnums) AND NOT a.attnotnull)
      FROM pg_catalog.pg_class AS c
     WHERE c.oid = relation AND key_attnums IS NOT NULL
$$;

-- The columns' numbers, in their order, as far as they are there by their names.
CREATE OR REPLACE FUNCTION plinth._sync_attnums(relation oid, columns name[]) RETURNS smallint[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.array_agg(a.attnum ORDER BY k.place), '{}')
      FROM pg_catalog.unnest(columns) WITH ORDINALITY AS k (name, place)
      JOIN pg_catalog.pg_attribute AS a
        ON a.attrelid = relation AND a.attname = k.name AND NOT a.attisdropped
$$;

CREATE OR REPLACE FUNCTION plinth._sync_field_name(column_name text, camel boolean) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_sync_field_name';
COMMENT ON FUNCTION plinth._sync_field_name(text, boolean) IS
'The field that a column becomes, where fields does not say.';

-- A table's columns, with the labels and attributes of their types: those of seen, or NULL for all; under
-- names of their own (by number) or as the table calls them.
CREATE OR REPLACE FUNCTION plinth._sync_columns_shape(relation oid, seen smallint[], names jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.string_agg(
               pg_catalog.format('%s:%I:%s%s%s', a.attnum, coalesce(names ->> a.attnum::text, a.attname::text),
                                 pg_catalog.format_type(a.atttypid, a.atttypmod),
                                 (SELECT '{' || pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ','
                                                                      ORDER BY e.enumsortorder) || '}'
                                    FROM pg_catalog.pg_enum AS e
                                   WHERE e.enumtypid IN (t.oid, t.typelem, t.typbasetype)),
                                 (SELECT '(' || pg_catalog.string_agg(
                                             pg_catalog.format('%I %s', c.attname,
                                                               pg_catalog.format_type(c.atttypid, c.atttypmod)),
                                             ',' ORDER BY c.attnum) || ')'
                                    FROM pg_catalog.pg_type AS r
                                    JOIN pg_catalog.pg_attribute AS c ON c.attrelid = r.typrelid
                                   WHERE r.oid IN (t.oid, t.typelem, t.typbasetype) AND r.typrelid <> 0
                                     AND c.attnum > 0 AND NOT c.attisdropped)),
               ';' ORDER BY a.attnum), '')
      FROM pg_catalog.pg_attribute AS a
      JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
     WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
       AND (seen IS NULL OR a.attnum = ANY (seen))
$$;

-- What else a document depends on: its query, and the tables that stand in it.
CREATE OR REPLACE FUNCTION plinth._sync_query_shape(mapping_id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.concat_ws('|', m.query,
               (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', v.source, v.relation::oid, v.columns, v.roots), ';'
                                             ORDER BY v.source)
                  FROM plinth.sync_sources AS v WHERE v.mapping_id = m.id),
               -- Only columns that it names are read, unless it has whole rows.
               (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', r.relation,
                                                                  plinth._sync_unseen(r.relation),
                                                                  plinth._sync_columns_shape(r.relation, r.seen, NULL)), ';'
                                             ORDER BY r.relation)
                  FROM (SELECT v.relation::oid AS relation,
                               CASE WHEN pg_catalog.bool_and(v.reads IS NOT NULL)
                                    THEN plinth._sync_attnums(v.relation, pg_catalog.array_agg(DISTINCT c.name)) END AS seen
                          FROM plinth.sync_sources AS v CROSS JOIN LATERAL pg_catalog.unnest(v.columns || v.reads) AS c (name)
                         WHERE v.mapping_id = m.id GROUP BY v.relation) AS r))
      FROM plinth.sync_mappings AS m
     WHERE m.id = _sync_query_shape.mapping_id AND m.query IS NOT NULL
$$;

-- The partitions of the tables that stand in its query.
CREATE OR REPLACE FUNCTION plinth._sync_source_leaves(mapping_id bigint) RETURNS oid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_catalog.array_agg(DISTINCT l.leaf), '{}')
      FROM plinth.sync_sources AS v CROSS JOIN LATERAL pg_catalog.unnest(plinth._sync_leaves(v.relation)) AS l (leaf)
     WHERE v.mapping_id = _sync_source_leaves.mapping_id
$$;

-- Everything that decides what documents look like, apart from the rows, in three words: what is every
-- document's (how _id is made; of a query, all of it; and whether a table is in the WAL: what changed while it
-- was not is known to nobody); the fields as they come out; which rows.
CREATE OR REPLACE FUNCTION plinth._sync_shape(mapping_id bigint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.md5(pg_catalog.concat_ws('|', m.id_cast, m.id_prefix, m.collection, m.server_name, plinth._sync_unseen(m.relation),
               CASE m.kind WHEN 'append' THEN NULL
                           WHEN 'document' THEN pg_catalog.concat_ws('|', m.field_names, m.fields, m.casts, plinth._sync_query_shape(m.id),
                                                    plinth._sync_columns_shape(m.relation, c.keys || c.sent, NULL))
                           -- The name of one column is not in _id; those of several are.
                           ELSE plinth._sync_columns_shape(m.relation, c.keys, c.key_names) END))
           || ' ' ||
           CASE WHEN m.kind = 'document' THEN '-'
                ELSE pg_catalog.md5(plinth._sync_columns_shape(m.relation, CASE WHEN m.kind = 'append' THEN c.keys || c.sent ELSE c.sent END,
                                                               c.names)) END
           || ' ' || coalesce(pg_catalog.md5(m.filter), '-')
      FROM plinth.sync_mappings AS m
      LEFT JOIN plinth.sync_states AS s ON s.mapping_id = m.id
     CROSS JOIN LATERAL (
         SELECT coalesce(pg_catalog.array_agg(a.attnum) FILTER (WHERE k.is_key), '{}') AS keys,
                coalesce(pg_catalog.array_agg(a.attnum) FILTER (
                    WHERE a.attname = ANY (m.columns) OR m.fields ? a.attname::text
                       OR (m.columns IS NULL AND (m.kind = 'document' OR NOT k.is_key))), '{}') AS sent,
                pg_catalog.jsonb_object_agg(a.attnum, CASE WHEN pg_catalog.cardinality(m.key_columns) > 1 THEN f.name ELSE '' END) AS key_names,
                pg_catalog.jsonb_object_agg(a.attnum, pg_catalog.concat_ws(' ', f.name, m.casts ->> a.attname::text)) AS names
           FROM pg_catalog.pg_attribute AS a
          CROSS JOIN LATERAL (SELECT coalesce(a.attnum = ANY (s.key_attnums), a.attname = ANY (m.key_columns)) AS is_key) AS k
          CROSS JOIN LATERAL (SELECT coalesce(m.fields ->> a.attname::text,
                                              plinth._sync_field_name(a.attname::text, m.field_names = 'camelCase')) AS name) AS f
          WHERE a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped) AS c
     WHERE m.id = _sync_shape.mapping_id
$$;

-- The name that a column has now which was called so when the mapping was last settled.
CREATE OR REPLACE FUNCTION plinth._sync_renamed(relation oid, columns_seen jsonb, column_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((SELECT a.attname::text
                       FROM pg_catalog.jsonb_each_text(columns_seen) AS o (attnum, attname)
                       JOIN pg_catalog.pg_attribute AS a
                         ON a.attrelid = relation AND a.attnum = o.attnum::smallint AND NOT a.attisdropped
                      WHERE o.attname = column_name), column_name)
$$;

-- What was appended stays, with or without its row.
-- A sweep that has not begun does; one under way is left to end, or it never
-- might where a reason to sweep comes often.
CREATE OR REPLACE FUNCTION plinth._sync_sweep(mapping_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO plinth.sync_tasks (mapping_id, kind, relation)
    SELECT m.id, 'sweep', m.relation FROM plinth.sync_mappings AS m
     WHERE m.id = _sync_sweep.mapping_id AND m.kind <> 'append'
       AND NOT EXISTS (SELECT FROM plinth.sync_tasks AS t
                        WHERE t.mapping_id = m.id AND t.kind = 'sweep' AND t.cursor_id IS NULL)
$$;

-- Every row again, and away with what no row stands behind.  A snapshot or a
-- sweep that is under way starts anew; dead letters are judged anew.
CREATE OR REPLACE FUNCTION plinth._sync_send_again(mapping_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM plinth.sync_tasks AS t WHERE t.mapping_id = _sync_send_again.mapping_id;
    DELETE FROM plinth.sync_dead_letters AS l WHERE l.mapping_id = _sync_send_again.mapping_id;
    INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, total)
    SELECT m.id, 'snapshot', m.relation, plinth._sync_rows(m.relation)
      FROM plinth.sync_mappings AS m WHERE m.id = _sync_send_again.mapping_id;
    SELECT plinth._sync_sweep(_sync_send_again.mapping_id);
$$;

-- What another definition of the fields or of the filter changes.  Rows are sent, and where only the filter is
-- another one only those that match one of the two and not the other: they are written or deleted.
CREATE OR REPLACE FUNCTION plinth._sync_send_changed(mapping_id bigint, fields_changed boolean, filter_changed boolean, old_filter text)
    RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    this      bigint := _sync_send_changed.mapping_id;
    sent_part boolean := EXISTS (SELECT FROM plinth.sync_tasks AS t WHERE t.mapping_id = _sync_send_changed.mapping_id AND t.kind = 'snapshot');
BEGIN
    IF filter_changed AND (fields_changed OR sent_part)
       OR EXISTS (SELECT FROM plinth.sync_tasks AS t WHERE t.mapping_id = this AND t.old_filter IS NOT NULL) THEN
        -- Documents are by more than one definition, or what an earlier filter left is still to be deleted.
        PERFORM plinth._sync_send_again(this);
        RETURN;
    END IF;
    IF filter_changed THEN
        -- How a dead letter's document is nobody knows.
        INSERT INTO plinth.sync_dirty AS d (mapping_id, key, lane)
        SELECT l.mapping_id, l.key, plinth._sync_lane(l.key, plinth._sync_lanes(this))
          FROM plinth.sync_dead_letters AS l WHERE l.mapping_id = this
            ON CONFLICT (mapping_id, md5(key)) DO UPDATE
               SET suspect = d.suspect OR d.zombie_stage > 0 OR d.sent_at IS NOT NULL, zombie_stage = 0,
                   due_at = '-infinity', sent_at = NULL, attempts = 0;
    ELSE
        DELETE FROM plinth.sync_tasks AS t WHERE t.mapping_id = this AND t.kind = 'snapshot';
    END IF;
    DELETE FROM plinth.sync_dead_letters AS l WHERE l.mapping_id = this;
    INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, total, old_filter)
    SELECT m.id, 'snapshot', m.relation, plinth._sync_rows(m.relation), CASE WHEN filter_changed THEN coalesce(_sync_send_changed.old_filter, 'true') END
      FROM plinth.sync_mappings AS m WHERE m.id = this;
END
$$;

-- Follows renamed columns in the mapping's own row.  What documents have is called as their query calls it.
CREATE OR REPLACE FUNCTION plinth._sync_follow(mapping_id bigint, columns_seen jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE plinth.sync_mappings AS m
       SET key_columns = (SELECT pg_catalog.array_agg(plinth._sync_renamed(m.relation, columns_seen, k.name::text)::name
                                                      ORDER BY k.place)
                            FROM pg_catalog.unnest(m.key_columns) WITH ORDINALITY AS k (name, place))
     WHERE m.id = _sync_follow.mapping_id;
    UPDATE plinth.sync_mappings AS m
       SET columns = (SELECT pg_catalog.array_agg(plinth._sync_renamed(m.relation, columns_seen, k.name::text)::name
                                                  ORDER BY k.place)
                        FROM pg_catalog.unnest(m.columns) WITH ORDINALITY AS k (name, place)),
           fields = coalesce((SELECT pg_catalog.jsonb_object_agg(
                                         plinth._sync_renamed(m.relation, columns_seen, f.key), f.value)
                                FROM pg_catalog.jsonb_each(m.fields) AS f), '{}'),
           casts = coalesce((SELECT pg_catalog.jsonb_object_agg(
                                        plinth._sync_renamed(m.relation, columns_seen, f.key), f.value)
                               FROM pg_catalog.jsonb_each(m.casts) AS f), '{}')
     WHERE m.id = _sync_follow.mapping_id AND m.kind <> 'document'
$$;

-- Settles what changed in a table's definition since its rows were last sent:
-- renamed columns are followed, and what must be sent or swept becomes tasks.
-- Returns whether anything had changed.
CREATE OR REPLACE FUNCTION plinth._sync_settle(mapping_id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    m          plinth.sync_mappings;
    s          plinth.sync_states;
    now_seen   jsonb;
    now_leaves oid[];
    now_source_leaves oid[];
    now_shape  text;
    was        text[];
    becomes    text[];
    moved      boolean := false;
BEGIN
    -- Nearly always nothing has changed, and then nothing is locked or written.
    IF EXISTS (SELECT FROM plinth.sync_mappings AS t JOIN plinth.sync_states AS u ON u.mapping_id = t.id
                WHERE t.id = _sync_settle.mapping_id AND u.key_attnums IS NOT NULL
                  AND (u.shape, u.leaves, u.source_leaves, u.columns_seen) IS NOT DISTINCT FROM
                      (plinth._sync_shape(t.id), plinth._sync_leaves(t.relation), plinth._sync_source_leaves(t.id),
                       plinth._sync_columns(t.relation)))
    THEN
        RETURN false;
    END IF;
    SELECT * INTO m FROM plinth.sync_mappings AS t WHERE t.id = _sync_settle.mapping_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO plinth.sync_states (mapping_id) VALUES (m.id) ON CONFLICT DO NOTHING;
    SELECT * INTO s FROM plinth.sync_states AS t WHERE t.mapping_id = m.id FOR UPDATE;
    now_seen := plinth._sync_columns(m.relation);
    IF now_seen IS NULL THEN
        RETURN false;
    END IF;
    now_leaves := plinth._sync_leaves(m.relation);
    now_source_leaves := plinth._sync_source_leaves(m.id);

    IF s.columns_seen <> now_seen THEN
        PERFORM plinth._sync_follow(m.id, s.columns_seen);
    END IF;
    IF s.key_attnums IS NULL THEN
        UPDATE plinth.sync_states AS t
           SET key_attnums = (SELECT pg_catalog.array_agg(a.attnum ORDER BY k.place)
                                FROM pg_catalog.unnest(m.key_columns) WITH ORDINALITY AS k (name, place)
                                JOIN pg_catalog.pg_attribute AS a
                                  ON a.attrelid = m.relation AND a.attname = k.name AND NOT a.attisdropped)
         WHERE t.mapping_id = m.id;
    END IF;

    now_shape := plinth._sync_shape(m.id);
    was := pg_catalog.string_to_array(s.shape, ' ');
    becomes := pg_catalog.string_to_array(now_shape, ' ');
    IF was[1] <> becomes[1] THEN
        PERFORM plinth._sync_send_again(m.id);
    -- Rows that a joined table lost or got by a partition are not in the WAL; one that is empty brings none.
    ELSIF NOT s.source_leaves <@ now_source_leaves
          OR EXISTS (SELECT FROM pg_catalog.unnest(now_source_leaves) AS l
                      WHERE l <> ALL (s.source_leaves) AND coalesce(pg_catalog.pg_relation_size(l), 1) > 0) THEN
        PERFORM plinth._sync_send_again(m.id);
    ELSE
        IF s.leaves <> now_leaves THEN
            INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, total)
            SELECT m.id, 'snapshot', l, plinth._sync_rows(l) FROM pg_catalog.unnest(now_leaves) AS l WHERE l <> ALL (s.leaves);
            IF NOT s.leaves <@ now_leaves THEN
                PERFORM plinth._sync_sweep(m.id);
            END IF;
        END IF;
        -- What was appended stays as it was: another definition is of later rows only.
        IF was <> becomes AND m.kind <> 'append' THEN
            PERFORM plinth._sync_send_changed(m.id, was[2] <> becomes[2], was[3] <> becomes[3], s.filter_sent);
        END IF;
    END IF;
    moved := (s.shape, s.leaves, s.source_leaves, s.columns_seen)
             IS DISTINCT FROM (now_shape, now_leaves, now_source_leaves, now_seen);
    IF moved THEN
        UPDATE plinth.sync_states AS t
           SET shape = now_shape, filter_sent = m.filter, leaves = now_leaves, source_leaves = now_source_leaves, columns_seen = now_seen
         WHERE t.mapping_id = m.id;
    END IF;
    RETURN moved;
END
$$;

REVOKE ALL ON FUNCTION plinth._sync_rows(oid), plinth._sync_unseen(oid), plinth._sync_is_keyed(oid, smallint[]), plinth._sync_leaves(oid), plinth._sync_columns(oid), plinth._sync_shape(bigint),
    plinth._sync_attnums(oid, name[]), plinth._sync_columns_shape(oid, smallint[], jsonb), plinth._sync_field_name(text, boolean), plinth._sync_query_shape(bigint),
    plinth._sync_source_leaves(bigint),
    plinth._sync_renamed(oid, jsonb, text), plinth._sync_settle(bigint), plinth._sync_send_again(bigint), plinth._sync_send_changed(bigint, boolean, boolean, text),
    plinth._sync_sweep(bigint), plinth._sync_follow(bigint, jsonb) FROM PUBLIC;
-- sync_table and sync_resync ask as plinth_owner.
GRANT EXECUTE ON FUNCTION plinth._sync_rows(oid) TO plinth_owner;
