/*
 * room.c
 *		Keeps a lane within its memory, and the WAL that is kept for it within bounds.
 *
 * A lane takes marks from the decoder only while its keys fit half of
 * plinth.sync_memory; more of them wait in the decoder's spool for this lane,
 * a temporary file.  What waits there is not in the lane's durable point, so
 * the slot stays below it: keys of a transaction of any size go straight from
 * the rows to MongoDB, at the price of the WAL since its commit.
 *
 * That price is bounded.  Keys move to sync_dirty (logged, so that the slot
 * may pass them) where they cannot be written now, as the server is away or
 * their mapping waits, where they may be another lane's, and where what is
 * decoded is further ahead of what is durable than plinth.sync_wal_keep, as the
 * server is too slow.  As keys leave memory, marks come in behind them, until
 * the spool is empty.
 *
 * Keys whose transaction is not visible yet can neither be written nor moved:
 * with those alone a lane may be full, and then it waits for them.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "decode/decode.h"
#include "miscadmin.h"

#include "sync/share_int.h"
#include "sync/via_int.h"

#define STORE_AT_ONCE 5000

typedef struct Owed
{
	PlinthDirtyKey **keys;
	int n;
} Owed;

Size
plinth_sync_room_used(PlinthLane *lane)
{
	Size bytes = 0;
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		bytes += mapping->dirty.bytes + mapping->via.bytes;
	}
	return bytes;
}

Size
plinth_sync_room_limit(void)
{
	return (Size) plinth_setting_sync_memory * 1024 / 2;
}

/* Full of keys that only wait for the fence. */
bool
plinth_sync_room_needs_fence(PlinthLane *lane)
{
	long owed = 0;
	long acked = 0;
	ListCell *lc;

	if (!lane->full)
		return false;
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		owed += mapping->dirty.nowed;
		acked += mapping->dirty.nacked + mapping->dirty.nfenced;
	}
	return acked > owed;
}

static void
store_owed(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Owed *owed = arg;

	plinth_sync_store_owed(mapping, owed->keys, owed->n);
}

/*
 * Everything owed by this mapping into its table, oldest first, as far as it
 * is visible.  A key leaves memory once its row is committed.
 */
static void
store_all(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	Owed owed;
	bool stored = true;

	if (mapping->dirty.nowed == 0)
		return;
	owed.keys = palloc(sizeof(PlinthDirtyKey *) * STORE_AT_ONCE);
	while (stored &&
		   (owed.n = plinth_sync_dirty_take(&mapping->dirty, owed.keys, STORE_AT_ONCE)) > 0)
	{
		stored = plinth_sync_lane_run(lane, mapping, store_owed, &owed);
		plinth_sync_dirty_settle(&mapping->dirty, owed.keys, owed.n, stored);
	}
	pfree(owed.keys);
}

/* Does this lane hold the slot back by more WAL than is to be kept? */
static bool
keeps_too_much(PlinthLane *lane)
{
	XLogRecPtr durable = pg_atomic_read_u64(&lane->shared->durable);
	uint64 most = (uint64) plinth_setting_sync_wal_keep * 1024;
	PlinthDecodeStatus status;

	/* Long before the slot itself is lost. */
	if (max_slot_wal_keep_size_mb >= 0)
		most = Min(most, (uint64) max_slot_wal_keep_size_mb * 1024 * 1024 / 2);
	plinth_decode_status(MyDatabaseId, &status);
	return durable != InvalidXLogRecPtr && status.decoded > durable &&
		   status.decoded - durable > most;
}

void
plinth_sync_room_make(PlinthLane *lane)
{
	bool all = lane->failures >= 2 || keeps_too_much(lane);
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (all || mapping->foreign || !plinth_sync_share_any(lane, mapping) ||
			!plinth_sync_lane_ready(mapping) || mapping->failures >= 2)
			store_all(lane, mapping);
		if (mapping->dirty.nowed == 0)
			mapping->foreign = false;
		/* Roots are looked for whether MongoDB is there or not; it is the tables that cannot be read. */
		if (mapping->def->problem != NULL || mapping->failures >= 2)
			plinth_sync_via_store(lane, mapping);
	}
}
