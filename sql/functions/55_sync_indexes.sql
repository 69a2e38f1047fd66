-- sync: indexes of the collections.

CREATE OR REPLACE TRIGGER sync_indexes_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.sync_indexes
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._sync_touch();
ALTER TABLE plinth.sync_indexes ENABLE ALWAYS TRIGGER sync_indexes_touch;

CREATE OR REPLACE FUNCTION plinth.sync_index(name text, index json, rebuild boolean DEFAULT false) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_index';
COMMENT ON FUNCTION plinth.sync_index(text, json, boolean) IS
'Declares an index of a mapping''s collection, or declares it anew; returns its name. It is created in the background.
name: of the mapping. index: {"keys": {"a": 1, "b": -1}, "name": ..., "unique": true, ...}, see docs/sync-api.md; json and not jsonb, since the order of keys counts.
rebuild: where MongoDB has an index of that name with other options, drop it and create it anew; otherwise that is only reported, in plinth.stat_sync_indexes and by sync_verify.
Errors: 42704, 42501 as sync_drop; 22023, 42703 for what cannot be an index of this collection.';

CREATE OR REPLACE FUNCTION plinth.sync_index_drop(name text, index text, forget boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_index_drop';
COMMENT ON FUNCTION plinth.sync_index_drop(text, text, boolean) IS
'Drops a declared index in MongoDB, in the background, and its declaration.
name: of the mapping. index: name of the index. forget: end the declaration alone; MongoDB keeps the index.
Errors: 42704 when there is no such mapping or index, 42501 as sync_drop.';

CREATE OR REPLACE FUNCTION plinth._mongo_index_difference(declared json, listed json) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'plinth_mongo_index_compare';
COMMENT ON FUNCTION plinth._mongo_index_difference(json, json) IS
'What an index as listIndexes tells it has otherwise than declared; NULL for nothing.';
REVOKE ALL ON FUNCTION plinth._mongo_index_difference(json, json) FROM PUBLIC;

CREATE OR REPLACE VIEW plinth.stat_sync_indexes WITH (security_invoker = true) AS
SELECT m.name, m.server_name, m.collection || i.suffix AS collection, i.name AS index, i.definition, i.build, i.state,
       i.reason, i.hint, i.attempts, i.checked_at,
       CASE WHEN i.state <> 'ready' AND pg_catalog.isfinite(i.due_at) THEN i.due_at END AS next_try_at
  FROM plinth.sync_indexes AS i JOIN plinth.sync_mappings AS m ON m.id = i.mapping_id;
COMMENT ON VIEW plinth.stat_sync_indexes IS 'Each declared index: whether MongoDB has it, and what is wrong.';
ALTER VIEW plinth.stat_sync_indexes OWNER TO plinth_owner;

REVOKE ALL ON FUNCTION plinth.sync_index(text, json, boolean), plinth.sync_index_drop(text, text, boolean) FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a table, and each function asks who calls.
GRANT EXECUTE ON FUNCTION plinth.sync_index(text, json, boolean), plinth.sync_index_drop(text, text, boolean) TO PUBLIC;
REVOKE ALL ON plinth.stat_sync_indexes FROM PUBLIC;
GRANT SELECT ON plinth.stat_sync_indexes TO PUBLIC;
