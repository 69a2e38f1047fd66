/*
 * wait.c
 *		Waiting until MongoDB has what was committed.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "decode/decode.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "worker/worker.h"

#include "sync/sync_int.h"

/* After so long what stands still is not only starting. */
#define STOPPED_MS 2000

PGDLLEXPORT Datum plinth_sync_wait(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_sync_wait);

/* What is waited for. */
typedef struct Wait
{
	PlinthSyncDatabase *db;
	XLogRecPtr lsn;
	uint64 generation;
	uint64 asked[PLINTH_SYNC_MAX_LANES]; /* each lane's look_asked when it was asked */
} Wait;

/*
 * What lanes have left to each other; unknown where one has not delivered what
 * was left to it.
 */
static bool
sum_of_handed(const Wait *wait, uint64 *sum)
{
	*sum = 0;
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		PlinthSyncLane *lane = &wait->db->lanes[i];
		uint64 handed = pg_atomic_read_u64(&lane->handed);

		if (NameStr(lane->server)[0] != '\0' && pg_atomic_read_u64(&lane->taken) < handed)
			return false;
		*sum += handed;
	}
	return true;
}

/*
 * Every lane in use has loaded the generation, has looked at definitions since,
 * and is past lsn; and none left anything to another while that was looked at.
 */
static bool
is_delivered(const Wait *wait)
{
	PlinthDecodeStatus status;
	uint64 before;
	uint64 after;
	bool delivered = true;

	plinth_decode_status(MyDatabaseId, &status);
	if (status.pid == 0 || status.generation < wait->generation)
		return false;
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	delivered = sum_of_handed(wait, &before);
	pg_read_barrier();
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES && delivered; i++)
	{
		PlinthSyncLane *lane = &wait->db->lanes[i];

		if (NameStr(lane->server)[0] == '\0')
			continue;
		delivered = pg_atomic_read_u64(&lane->generation) >= wait->generation &&
					pg_atomic_read_u64(&lane->looked) >= wait->asked[i] &&
					pg_atomic_read_u64(&lane->delivered) >= wait->lsn;
	}
	pg_read_barrier();
	delivered = delivered && sum_of_handed(wait, &after) && before == after;
	LWLockRelease(plinth_sync_lock());
	return delivered;
}

/* Can nothing be delivered until somebody acts? */
static bool
is_stopped(void)
{
	PlinthDecodeStatus status;

	plinth_decode_status(MyDatabaseId, &status);
	return status.slot_generation == 0;
}

/*
 * Tells, by a WARNING, what the caller waits for in vain: a blocked mapping that
 * the caller may see.  Asked as the caller.
 */
static bool
tell_blocked(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT s.name, s.reason, s.hint FROM plinth.stat_sync AS s"
			   " WHERE s.state OPERATOR(pg_catalog.=) 'blocked' ORDER BY 1 LIMIT 1",
	};
	bool found;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *reason = SPI_getvalue(tuple, desc, 2);
		char *hint = SPI_getvalue(tuple, desc, 3);

		ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						  errmsg("sync mapping \"%s\" is not delivered, it is blocked: %s",
								 SPI_getvalue(tuple, desc, 1),
								 reason != NULL ? reason : "no reason is known"),
						  hint == NULL ? 0 : errhint("%s", hint)));
	}
	SPI_finish();
	return found;
}

/* True when everything before lsn is in MongoDB; timeout in ms, -1 for none. */
static bool
wait_lsn(XLogRecPtr lsn, int timeout_ms)
{
	Wait wait = {plinth_sync_database(MyDatabaseId, true),
				 lsn,
				 plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC),
				 {0}};
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz end = TimestampTzPlusMilliseconds(start, timeout_ms);
	bool delivered;

	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
		wait.asked[i] = pg_atomic_add_fetch_u64(&wait.db->lanes[i].look_asked, 1);
	plinth_worker_wake(MyDatabaseId, "lane", -1);
	ConditionVariablePrepareToSleep(&wait.db->moved);
	while (!(delivered = is_delivered(&wait)))
	{
		long left = 1000;

		if (timeout_ms >= 0)
			left = Min(left, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end));
		if (left <= 0 ||
			(is_stopped() && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOPPED_MS) &&
			 tell_blocked()))
			break;
		/* In slices: a lane that starts anew broadcasts nothing. */
		ConditionVariableTimedSleep(&wait.db->moved, Min(left, 100), PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	ConditionVariableCancelSleep();
	return delivered && !tell_blocked();
}

/*
 * sync_wait(timeout interval): true when all that committed before the call is
 * in MongoDB; false, with a WARNING, when a mapping is blocked.
 */
Datum
plinth_sync_wait(PG_FUNCTION_ARGS)
{
	XLogRecPtr lsn;
	int timeout_ms = -1;
	int nmappings;

	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot wait for sync during recovery"),
						errhint("Call plinth.sync_wait() on the primary.")));
	if (!PG_ARGISNULL(0))
	{
		Interval *interval = PG_GETARG_INTERVAL_P(0);
		double ms =
			interval->time / 1000.0 +
			(interval->day + interval->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

		if (ms < 0 || ms > INT_MAX)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("timeout must be between 0 and 24 days")));
		timeout_ms = (int) ms;
	}
	SPI_connect();
	SPI_execute("SELECT FROM plinth.sync_mappings LIMIT 1", true, 1);
	nmappings = (int) SPI_processed;
	SPI_finish();
	if (nmappings == 0)
		PG_RETURN_BOOL(true);

	/* A record of our own, so that there is something to decode up to. */
	lsn = plinth_compat_log_message("plinth", "", 0, false, true);
	plinth_worker_wake(MyDatabaseId, "decoder", -1);
	PG_RETURN_BOOL(wait_lsn(lsn, timeout_ms));
}
