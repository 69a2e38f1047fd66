-- sync: files in chunks (docs/files.md).

-- What a role may know of.  Bytes are read by file_get alone, which asks for the same.
DROP POLICY IF EXISTS file_grants_own ON plinth.file_grants;
CREATE POLICY file_grants_own ON plinth.file_grants FOR SELECT
    USING (pg_catalog.pg_has_role(role, 'USAGE') OR pg_catalog.pg_has_role(owner, 'USAGE'));
DROP POLICY IF EXISTS file_buckets_own ON plinth.file_buckets;
CREATE POLICY file_buckets_own ON plinth.file_buckets FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE') OR id IN (SELECT g.bucket_id FROM plinth.file_grants AS g));
DROP POLICY IF EXISTS files_own ON plinth.files;
CREATE POLICY files_own ON plinth.files FOR SELECT
    USING (bucket_id IN (SELECT b.id FROM plinth.file_buckets AS b
                          WHERE NOT b.per_user OR pg_catalog.pg_has_role(b.owner, 'USAGE'))
           OR (user_id = plinth.current_user_id() AND bucket_id IN (SELECT b.id FROM plinth.file_buckets AS b)));

CREATE OR REPLACE FUNCTION plinth.file_bucket_create(bucket text, per_user boolean DEFAULT false) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_bucket_create';
COMMENT ON FUNCTION plinth.file_bucket_create(text, boolean) IS
'Makes a bucket of files that belongs to the caller; returns its id.
bucket: its name, at most 100 bytes. per_user: each user of the request context has names of his own in it.
Errors: 42602 for an invalid name, 42710 for one in use, 42501 for the roles of requests (plinth.role_anon, plinth.role_authenticated).';

CREATE OR REPLACE FUNCTION plinth.file_bucket_drop(bucket text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_bucket_drop';
COMMENT ON FUNCTION plinth.file_bucket_drop(text) IS
'Removes a bucket with all of its files.
bucket: one of the caller''s. Errors: 42704 when there is none, 42501 for another''s, 2BP01 while it is synced.';

CREATE OR REPLACE FUNCTION plinth.file_bucket_grant(bucket text, grantee regrole, may_write boolean DEFAULT false) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_bucket_grant';
COMMENT ON FUNCTION plinth.file_bucket_grant(text, regrole, boolean) IS
'Lets another role read a bucket''s files, or write them too.
bucket: one of the caller''s. grantee: a role, whose members are meant with it. Errors: 42704, 42501 as file_bucket_drop.';

CREATE OR REPLACE FUNCTION plinth.file_bucket_revoke(bucket text, grantee regrole) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_bucket_revoke';
COMMENT ON FUNCTION plinth.file_bucket_revoke(text, regrole) IS
'Takes back what file_bucket_grant gave.
bucket: one of the caller''s. grantee: a role. Errors: 42704, 42501 as file_bucket_drop.';

CREATE OR REPLACE FUNCTION plinth.file_put(bucket text, filename text, data bytea, content_type text DEFAULT NULL,
        metadata jsonb DEFAULT NULL, finish boolean DEFAULT true) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_put';
COMMENT ON FUNCTION plinth.file_put(text, text, bytea, text, jsonb, boolean) IS
'Writes a file, which replaces one of the same name; returns the id of the version.
bucket, filename: where, and by what name (at most 1000 bytes). data: the bytes. content_type: ''application/octet-stream'' unless it is given. metadata: a JSON object.
finish: false begins an upload, which file_append goes on with and finishes; until then nobody sees it.
Errors: 42704 for an unknown bucket, 42501 for one that the caller may not write, PT401 without a user in a bucket per user, 42602 and 22023 for wrong arguments.';

CREATE OR REPLACE FUNCTION plinth.file_append(upload text, data bytea, finish boolean DEFAULT false,
        at_offset bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_append';
COMMENT ON FUNCTION plinth.file_append(text, bytea, boolean, bigint) IS
'Adds a piece to an upload; returns how many bytes it has then.
upload: what file_put(..., finish => false) returned. data: any number of bytes; NULL for none. finish: makes it a file, which never changes again.
at_offset: how many bytes there must be before, so that a piece is not added twice; NULL: whatever there is.
Errors: 42704 when there is no such upload (or it is another''s, or finished), 55000 for a wrong at_offset, 42501 as file_put.';

CREATE OR REPLACE FUNCTION plinth.file_get(bucket text, filename text, at_offset bigint DEFAULT 0,
        byte_count bigint DEFAULT NULL, version text DEFAULT NULL) RETURNS bytea
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_get';
COMMENT ON FUNCTION plinth.file_get(text, text, bigint, bigint, text) IS
'Reads a file or a range of it; NULL when there is none of that name.
at_offset, byte_count: in bytes; what lies beyond the end is left out, and NULL means all of it. version: an id, to read one version by ranges while others replace it; NULL: the current one.
Errors: 42704, 42501, PT401 as file_put; 54000 for more than 1 GB at once; 22023 for a negative range.';

CREATE OR REPLACE FUNCTION plinth.file_delete(bucket text, filename text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_delete';
COMMENT ON FUNCTION plinth.file_delete(text, text) IS
'Deletes a file with all of its versions; returns whether there was any.
bucket, filename: which. Errors: 42704, 42501, PT401 as file_put.';

CREATE OR REPLACE FUNCTION plinth.file_info(bucket text, filename text, version text DEFAULT NULL,
        OUT id text, OUT length bigint, OUT chunk_size integer, OUT uploaded_at timestamptz,
        OUT content_type text, OUT metadata jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.id, f.length, f.chunk_size, f.uploaded_at, f.content_type, f.metadata
      FROM plinth.files AS f JOIN plinth.file_buckets AS b ON b.id = f.bucket_id
     WHERE b.name = file_info.bucket AND f.filename = file_info.filename AND f.hidden_at IS NULL
       AND CASE WHEN version IS NULL THEN f.replaced_at IS NULL ELSE f.id = version END
       AND (NOT b.per_user OR version IS NOT NULL OR f.user_id IS NOT DISTINCT FROM plinth.current_user_id())
$$;
COMMENT ON FUNCTION plinth.file_info(text, text, text) IS
'Tells what is known of a file but for its bytes; NULLs when there is none, or none that the caller may know of.
bucket, filename: which. version: an id; NULL: the current one.';

CREATE OR REPLACE VIEW plinth.file_versions WITH (security_invoker = true) AS
    SELECT b.name AS bucket, f.filename, f.user_id, f.id, f.length, f.content_type, f.metadata, f.uploaded_at,
           CASE WHEN f.hidden_at IS NOT NULL THEN 'deleted' WHEN f.replaced_at IS NOT NULL THEN 'replaced'
                ELSE 'current' END AS state
      FROM plinth.files AS f JOIN plinth.file_buckets AS b ON b.id = f.bucket_id;
ALTER VIEW plinth.file_versions OWNER TO plinth_owner;
COMMENT ON VIEW plinth.file_versions IS 'Versions of the files that the reader may read, those that are on their way out too.';
REVOKE ALL ON plinth.file_versions FROM PUBLIC;
GRANT SELECT ON plinth.file_versions TO PUBLIC;

CREATE OR REPLACE FUNCTION plinth.sync_bucket(bucket text, server name, collection text DEFAULT NULL,
        name text DEFAULT NULL, on_existing text DEFAULT 'error') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_bucket';
COMMENT ON FUNCTION plinth.sync_bucket(text, name, text, text, text) IS
'Copies a bucket of files to a GridFS bucket of MongoDB from now on; returns the id of the mapping of its files.
bucket: one of the caller''s. server: a server of mongodb_fdw on which the bucket''s owner has USAGE and a user mapping.
collection: what stands before .files and .chunks there, by default the bucket''s name. name: what stands so in the names of the two mappings, by default as the collection.
on_existing: what to do with documents that are there already: ''error'', ''replace'' or ''keep''.
Errors: as file_bucket_drop and sync_table; 42710 for a bucket that is synced already.';

CREATE OR REPLACE FUNCTION plinth._file_column_changed() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'plinth_sync_file_changed';

CREATE OR REPLACE FUNCTION plinth.sync_file(relation regclass, column_name name, server name, bucket text DEFAULT NULL,
        collection text DEFAULT NULL, content_type text DEFAULT NULL, on_existing text DEFAULT 'error') RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'plinth_sync_file_column';
COMMENT ON FUNCTION plinth.sync_file(regclass, name, name, text, text, text, text) IS
'Copies a column of type bytea to a GridFS bucket, a file for each row that has a value; returns the id of the mapping of its files.
relation: an ordinary table of the caller''s, with a key, whose text is the file''s name. column_name: up to plinth.sync_file_max, beyond which a change of the row is refused (54000).
bucket: of the table''s owner, made for it, by default "table.column". collection, server, on_existing: as sync_bucket. content_type: of all of them.
Nobody else may write the table until the transaction ends. Errors: as sync_table and sync_bucket; 42703 and 42804 for a wrong column, 0A000 for a partitioned table.';

-- Half a bucket is none.
CREATE OR REPLACE FUNCTION plinth._sync_bucket_dropped() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM plinth.sync_mappings WHERE bucket_id = OLD.bucket_id;
    RETURN NULL;
END
$$;
ALTER FUNCTION plinth._sync_bucket_dropped() OWNER TO plinth_owner;
CREATE OR REPLACE TRIGGER sync_mappings_bucket AFTER DELETE ON plinth.sync_mappings
    FOR EACH ROW WHEN (OLD.bucket_id IS NOT NULL) EXECUTE FUNCTION plinth._sync_bucket_dropped();
ALTER TABLE plinth.sync_mappings ENABLE ALWAYS TRIGGER sync_mappings_bucket;

-- What of a bucket nobody reads any more: a little at a time, so that neither a
-- transaction nor the WAL of one grows.  A synced one waits for MongoDB.
CREATE OR REPLACE FUNCTION plinth._file_purge(bucket bigint) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    synced constant boolean := EXISTS (SELECT FROM plinth.sync_mappings WHERE bucket_id = bucket);
    too_old constant timestamptz := clock_timestamp()
        - current_setting('plinth.file_grace')::interval;
    abandoned constant timestamptz := clock_timestamp()
        - current_setting('plinth.file_upload_lifetime')::interval;
    gone text[];
    chunks bigint;
    versions bigint;
BEGIN
    DELETE FROM plinth.file_uploads WHERE id = ANY (ARRAY(
        SELECT u.id FROM plinth.file_uploads AS u WHERE u.bucket_id = bucket AND u.touched_at < abandoned
           AND NOT EXISTS (SELECT FROM plinth.file_chunks AS c WHERE c.files_id = u.id)
         LIMIT 100 FOR UPDATE SKIP LOCKED));
    gone := ARRAY(SELECT f.id FROM plinth.files AS f
                   WHERE f.bucket_id = bucket AND f.hidden_at IS NOT NULL
                     AND CASE WHEN synced THEN f.vanished_at ELSE f.hidden_at END <= too_old
                   ORDER BY f.hidden_at LIMIT 100 FOR UPDATE SKIP LOCKED)
        || CASE WHEN NOT synced THEN ARRAY(SELECT f.id FROM plinth.files AS f
                   WHERE f.bucket_id = bucket AND f.hidden_at IS NULL AND f.replaced_at <= too_old
                   ORDER BY f.replaced_at LIMIT 100 FOR UPDATE SKIP LOCKED) END
        || ARRAY(SELECT u.id FROM plinth.file_uploads AS u
                  WHERE u.bucket_id = bucket AND u.touched_at < abandoned LIMIT 100 FOR UPDATE SKIP LOCKED);
    IF cardinality(gone) = 0 THEN
        RETURN 0;
    END IF;
    DELETE FROM plinth.file_chunks WHERE id = ANY (ARRAY(
        SELECT c.id FROM plinth.file_chunks AS c WHERE c.files_id = ANY (gone) LIMIT 200));
    GET DIAGNOSTICS chunks = ROW_COUNT;
    DELETE FROM plinth.files AS f WHERE f.id = ANY (gone)
       AND NOT EXISTS (SELECT FROM plinth.file_chunks AS c WHERE c.files_id = f.id);
    GET DIAGNOSTICS versions = ROW_COUNT;
    RETURN chunks + versions;
END
$$;
ALTER FUNCTION plinth._file_purge(bigint) OWNER TO plinth_owner;

REVOKE ALL ON FUNCTION plinth._file_purge(bigint), plinth.file_bucket_create(text, boolean), plinth.file_bucket_drop(text),
    plinth.file_bucket_grant(text, regrole, boolean), plinth.file_bucket_revoke(text, regrole),
    plinth.file_put(text, text, bytea, text, jsonb, boolean), plinth.file_append(text, bytea, boolean, bigint),
    plinth.file_get(text, text, bigint, bigint, text), plinth.file_delete(text, text), plinth.file_info(text, text, text),
    plinth.sync_bucket(text, name, text, text, text), plinth.sync_file(regclass, name, name, text, text, text, text),
    plinth._file_column_changed(), plinth._sync_bucket_dropped() FROM PUBLIC;
-- On purpose to PUBLIC: any role may own a bucket, and each function asks who calls.
GRANT EXECUTE ON FUNCTION plinth.file_bucket_create(text, boolean), plinth.file_bucket_drop(text),
    plinth.file_bucket_grant(text, regrole, boolean), plinth.file_bucket_revoke(text, regrole),
    plinth.file_put(text, text, bytea, text, jsonb, boolean), plinth.file_append(text, bytea, boolean, bigint),
    plinth.file_get(text, text, bigint, bigint, text), plinth.file_delete(text, text), plinth.file_info(text, text, text),
    plinth.sync_bucket(text, name, text, text, text), plinth.sync_file(regclass, name, name, text, text, text, text)
    TO PUBLIC;
-- Whoever owns a table may have the trigger, which knows by itself whose column it copies.
GRANT EXECUTE ON FUNCTION plinth._file_column_changed() TO PUBLIC;
