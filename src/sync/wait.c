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

PGDLLEXPORT Datum plinth_sync_wait(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_sync_wait);

/* Every lane in use has loaded generation and is past lsn. */
static bool
is_delivered(PlinthSyncDatabase *db, XLogRecPtr lsn, uint64 generation)
{
	PlinthDecodeStatus status;
	bool delivered = true;

	plinth_decode_status(MyDatabaseId, &status);
	if (status.pid == 0 || status.generation < generation)
		return false;
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES && delivered; i++)
	{
		PlinthSyncLane *lane = &db->lanes[i];

		if (NameStr(lane->server)[0] == '\0')
			continue;
		delivered = pg_atomic_read_u64(&lane->generation) >= generation &&
					pg_atomic_read_u64(&lane->delivered) >= lsn;
	}
	LWLockRelease(plinth_sync_lock());
	return delivered;
}

bool
plinth_sync_wait_lsn(XLogRecPtr lsn, int timeout_ms)
{
	PlinthSyncDatabase *db = plinth_sync_database(MyDatabaseId, true);
	uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	bool delivered;

	ConditionVariablePrepareToSleep(&db->moved);
	while (!(delivered = is_delivered(db, lsn, generation)))
	{
		long left = 1000;

		if (timeout_ms >= 0)
			left = Min(left, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end));
		if (left <= 0)
			break;
		/* In slices: a lane that starts anew broadcasts nothing. */
		ConditionVariableTimedSleep(&db->moved, Min(left, 100), PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	ConditionVariableCancelSleep();
	return delivered;
}

/* sync_wait(timeout interval): true when all that committed before the call is in MongoDB. */
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
	PG_RETURN_BOOL(plinth_sync_wait_lsn(lsn, timeout_ms));
}
