-- sync: collections that only grow.

CREATE OR REPLACE FUNCTION plinth.sync_append(
        relation regclass, server name, collection text DEFAULT NULL, name text DEFAULT NULL,
        columns name[] DEFAULT NULL, field_names text DEFAULT 'same', fields jsonb DEFAULT '{}',
        casts jsonb DEFAULT '{}', id_cast text DEFAULT NULL, id_prefix text DEFAULT NULL,
        filter text DEFAULT NULL, on_existing text DEFAULT 'error', snapshot boolean DEFAULT true,
        indexes json DEFAULT NULL, expire_field text DEFAULT NULL, expire_after interval DEFAULT NULL,
        capped_bytes bigint DEFAULT NULL, capped_documents bigint DEFAULT NULL)
    RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_append';
COMMENT ON FUNCTION plinth.sync_append(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, json, text, interval, bigint, bigint) IS
'Adds the rows that are inserted into a table to a collection of MongoDB from now on, once each and in order; returns the id of the mapping.
For logs and events: UPDATE, DELETE and TRUNCATE change nothing there.
relation to snapshot, indexes: as in sync_table; on_existing: ''error'' or ''keep''.
expire_field, expire_after: MongoDB removes a document so long after the date in that field. capped_bytes, capped_documents: the collection is made a capped one.
Errors: those of sync_table; 22023 for bounds that do not go together.';
REVOKE ALL ON FUNCTION
    plinth.sync_append(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, json, text, interval, bigint, bigint) FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a table, and the function asks who calls.
GRANT EXECUTE ON FUNCTION
    plinth.sync_append(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, json, text, interval, bigint, bigint) TO PUBLIC;
