/*
 * service.c
 *		The worker of a database's caches: fills those that have a warming
 *		query when it starts, and purges tables of entries.
 *
 * It is there while a cache needs it: one with a table or a warming query, or
 * one that was dropped and has left entries.  Every cache is worked on in a
 * transaction of its own, what a dropped one left in several; one that fails is
 * reported and does not stop others.
 *
 * Warming that fails is tried again, after 10 s, then twice as long each time, up
 * to 10 min.  So is one that was complete but for values that were refused, as
 * they were invalidated meanwhile (the transaction that made the cache may still
 * be publishing), but only a few times: where values change that fast, they come
 * by themselves.
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
#define WARM_RETRY_MAX_MS 600000
#define WARM_REFUSED_TRIES 5

/* A cache that is to be worked on. */
typedef struct Task
{
	int32 cache;
	bool warm;
	bool dropped;
	TimestampTz updated_at;
	bool again;    /* purging: there may be more of it */
	bool done;     /* warming: it did not fail */
	int64 refused; /* warming: values that memory did not take */
} Task;

/* How far warming a cache is, as of its definition then; in memory of the process. */
typedef struct Warmed
{
	int32 cache;
	TimestampTz updated_at;
	int tries;
	TimestampTz next_at; /* DT_NOEND: done */
} Warmed;

static Warmed *warmed = NULL;
static int nwarmed = 0;

static int
wanted(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT WHERE EXISTS (SELECT FROM plinth.caches c "
			   "WHERE c.durable OR c.overflow OR c.warm IS NOT NULL) "
			   "OR EXISTS (SELECT FROM plinth.cache_durable_entries) "
			   "OR EXISTS (SELECT FROM plinth.cache_entries) "
			   "OR EXISTS (SELECT FROM plinth.cache_invalidations)",
	};

	return plinth_base_spi_finds(&plan) ? 1 : 0;
}

/* A cache's state; a new one when its definition is not the one that it is of. */
static Warmed *
warmed_of(const Task *task)
{
	Warmed *state = NULL;

	for (int i = 0; state == NULL && i < nwarmed; i++)
	{
		if (warmed[i].cache == task->cache)
			state = &warmed[i];
	}
	if (state == NULL)
	{
		if (warmed == NULL)
			warmed = MemoryContextAlloc(TopMemoryContext, sizeof(Warmed));
		else
			warmed = repalloc(warmed, (nwarmed + 1) * sizeof(Warmed));
		state = &warmed[nwarmed++];
	}
	else if (state->updated_at == task->updated_at)
		return state;
	state->cache = task->cache;
	state->updated_at = task->updated_at;
	state->tries = 0;
	state->next_at = DT_NOBEGIN;
	return state;
}

/* What there is to do; in the caller's memory. */
static Task *
list_tasks(int *n)
{
	static PlinthPlan plan = {
		.sql = "SELECT c.id, c.warm IS NOT NULL AND c.enabled, c.updated_at, false "
			   "FROM plinth.caches c "
			   "UNION SELECT e.cache_id, false, '-infinity', true FROM "
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
		tasks[i].dropped = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
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
	bool isnull;

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	task->again = task->dropped && DatumGetInt64(value) > 0;
	SPI_finish();
}

static void
warm(Task *task)
{
	PlinthCacheDef def;

	if (plinth_cache_by_id(task->cache, &def))
		(void) plinth_cache_warm_run(&def, &task->refused);
	task->done = true;
}

/* A task in hand. */
typedef struct Step
{
	void (*work)(Task *);
	Task *task;
	bool exists; /* is there still an extension? */
} Step;

static void
take_step(void *arg)
{
	Step *step = arg;

	step->exists = plinth_worker_transaction_begin();
	if (!step->exists)
		return;
	step->work(step->task);
	plinth_worker_transaction_end();
}

/* A task in a transaction of its own; false when the extension is gone. */
static bool
run_task(void (*work)(Task *), Task *task)
{
	Step step = {.work = work, .task = task, .exists = true};
	ErrorData *error = plinth_worker_try(take_step, &step);

	if (error != NULL)
	{
		ereport(WARNING, (errcode(error->sqlerrcode),
						  errmsg("plinth: cache %d: %s", task->cache, error->message)));
		plinth_worker_report("failed", error->message);
		FreeErrorData(error);
	}
	return step.exists;
}

/* Warms a cache if it is due; false when the extension is gone. */
static bool
warm_if_due(Task *task)
{
	Warmed *state = warmed_of(task);
	TimestampTz now = GetCurrentTimestamp();
	int64 delay = (int64) ROUND_MS << Min(state->tries, 10);

	if (now < state->next_at)
		return true;
	state->tries++;
	/* A round may begin a little early. */
	state->next_at = TimestampTzPlusMilliseconds(now, Min(delay, WARM_RETRY_MAX_MS) - ROUND_MS / 2);
	if (!run_task(warm, task))
		return false;
	if (task->done && (task->refused == 0 || state->tries >= WARM_REFUSED_TRIES))
		state->next_at = DT_NOEND;
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
		if (tasks[i].warm && !warm_if_due(&tasks[i]))
			return false;
		do
		{
			tasks[i].again = false;
			if (!run_task(purge, &tasks[i]))
				return false;
		} while (tasks[i].again && !plinth_worker_stopping());
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
