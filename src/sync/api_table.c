/*
 * api_table.c
 *		sync_table(): says that a table is copied to a collection.
 */
#include "postgres.h"

#include "sync/create.h"

extern PGDLLEXPORT Datum plinth_sync_table(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_sync_table);
Datum
plinth_sync_table(PG_FUNCTION_ARGS)
{
	PlinthSyncNew arg = {0};
	PlinthSyncApi api;
	int64 id;

	arg.kind = "table";
	plinth_sync_new_of_table(fcinfo, &arg);
	plinth_sync_new_lanes(fcinfo, &arg, 13);
	arg.indexes = plinth_sync_api_text(fcinfo, 14);
	plinth_sync_new_check_table(&arg);

	plinth_sync_new_begin(&arg, &api);
	id = plinth_sync_new_insert(&arg);
	plinth_sync_new_end(&arg, &api);
	PG_RETURN_INT64(id);
}
