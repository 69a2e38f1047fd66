/*
 * service.c
 *		The worker of a database's caches: fills those that have a warming
 *		query when it starts, and purges tables of entries.
 *
 * It is there while a cache needs it: one with a table or a warming query, or
 * one that was dropped and has left entries.  Every cache is worked on in a
 * transaction of its own; one that fails is reported and does not stop others.
 */
#include "postgres.h"

#include "cache/service.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define ROUND_MS 10000

/* A cache that is to be worked on. */
typedef struct Task
{
	int32 cache;
	bool warm;
	TimestampTz updated_at;
} Task;

/* Caches that were warmed, as of their definition then; in memory of the process. */
static Task *warmed = NULL;
static int nwarmed = 0;

static int
wanted(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT EXISTS (SELECT FROM plinth.caches c "
			   "WHERE c.durable OR c.overflow OR c.warm IS NOT NULL) "
			   "OR EXISTS (SELECT FROM plinth.cache_durable_entries) "
			   "OR EXISTS (SELECT FROM plinth.cache_entries) "
			   "OR EXISTS (SELECT FROM plinth.cache_invalidations)",
	};
	bool isnull;
	int n;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	n = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return n;
}

static bool
was_warmed(const Task *task)
{
	for (int i = 0; i < nwarmed; i++)
	{
		if (warmed[i].cache == task->cache && warmed[i].updated_at == task->updated_at)
			return true;
	}
	return false;
}

static void
note_warmed(const Task *task)
{
	for (int i = 0; i < nwarmed; i++)
	{
		if (warmed[i].cache == task->cache)
		{
			warmed[i] = *task;
			return;
		}
	}
	if (warmed == NULL)
		warmed = MemoryContextAlloc(TopMemoryContext, sizeof(Task));
	else
		warmed = repalloc(warmed, (nwarmed + 1) * sizeof(Task));
	warmed[nwarmed++] = *task;
}

/* What there is to do; in the caller's memory. */
static Task *
list_tasks(int *n)
{
	static PlinthPlan plan = {
		.sql = "SELECT c.id, c.warm IS NOT NULL AND c.enabled, c.updated_at FROM plinth.caches c "
			   "UNION SELECT e.cache_id, false, '-infinity' FROM "
			   "(SELECT cache_id FROM plinth.cache_horizons "
			   "UNION SELECT cache_id FROM plinth.cache_invalidations "
			   "UNION SELECT cache_id FROM plinth.cache_durable_entries "
			   "UNION SELECT cache_id FROM plinth.cache_entries) e "
			   "WHERE NOT EXISTS (SELECT FROM plinth.caches c WHERE c.id = e.cache_id)",
	};
	MemoryContext memory = CurrentMemoryContext;
	Task *tasks;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	tasks = MemoryContextAllocZero(memory, Max(*n, 1) * sizeof(Task));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		tasks[i].cache = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		tasks[i].warm = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));
		tasks[i].updated_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
	}
	SPI_finish();
	return tasks;
}

static void
purge(Task *task)
{
	static PlinthPlan plan = {
		.sql = "SELECT plinth._cache_purge($1)", .nargs = 1, .argtypes = {INT4OID}};
	Datum value = Int32GetDatum(task->cache);

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	SPI_finish();
}

static void
warm(Task *task)
{
	PlinthCacheDef def;

	if (plinth_cache_by_id(task->cache, &def))
		(void) plinth_cache_warm_run(&def);
}

/* A task in a transaction of its own; false when the extension is gone. */
static bool
run_task(void (*work)(Task *), Task *task)
{
	MemoryContext caller = CurrentMemoryContext;

	if (!plinth_worker_transaction_begin())
		return false;
	PG_TRY ()
		;
	{
		work(task);
		plinth_worker_transaction_end();
	}
	PG_CATCH ()
		;
	{
		ErrorData *error;

		if (plinth_worker_stopping())
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		ereport(WARNING, (errcode(error->sqlerrcode),
						  errmsg("plinth: cache %d: %s", task->cache, error->message)));
		plinth_worker_report("failed", error->message);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return true;
}

/* One round over all caches; false when there is no extension any more. */
static bool
run_round(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Task *tasks;
	int n;

	if (!plinth_worker_transaction_begin())
		return false;
	MemoryContextSwitchTo(caller);
	tasks = list_tasks(&n);
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);

	for (int i = 0; i < n && !plinth_worker_stopping(); i++)
	{
		if (tasks[i].warm && !was_warmed(&tasks[i]))
		{
			note_warmed(&tasks[i]);
			if (!run_task(warm, &tasks[i]))
				return false;
		}
		if (!run_task(purge, &tasks[i]))
			return false;
	}
	return true;
}

static void
service_main(int instance)
{
	MemoryContext memory =
		AllocSetContextCreate(TopMemoryContext, "plinth cache service", ALLOCSET_DEFAULT_SIZES);

	do
	{
		MemoryContextSwitchTo(memory);
		plinth_worker_report("running", NULL);
		if (!run_round())
			return;
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(memory);
	} while (plinth_worker_wait(ROUND_MS));
}

static const PlinthService cache_service = {
	.name = "cache",
	.wanted = wanted,
	.main = service_main,
};

void
plinth_cache_service_init(void)
{
	plinth_worker_service_declare(&cache_service);
}
