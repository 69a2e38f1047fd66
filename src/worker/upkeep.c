/*
 * upkeep.c
 *		The loop of a service that writes to tables what shared memory has
 *		gathered, every so often, and now and then deletes rows whose time is over.
 *
 * What fails is told and tried again at the next turn.  A flush that is due is
 * done before a purge that is; the clock of either goes on from when it was
 * done, so that one which takes long does not follow itself.
 *
 * A service may flush once more when it is told to stop.  SIGTERM would end it at
 * its first wait, also one in the middle of a turn, with which a flush would be
 * lost.  So in a turn of such a service the stop is deferred, and what it waits
 * for must come soon: a lock that is not there at once, or a standby, holds up no
 * shutdown.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "worker/process.h"
#include "worker/worker.h"

#define PURGE_INTERVAL (10 * USECS_PER_MINUTE)
/* No wait for the time of a flush is longer, so that a shorter interval is soon obeyed. */
#define SLICE_MS 1000

ErrorData *
plinth_worker_try(void (*work)(void *), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY ()
		;
	{
		work(arg);
	}
	PG_CATCH ()
		;
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return error;
}

typedef struct Turn
{
	const PlinthUpkeep *upkeep;
	bool flush;
	bool purge;
	bool goes_on;
} Turn;

static void
take_turn(void *arg)
{
	Turn *turn = arg;

	turn->goes_on = turn->upkeep->work(turn->flush, turn->purge);
}

/* False when the worker must end. */
static bool
try_turn(Turn *turn)
{
	static bool failed = false;
	ErrorData *error;

	turn->goes_on = true;
	plinth_worker_process_defer_stop(turn->upkeep->flush_at_end);
	error = plinth_worker_try(take_turn, turn);
	plinth_worker_process_defer_stop(false);
	if (error == NULL)
	{
		failed = false;
		return turn->goes_on;
	}
	/* Whoever waits for a row of ours is no fault; anything else is logged once. */
	if (!failed && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ereport(WARNING, (errcode(error->sqlerrcode),
						  errmsg("%s: %s", turn->upkeep->failure, error->message)));
	plinth_worker_report("retrying", error->message);
	failed = true;
	FreeErrorData(error);
	return true;
}

static bool
is_due(TimestampTz last, TimestampTz now, int64 interval)
{
	return last == DT_NOBEGIN || now < last || now - last >= interval;
}

void
plinth_worker_upkeep(const PlinthUpkeep *upkeep)
{
	Turn turn = {.upkeep = upkeep};
	TimestampTz purged_at = DT_NOBEGIN;
	TimestampTz flushed_at = GetCurrentTimestamp();

	if (upkeep->flush_at_end)
		plinth_worker_process_wait_shortly();
	while (plinth_worker_wait(Min(*upkeep->interval, SLICE_MS)))
	{
		TimestampTz now = GetCurrentTimestamp();
		bool pressed = upkeep->pressed();

		turn.flush = pressed || is_due(flushed_at, now, (int64) *upkeep->interval * 1000);
		turn.purge = is_due(purged_at, now, PURGE_INTERVAL);
		if ((turn.flush || turn.purge) && !try_turn(&turn))
			return;
		if (turn.flush)
			flushed_at = GetCurrentTimestamp();
		if (turn.purge)
			purged_at = now;
	}
	if (!upkeep->flush_at_end || !plinth_worker_process_may_go_on())
		return;
	turn.flush = true;
	turn.purge = false;
	(void) try_turn(&turn);
}
