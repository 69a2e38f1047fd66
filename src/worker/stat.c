/*
 * stat.c
 *		What plinth.stat_workers shows: the registry, entry by entry.
 */
#include "postgres.h"

#include "base/base.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "worker/registry.h"

#define COLUMNS 8

static void
put_entry(ReturnSetInfo *rsinfo, const PlinthWorkerEntry *entry)
{
	Datum values[COLUMNS] = {0};
	bool nulls[COLUMNS] = {false};
	char *database = OidIsValid(entry->database) ? get_database_name(entry->database) : NULL;

	/* Gone since its entry was copied. */
	if (OidIsValid(entry->database) && database == NULL)
		return;

	nulls[0] = database == NULL;
	if (database != NULL)
		values[0] = CStringGetTextDatum(database);
	values[1] = CStringGetTextDatum(plinth_worker_service_name(entry->service));
	values[2] = Int32GetDatum(entry->instance);
	nulls[3] = entry->pid == 0;
	values[3] = Int32GetDatum(entry->pid);
	values[4] = CStringGetTextDatum(entry->state);
	nulls[5] = entry->message[0] == '\0';
	values[5] = CStringGetTextDatum(entry->message);
	nulls[6] = entry->started_at == 0;
	values[6] = TimestampTzGetDatum(entry->started_at);
	values[7] = Int32GetDatum(Max(entry->starts - 1, 0));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

PGDLLEXPORT Datum plinth_worker_stat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_worker_stat);

Datum
plinth_worker_stat(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	PlinthWorkerEntry *copy;
	int n;

	InitMaterializedSRF(fcinfo, 0);

	plinth_worker_registry_lock(LW_SHARED);
	n = plinth_worker_registry->nentries;
	copy = palloc(sizeof(PlinthWorkerEntry) * n);
	memcpy(copy, plinth_worker_registry->entries, sizeof(PlinthWorkerEntry) * n);
	plinth_worker_registry_unlock();

	for (int i = 0; i < n; i++)
	{
		if (copy[i].service != PLINTH_WORKER_FREE)
			put_entry(rsinfo, &copy[i]);
	}
	return (Datum) 0;
}
