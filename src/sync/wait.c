/*
 * wait.c
 *		Waiting until MongoDB has what was committed: of all mappings, or of one.
 *
 * For all, the lanes' own places count.  For one its statistics do, which its
 * lanes tell when they are asked, so that a lane's other mappings (a snapshot, a
 * server that is away) do not matter.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "decode/decode.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "worker/worker.h"

#include "sync/api_int.h"
#include "sync/wait_int.h"

/* After so long what stands still is not only starting. */
#define STOPPED_MS 2000
/* How far one mapping is is asked for so often. */
#define ASK_MS 20

PGDLLEXPORT Datum plinth_sync_wait(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_sync_wait);

/* Raises what the lanes are asked; each tells when it has looked since. */
static void
ask(PlinthSyncWait *wait)
{
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
		wait->asked[i] = pg_atomic_add_fetch_u64(&wait->db->lanes[i].look_asked, 1);
	wait->asked_at = GetCurrentTimestamp();
	plinth_worker_wake(MyDatabaseId, "lane", -1);
}

void
plinth_sync_wait_begin(PlinthSyncWait *wait, XLogRecPtr lsn)
{
	wait->db = plinth_sync_database(MyDatabaseId, true);
	wait->lsn = lsn;
	wait->generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	ask(wait);
}

/* Is this lane in use, and one of those that are waited for? */
static bool
concerns(const PlinthSyncWait *wait, const PlinthSyncLane *lane)
{
	return NameStr(lane->server)[0] != '\0' &&
		   (wait->mapping == 0 || (lane->owner == wait->owner &&
								   strcmp(NameStr(lane->server), NameStr(wait->server)) == 0));
}

/*
 * What lanes have left to each other; unknown where one has not delivered (of
 * one mapping: has not taken note of) what was left to it.
 */
static bool
sum_of_handed(const PlinthSyncWait *wait, uint64 *sum)
{
	*sum = 0;
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		PlinthSyncLane *lane = &wait->db->lanes[i];
		uint64 handed = pg_atomic_read_u64(&lane->handed);

		if (!concerns(wait, lane))
			continue;
		if (pg_atomic_read_u64(wait->mapping == 0 ? &lane->taken : &lane->counted) < handed)
			return false;
		*sum += handed;
	}
	return true;
}

/* The decoder knows the generation. */
static bool
is_decoded(const PlinthSyncWait *wait)
{
	PlinthDecodeStatus status;

	plinth_decode_status(MyDatabaseId, &status);
	return status.pid != 0 && status.generation >= wait->generation;
}

/*
 * Every lane in use has loaded the generation, has looked at definitions since,
 * and is past lsn; and none left anything to another while that was looked at.
 */
static bool
is_all_delivered(const PlinthSyncWait *wait)
{
	uint64 before;
	uint64 after;
	bool delivered;

	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	delivered = sum_of_handed(wait, &before);
	pg_read_barrier();
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES && delivered; i++)
	{
		PlinthSyncLane *lane = &wait->db->lanes[i];

		if (!concerns(wait, lane))
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

/* Each of the mapping's lanes is there, and has told how far it is since it was asked. */
bool
plinth_sync_wait_seen(const PlinthSyncWait *wait)
{
	int seen = 0;

	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		PlinthSyncLane *lane = &wait->db->lanes[i];

		if (concerns(wait, lane) && lane->share < wait->nlanes &&
			pg_atomic_read_u64(&lane->seen) >= wait->asked[i])
			seen++;
	}
	LWLockRelease(plinth_sync_lock());
	pg_read_barrier();
	return seen == wait->nlanes;
}

/*
 * The mapping's lanes have looked at its definition since, and owe nothing of
 * it from before lsn, whatever they owe of others; *stopped when they will not
 * deliver it until somebody acts.
 */
static bool
is_one_delivered(PlinthSyncWait *wait, bool *stopped)
{
	uint64 before;
	uint64 after;
	PlinthSyncStat stat;
	bool handed;

	if (!plinth_sync_wait_seen(wait))
		return false;
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	handed = sum_of_handed(wait, &before);
	LWLockRelease(plinth_sync_lock());
	pg_read_barrier();
	if (handed && plinth_sync_stat_get(wait->mapping, wait->extension, &stat))
	{
		*stopped = strcmp(stat.state, "blocked") == 0 || strcmp(stat.state, "paused") == 0;
		if (!*stopped && stat.shares >= wait->nlanes && !stat.elsewhere &&
			stat.lag_lsn >= wait->lsn)
		{
			LWLockAcquire(plinth_sync_lock(), LW_SHARED);
			handed = sum_of_handed(wait, &after) && before == after;
			LWLockRelease(plinth_sync_lock());
			return handed;
		}
	}
	/* What they told is of when they were asked. */
	if (!*stopped && TimestampDifferenceExceeds(wait->asked_at, GetCurrentTimestamp(), ASK_MS))
		ask(wait);
	return false;
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
 * the caller may see, or the one that was named, which may be paused.  Asked as
 * the caller.
 */
static bool
tell_blocked(const PlinthSyncWait *wait)
{
	static PlinthPlan plan = {
		.sql = "SELECT s.name, s.state, s.reason, s.hint FROM plinth.stat_sync AS s"
			   " WHERE s.state OPERATOR(pg_catalog.=) 'blocked' AND $1 IS NULL"
			   " OR s.name OPERATOR(pg_catalog.=) $1"
			   " AND s.state OPERATOR(pg_catalog.=) ANY ('{blocked,paused}') ORDER BY 1 LIMIT 1",
		.nargs = 1,
		.argtypes = {TEXTOID},
	};
	Datum values[1] = {0};
	const char *nulls = wait->mapping == 0 ? "n" : NULL;
	bool found;

	if (wait->mapping != 0)
		values[0] = CStringGetTextDatum(wait->name);
	SPI_connect();
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_SELECT);
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *name = SPI_getvalue(tuple, desc, 1);
		char *reason = SPI_getvalue(tuple, desc, 3);
		char *hint = SPI_getvalue(tuple, desc, 4);

		if (strcmp(SPI_getvalue(tuple, desc, 2), "paused") == 0)
			ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							  errmsg("sync mapping \"%s\" is not delivered, it is paused", name),
							  errhint("SELECT plinth.sync_resume(%s);", quote_literal_cstr(name))));
		else
			ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							  errmsg("sync mapping \"%s\" is not delivered, it is blocked: %s",
									 name, reason != NULL ? reason : "no reason is known"),
							  hint == NULL ? 0 : errhint("%s", hint)));
	}
	SPI_finish();
	return found;
}

/* True when everything before wait->lsn is in MongoDB; timeout in ms, -1 for none. */
static bool
wait_lsn(PlinthSyncWait *wait, int timeout_ms)
{
	TimestampTz start = GetCurrentTimestamp();
	TimestampTz end = TimestampTzPlusMilliseconds(start, timeout_ms);
	bool delivered = false;
	bool stopped = false;

	ConditionVariablePrepareToSleep(&wait->db->moved);
	for (;;)
	{
		long left = 1000;

		if (is_decoded(wait))
			delivered =
				wait->mapping == 0 ? is_all_delivered(wait) : is_one_delivered(wait, &stopped);
		if (timeout_ms >= 0)
			left = Min(left, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end));
		if (delivered || stopped || left <= 0 ||
			(is_stopped() && TimestampDifferenceExceeds(start, GetCurrentTimestamp(), STOPPED_MS) &&
			 tell_blocked(wait)))
			break;
		/* In slices: a lane that starts anew broadcasts nothing. */
		ConditionVariableTimedSleep(&wait->db->moved, Min(left, wait->mapping == 0 ? 100 : ASK_MS),
									PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	ConditionVariableCancelSleep();
	if (wait->mapping == 0 || stopped)
		return !tell_blocked(wait) && delivered;
	return delivered;
}

static int
timeout_of(Interval *interval)
{
	double ms = interval->time / 1000.0 +
				(interval->day + interval->month * (double) DAYS_PER_MONTH) * SECS_PER_DAY * 1000.0;

	if (ms < 0 || ms > INT_MAX)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("timeout must be between 0 and 24 days")));
	return (int) ms;
}

void
plinth_sync_wait_mapping(PlinthSyncWait *wait, int64 mapping)
{
	static PlinthPlan plan = {"SELECT server_name, owner::oid, plinth._sync_lanes(id)"
							  " FROM plinth.sync_mappings WHERE id = $1",
							  1,
							  {INT8OID},
							  NULL};
	Datum values[1] = {Int64GetDatum(mapping)};
	HeapTuple tuple;
	TupleDesc desc;
	bool isnull;

	wait->mapping = mapping;
	wait->extension = plinth_base_extension_oid();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	namestrcpy(&wait->server, SPI_getvalue(tuple, desc, 1));
	wait->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	wait->nlanes = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
}

/* The mapping of this name, which the caller must own. */
static void
find_mapping(PlinthSyncWait *wait, const char *name, Oid caller)
{
	PlinthSyncTarget target;
	PlinthSyncApi api;

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, false, &target);
	plinth_sync_wait_mapping(wait, target.id);
	wait->name = name;
	plinth_sync_api_end(&api);
}

static bool
any_mapping(void)
{
	bool any;

	SPI_connect();
	SPI_execute("SELECT FROM plinth.sync_mappings LIMIT 1", true, 1);
	any = SPI_processed > 0;
	SPI_finish();
	return any;
}

/*
 * sync_wait(timeout interval, name text): true when all that committed before
 * the call (of one mapping) is in MongoDB; false, with a WARNING, when a mapping
 * is blocked.
 */
Datum
plinth_sync_wait(PG_FUNCTION_ARGS)
{
	PlinthSyncWait wait = {0};
	char *name = plinth_sync_api_text(fcinfo, 1);
	int timeout_ms = -1;

	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot wait for sync during recovery"),
						errhint("Call plinth.sync_wait() on the primary.")));
	if (!PG_ARGISNULL(0))
		timeout_ms = timeout_of(PG_GETARG_INTERVAL_P(0));
	if (name != NULL)
		find_mapping(&wait, name, GetUserId());
	else if (!any_mapping())
		PG_RETURN_BOOL(true);

	/* A record of our own, so that there is something to decode up to. */
	plinth_sync_wait_begin(&wait, plinth_compat_log_message("plinth", "", 0, false, true));
	plinth_worker_wake(MyDatabaseId, "decoder", -1);
	PG_RETURN_BOOL(wait_lsn(&wait, timeout_ms));
}
