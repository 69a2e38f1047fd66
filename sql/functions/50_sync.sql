-- sync: what goes where, and what can be asked of it.

-- Triggers, ENABLE ALWAYS: a change made by hand or by a restore counts as much as one by the functions.

CREATE OR REPLACE FUNCTION plinth._sync_touch() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_sync_touch';
COMMENT ON FUNCTION plinth._sync_touch() IS
'Tells the workers that mappings or tasks changed.
A statement trigger.';

CREATE OR REPLACE FUNCTION plinth._sync_mapping_added() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO plinth.sync_states (mapping_id, blocked, blocked_hint, blocked_at)
        VALUES (NEW.id, 'restored', format('SELECT plinth.sync_adopt(%L);', NEW.server_name), now())
        ON CONFLICT (mapping_id) DO NOTHING;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION plinth._sync_mapping_added() IS
'Gives each mapping its state: blocked, since what comes from a dump must be adopted first.
A row trigger; sync_table lifts the block in the same transaction.';
ALTER FUNCTION plinth._sync_mapping_added() OWNER TO plinth_owner;

CREATE OR REPLACE TRIGGER sync_mappings_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.sync_mappings
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._sync_touch();
CREATE OR REPLACE TRIGGER sync_mappings_added AFTER INSERT ON plinth.sync_mappings
    FOR EACH ROW EXECUTE FUNCTION plinth._sync_mapping_added();
CREATE OR REPLACE TRIGGER sync_sources_touch AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plinth.sync_sources
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._sync_touch();
CREATE OR REPLACE TRIGGER sync_tasks_touch AFTER INSERT OR DELETE OR TRUNCATE ON plinth.sync_tasks
    FOR EACH STATEMENT EXECUTE FUNCTION plinth._sync_touch();
ALTER TABLE plinth.sync_mappings
    ENABLE ALWAYS TRIGGER sync_mappings_touch,
    ENABLE ALWAYS TRIGGER sync_mappings_added;
ALTER TABLE plinth.sync_sources ENABLE ALWAYS TRIGGER sync_sources_touch;
ALTER TABLE plinth.sync_tasks ENABLE ALWAYS TRIGGER sync_tasks_touch;

-- What people call.  Each asks for its caller's rights: see docs/sync-api.md.

CREATE OR REPLACE FUNCTION plinth.sync_table(
        relation regclass, server name, collection text DEFAULT NULL, name text DEFAULT NULL,
        columns name[] DEFAULT NULL, field_names text DEFAULT 'same', fields jsonb DEFAULT '{}',
        casts jsonb DEFAULT '{}', id_cast text DEFAULT NULL, id_prefix text DEFAULT NULL,
        filter text DEFAULT NULL, on_existing text DEFAULT 'error', snapshot boolean DEFAULT true,
        lanes integer DEFAULT 1, indexes json DEFAULT NULL)
    RETURNS bigint LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_table';
COMMENT ON FUNCTION plinth.sync_table(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, integer, json) IS
'Copies a table to a collection of MongoDB from now on; returns the id of the mapping.
relation: an ordinary or partitioned table of the caller''s, with a key. server: a server of mongodb_fdw on which the table''s owner has USAGE and a user mapping.
collection, name: of the target and of the mapping; by default the table''s name. columns: those to send; NULL for all, later ones too.
field_names: ''same'' or ''camelCase''. fields: field names by column, instead of that. casts: by column, see docs/types.md.
id_cast, id_prefix: how the key becomes _id. filter: what stands after WHERE, over the row''s own columns, IMMUTABLE; rows that stop matching are deleted there.
on_existing: what to do when the collection holds documents already: ''error'', ''replace'' or ''keep''. snapshot: send the rows that exist. lanes: how many workers write it, from 1 to 16.
indexes: those that the collection is to have, as sync_index takes them; made in the background.
Errors: 0A000 for lanes over a key that cannot be shared out, 42809 and 55000 for a table that cannot be synced, 42501 for missing rights, 42710 for a name or collection in use, 22023, 42602, 42701, 42703 for wrong arguments, 53400 without a free slot or background worker; each with a hint.';

CREATE OR REPLACE FUNCTION plinth.sync_drop(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_drop';
COMMENT ON FUNCTION plinth.sync_drop(text) IS
'Ends a mapping; the documents stay where they are.
name: of the mapping. Errors: 42704 when there is none, 42501 for those who are neither its owner nor plinth_admin.';

CREATE OR REPLACE FUNCTION plinth.sync_pause(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_pause';
COMMENT ON FUNCTION plinth.sync_pause(text) IS
'Stops writing a mapping''s documents; changed keys are kept.
name: of the mapping. Pausing twice is pausing once. Errors: 42704, 42501 as sync_drop.';

CREATE OR REPLACE FUNCTION plinth.sync_resume(name text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_resume';
COMMENT ON FUNCTION plinth.sync_resume(text) IS
'Ends sync_pause: what changed meanwhile is written.
name: of the mapping. It does not lift a block, which sync_resync or sync_adopt do. Errors: 42704, 42501 as sync_drop.';

CREATE OR REPLACE FUNCTION plinth.sync_resync(name text, keys text[] DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_resync';
COMMENT ON FUNCTION plinth.sync_resync(text, text[]) IS
'Writes rows again, and deletes documents that have no row; without keys all of them, whatever had stopped the mapping.
name: of the mapping. keys: key values as texts; a key of several columns as an array literal, such as ''{1,a}''.
Errors: 42704, 42501 as sync_drop; 42P01 when the table is gone; the key type''s own for what is no value of it.';

CREATE OR REPLACE FUNCTION plinth.sync_retry(dead_letter bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_retry';
COMMENT ON FUNCTION plinth.sync_retry(bigint) IS
'Tries a dead letter once more: the row''s state of then is sent.
dead_letter: an id of plinth.sync_dead_letters. Errors: 42704 when there is none, 42501 as sync_drop.';

CREATE OR REPLACE FUNCTION plinth.sync_verify(name text, repair boolean DEFAULT false)
    RETURNS TABLE (key text, difference text, document_id text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 100 AS 'MODULE_PATHNAME', 'plinth_sync_verify';
COMMENT ON FUNCTION plinth.sync_verify(text, boolean) IS
'Compares a table with its collection, row by row, and returns each difference; none when both sides are equal.
name: of the mapping. repair: have what differs written again, once this transaction commits.
key: as sync_resync takes it; NULL for a document that no row could have made, which repair leaves alone. difference: ''missing'', ''different'' or ''extra'' (a document without a row). document_id: the _id as extended JSON.
Waits for a snapshot that is under way, and for what is committed to be delivered before it says that something differs.
Errors: 42704, 42501 as sync_drop; 55000 for a mapping that is paused or blocked; 25001 in a transaction that has written; 53400 without a free background worker; HV000 with the reason when MongoDB cannot be read.';

CREATE OR REPLACE FUNCTION plinth.sync_adopt(server name) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_adopt';
COMMENT ON FUNCTION plinth.sync_adopt(name) IS
'Takes over the collections of a server''s mappings, whoever wrote them before, and makes both sides equal.
server: a server of mongodb_fdw. Errors: 42704 when nothing is synced to it, 42501 unless each mapping is the caller''s (or the caller is in plinth_admin), 55000 in a copy of a database (plinth.adopt()).';

CREATE OR REPLACE FUNCTION plinth.adopt() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_adopt_all';
COMMENT ON FUNCTION plinth.adopt() IS
'Says that this database is the one that delivers, not the one that it was copied or restored from; then does what sync_adopt does for every server.
Make sure that the other one does not deliver any more. Errors: 42501 for others than plinth_admin.';

-- Rights.

REVOKE ALL ON FUNCTION plinth._sync_touch(), plinth._sync_mapping_added(), plinth.adopt(),
    plinth.sync_table(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, integer, json),
    plinth.sync_drop(text), plinth.sync_pause(text), plinth.sync_resume(text), plinth.sync_resync(text, text[]),
    plinth.sync_retry(bigint), plinth.sync_verify(text, boolean), plinth.sync_adopt(name) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION plinth.adopt() TO plinth_admin;
-- On purpose to PUBLIC: any role may own a table, and each function asks who calls.
GRANT EXECUTE ON FUNCTION
    plinth.sync_table(regclass, name, text, text, name[], text, jsonb, jsonb, text, text, text, text, boolean, integer, json),
    plinth.sync_drop(text), plinth.sync_pause(text), plinth.sync_resume(text), plinth.sync_resync(text, text[]),
    plinth.sync_retry(bigint), plinth.sync_verify(text, boolean), plinth.sync_adopt(name) TO PUBLIC;
