/*
 * warm.c
 *		Filling a cache from its warming query.
 *
 * The query runs as the cache's owner, in a security-restricted context, and
 * reads only; and as nobody's request, whoever asks for it, since what it finds is
 * for everybody.  The ticket is taken before its snapshot, so that what is
 * invalidated meanwhile is not put back.
 */
#include "postgres.h"

#include "cache/service.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#define ROWS_AT_ONCE 100

PGDLLEXPORT Datum plinth_cache_warm(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_warm);

/* The query, in the caller's memory; NULL when the cache has none. */
static char *
warming_query(int32 cache)
{
	static PlinthPlan plan = {.sql = "SELECT c.warm FROM plinth.caches c WHERE c.id = $1",
							  .nargs = 1,
							  .argtypes = {INT4OID}};
	MemoryContext memory = CurrentMemoryContext;
	Datum value = Int32GetDatum(cache);
	PlinthAsOwner owner;
	char *query = NULL;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, &value, NULL, true, SPI_OK_SELECT);
	if (SPI_processed == 1)
	{
		query = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (query != NULL)
			query = MemoryContextStrdup(memory, query);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return query;
}

static void
check_columns(TupleDesc desc)
{
	if (desc->natts != 2 || TupleDescAttr(desc, 0)->atttypid != TEXTOID ||
		TupleDescAttr(desc, 1)->atttypid != JSONBOID)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("a warming query must return a key of type text and a value of type "
							   "jsonb"),
						errhint("Such as: SELECT id::text, to_jsonb(t) FROM app.things t")));
}

/* One row; its size.  Counts those that memory refuses.  Rows without a key, and values that are too large, are passed over. */
static int64
keep_row(const PlinthCacheDef *def, HeapTuple tuple, TupleDesc desc, int64 ticket, int64 *refused)
{
	PlinthCacheKey key;
	PlinthCacheValue value;
	bool isnull;
	bool kept;
	Datum datum = SPI_getbinval(tuple, desc, 1, &isnull);
	text *name;

	if (isnull)
		return 0;
	name = DatumGetTextPP(datum);
	memset(&key, 0, sizeof(key));
	memset(&value, 0, sizeof(value));
	key.cache = def->id;
	key.key = VARDATA_ANY(name);
	key.keylen = VARSIZE_ANY_EXHDR(name);
	datum = SPI_getbinval(tuple, desc, 2, &isnull);
	if (!isnull)
	{
		struct varlena *data = PG_DETOAST_DATUM_PACKED(datum);

		value.kind = PLINTH_CACHE_JSONB;
		value.data = VARDATA_ANY(data);
		value.size = VARSIZE_ANY_EXHDR(data);
	}
	if (key.keylen > PLINTH_CACHE_MAX_KEY || !plinth_cache_fits(def, &key, value.size))
		return 0;
	plinth_cache_times(def, 0, &value);
	if (!TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
		!plinth_cache_pending_touches(&key, NULL, 0))
		kept = plinth_cache_store_put(&key, &value, ticket, def->max_bytes);
	else
		kept = plinth_cache_pending_set(&key, &value, ticket, def->max_bytes);
	if (!kept)
		(*refused)++;
	return key.keylen + (int64) value.size;
}

static int64
run_query(const PlinthCacheDef *def, const char *query, int64 ticket, int64 *refused)
{
	SPIPlanPtr plan;
	Portal portal;
	int64 rows = 0;
	int64 bytes = 0;

	SPI_connect();
	PushActiveSnapshot(GetLatestSnapshot());
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR, (errcode(ERRCODE_INVALID_CURSOR_DEFINITION),
						errmsg("the warming query of cache \"%s\" is no query", def->name),
						errhint("Give one SELECT by plinth.cache_alter.")));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	do
	{
		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		check_columns(SPI_tuptable->tupdesc);
		for (uint64 i = 0; i < SPI_processed; i++)
			bytes += keep_row(def, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, ticket, refused);
		rows += SPI_processed;
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed == ROWS_AT_ONCE && bytes <= def->max_bytes);
	SPI_cursor_close(portal);
	PopActiveSnapshot();
	SPI_finish();
	return rows;
}

int64
plinth_cache_warm_run(const PlinthCacheDef *def, int64 *refused)
{
	char *query = warming_query(def->id);
	Oid userid;
	int sec_context;
	int nestlevel;
	int64 ticket;
	int64 rows;

	*refused = 0;
	/* Makes the database known to shared memory: else what is put is forgotten when it is. */
	(void) plinth_cache_generation();
	ticket = plinth_cache_ticket_take(def->id, true);
	if (query == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cache \"%s\" has no warming query", def->name),
						errhint("Give it one by plinth.cache_alter.")));
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(def->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
										   SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	plinth_base_plain_settings();
	plinth_base_context_hide();
	rows = run_query(def, query, ticket, refused);
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	return rows;
}

Datum
plinth_cache_warm(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	int64 refused;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "name"), PLINTH_CACHE_MANAGE, &def);
	PreventCommandDuringRecovery("cache_warm");
	PG_RETURN_INT64(plinth_cache_warm_run(&def, &refused));
}
