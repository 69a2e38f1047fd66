/*
 * file_put.c
 *		Writing files: whole, piece by piece, and away with them.
 *
 * A version is made once and never changed.  Its chunks are rows of their own,
 * written whole; what is left over of a piece waits in the upload until there
 * is enough of it.  The version's own row comes last: with it, in the same
 * transaction, the version before becomes a replaced one, and so there is at
 * most one that is current of each name.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "sync/file_int.h"

#define MAX_FILENAME 1000
#define MAX_CONTENT_TYPE 255

extern PGDLLEXPORT Datum plinth_sync_file_put(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_append(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_delete(PG_FUNCTION_ARGS);

static void
make_id(PlinthSyncFile *file)
{
	static PlinthPlan plan = {"SELECT plinth.objectid()", 0, {0}, NULL};

	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	strlcpy(file->id, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
			sizeof(file->id));
}

static void
store_chunk(int64 bucket, const char *file, int n, const char *data, Size len)
{
	static PlinthPlan plan = {"INSERT INTO plinth.file_chunks (id, bucket_id, files_id, n, data)"
							  " VALUES (plinth.objectid(), $1, $2, $3, $4)",
							  4,
							  {INT8OID, TEXTOID, INT4OID, BYTEAOID},
							  NULL};
	Datum values[4] = {Int64GetDatum(bucket), CStringGetTextDatum(file), Int32GetDatum(n),
					   PointerGetDatum(cstring_to_text_with_len(data, len))};

	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT);
	pfree(DatumGetPointer(values[1]));
	pfree(DatumGetPointer(values[3]));
}

/* The chunks that are whole, or with last all of it; how many bytes they took. */
static Size
store_chunks(int64 bucket, const char *file, int *n, const char *data, Size len, bool last)
{
	Size done = 0;

	while (len - done >= PLINTH_SYNC_CHUNK_BYTES || (last && len > done))
	{
		Size part = Min(len - done, PLINTH_SYNC_CHUNK_BYTES);

		if (*n == PG_INT32_MAX)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("a file cannot have more than %d chunks", PG_INT32_MAX)));
		CHECK_FOR_INTERRUPTS();
		store_chunk(bucket, file, (*n)++, data + done, part);
		done += part;
	}
	return done;
}

/*
 * The row of a version whose chunks are there.  Somebody else may put the same
 * name at this moment: who comes second waits, and replaces what the first put.
 */
static void
publish(const PlinthSyncBucket *bucket, const PlinthSyncFile *file, int64 length)
{
	static PlinthPlan replace = {
		"UPDATE plinth.files SET replaced_at = clock_timestamp(), replaced_by = $4"
		" WHERE bucket_id = $1 AND user_id IS NOT DISTINCT FROM $2 AND filename = $3"
		"   AND replaced_at IS NULL AND hidden_at IS NULL",
		4,
		{INT8OID, UUIDOID, TEXTOID, TEXTOID},
		NULL};
	static PlinthPlan insert = {
		"INSERT INTO plinth.files (id, bucket_id, user_id, filename, length, content_type,"
		"                          metadata, uploaded_at)"
		" SELECT $4, $1, $2, $3, $5, $6,"
		"        jsonb_build_object('contentType', $6) || coalesce($7, '{}'),"
		"        greatest(date_trunc('milliseconds', clock_timestamp()),"
		"                 (SELECT max(f.uploaded_at) + interval '1 ms' FROM plinth.files AS f"
		"                   WHERE f.bucket_id = $1 AND f.filename = $3))"
		" ON CONFLICT (bucket_id, user_id, filename) WHERE replaced_at IS NULL AND hidden_at IS NULL"
		" DO NOTHING",
		7,
		{INT8OID, UUIDOID, TEXTOID, TEXTOID, INT8OID, TEXTOID, JSONBOID},
		NULL};
	Datum values[7] = {Int64GetDatum(bucket->id),
					   bucket->user,
					   CStringGetTextDatum(file->filename),
					   CStringGetTextDatum(file->id),
					   Int64GetDatum(length),
					   CStringGetTextDatum(file->content_type != NULL ? file->content_type
																	  : "application/octet-stream"),
					   PointerGetDatum(file->metadata)};
	char nulls[8] = "       ";

	if (bucket->no_user)
		nulls[1] = 'n';
	if (file->metadata == NULL)
		nulls[6] = 'n';
	do
	{
		CHECK_FOR_INTERRUPTS();
		plinth_base_spi_execute(&replace, values, nulls, false, SPI_OK_UPDATE);
		plinth_base_spi_execute(&insert, values, nulls, false, SPI_OK_INSERT);
	} while (SPI_processed == 0);
}

static void
check_file(const PlinthSyncFile *file)
{
	Size len = strlen(file->filename);

	if (len == 0 || len > MAX_FILENAME)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a file"),
						errhint("A filename has from 1 to %d bytes.", MAX_FILENAME)));
	if (file->content_type != NULL &&
		(file->content_type[0] == '\0' || strlen(file->content_type) > MAX_CONTENT_TYPE))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid content type"),
						errhint("A content type has from 1 to %d bytes, such as 'image/png'.",
								MAX_CONTENT_TYPE)));
	if (file->metadata != NULL && !JB_ROOT_IS_OBJECT(file->metadata))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("metadata must be a JSON object")));
}

/* Beside the work of others: what of an unsynced bucket is past its grace. */
static void
purge(const PlinthSyncBucket *bucket)
{
	static PlinthPlan plan = {"SELECT plinth._file_purge($1)"
							  " WHERE NOT EXISTS (SELECT FROM plinth.sync_mappings"
							  "                    WHERE bucket_id = $1)",
							  1,
							  {INT8OID},
							  NULL};
	Datum id = Int64GetDatum(bucket->id);

	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
}

void
plinth_sync_file_store(const PlinthSyncBucket *bucket, PlinthSyncFile *file, bytea *data)
{
	int n = 0;
	Size len = VARSIZE_ANY_EXHDR(data);

	check_file(file);
	make_id(file);
	store_chunks(bucket->id, file->id, &n, VARDATA_ANY(data), len, true);
	publish(bucket, file, (int64) len);
	purge(bucket);
}

static void
begin_upload(const PlinthSyncBucket *bucket, PlinthSyncFile *file, bytea *data)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.file_uploads (id, bucket_id, user_id, filename, content_type, metadata,"
		"                                 chunks, tail)"
		" VALUES ($1, $2, $3, $4, coalesce($5, 'application/octet-stream'), coalesce($6, '{}'),"
		"         $7, $8)",
		8,
		{TEXTOID, INT8OID, UUIDOID, TEXTOID, TEXTOID, JSONBOID, INT4OID, BYTEAOID},
		NULL};
	Datum values[8] = {0};
	char nulls[9] = "        ";
	int n = 0;
	Size len = VARSIZE_ANY_EXHDR(data);
	Size done;

	check_file(file);
	make_id(file);
	done = store_chunks(bucket->id, file->id, &n, VARDATA_ANY(data), len, false);
	values[0] = CStringGetTextDatum(file->id);
	values[1] = Int64GetDatum(bucket->id);
	values[2] = bucket->user;
	values[3] = CStringGetTextDatum(file->filename);
	if (file->content_type != NULL)
		values[4] = CStringGetTextDatum(file->content_type);
	values[5] = PointerGetDatum(file->metadata);
	values[6] = Int32GetDatum(n);
	values[7] = PointerGetDatum(cstring_to_text_with_len(VARDATA_ANY(data) + done, len - done));
	if (bucket->no_user)
		nulls[2] = 'n';
	if (file->content_type == NULL)
		nulls[4] = 'n';
	if (file->metadata == NULL)
		nulls[5] = 'n';
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT);
	purge(bucket);
}

/* data may be NULL: nothing. */
static bytea *
data_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument)
			   ? DatumGetByteaPP(DirectFunctionCall1(byteain, CStringGetDatum("")))
			   : PG_GETARG_BYTEA_PP(argument);
}

PG_FUNCTION_INFO_V1(plinth_sync_file_put);
Datum
plinth_sync_file_put(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	PlinthSyncFile file = {0};
	bool finish = PG_ARGISNULL(5) || PG_GETARG_BOOL(5);
	Oid caller = GetUserId();
	PlinthSyncBucket bucket;
	PlinthSyncApi api;
	bytea *data;

	file.filename = plinth_sync_api_text_required(fcinfo, 1, "filename");
	if (PG_ARGISNULL(2) && finish)
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("data must not be null"),
						errhint("An empty file is ''; one that is written piece by piece is begun "
								"with finish => false.")));
	data = data_argument(fcinfo, 2);
	file.content_type = plinth_sync_api_text(fcinfo, 3);
	file.metadata = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_WRITE, &bucket);
	if (finish)
		plinth_sync_file_store(&bucket, &file, data);
	else
		begin_upload(&bucket, &file, data);
	plinth_sync_api_end(&api);
	PG_RETURN_TEXT_P(cstring_to_text(file.id));
}

/* An upload that is locked, and the bucket that it belongs to. */
typedef struct Upload
{
	PlinthSyncBucket bucket;
	PlinthSyncFile file;
	int chunks;
	bytea *tail;
} Upload;

/* Somebody else's is as little there as none. */
static void
no_upload(const char *id)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("there is no upload \"%s\"", id),
					errhint("plinth.file_put(..., finish => false) begins one; a file that is "
							"finished never changes.")));
}

static void
open_upload(const char *id, Oid caller, Upload *upload)
{
	static PlinthPlan plan = {
		"SELECT b.name, u.user_id, u.filename, u.content_type, u.metadata, u.chunks, u.tail"
		"  FROM plinth.file_uploads AS u JOIN plinth.file_buckets AS b ON b.id = u.bucket_id"
		" WHERE u.id = $1 FOR UPDATE OF u",
		1,
		{TEXTOID},
		NULL};
	Datum value = CStringGetTextDatum(id);
	HeapTuple tuple;
	TupleDesc desc;
	Datum user;
	bool no_user;
	bool isnull;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed == 0)
		no_upload(id);
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	user = SPI_getbinval(tuple, desc, 2, &no_user);
	upload->file.filename = SPI_getvalue(tuple, desc, 3);
	upload->file.content_type = SPI_getvalue(tuple, desc, 4);
	upload->file.metadata = DatumGetJsonbPCopy(SPI_getbinval(tuple, desc, 5, &isnull));
	upload->chunks = DatumGetInt32(SPI_getbinval(tuple, desc, 6, &isnull));
	upload->tail = DatumGetByteaPCopy(SPI_getbinval(tuple, desc, 7, &isnull));
	strlcpy(upload->file.id, id, sizeof(upload->file.id));
	plinth_sync_file_bucket(SPI_getvalue(tuple, desc, 1), caller, PLINTH_SYNC_FILE_WRITE,
							&upload->bucket);
	if (!upload->bucket.owned &&
		(no_user != upload->bucket.no_user ||
		 (!no_user &&
		  memcmp(DatumGetPointer(user), DatumGetPointer(upload->bucket.user), UUID_LEN) != 0)))
		no_upload(id);
	upload->bucket.no_user = no_user;
	if (!no_user)
		upload->bucket.user =
			PointerGetDatum(memcpy(palloc(UUID_LEN), DatumGetPointer(user), UUID_LEN));
}

static void
save_upload(const Upload *upload)
{
	static PlinthPlan plan = {
		"UPDATE plinth.file_uploads SET chunks = $2, tail = $3, touched_at = now() WHERE id = $1",
		3,
		{TEXTOID, INT4OID, BYTEAOID},
		NULL};
	Datum values[3] = {CStringGetTextDatum(upload->file.id), Int32GetDatum(upload->chunks),
					   PointerGetDatum(upload->tail)};

	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
}

static void
finish_upload(Upload *upload, int64 length)
{
	static PlinthPlan plan = {"DELETE FROM plinth.file_uploads WHERE id = $1", 1, {TEXTOID}, NULL};
	Datum value = CStringGetTextDatum(upload->file.id);

	store_chunks(upload->bucket.id, upload->file.id, &upload->chunks, VARDATA_ANY(upload->tail),
				 VARSIZE_ANY_EXHDR(upload->tail), true);
	publish(&upload->bucket, &upload->file, length);
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_DELETE);
}

/* Fills up what is left over from before, then takes the piece as it is. */
static void
add_piece(Upload *upload, const bytea *data)
{
	const char *bytes = VARDATA_ANY(data);
	Size len = VARSIZE_ANY_EXHDR(data);
	Size had = VARSIZE_ANY_EXHDR(upload->tail);
	Size used = 0;
	bytea *tail;

	if (had > 0)
	{
		used = Min(len, PLINTH_SYNC_CHUNK_BYTES - had);
		tail = palloc(VARHDRSZ + had + used);
		SET_VARSIZE(tail, VARHDRSZ + had + used);
		memcpy(VARDATA(tail), VARDATA_ANY(upload->tail), had);
		memcpy(VARDATA(tail) + had, bytes, used);
		upload->tail = tail;
		if (had + used < PLINTH_SYNC_CHUNK_BYTES)
			return;
		store_chunks(upload->bucket.id, upload->file.id, &upload->chunks, VARDATA(tail), had + used,
					 false);
	}
	used += store_chunks(upload->bucket.id, upload->file.id, &upload->chunks, bytes + used,
						 len - used, false);
	upload->tail = (bytea *) cstring_to_text_with_len(bytes + used, len - used);
}

PG_FUNCTION_INFO_V1(plinth_sync_file_append);
Datum
plinth_sync_file_append(PG_FUNCTION_ARGS)
{
	char *id = plinth_sync_api_text_required(fcinfo, 0, "upload");
	bytea *data = data_argument(fcinfo, 1);
	bool finish = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Oid caller = GetUserId();
	Upload upload = {0};
	PlinthSyncApi api;
	int64 length;

	plinth_sync_api_begin(&api);
	open_upload(id, caller, &upload);
	length = (int64) upload.chunks * PLINTH_SYNC_CHUNK_BYTES + VARSIZE_ANY_EXHDR(upload.tail);
	if (!PG_ARGISNULL(3) && PG_GETARG_INT64(3) != length)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("upload \"%s\" has " INT64_FORMAT " bytes, not " INT64_FORMAT, id,
							   length, PG_GETARG_INT64(3)),
						errhint("A piece may have arrived before: go on at byte " INT64_FORMAT ".",
								length)));
	add_piece(&upload, data);
	length += VARSIZE_ANY_EXHDR(data);
	if (finish)
		finish_upload(&upload, length);
	else
		save_upload(&upload);
	plinth_sync_api_end(&api);
	PG_RETURN_INT64(length);
}

bool
plinth_sync_file_remove(const PlinthSyncBucket *bucket, const char *filename)
{
	static PlinthPlan plan = {"UPDATE plinth.files SET hidden_at = clock_timestamp()"
							  " WHERE bucket_id = $1 AND user_id IS NOT DISTINCT FROM $2"
							  "   AND filename = $3 AND hidden_at IS NULL",
							  3,
							  {INT8OID, UUIDOID, TEXTOID},
							  NULL};
	Datum values[3] = {Int64GetDatum(bucket->id), bucket->user, CStringGetTextDatum(filename)};
	char nulls[4] = "   ";
	bool found;

	if (bucket->no_user)
		nulls[1] = 'n';
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_UPDATE);
	found = SPI_processed > 0;
	purge(bucket);
	return found;
}

PG_FUNCTION_INFO_V1(plinth_sync_file_delete);
Datum
plinth_sync_file_delete(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	char *filename = plinth_sync_api_text_required(fcinfo, 1, "filename");
	Oid caller = GetUserId();
	PlinthSyncBucket bucket;
	PlinthSyncApi api;
	bool found;

	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_WRITE, &bucket);
	found = plinth_sync_file_remove(&bucket, filename);
	plinth_sync_api_end(&api);
	PG_RETURN_BOOL(found);
}
