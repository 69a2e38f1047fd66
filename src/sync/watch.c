/*
 * watch.c
 *		What a lane tells of its mappings' course: how fast it writes, since when
 *		something waits, and by NOTIFY that a state or the lag has changed.
 *
 * Only transitions are told, each once, in a transaction of its own that need
 * not be flushed.  A state must have held for a while first, and for longer
 * where states have changed often lately, so that what flaps does not flood;
 * what somebody must act upon is told at once.  What was told stands in shared
 * memory: a lane that starts anew goes on from there.
 *
 * Anybody may listen, so a payload has nothing but names: what is wrong stands
 * in stat_sync, for those who may see the mapping.
 *
 * The rate is measured only while there is more to do than is done at once:
 * what trickles in says nothing of what could be written.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "worker/worker.h"

#include "sync/report_int.h"
#include "sync/watch_int.h"

#define MEASURE_MS 200
#define MEASURE_MAX_MS 10000
/* Older measurements weigh less, by this time. */
#define RATE_MS 5000.0
#define HOLD_MS 1000
#define HOLD_MAX_MS 30000
/* After so long in one state the next change is told as soon as the first. */
#define CALM_MS 60000

typedef struct PlinthSyncWatch
{
	bool was_current; /* nothing stood in sync_dirty once */
	bool busy;        /* when it was measured last */
	uint64 written;
	TimestampTz measured_at;
	TimestampTz behind_at;
	char state[PLINTH_SYNC_STATE_LEN]; /* of all lanes, as it was last */
	TimestampTz told_at;
	int hold_ms; /* so long a state must hold before it is told */
} PlinthSyncWatch;

/* More than one batch: then the lane writes as fast as it can. */
static bool
has_backlog(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	ListCell *lc;

	if (lane->retry_at != 0 || mapping->retry_at != 0 || !plinth_sync_lane_ready(mapping))
		return false;
	if (mapping->stored_owed || mapping->dirty.nowed >= plinth_setting_sync_batch_rows)
		return true;
	foreach (lc, mapping->tasks)
	{
		PlinthSyncTask *task = lfirst(lc);

		if (!task->sweep && !task->finished && task->waited && task->lockers == NIL)
			return true;
	}
	return false;
}

static void
measure(PlinthLane *lane, PlinthLaneMapping *mapping, TimestampTz now)
{
	PlinthSyncWatch *watch = mapping->watch;
	PlinthSyncStat *stat = &mapping->stat;
	uint64 written = stat->documents_replaced + stat->documents_deleted;
	long ms = TimestampDifferenceMilliseconds(watch->measured_at, now);
	bool busy = has_backlog(lane, mapping);

	if (watch->measured_at != 0 && ms < MEASURE_MS)
		return;
	if (watch->measured_at != 0 && ms < MEASURE_MAX_MS && (busy || watch->busy))
	{
		double sample = (written - watch->written) * 1000.0 / ms;

		/* Where it was busy for a part of the time it could do that much at least. */
		if (busy == watch->busy || sample > stat->rate)
			stat->rate += (stat->rate == 0 ? 1 : 1 - exp(-ms / RATE_MS)) * (sample - stat->rate);
	}
	watch->measured_at = now;
	watch->written = written;
	watch->busy = busy;
}

/* Since when something waits that is not in MongoDB, in memory or in sync_dirty. */
static void
date_lag(PlinthLaneMapping *mapping, TimestampTz now)
{
	PlinthSyncWatch *watch = mapping->watch;
	PlinthSyncStat *stat = &mapping->stat;

	if (!mapping->stored_owed)
	{
		watch->behind_at = stat->oldest_at;
		stat->behind_at_least = false;
		return;
	}
	if (watch->behind_at == 0)
	{
		watch->behind_at = stat->oldest_at == 0 ? now : stat->oldest_at;
		/* It was there when this lane began: nobody knows since when. */
		stat->behind_at_least = !watch->was_current;
	}
	stat->oldest_at = watch->behind_at;
}

static void
append_text(StringInfo payload, const char *name, const char *value)
{
	appendStringInfo(payload, ", \"%s\": ", name);
	escape_json(payload, value);
}

static void
send_payload(void *arg)
{
	plinth_sync_lane_commit_lazily();
	Async_Notify(PLINTH_SYNC_CHANNEL, arg);
	plinth_worker_transaction_end();
}

/* In a transaction of its own; what fails is logged, and the lane goes on. */
static void
notify(PlinthLane *lane, char *payload)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData *error;

	if (lane->gone || !plinth_worker_transaction_begin())
	{
		lane->gone = true;
		return;
	}
	MemoryContextSwitchTo(caller);
	error = plinth_worker_try(send_payload, payload);
	if (error == NULL)
		return;
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED || plinth_worker_stopping())
		ReThrowError(error);
	plinth_sync_report_log(lane, "could not notify", error->message);
	FreeErrorData(error);
}

static void
begin_payload(PlinthLaneMapping *mapping, StringInfo payload, const char *event)
{
	initStringInfo(payload);
	appendStringInfo(payload, "{\"event\": \"%s\"", event);
	append_text(payload, "mapping", mapping->def->name);
	append_text(payload, "server", mapping->def->server);
	append_text(payload, "collection", mapping->def->collection);
}

static void
end_payload(PlinthLane *lane, StringInfo payload, TimestampTz at)
{
	char text[MAXDATELEN + 1];

	append_text(payload, "at",
				JsonEncodeDateTime(text, TimestampTzGetDatum(at), TIMESTAMPTZOID, NULL));
	appendStringInfoChar(payload, '}');
	notify(lane, payload->data);
	pfree(payload->data);
}

/* Somebody must act, or has. */
static bool
is_urgent(const char *state)
{
	return strcmp(state, "blocked") == 0 || strcmp(state, "paused") == 0;
}

static void
tell_state(PlinthLane *lane, PlinthLaneMapping *mapping, const char *state, TimestampTz now)
{
	PlinthSyncWatch *watch = mapping->watch;
	PlinthSyncStat *stat = &mapping->stat;
	StringInfoData payload;

	if (strcmp(watch->state, state) != 0)
	{
		strlcpy(watch->state, state, sizeof(watch->state));
		stat->state_since = now;
	}
	if (strcmp(state, stat->told) == 0 || strcmp(state, "starting") == 0)
		return;
	if (!is_urgent(state) &&
		!TimestampDifferenceExceeds(stat->state_since, now, Max(watch->hold_ms, HOLD_MS)))
		return;
	if (watch->told_at != 0 && !TimestampDifferenceExceeds(watch->told_at, now, CALM_MS))
		watch->hold_ms = Min(Max(watch->hold_ms, HOLD_MS) * 2, HOLD_MAX_MS);
	else
		watch->hold_ms = HOLD_MS;
	watch->told_at = now;
	begin_payload(mapping, &payload, "state");
	append_text(&payload, "state", state);
	if (stat->told[0] != '\0')
		append_text(&payload, "was", stat->told);
	strlcpy(stat->told, state, sizeof(stat->told));
	end_payload(lane, &payload, stat->state_since);
}

/* Once when the lag passes the threshold, and once when it is back below half of it. */
static void
tell_lag(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthSyncStat *all, TimestampTz now)
{
	PlinthSyncStat *stat = &mapping->stat;
	int most = plinth_setting_sync_lag_alert;
	long lag = all->oldest_at == 0 ? 0 : TimestampDifferenceMilliseconds(all->oldest_at, now);
	bool late = most > 0 && lag > (stat->late ? most / 2 : most);
	StringInfoData payload;

	/* That nothing is written then is told as a state, and somebody knows. */
	if (late == stat->late || (late && is_urgent(all->state)))
		return;
	stat->late = late;
	if (late)
		ereport(LOG, (errmsg("sync of \"%s\" is behind by %ld ms", mapping->def->name, lag),
					  errdetail("\"plinth.sync_lag_alert\" is %d ms.", most)));
	else
		ereport(LOG, (errmsg("sync of \"%s\" has caught up", mapping->def->name)));
	begin_payload(mapping, &payload, "lag");
	appendStringInfo(&payload, ", \"late\": %s, \"lag_ms\": %ld", late ? "true" : "false", lag);
	end_payload(lane, &payload, now);
}

/* The first rows that MongoDB refuses, and that there are none any more. */
static void
tell_dead(PlinthLane *lane, PlinthLaneMapping *mapping, TimestampTz now)
{
	StringInfoData payload;

	if (mapping->dead == mapping->stat.dead)
		return;
	mapping->stat.dead = mapping->dead;
	begin_payload(mapping, &payload, "dead_letters");
	appendStringInfo(&payload, ", \"any\": %s", mapping->dead ? "true" : "false");
	end_payload(lane, &payload, now);
}

/* Goes on from what a lane before this one has told. */
static void
begin(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthSyncStat *stat = &mapping->stat;
	PlinthSyncStat before;

	/* It lives as long as the mapping does here. */
	mapping->watch = MemoryContextAllocZero(mapping->dirty.context, sizeof(PlinthSyncWatch));
	if (!plinth_sync_stat_get(mapping->id, stat->key.extension, &before))
		return;
	if (mapping->def->lanes == 1)
		stat->rate = before.rate;
	mapping->watch->behind_at = before.oldest_at;
	stat->behind_at_least = before.behind_at_least;
	if (lane->share != 0)
		return;
	stat->late = before.late;
	stat->dead = before.dead;
	memcpy(stat->told, before.told, sizeof(stat->told));
}

void
plinth_sync_watch(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	TimestampTz now = GetCurrentTimestamp();

	if (mapping->watch == NULL)
		begin(lane, mapping);
	measure(lane, mapping, now);
	date_lag(mapping, now);
	mapping->watch->was_current |= !mapping->stored_owed && plinth_sync_lane_ready(mapping);
}

void
plinth_sync_watch_tell(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	TimestampTz now = GetCurrentTimestamp();
	PlinthSyncStat all;

	if (lane->share != 0 || !plinth_sync_stat_get(mapping->id, mapping->stat.key.extension, &all))
		return;
	tell_state(lane, mapping, all.state, now);
	tell_lag(lane, mapping, &all, now);
	tell_dead(lane, mapping, now);
}
