/*
 * file_sync.c
 *		sync_bucket(): a bucket's files and chunks go to a GridFS bucket.
 *
 * Two mappings over plinth's own tables, each with a filter for the bucket.
 * They belong to the bucket's owner, who must be able to reach the server; the
 * rows are read as plinth_owner, whose tables they are.  The mapping of the
 * chunks is made first, so that it comes first in each turn of the lane.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "decode/decode.h"
#include "sync/create.h"
#include "sync/file_int.h"
#include "sync/index_int.h"

extern PGDLLEXPORT Datum plinth_sync_bucket(PG_FUNCTION_ARGS);

/* One of the two collections. */
typedef struct BucketPart
{
	const char *suffix;
	const char *table;
	const char *filter;
	int ncolumns;
	const char *columns[6];
	const char *fields;
	const char *casts;
	const char *indexes;
} BucketPart;

static const BucketPart parts[] = {
	{"chunks",
	 "file_chunks",
	 "bucket_id = " INT64_FORMAT,
	 3,
	 {"files_id", "n", "data"},
	 "{}",
	 "{\"files_id\": \"objectId\"}",
	 "[{\"keys\": {\"files_id\": 1, \"n\": 1}, \"unique\": true}]"},
	{"files",
	 "files",
	 "bucket_id = " INT64_FORMAT " AND hidden_at IS NULL",
	 6,
	 {"length", "chunk_size", "uploaded_at", "gridfs_name", "content_type", "metadata"},
	 "{\"chunk_size\": \"chunkSize\", \"uploaded_at\": \"uploadDate\","
	 " \"gridfs_name\": \"filename\", \"content_type\": \"contentType\"}",
	 "{}",
	 "[{\"keys\": {\"filename\": 1, \"uploadDate\": 1}}]"},
};

static Jsonb *
json(const char *text)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
}

static void
set_bucket(int64 mapping, int64 bucket)
{
	static PlinthPlan plan = {"UPDATE plinth.sync_mappings SET bucket_id = $2 WHERE id = $1",
							  2,
							  {INT8OID, INT8OID},
							  NULL};
	Datum values[2] = {Int64GetDatum(mapping), Int64GetDatum(bucket)};

	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
}

/* given has what both parts have in common. */
static int64
add_part(const PlinthSyncNew *given, const PlinthSyncBucket *bucket, const BucketPart *part)
{
	static const char *const key[] = {"id"};
	PlinthSyncNew arg = *given;
	PlinthSyncApi api;
	int64 id;

	arg.relation = get_relname_relid(part->table, plinth_base_schema_oid());
	arg.rel = relation_open(arg.relation, AccessShareLock);
	arg.owner = bucket->owner;
	arg.key_columns = plinth_sync_name_array(key, lengthof(key));
	arg.collection = psprintf("%s.%s", given->collection, part->suffix);
	arg.name = psprintf("%s.%s", given->name, part->suffix);
	arg.filter = psprintf(part->filter, bucket->id);
	arg.fields.columns = plinth_sync_name_array(part->columns, part->ncolumns);
	arg.fields.fields = json(part->fields);
	arg.fields.casts = json(part->casts);
	plinth_sync_new_begin(&arg, &api);
	id = plinth_sync_new_insert(&arg);
	set_bucket(id, bucket->id);
	plinth_sync_indexes_declare(id, "", false, part->indexes);
	plinth_sync_new_end(&arg, &api);
	return id;
}

static void
check_free(const PlinthSyncBucket *bucket)
{
	static PlinthPlan plan = {
		"SELECT server_name FROM plinth.sync_mappings WHERE bucket_id = $1", 1, {INT8OID}, NULL};
	Datum id = Int64GetDatum(bucket->id);

	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("file bucket \"%s\" is synced already", bucket->name),
						errhint("A bucket goes to one server.")));
}

/* The bucket, locked against a second call. */
static void
find_bucket(const char *name, PlinthSyncBucket *bucket)
{
	static PlinthPlan lock = {
		"SELECT FROM plinth.file_buckets WHERE id = $1 FOR NO KEY UPDATE", 1, {INT8OID}, NULL};
	Oid caller = GetUserId();
	PlinthSyncApi api;
	Datum id;

	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_OWN, bucket);
	id = Int64GetDatum(bucket->id);
	plinth_base_spi_execute(&lock, &id, NULL, false, SPI_OK_SELECT);
	check_free(bucket);
	bucket->name = NULL;
	plinth_sync_api_end(&api);
	bucket->name = pstrdup(name);
}

int64
plinth_sync_file_map(const char *name, const PlinthSyncNew *given)
{
	PlinthSyncNew arg = *given;
	PlinthSyncBucket bucket;
	int64 id = 0;

	find_bucket(name, &bucket);
	if (arg.collection == NULL)
		arg.collection = pstrdup(name);
	if (arg.name == NULL)
		arg.name = arg.collection;
	if (arg.name[0] == '\0' || strlen(arg.name) > 190)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a sync mapping"),
						errhint("A bucket's name for sync has from 1 to 190 bytes.")));
	plinth_sync_check_server(arg.server, GetUserId(), bucket.owner);
	plinth_decode_require();
	plinth_sync_api_require_adopted();
	arg.kind = "files";
	arg.field_names = "same";
	arg.snapshot = true;
	/* The order in which files and chunks come is that of one lane. */
	arg.lanes = 1;
	arg.fields.id_cast = "objectId";
	for (int i = 0; i < lengthof(parts); i++)
		id = add_part(&arg, &bucket, &parts[i]);
	return id;
}

PG_FUNCTION_INFO_V1(plinth_sync_bucket);
Datum
plinth_sync_bucket(PG_FUNCTION_ARGS)
{
	char *bucket = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	PlinthSyncNew arg = {0};

	plinth_sync_new_server(fcinfo, &arg, 1);
	arg.collection = plinth_sync_api_text(fcinfo, 2);
	arg.name = plinth_sync_api_text(fcinfo, 3);
	plinth_sync_new_on_existing(fcinfo, &arg, 4);
	PG_RETURN_INT64(plinth_sync_file_map(bucket, &arg));
}
