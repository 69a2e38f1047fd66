/*
 * api.c
 *		What the functions that people call have in common, and the trigger
 *		that tells workers of changes.
 *
 * Rights are decided for the role that calls (GetUserId(), which in an
 * application's SECURITY DEFINER function is that function's owner, as for
 * any other statement); the tables are written as plinth_owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"

#include "sync/api_int.h"
#include "worker/worker.h"

extern PGDLLEXPORT Datum plinth_sync_touch(PG_FUNCTION_ARGS);

void
plinth_sync_api_begin(PlinthSyncApi *api)
{
	api->context = CurrentMemoryContext;
	plinth_base_owner_begin(&api->owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
plinth_sync_api_end(PlinthSyncApi *api)
{
	SPI_finish();
	plinth_base_owner_end(&api->owner);
	MemoryContextSwitchTo(api->context);
}

/* Is role a member of owner, of plinth_admin, or a superuser? */
static bool
may(Oid role, Oid owner)
{
	return has_privs_of_role(role, owner) ||
		   has_privs_of_role(role, get_role_oid("plinth_admin", false));
}

void
plinth_sync_api_require(Oid role, Oid owner, const char *name)
{
	if (!may(role, owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for sync mapping \"%s\"", name),
						errhint("Only its owner and members of plinth_admin may do this.")));
}

void
plinth_sync_api_require_adopted(void)
{
	if (!plinth_worker_is_adopted())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("this database is a copy of the one that delivers"),
						errhint("If this one is to deliver from now on: SELECT plinth.adopt();")));
}

void
plinth_sync_api_target(const char *name, Oid caller, bool lock, PlinthSyncTarget *target)
{
	/* The engine knows the key's columns by number, which outlives a renaming. */
#define FIND_TARGET                                                                                \
	"SELECT m.id, m.relation::oid, m.owner::oid,"                                                  \
	" coalesce((SELECT s.key_attnums FROM plinth.sync_states s WHERE s.mapping_id = m.id),"        \
	"  (SELECT array_agg(coalesce(a.attnum, 0::smallint) ORDER BY k.place)"                        \
	"     FROM unnest(m.key_columns) WITH ORDINALITY AS k (name, place)"                           \
	"     LEFT JOIN pg_attribute a"                                                                \
	"       ON a.attrelid = m.relation AND a.attname = k.name AND NOT a.attisdropped))"            \
	" FROM plinth.sync_mappings m WHERE m.name = $1"
	static PlinthPlan find = {FIND_TARGET, 1, {TEXTOID}, NULL};
	static PlinthPlan find_locked = {FIND_TARGET " FOR NO KEY UPDATE OF m", 1, {TEXTOID}, NULL};
	Datum values[1];
	HeapTuple tuple;
	TupleDesc desc;
	ArrayType *attnums;
	bool isnull;

	values[0] = CStringGetTextDatum(name);
	plinth_base_spi_execute(lock ? &find_locked : &find, values, NULL, !lock, SPI_OK_SELECT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("sync mapping \"%s\" does not exist", name),
						errhint("SELECT name FROM plinth.sync_mappings; lists yours.")));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	target->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	target->name = pstrdup(name);
	target->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	target->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &isnull));
	attnums = DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 4, &isnull));
	target->nkeys = Min(ArrayGetNItems(ARR_NDIM(attnums), ARR_DIMS(attnums)), PLINTH_SYNC_MAX_KEYS);
	memcpy(target->key_attnums, ARR_DATA_PTR(attnums), target->nkeys * sizeof(AttrNumber));
	plinth_sync_api_require(caller, target->owner, name);
}

char *
plinth_sync_api_text(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

char *
plinth_sync_api_text_required(FunctionCallInfo fcinfo, int argument, const char *name)
{
	char *value = plinth_sync_api_text(fcinfo, argument);

	if (value == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errhint("Pass a value for the argument %s.", name)));
	return value;
}

/*
 * Statement trigger on the tables that say what is to be done: a DBA's own
 * change counts as much as the API's.
 */
PG_FUNCTION_INFO_V1(plinth_sync_touch);
Datum
plinth_sync_touch(PG_FUNCTION_ARGS)
{
	(void) plinth_base_trigger_data(fcinfo, "_sync_touch");
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
	return PointerGetDatum(NULL);
}
