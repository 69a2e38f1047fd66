/*
 * file_bucket.c
 *		Buckets of files, and who may do what in them.
 *
 * A bucket belongs to the role that made it.  Its members may do everything,
 * roles that it was granted to may read, or read and write.  In a bucket per
 * user the user of the request context has names of his own; only its owner
 * may call without one, and then means the names of no user.
 */
#include "postgres.h"

#include "catalog/dependency.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "sync/file_int.h"

extern PGDLLEXPORT Datum plinth_sync_file_bucket_create(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_bucket_drop(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_bucket_grant(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_bucket_revoke(PG_FUNCTION_ARGS);

/* What a role that does not own it may do, as PlinthSyncFileAccess; 0: nothing. */
static int
granted(int64 bucket, Oid caller, bool read_only)
{
	static PlinthPlan plan = {"SELECT role::oid, may_write FROM plinth.file_grants"
							  " WHERE bucket_id = $1",
							  1,
							  {INT8OID},
							  NULL};
	Datum value = Int64GetDatum(bucket);
	int most = 0;

	plinth_base_spi_execute(&plan, &value, NULL, read_only, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		Oid role = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
		bool write = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));

		if (has_privs_of_role(caller, role))
			most = Max(most, write ? PLINTH_SYNC_FILE_WRITE : PLINTH_SYNC_FILE_READ);
	}
	return most;
}

/* Whose names are meant. */
static void
take_user(PlinthSyncBucket *bucket)
{
	const PlinthContext *context = plinth_base_context();

	if (context != NULL && context->has_user)
	{
		pg_uuid_t *user = palloc(sizeof(pg_uuid_t));

		*user = context->user_id;
		bucket->user = UUIDPGetDatum(user);
		bucket->no_user = false;
	}
	else if (!bucket->owned)
		ereport(ERROR,
				(errcode(PLINTH_ERRCODE_UNAUTHENTICATED),
				 errmsg("files of bucket \"%s\" belong to users", bucket->name),
				 errhint("Begin a request context with plinth.context_begin(token) first.")));
}

void
plinth_sync_file_bucket(const char *name, Oid caller, PlinthSyncFileAccess access,
						PlinthSyncBucket *bucket)
{
	static PlinthPlan plan = {
		"SELECT id, owner::oid, per_user FROM plinth.file_buckets WHERE name = $1",
		1,
		{TEXTOID},
		NULL};
	Datum value = CStringGetTextDatum(name);
	HeapTuple tuple;
	TupleDesc desc;
	bool isnull;
	bool per_user;

	memset(bucket, 0, sizeof(*bucket));
	/* Who changes something sees what this statement did before. */
	plinth_base_spi_execute(&plan, &value, NULL, access == PLINTH_SYNC_FILE_READ, SPI_OK_SELECT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("file bucket \"%s\" does not exist", name),
						errhint("SELECT name FROM plinth.file_buckets; lists those that you may "
								"use.")));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	bucket->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	bucket->name = pstrdup(name);
	bucket->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	per_user = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
	bucket->owned = has_privs_of_role(caller, bucket->owner);
	bucket->no_user = true;
	if (!bucket->owned &&
		(access == PLINTH_SYNC_FILE_OWN ||
		 granted(bucket->id, caller, access == PLINTH_SYNC_FILE_READ) < (int) access))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for file bucket \"%s\"", name),
						errhint("Its owner may grant it: plinth.file_bucket_grant().")));
	if (per_user && access != PLINTH_SYNC_FILE_OWN)
		take_user(bucket);
}

/* What a request's role owned would be every visitor's, and any visitor could fill it. */
void
plinth_sync_file_refuse_owner(Oid role)
{
	if (role == get_role_oid(plinth_setting_role_anon, true) ||
		role == get_role_oid(plinth_setting_role_authenticated, true))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" of requests cannot own a file bucket",
							   GetUserNameFromId(role, false)),
						errhint("Create it as the application's own role, and grant it to this one "
								"by plinth.file_bucket_grant().")));
}

PG_FUNCTION_INFO_V1(plinth_sync_file_bucket_create);
Datum
plinth_sync_file_bucket_create(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {"INSERT INTO plinth.file_buckets (name, owner, per_user)"
							  " VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING RETURNING id",
							  3,
							  {TEXTOID, REGROLEOID, BOOLOID},
							  NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	Datum values[3] = {CStringGetTextDatum(name), ObjectIdGetDatum(GetUserId()),
					   BoolGetDatum(!PG_ARGISNULL(1) && PG_GETARG_BOOL(1))};
	PlinthSyncApi api;
	bool isnull;
	int64 id;

	if (name[0] == '\0' || strlen(name) > 100)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a file bucket"),
						errhint("A name has from 1 to 100 bytes.")));
	plinth_sync_file_refuse_owner(GetUserId());
	/* DROP ROLE waits, as for what PostgreSQL itself knows to be owned. */
	shdepLockAndCheckObject(AuthIdRelationId, GetUserId());
	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT_RETURNING);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("file bucket \"%s\" already exists", name),
						errhint("Choose another name.")));
	id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	plinth_sync_api_end(&api);
	PG_RETURN_INT64(id);
}

PG_FUNCTION_INFO_V1(plinth_sync_file_bucket_drop);
Datum
plinth_sync_file_bucket_drop(PG_FUNCTION_ARGS)
{
	static PlinthPlan mapped = {
		"SELECT name FROM plinth.sync_mappings WHERE bucket_id = $1 ORDER BY id",
		1,
		{INT8OID},
		NULL};
	/* First: who uploads holds a lock on it. */
	static PlinthPlan drop = {"DELETE FROM plinth.file_buckets WHERE id = $1", 1, {INT8OID}, NULL};
	static PlinthPlan empty = {
		"DELETE FROM plinth.file_chunks WHERE bucket_id = $1", 1, {INT8OID}, NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	Oid caller = GetUserId();
	PlinthSyncBucket bucket;
	PlinthSyncApi api;
	Datum id;

	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_OWN, &bucket);
	id = Int64GetDatum(bucket.id);
	plinth_base_spi_execute(&drop, &id, NULL, false, SPI_OK_DELETE);
	plinth_base_spi_execute(&mapped, &id, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR, (errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						errmsg("file bucket \"%s\" is synced", name),
						errhint("First SELECT plinth.sync_drop(%s); the documents stay then.",
								quote_literal_cstr(SPI_getvalue(SPI_tuptable->vals[0],
																SPI_tuptable->tupdesc, 1)))));
	plinth_base_spi_execute(&empty, &id, NULL, false, SPI_OK_DELETE);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

/* Runs plan with the bucket, the role, the bucket's owner, and whether the role may write. */
static void
change_grant(FunctionCallInfo fcinfo, PlinthPlan *plan, bool may_write, int expect)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "bucket");
	Oid caller = GetUserId();
	PlinthSyncBucket bucket;
	PlinthSyncApi api;
	Datum values[4];

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("role must not be null"),
						errhint("Pass the name of a role.")));
	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(name, caller, PLINTH_SYNC_FILE_OWN, &bucket);
	values[0] = Int64GetDatum(bucket.id);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = ObjectIdGetDatum(bucket.owner);
	values[3] = BoolGetDatum(may_write);
	if (expect == SPI_OK_INSERT)
		shdepLockAndCheckObject(AuthIdRelationId, DatumGetObjectId(values[1]));
	plinth_base_spi_execute(plan, values, NULL, false, expect);
	plinth_sync_api_end(&api);
}

PG_FUNCTION_INFO_V1(plinth_sync_file_bucket_grant);
Datum
plinth_sync_file_bucket_grant(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.file_grants (bucket_id, role, owner, may_write)"
		" VALUES ($1, $2, $3, $4)"
		" ON CONFLICT (bucket_id, role) DO UPDATE SET may_write = excluded.may_write",
		4,
		{INT8OID, REGROLEOID, REGROLEOID, BOOLOID},
		NULL};

	change_grant(fcinfo, &plan, !PG_ARGISNULL(2) && PG_GETARG_BOOL(2), SPI_OK_INSERT);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(plinth_sync_file_bucket_revoke);
Datum
plinth_sync_file_bucket_revoke(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {"DELETE FROM plinth.file_grants WHERE bucket_id = $1 AND role = $2",
							  2,
							  {INT8OID, REGROLEOID},
							  NULL};

	change_grant(fcinfo, &plan, false, SPI_OK_DELETE);
	PG_RETURN_VOID();
}
