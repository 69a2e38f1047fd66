/*
 * file_get.c
 *		Reading a file, whole or a range of it.
 *
 * The version is found once, and its chunks are looked up by their numbers: so
 * what is read is of one version, and memory holds the range and one chunk.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/file_int.h"

extern PGDLLEXPORT Datum plinth_sync_file_get(PG_FUNCTION_ARGS);

/* The current version of a name, or one by its id; false when there is none. */
static bool
find_version(const PlinthSyncBucket *bucket, const char *filename, const char *version, char *id,
			 int64 *length)
{
	static PlinthPlan current = {
		"SELECT id, length FROM plinth.files"
		" WHERE bucket_id = $1 AND user_id IS NOT DISTINCT FROM $2 AND filename = $3"
		"   AND replaced_at IS NULL AND hidden_at IS NULL",
		3,
		{INT8OID, UUIDOID, TEXTOID},
		NULL};
	/* The bucket's owner may read what is any user's, by its id. */
	static PlinthPlan any = {"SELECT id, length FROM plinth.files"
							 " WHERE bucket_id = $1 AND (user_id IS NOT DISTINCT FROM $2 OR $5)"
							 "   AND filename = $3 AND id = $4 AND hidden_at IS NULL",
							 5,
							 {INT8OID, UUIDOID, TEXTOID, TEXTOID, BOOLOID},
							 NULL};
	Datum values[5] = {Int64GetDatum(bucket->id), bucket->user, CStringGetTextDatum(filename), 0,
					   BoolGetDatum(bucket->owned)};
	char nulls[6] = "     ";
	bool isnull;

	if (bucket->no_user)
		nulls[1] = 'n';
	if (version != NULL)
		values[3] = CStringGetTextDatum(version);
	plinth_base_spi_execute(version != NULL ? &any : &current, values, nulls, true, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return false;
	strlcpy(id, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1), 25);
	*length =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull));
	return true;
}

/* Copies what a chunk has of the range that starts at byte from of the file; how much. */
static Size
copy_chunk(const char *id, int64 from, char *to, Size wanted)
{
	static PlinthPlan plan = {"SELECT data FROM plinth.file_chunks WHERE files_id = $1 AND n = $2",
							  2,
							  {TEXTOID, INT4OID},
							  NULL};
	int n = (int) (from / PLINTH_SYNC_CHUNK_BYTES);
	Size skip = (Size) (from % PLINTH_SYNC_CHUNK_BYTES);
	Datum values[2] = {CStringGetTextDatum(id), Int32GetDatum(n)};
	bytea *data;
	Size len;
	bool isnull;

	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("chunk %d of file \"%s\" is missing", n, id)));
	data = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	len = VARSIZE_ANY_EXHDR(data);
	if (len <= skip)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("chunk %d of file \"%s\" is too short", n, id)));
	len = Min(len - skip, wanted);
	memcpy(to, VARDATA_ANY(data) + skip, len);
	return len;
}

/* The range as it is there: what lies beyond the end is not. */
static Size
clip_range(FunctionCallInfo fcinfo, int64 length, int64 *from)
{
	int64 count;

	*from = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT64(2);
	if (*from < 0 || (!PG_ARGISNULL(3) && PG_GETARG_INT64(3) < 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("at_offset and byte_count must not be negative")));
	*from = Min(*from, length);
	count = length - *from;
	if (!PG_ARGISNULL(3))
		count = Min(count, PG_GETARG_INT64(3));
	if (count > (int64) (MaxAllocSize - VARHDRSZ))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a file of " INT64_FORMAT " bytes is too large to be read at once", length),
				 errhint("Read it by ranges: pass at_offset and byte_count.")));
	return (Size) count;
}

PG_FUNCTION_INFO_V1(plinth_sync_file_get);
Datum
plinth_sync_file_get(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	char *filename = plinth_sync_api_text_required(fcinfo, 1, "filename");
	char *version = plinth_sync_api_text(fcinfo, 4);
	Oid caller = GetUserId();
	PlinthSyncBucket bucket;
	PlinthSyncApi api;
	bytea *result = NULL;
	char id[25];
	int64 length;

	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_READ, &bucket);
	if (find_version(&bucket, filename, version, id, &length))
	{
		int64 from;
		Size count = clip_range(fcinfo, length, &from);
		MemoryContext work = AllocSetContextCreate(CurrentMemoryContext, "plinth file chunk",
												   ALLOCSET_DEFAULT_SIZES);

		result = MemoryContextAlloc(api.context, VARHDRSZ + count);
		SET_VARSIZE(result, VARHDRSZ + count);
		for (Size done = 0; done < count;)
		{
			MemoryContext old = MemoryContextSwitchTo(work);

			CHECK_FOR_INTERRUPTS();
			done += copy_chunk(id, from + (int64) done, VARDATA(result) + done, count - done);
			SPI_freetuptable(SPI_tuptable);
			MemoryContextSwitchTo(old);
			MemoryContextReset(work);
		}
	}
	plinth_sync_api_end(&api);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(result);
}
