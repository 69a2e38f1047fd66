/*
 * turns.c
 *		Who goes first in a lane, and how fast what can wait is.
 *
 * In each round every mapping writes a batch of keys from memory: these are
 * changes.  Then one mapping, each in its turn, writes what can wait: a lot of
 * keys from sync_dirty, and a page of a snapshot or sweep.  So whatever many
 * snapshots there are, a change waits for one page at most.
 *
 * While changes wait, pages take a fifth of the lane's time; and a setting
 * bounds how many rows a second the snapshots of a mapping send.
 */
#include "postgres.h"

#include "worker/worker.h"

#include "sync/file_int.h"
#include "sync/share_int.h"
#include "sync/via_int.h"

/* A page that took so long is followed by four times as long for changes. */
#define CHANGES_SHARE 4
/* Who has flushed a commit takes a moment to make it visible, which wakes nobody. */
#define VISIBLE_MS 1
#define SOON_MS 20
/* By then the WAL writer has flushed what nobody waits for, mostly. */
#define FLUSH_MS 250

static bool
may_write(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	return plinth_sync_share_any(lane, mapping) && plinth_sync_lane_ready(mapping) &&
		   mapping->retry_at <= GetCurrentTimestamp() && plinth_sync_share_open(lane, mapping);
}

/* Do changes wait that could be written? */
static bool
changes_wait(PlinthLane *lane)
{
	ListCell *lc;

	if (lane->full)
		return true;
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->verified_fence && mapping->dirty.nowed > 0 && may_write(lane, mapping))
			return true;
	}
	return false;
}

TimestampTz
plinth_sync_turns_page_due(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	return changes_wait(lane) ? Max(mapping->page_due, lane->pages_due) : mapping->page_due;
}

static int
rate_of(PlinthLaneMapping *mapping)
{
	return plinth_setting_sync_snapshot_rate == 0
			   ? 0
			   : Max(1, plinth_setting_sync_snapshot_rate / mapping->def->lanes);
}

int
plinth_sync_turns_page_rows(PlinthLaneMapping *mapping)
{
	int rate = rate_of(mapping);

	return rate == 0 ? plinth_setting_sync_batch_rows : Min(plinth_setting_sync_batch_rows, rate);
}

void
plinth_sync_turns_page_done(PlinthLane *lane, PlinthLaneMapping *mapping, int nrows,
							TimestampTz since)
{
	TimestampTz now = GetCurrentTimestamp();
	int rate = rate_of(mapping);

	lane->pages_due = now + CHANGES_SHARE * Max(now - since, 0);
	if (rate > 0)
		mapping->page_due = Max(mapping->page_due, since) + (int64) nrows * USECS_PER_SEC / rate;
	else
		mapping->page_due = 0;
}

static void
move_strays(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	plinth_sync_store_move_strays(mapping);
}

/* What can wait, of one mapping. */
static bool
background(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	bool did = false;

	if (!mapping->verified_fence || !may_write(lane, mapping))
		return false;
	if (mapping->stored_stray)
		did = plinth_sync_lane_run(lane, mapping, move_strays, NULL);
	did |= plinth_sync_apply_stored(lane, mapping);
	if (lane->client != NULL && mapping->verified_fence && plinth_sync_lane_ready(mapping))
		did |= plinth_sync_task_step(lane, mapping);
	return did;
}

bool
plinth_sync_turns(PlinthLane *lane)
{
	int n = list_length(lane->mappings);
	ListCell *lc;
	bool did = false;
	bool one = false;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (lane->client == NULL || lane->gone || plinth_worker_stopping())
			break;
		if (!may_write(lane, mapping))
		{
			plinth_sync_apply_drop(mapping);
			continue;
		}
		if (!mapping->verified_fence && !plinth_sync_check_fence(lane, mapping))
			continue;
		if (!mapping->foreign)
			did |= plinth_sync_apply_owed(lane, mapping);
		if (lane->client != NULL && mapping->verified_fence && plinth_sync_lane_ready(mapping))
			did |= plinth_sync_file_step(lane, mapping);
	}
	for (int i = 0; i < n && !one; i++)
	{
		if (lane->client == NULL || lane->gone || plinth_worker_stopping())
			break;
		one = background(lane, list_nth(lane->mappings, lane->turn++ % n));
	}
	/* Only now is an outage over: a server may answer a ping and nothing else. */
	if (lane->client != NULL)
		lane->failures = 0;
	return did || one;
}

/*
 * When to look for keys again.  Those whose transactions were not visible have
 * waited for some time: after the same again at most half of it was in vain.
 */
static TimestampTz
look_again(const PlinthDirtySet *set, TimestampTz now)
{
	int64 waited = SOON_MS * INT64CONST(1000);

	if (set->nowed > 0 && TransactionIdIsValid(set->unseen))
		waited = Min(waited, Max(now - set->unseen_since, VISIBLE_MS * INT64CONST(1000)));
	return now + waited;
}

long
plinth_sync_turns_pause(PlinthLane *lane)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz soon = TimestampTzPlusMilliseconds(now, SOON_MS);
	TimestampTz due = TimestampTzPlusMilliseconds(now, 1000);
	ListCell *lc;

	if (lane->retry_at > now)
		due = Min(due, lane->retry_at);
	due = Min(due, lane->look_at);
	if (lane->fenced_lsn != InvalidXLogRecPtr)
		due = Min(due, TimestampTzPlusMilliseconds(now, FLUSH_MS));
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->fence_due)
			due = Min(due, TimestampTzPlusMilliseconds(lane->last_checkpoint,
													   plinth_setting_sync_checkpoint_interval));
		if (mapping->retry_at > now)
			due = Min(due, mapping->retry_at);
		else if (mapping->sweep_lsn != 0 || mapping->dirty.nowed > 0 || mapping->via.nowed > 0 ||
				 plinth_sync_via_due(mapping) || mapping->barrier != 0)
			due = Min(due, Min(look_again(&mapping->dirty, now), look_again(&mapping->via, now)));
		else if (mapping->tasks != NIL && lane->retry_at <= now)
			due = Min(due, Max(soon, mapping->page_due));
		if (mapping->stored_any && mapping->stored_due > now)
			due = Min(due, mapping->stored_due);
	}
	return Max(1, TimestampDifferenceMilliseconds(now, due));
}
