/*
 * api_table.c
 *		sync_table(): says that a table is copied to a collection.
 */
#include "postgres.h"

#include "utils/array.h"
#include "utils/rel.h"

#include "sync/create.h"

extern PGDLLEXPORT Datum plinth_sync_table(PG_FUNCTION_ARGS);

static void
read_arguments(FunctionCallInfo fcinfo, PlinthSyncNew *arg)
{
	arg->kind = "table";
	plinth_sync_new_relation(fcinfo, arg, 0, "relation");
	plinth_sync_new_server(fcinfo, arg, 1);
	arg->collection = plinth_sync_api_text(fcinfo, 2);
	arg->name = plinth_sync_api_text(fcinfo, 3);
	arg->fields.columns = PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4);
	plinth_sync_new_fields(fcinfo, arg, 5);
	arg->filter = plinth_sync_api_text(fcinfo, 10);
	plinth_sync_new_on_existing(fcinfo, arg, 11);
	plinth_sync_new_snapshot(fcinfo, arg, 12);
	plinth_sync_new_lanes(fcinfo, arg, 13);
	arg->indexes = plinth_sync_api_text(fcinfo, 14);
}

PG_FUNCTION_INFO_V1(plinth_sync_table);
Datum
plinth_sync_table(PG_FUNCTION_ARGS)
{
	PlinthSyncNew arg = {0};
	PlinthSyncApi api;
	int64 id;

	read_arguments(fcinfo, &arg);
	plinth_sync_new_open(&arg);
	plinth_sync_new_check(&arg);
	plinth_sync_check_fields(RelationGetDescr(arg.rel), plinth_sync_relation_name(arg.rel),
							 &arg.key, &arg.fields);
	if (arg.filter != NULL)
		arg.filter = plinth_sync_check_filter(arg.rel, arg.filter);

	plinth_sync_new_begin(&arg, &api);
	id = plinth_sync_new_insert(&arg);
	plinth_sync_new_end(&arg, &api);
	PG_RETURN_INT64(id);
}
