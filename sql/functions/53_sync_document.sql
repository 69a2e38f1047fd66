-- sync: documents of any shape.

CREATE OR REPLACE FUNCTION plinth.sync_document(
        name text, server name, collection text, root regclass, query text, via jsonb DEFAULT NULL,
        field_names text DEFAULT 'same', fields jsonb DEFAULT '{}', casts jsonb DEFAULT '{}',
        id_cast text DEFAULT NULL, id_prefix text DEFAULT NULL, on_existing text DEFAULT 'error',
        snapshot boolean DEFAULT true, lanes integer DEFAULT 1, indexes json DEFAULT NULL)
    RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_document';
COMMENT ON FUNCTION plinth.sync_document(text, name, text, regclass, text, jsonb, text, jsonb, jsonb, text, text, text, boolean, integer, json) IS
'Keeps a document for each row of a table, made by a query over any tables, in a collection of MongoDB; returns the id of the mapping.
name, server, collection: of the mapping, a server of mongodb_fdw, and of the target. root: the table, of the caller''s and with a key, whose rows have documents.
query: one SELECT that returns at most one row for each row of root: root''s key columns by their names, which become _id, and the fields; or besides the key one column "document" (jsonb or composite) with all fields.
via: for tables of which it cannot be told which documents their rows concern: an object of "table" -> a SELECT of root''s key, in which $1.column is a column of the changed row; or -> a list of the columns that hold root''s key.
field_names, fields, casts, id_cast, id_prefix, on_existing, snapshot, lanes, indexes: as in sync_table, of the query''s columns.
Errors: those of sync_table; 42601 for what is no SELECT, 22023 for a table whose documents are not certain, 42P17 for functions that are not IMMUTABLE, 55000 for tables whose old rows do not tell enough, 0A000 for what a document cannot depend on; each with a hint.';

REVOKE ALL ON FUNCTION
    plinth.sync_document(text, name, text, regclass, text, jsonb, text, jsonb, jsonb, text, text, text, boolean, integer, json) FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a table, and the function asks who calls.
GRANT EXECUTE ON FUNCTION
    plinth.sync_document(text, name, text, regclass, text, jsonb, text, jsonb, jsonb, text, text, text, boolean, integer, json) TO PUBLIC;

CREATE OR REPLACE FUNCTION plinth.sync_preview(name text, max_documents bigint DEFAULT 10)
    RETURNS TABLE (key text, document text, problem text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 10 AS 'MODULE_PATHNAME', 'plinth_sync_preview';
COMMENT ON FUNCTION plinth.sync_preview(text, bigint) IS
'Returns the documents that a mapping would write now, in the order of their keys; MongoDB is not asked. Rows that fail come behind the others of their 500.
name: of the mapping, which may be paused or blocked, or made by this very transaction. max_documents: how many; NULL for all.
key: as sync_resync takes it. document: relaxed extended JSON; NULL where the row cannot become a document, and then problem says why.
Errors: 42704 when there is no such mapping, 42501 for those who are not members of its owner, 55000 when it cannot be run.';
REVOKE ALL ON FUNCTION plinth.sync_preview(text, bigint) FROM PUBLIC;
-- On purpose to PUBLIC: it asks who calls.
GRANT EXECUTE ON FUNCTION plinth.sync_preview(text, bigint) TO PUBLIC;
-- What loading a mapping asks of the catalogs, as plinth_owner there.
GRANT EXECUTE ON FUNCTION plinth._sync_leaves(oid), plinth._sync_columns(oid), plinth._sync_unseen(oid),
    plinth._sync_is_keyed(oid, smallint[]), plinth._sync_attnums(oid, name[]), plinth._sync_columns_shape(oid, smallint[], jsonb), plinth._sync_field_name(text, boolean),
    plinth._sync_query_shape(bigint), plinth._sync_shape(bigint) TO plinth_owner;
