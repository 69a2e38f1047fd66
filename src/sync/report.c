/*
 * report.c
 *		What a lane tells: states for stat_sync, its progress, the log.
 *
 * The log gets a line when a reason is new and at most one a minute while it
 * stays the same; everything else is in stat_sync.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "decode/decode.h"
#include "miscadmin.h"
#include "worker/worker.h"

#include "sync/report_int.h"
#include "sync/share_int.h"
#include "sync/watch_int.h"

#define LOG_EVERY_MS 60000
#define FIRST_BACKOFF_MS 100
/* For so long more than the longest backoff it is remembered that the server closed the connection. */
#define CUT_MS 10000

void
plinth_sync_report_log(PlinthLane *lane, const char *what, const char *message)
{
	TimestampTz now = GetCurrentTimestamp();

	if (strncmp(lane->last_logged, message, sizeof(lane->last_logged) - 1) == 0 &&
		!TimestampDifferenceExceeds(lane->last_log, now, LOG_EVERY_MS))
		return;
	strlcpy(lane->last_logged, message, sizeof(lane->last_logged));
	lane->last_log = now;
	ereport(LOG, (errmsg("sync to server \"%s\": %s", lane->server, what),
				  errdetail_internal("%s", message)));
}

/* Exponential, with jitter between a half and the whole. */
static TimestampTz
backoff(int failures)
{
	double wait = FIRST_BACKOFF_MS;

	for (int i = 1; i < failures && wait < plinth_setting_sync_retry_max; i++)
		wait *= 2;
	wait = Min(wait, plinth_setting_sync_retry_max);
	wait *= 0.5 + 0.5 * pg_prng_double(&pg_global_prng_state);
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), (int64) wait);
}

static void
note_error(PlinthLaneMapping *mapping, const char *kind, const char *message)
{
	snprintf(mapping->stat.last_error, sizeof(mapping->stat.last_error), "%s: %s", kind, message);
	mapping->stat.last_error_at = GetCurrentTimestamp();
	mapping->stat.retries++;
}

/* Without a lane the failure is one key's and delays nothing. */
void
plinth_sync_report_failure(PlinthLane *lane, PlinthLaneMapping *mapping, const char *kind,
						   const char *message)
{
	note_error(mapping, kind, message);
	if (lane == NULL)
		return;
	mapping->failures++;
	mapping->retry_at = backoff(mapping->failures);
	mapping->shape_stale = true;
	lane->shapes_stale = true;
	plinth_sync_report_log(lane, psprintf("mapping \"%s\" waits", mapping->def->name), message);
}

void
plinth_sync_report_success(PlinthLaneMapping *mapping, PlinthSyncSource source)
{
	mapping->failures = 0;
	mapping->retry_at = 0;
	mapping->cuts[source].n = 0;
	mapping->cut_passed = true;
	/* Larger again, and as large as set in the end. */
	if (mapping->cuts[source].max * 2 < plinth_setting_sync_batch_rows)
		mapping->cuts[source].max *= 2;
	else
		mapping->cuts[source].max = 0;
}

bool
plinth_sync_report_was_cut(PlinthLaneMapping *mapping)
{
	return mapping->cut_at != 0 &&
		   !TimestampDifferenceExceeds(mapping->cut_at, GetCurrentTimestamp(),
									   plinth_setting_sync_retry_max + CUT_MS);
}

int
plinth_sync_report_batch_rows(PlinthLaneMapping *mapping, PlinthSyncSource source)
{
	int max = mapping->cuts[source].max;

	return max > 0 ? Min(max, plinth_setting_sync_batch_rows) : plinth_setting_sync_batch_rows;
}

void
plinth_sync_report_outage(PlinthLane *lane, const PlinthMongoError *error)
{
	ListCell *lc;

	if (error->status == PLINTH_MONGO_CANCELLED)
		return;
	lane->failures++;
	lane->retry_at = backoff(lane->failures);
	foreach (lc, lane->mappings)
		note_error(lfirst(lc), plinth_mongo_status_name(error->status), error->message);
	plinth_sync_report_log(lane,
						   psprintf("%s, will try again", plinth_mongo_status_name(error->status)),
						   error->message);
	plinth_sync_disconnect(lane);
}

bool
plinth_sync_report_cut(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncSource source,
					   int nkeys, const PlinthMongoError *error)
{
	int *max = &mapping->cuts[source].max;
	bool alone = nkeys == 1;
	TimestampTz now = GetCurrentTimestamp();

	/* What was taken before the trouble began proves nothing. */
	if (!plinth_sync_report_was_cut(mapping))
		mapping->cut_passed = false;
	mapping->cut_at = now;
	if (++mapping->cuts[source].n == 1 && *max == 0)
	{
		plinth_sync_report_outage(lane, error);
		return false;
	}
	/* Each source by itself: what one has taken says nothing of the others' keys. */
	if (!alone || *max == 0)
		*max = Max(1, Min(nkeys, plinth_sync_report_batch_rows(mapping, source)) / 2);
	plinth_sync_report_failure(lane, mapping, plinth_mongo_status_name(error->status),
							   error->message);
	/* Should the server be away, the next ping tells. */
	mapping->retry_at = TimestampTzPlusMilliseconds(now, FIRST_BACKOFF_MS);
	plinth_sync_disconnect(lane);
	return alone;
}

static const char *
state_of(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	ListCell *lc;

	if (!plinth_sync_share_any(lane, mapping))
		return "";

	if (mapping->def->blocked != NULL || mapping->def->problem != NULL)
		return "blocked";
	if (mapping->def->paused)
		return "paused";
	if (lane->retry_at != 0)
		return "unreachable";
	if (mapping->retry_at != 0)
		return "retrying";
	if (!mapping->verified_fence || mapping->barrier != 0)
		return "starting";
	foreach (lc, mapping->tasks)
	{
		PlinthSyncTask *task = lfirst(lc);

		if (!task->finished)
			return task->sweep ? "sweep"
							   : (task->waited && task->lockers == NIL ? "snapshot" : "waiting");
	}
	if (mapping->stored_owed || mapping->via_stored)
		return "catchup";
	return "streaming";
}

/* The least lsn of a mapping's keys and marks in memory; 0 when none. */
static XLogRecPtr
least_lsn(PlinthLaneMapping *mapping, bool owed_only)
{
	XLogRecPtr keys = plinth_sync_dirty_least(&mapping->dirty, owed_only);
	XLogRecPtr marks = plinth_sync_dirty_least(&mapping->via, owed_only);

	if (keys == InvalidXLogRecPtr || marks == InvalidXLogRecPtr)
		return Max(keys, marks);
	return Min(keys, marks);
}

static XLogRecPtr
lag_lsn(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	XLogRecPtr least = least_lsn(mapping, true);

	if (mapping->stored_owed || mapping->via_stored)
		return mapping->stat.lag_lsn;
	if (mapping->sweep_lsn != InvalidXLogRecPtr &&
		(least == InvalidXLogRecPtr || mapping->sweep_lsn < least))
		return mapping->sweep_lsn;
	return least == InvalidXLogRecPtr ? lane->progress : least;
}

/* Somebody wants it so, or must act first: who waits is told instead. */
static bool
stands_still(PlinthLaneMapping *mapping)
{
	return mapping->def->paused || mapping->def->blocked != NULL || mapping->def->problem != NULL;
}

/* Is anything owed that is not in memory, so that delivery is not at the streams' end? */
static bool
owes_elsewhere(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	ListCell *lc;

	if (stands_still(mapping) || !plinth_sync_share_any(lane, mapping))
		return false;
	if (mapping->stored_owed || mapping->stored_stray || mapping->via_stored ||
		mapping->shape_stale || !mapping->def->prepared || mapping->sweep_lsn != InvalidXLogRecPtr)
		return true;
	foreach (lc, mapping->tasks)
	{
		if (!((PlinthSyncTask *) lfirst(lc))->finished)
			return true;
	}
	return false;
}

void
plinth_sync_report_stats(PlinthLane *lane)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		PlinthSyncStat *stat = &mapping->stat;

		strlcpy(stat->state, state_of(lane, mapping), sizeof(stat->state));
		if (mapping->def->problem != NULL && mapping->def->blocked == NULL)
			snprintf(stat->last_error, sizeof(stat->last_error), "%s\n%s", mapping->def->problem,
					 mapping->def->problem_hint);
		stat->next_try_at = Max(lane->retry_at, mapping->retry_at);
		stat->key.share = lane->share;
		stat->keys_in_memory = mapping->dirty.nowed + mapping->via.nowed;
		stat->oldest_at = 0;
		if (!dlist_is_empty(&mapping->dirty.owed))
			stat->oldest_at =
				dlist_container(PlinthDirtyKey, node, mapping->dirty.owed.head.next)->seen_at;
		stat->lag_lsn = lag_lsn(lane, mapping);
		stat->elsewhere = owes_elsewhere(lane, mapping);
		plinth_sync_watch(lane, mapping);
		plinth_sync_stat_set(stat);
		plinth_sync_watch_tell(lane, mapping);
	}
	lane->last_stats = GetCurrentTimestamp();
	plinth_worker_report(lane->retry_at != 0 ? "unreachable" : "running", lane->server);
}

/* Tells the decoder and those who wait how far this lane is. */
void
plinth_sync_report_publish(PlinthLane *lane)
{
	XLogRecPtr durable = lane->progress;
	XLogRecPtr delivered = lane->progress;
	bool elsewhere = false;
	bool looked;
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		XLogRecPtr all = least_lsn(mapping, false);
		XLogRecPtr owed = least_lsn(mapping, true);

		if (all != InvalidXLogRecPtr)
			durable = Min(durable, all);
		if (mapping->sweep_lsn != InvalidXLogRecPtr)
			durable = Min(durable, mapping->sweep_lsn);
		if (owed != InvalidXLogRecPtr && !stands_still(mapping))
			delivered = Min(delivered, owed);
		elsewhere |= owes_elsewhere(lane, mapping);
	}
	pg_atomic_write_u64(&lane->shared->durable, durable);
	/* After what it left to others was told to them. */
	pg_write_barrier();
	if (!elsewhere)
		pg_atomic_write_u64(&lane->shared->taken, lane->handed);
	if (!elsewhere && delivered > pg_atomic_read_u64(&lane->shared->delivered))
		pg_atomic_write_u64(&lane->shared->delivered, delivered);
	if (pg_atomic_read_u64(&lane->shared->generation) != lane->generation)
		pg_atomic_write_u64(&lane->shared->generation, lane->generation);
	looked = !elsewhere && pg_atomic_read_u64(&lane->shared->looked) != lane->looking;
	if (looked || pg_atomic_read_u64(&lane->shared->seen) != lane->looking ||
		pg_atomic_read_u64(&lane->shared->counted) != lane->handed)
	{
		/* Who waits for it reads the states next. */
		plinth_sync_report_stats(lane);
		pg_write_barrier();
		pg_atomic_write_u64(&lane->shared->seen, lane->looking);
		pg_atomic_write_u64(&lane->shared->counted, lane->handed);
		if (looked)
			pg_atomic_write_u64(&lane->shared->looked, lane->looking);
	}
	ConditionVariableBroadcast(&lane->db->moved);
}
