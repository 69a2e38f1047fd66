/*
 * service.c
 *		The worker of a database's caches: fills those that have a warming
 *		query when it starts, and purges tables of entries.
 *
 * It is there while a cache needs it: one with a table or a warming query, or
 * one that was dropped and has left entries.  Every cache is worked on in
 * transactions of its own; one that fails is reported and does not stop others.
 *
 * Purging goes by parts of bounded size (sql/functions/44_cache_purge.sql), each
 * in a transaction, in turns over all caches that have some left.  How far a pass
 * is stands in plinth.cache_horizons, so that the next worker goes on with it.
 * After a pass that took long its cache is left alone for four times as long, so that
 * one that is large and always in use is not purged all the time.
 *
 * Warming that fails is tried again, after 10 s, then twice as long each time, up
 * to 10 min.  So is one that was complete but for values that were refused, as
 * they were invalidated meanwhile (the transaction that made the cache may still
 * be publishing), but only a few times: where values change that fast, they come
 * by themselves.
 */
#include "postgres.h"

#include <time.h>

#include "cache/service.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define ROUND_MS 10000
#define WARM_RETRY_MAX_MS 600000
#define PURGE_REST 4 /* times as long as it took */
#define PURGE_REST_MAX_MS 600000
#define WARM_REFUSED_TRIES 5

/* A cache that is to be worked on. */
typedef struct Task
{
	int32 cache;
	bool warm;
	TimestampTz updated_at;
	bool again;    /* purging: there is more of it */
	int64 spent;   /* purging: ms of a processor in this round, not of waiting */
	bool done;     /* warming: it did not fail */
	int64 refused; /* warming: values that memory did not take */
} Task;

/* How far a cache is; in memory of the process. */
typedef struct State
{
	int32 cache;
	TimestampTz updated_at; /* of the definition that was warmed */
	int tries;
	TimestampTz next_at;  /* warming; DT_NOEND: done */
	TimestampTz purge_at; /* not before that */
} State;

static State *states = NULL;
static int nstates = 0;

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

/* A cache's state; NULL when there is none. */
static State *
find_state(int32 cache)
{
	for (int i = 0; i < nstates; i++)
	{
		if (states[i].cache == cache)
			return &states[i];
	}
	return NULL;
}

static State *
state_of(int32 cache)
{
	State *state = find_state(cache);

	if (state != NULL)
		return state;
	if (states == NULL)
		states = MemoryContextAlloc(TopMemoryContext, sizeof(State));
	else
		states = repalloc(states, (nstates + 1) * sizeof(State));
	state = &states[nstates++];
	state->cache = cache;
	state->updated_at = DT_NOBEGIN;
	state->tries = 0;
	state->next_at = DT_NOBEGIN;
	state->purge_at = DT_NOBEGIN;
	return state;
}

/* A cache's state, as new when its definition is not the one that was warmed. */
static State *
warmed_of(const Task *task)
{
	State *state = state_of(task->cache);

	if (state->updated_at != task->updated_at)
	{
		state->updated_at = task->updated_at;
		state->tries = 0;
		state->next_at = DT_NOBEGIN;
	}
	return state;
}

/* What there is to do; in the caller's memory. */
static Task *
list_tasks(int *n)
{
	static PlinthPlan plan = {
		.sql = "SELECT c.id, c.warm IS NOT NULL AND c.enabled, c.updated_at FROM plinth.caches c "
			   "UNION SELECT o, false, '-infinity' FROM plinth._cache_orphans() o",
	};
	MemoryContext memory = CurrentMemoryContext;
	TimestampTz now = GetCurrentTimestamp();
	Task *tasks;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	tasks = MemoryContextAllocZero(memory, Max(*n, 1) * sizeof(Task));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		const State *state;
		bool isnull;

		tasks[i].cache = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		tasks[i].warm = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));
		tasks[i].updated_at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
		state = find_state(tasks[i].cache);
		tasks[i].again = state == NULL || now >= state->purge_at;
	}
	SPI_finish();
	return tasks;
}

static void
purge(Task *task)
{
	static PlinthPlan plan = {
		.sql = "SELECT p.again FROM plinth._cache_purge($1) p", .nargs = 1, .argtypes = {INT4OID}};
	Datum value = Int32GetDatum(task->cache);
	bool isnull;

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	task->again = DatumGetBool(value);
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
	State *state = warmed_of(task);
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

/* A part of what there is to purge of a cache; false when the extension is gone. */
static bool
purge_part(Task *task)
{
	clock_t start = clock();
	int64 rest;

	if (!task->again)
		return true;
	/* One that fails is left for the next round. */
	task->again = false;
	if (!run_task(purge, task))
		return false;
	task->spent += (int64) (clock() - start) * 1000 / CLOCKS_PER_SEC;
	rest = Min(task->spent * PURGE_REST, PURGE_REST_MAX_MS);
	if (!task->again && rest > ROUND_MS)
		state_of(task->cache)->purge_at =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), rest - ROUND_MS / 2);
	return true;
}

static bool
more(const Task *tasks, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (tasks[i].again)
			return true;
	}
	return false;
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
		if (!purge_part(&tasks[i]))
			return false;
	}
	while (more(tasks, n) && !plinth_worker_stopping())
	{
		for (int i = 0; i < n && !plinth_worker_stopping(); i++)
		{
			if (!purge_part(&tasks[i]))
				return false;
		}
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
