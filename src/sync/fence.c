/*
 * fence.c
 *		Whose collection it is, and how much of what was sent stands.
 *
 * A collection has one fence document.  It names its one writer (system
 * identifier, database OID, timeline, epoch) and a WAL position, and moves by
 * compare-and-set only.  The order at a checkpoint is: writes acknowledged by
 * the majority, then the fence, then what the fence covers leaves our tables,
 * and once that is on disk memory, then the slot.  So a fence that is found
 *
 *	 - ahead of what we remember, within our WAL: an ordinary crash of ours;
 *	 - beyond the end of our WAL, or of another timeline: this server was
 *	   restored from an older state, or promoted;
 *	 - behind what we remember, or gone: MongoDB lost what it acknowledged;
 *	 - another's, or of a higher epoch: somebody else took the collection.
 *
 * All but the first block the mapping until somebody decides.
 *
 * Where several lanes write a collection, the first does what is the whole
 * collection's.  Each other one moves its own place in the fence, which it can
 * only while writer, timeline and epoch stay what it knows.
 *
 * A writer relies on a fence that it moved for one and a half checkpoint
 * intervals, and moves it again before it writes anything later than that.  How
 * long that is stands in the fence; who takes the collection over waits for
 * longer before it reads or writes anything there.  So what the writer before
 * it had begun to write has landed by then, and is put right with the rest.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "decode/decode.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "sync/append_int.h"
#include "sync/report_int.h"
#include "sync/share_int.h"
#include "sync/watch_int.h"

/* What a write needs at least to land in a MongoDB that is well. */
#define LANDING_MS 1000

typedef struct BlockWrite
{
	const char *reason;
	const char *hint;
} BlockWrite;

static void
do_block(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	BlockWrite *block = arg;

	plinth_sync_store_block(mapping, block->reason, block->hint);
}

static void
block(PlinthLane *lane, PlinthLaneMapping *mapping, const char *reason, const char *hint)
{
	BlockWrite what = {reason, hint};

	ereport(WARNING, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					  errmsg("sync of \"%s\" is blocked: %s", mapping->def->name, reason),
					  errhint("%s", hint)));
	plinth_sync_lane_run(lane, mapping, do_block, &what);
}

static void
our_fence(PlinthLaneMapping *mapping, PlinthMongoFence *fence)
{
	PlinthDecodeStatus status;

	plinth_decode_status(MyDatabaseId, &status);
	memset(fence, 0, sizeof(*fence));
	fence->system_identifier = GetSystemIdentifier();
	fence->database = MyDatabaseId;
	fence->timeline = GetWALInsertionTimeLine();
	fence->slot_generation = status.slot_generation;
	fence->lsn = GetFlushRecPtr(NULL);
	fence->epoch = mapping->def->fence_epoch;
	fence->hold_ms = plinth_setting_sync_checkpoint_interval * 3 / 2;
}

/* Moves this lane's place in it, or as the first lane the fence itself. */
static PlinthMongoStatus
move_place(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthMongoFence *from,
		   const PlinthMongoFence *next, bool *moved, PlinthMongoError *error)
{
	if (lane->share == 0)
		return plinth_mongo_fence_move(lane->client, mapping->def->collection, from, next, moved,
									   error);
	return plinth_mongo_fence_lane_move(lane->client, mapping->def->collection, lane->share, next,
										from->lane_lsn[lane->share], next->lsn, moved, error);
}

/* Moves the fence from where it was to next; false when the server failed. */
static bool
move_fence(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthMongoFence *from,
		   const PlinthMongoFence *next, bool *moved)
{
	PlinthMongoError error = {0};
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	*moved = false;
	if (move_place(lane, mapping, from, next, moved, &error) != PLINTH_MONGO_OK)
	{
		plinth_sync_report_outage(lane, &error);
		return false;
	}
	if (*moved)
	{
		mapping->fence = *next;
		mapping->fence.lane_lsn[lane->share] = next->lsn;
		mapping->fenced_at = now;
	}
	return true;
}

static bool
same_database(const PlinthMongoFence *a, const PlinthMongoFence *b)
{
	return a->system_identifier == b->system_identifier && a->database == b->database;
}

/* Why a fence that should be ours is not as it should be, or NULL. */
static const char *
verdict(PlinthLane *lane, PlinthLaneMapping *mapping, bool found, const PlinthMongoFence *fence,
		const char **hint)
{
	PlinthMongoFence ours;
	uint64 place = lane->share == 0 ? fence->lsn : fence->lane_lsn[lane->share];
	uint64 known = lane->share == 0 ? mapping->def->fence_lsn : mapping->share_fence;

	our_fence(mapping, &ours);
	*hint = "Decide which side is right: plinth.sync_adopt(server) takes the collection over as "
			"it is here, plinth.sync_resync(name) sends everything again.";
	if (!found)
		return "MongoDB has lost the collection's fence";
	if (!same_database(fence, &ours))
		return psprintf("another database writes the collection (system " UINT64_FORMAT
						", database %u)",
						fence->system_identifier, fence->database);
	if (fence->epoch > ours.epoch)
		return "another copy of this database has taken the collection over";
	if (fence->timeline != ours.timeline)
		return psprintf("this server is on timeline %u, the collection was written on timeline %u",
						ours.timeline, fence->timeline);
	if (Max(fence->lsn, place) > ours.lsn)
		return psprintf("MongoDB is ahead of this server, which was restored from an older state "
						"(%X/%X, WAL ends at %X/%X)",
						LSN_FORMAT_ARGS(Max(fence->lsn, place)), LSN_FORMAT_ARGS(ours.lsn));
	if (fence->epoch < ours.epoch || place < known)
		return psprintf("MongoDB has lost writes that it had acknowledged (fence at %X/%X, was at "
						"%X/%X)",
						LSN_FORMAT_ARGS(place), LSN_FORMAT_ARGS(known));
	return NULL;
}

static void
do_prepared(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	plinth_sync_store_prepared(mapping);
	if (*(bool *) arg)
		plinth_sync_store_sweep(mapping, false);
}

typedef struct ForeignPage
{
	PlinthBson *ids;
	int nids;
} ForeignPage;

static void
do_foreign(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	ForeignPage *page = arg;

	plinth_sync_store_foreign(mapping, page->ids, page->nids);
}

/*
 * What is in the collection before our first write: nothing, or what
 * on_existing says.  False when the mapping must wait; *sweep when documents
 * that are not ours are to go.
 */
static bool
look_at_collection(PlinthLane *lane, PlinthLaneMapping *mapping, bool *sweep)
{
	PlinthMongoError error = {0};
	ForeignPage page = {0};
	PlinthBson after = {NULL, 0};
	bool keeping = strcmp(mapping->def->on_existing, "keep") == 0;
	MemoryContext context = CurrentMemoryContext;

	*sweep = strcmp(mapping->def->on_existing, "replace") == 0;
	/* What was there before a collection that only grows is in nobody's way. */
	if (*sweep || (keeping && mapping->def->append))
		return true;
	do
	{
		if (plinth_mongo_scan(lane->client, mapping->def->collection, after, true,
							  keeping ? 1000 : 1, &page.ids, &page.nids, &error) != PLINTH_MONGO_OK)
		{
			plinth_sync_report_outage(lane, &error);
			return false;
		}
		if (page.nids == 0)
			return true;
		if (!keeping)
		{
			block(lane, mapping, "the collection holds documents that are not ours",
				  "Empty it, or create the mapping with on_existing => 'replace' (they go) or "
				  "'keep' (they stay).");
			return false;
		}
		if (!plinth_sync_lane_run(lane, mapping, do_foreign, &page))
			return false;
		MemoryContextSwitchTo(context);
		after = page.ids[page.nids - 1];
	} while (page.nids == 1000);
	return true;
}

/* Whoever had the fence has written all that it began: the collection is ours to read and write. */
static void
end_quiet(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthMongoFence next;
	bool moved;

	mapping->taken = false;
	our_fence(mapping, &next);
	next.epoch = Max(next.epoch, mapping->fence.epoch);
	if (move_fence(lane, mapping, &mapping->fence, &next, &moved) && moved)
		mapping->verified_fence =
			plinth_sync_lane_run(lane, mapping, do_prepared, &mapping->taken_sweep);
}

/* Nobody has asked, so not wherever the fence stands; one of ours is there if this was cut short before. */
static bool
may_resync(PlinthLaneMapping *mapping, const PlinthMongoFence *fence, const PlinthMongoFence *ours)
{
	return !mapping->def->promoted || plinth_sync_is_promotion(mapping->def, fence) ||
		   (fence->timeline == ours->timeline && ours->slot_generation != 0 &&
			fence->slot_generation == ours->slot_generation);
}

/* The first look at a collection, or the first after somebody decided to adopt it or send all again. */
static void
take_over(PlinthLane *lane, PlinthLaneMapping *mapping, bool found, PlinthMongoFence *fence)
{
	PlinthMongoFence ours;
	const char *reason;
	const char *hint;
	bool moved;
	bool sweep = false;
	bool strange;

	our_fence(mapping, &ours);
	strange = found ? !same_database(fence, &ours) || !may_resync(mapping, fence, &ours)
					: mapping->def->promoted;
	if (strange && !mapping->def->adopting)
	{
		reason = verdict(lane, mapping, found, fence, &hint);
		block(lane, mapping, reason == NULL ? "the fence is not this server's" : reason, hint);
		return;
	}
	if (!plinth_sync_append_prepare(lane, mapping, &reason, &hint))
	{
		if (reason != NULL)
			block(lane, mapping, reason, hint);
		return;
	}
	if (!mapping->def->adopting && !mapping->def->prepared &&
		!look_at_collection(lane, mapping, &sweep))
		return;
	/* An epoch tells whether what the other lanes remember of their places is of this fence. */
	if (found)
		ours.epoch = Max(ours.epoch, fence->epoch + 1);
	else if (mapping->def->lanes > 1)
		ours.epoch++;
	if (!move_fence(lane, mapping, found ? fence : NULL, &ours, &moved) || !moved)
		return; /* somebody was quicker; look again */
	mapping->taken_sweep = sweep;
	if (found && (mapping->def->adopting || !same_database(fence, &ours) ||
				  fence->timeline != ours.timeline))
	{
		int64 hold_ms = Max(fence->longest_hold_ms, ours.hold_ms);

		mapping->taken = true;
		mapping->quiet_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
														   hold_ms + Max(hold_ms / 3, LANDING_MS));
		return;
	}
	mapping->verified_fence = plinth_sync_lane_run(lane, mapping, do_prepared, &sweep);
}

bool
plinth_sync_check_fence(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	MemoryContext work;
	MemoryContext old;
	PlinthMongoFence fence = {0};
	PlinthMongoError error = {0};
	bool taking = !mapping->def->prepared || mapping->def->adopting || mapping->def->resyncing;
	const char *reason;
	const char *hint;
	bool found = false;

	if (taking && mapping->taken && mapping->quiet_until > GetCurrentTimestamp())
		return false;
	/* The first lane takes it, and by then it may be of another epoch than we loaded. */
	if (lane->share > 0 &&
		(taking || lane->generation != plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC)))
		return false;
	work = AllocSetContextCreate(lane->context, "plinth fence", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(work);
	if (taking && mapping->taken)
		end_quiet(lane, mapping);
	else if (plinth_mongo_fence_read(lane->client, mapping->def->collection, &fence, &found,
									 &error) != PLINTH_MONGO_OK)
		plinth_sync_report_outage(lane, &error);
	else if (taking)
		take_over(lane, mapping, found, &fence);
	else if ((reason = verdict(lane, mapping, found, &fence, &hint)) != NULL)
	{
		if (!found || !plinth_sync_promote(lane, mapping, &fence))
			block(lane, mapping, reason, hint);
	}
	else
	{
		mapping->fence = fence;
		INSTR_TIME_SET_ZERO(mapping->fenced_at);
		mapping->verified_fence = true;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	return mapping->verified_fence;
}

/* What MongoDB acknowledged since the last fence may be lost: it is owed again. */
static void
doubt(PlinthLaneMapping *mapping)
{
	mapping->verified_fence = false;
	plinth_sync_apply_drop(mapping);
	plinth_sync_task_drop(mapping);
	plinth_sync_dirty_unfenced(&mapping->dirty);
	plinth_sync_task_rewind(mapping);
}

/* The fence is where nobody of ours left it: where that blocks, keys must not keep the WAL. */
static void
lose_fence(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	doubt(mapping);
	(void) plinth_sync_check_fence(lane, mapping);
}

bool
plinth_sync_fence_hold(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthMongoFence next;
	instr_time age;
	bool moved;

	INSTR_TIME_SET_CURRENT(age);
	INSTR_TIME_SUBTRACT(age, mapping->fenced_at);
	if (!INSTR_TIME_IS_ZERO(mapping->fenced_at) &&
		INSTR_TIME_GET_MILLISEC(age) < mapping->fence.hold_ms)
		return true;
	our_fence(mapping, &next);
	next.epoch = mapping->fence.epoch;
	if (!move_fence(lane, mapping, &mapping->fence, &next, &moved))
		return false;
	if (!moved)
		lose_fence(lane, mapping);
	return moved;
}

static void
doubt_everything(PlinthLane *lane)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
		doubt(lfirst(lc));
}

void
plinth_sync_disconnect(PlinthLane *lane)
{
	if (lane->client != NULL)
		plinth_mongo_close(lane->client);
	lane->client = NULL;
	lane->connected = false;
	doubt_everything(lane);
}

static void
open_client(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	ForeignServer *server = GetForeignServerByName(lane->server, true);

	lane->server_hash = server == NULL ? 0
									   : GetSysCacheHashValue1(FOREIGNSERVEROID,
															   ObjectIdGetDatum(server->serverid));
	lane->client = plinth_mongo_open(lane->server, lane->owner, arg);
}

bool
plinth_sync_connect(PlinthLane *lane)
{
	PlinthMongoError error = {0};

	if (lane->client != NULL && lane->client_stale)
		plinth_sync_disconnect(lane);
	if (lane->client != NULL && lane->connected &&
		plinth_mongo_connections(lane->client) == lane->connections)
		return true;

	if (lane->client == NULL)
	{
		lane->client_stale = false;
		plinth_sync_lane_run(lane, NULL, open_client, &error);
		if (lane->client == NULL)
		{
			plinth_sync_report_outage(lane, &error);
			return false;
		}
	}
	doubt_everything(lane);
	if (plinth_mongo_ping(lane->client, &error) != PLINTH_MONGO_OK)
	{
		plinth_sync_report_outage(lane, &error);
		return false;
	}
	lane->connected = true;
	lane->connections = plinth_mongo_connections(lane->client);
	lane->retry_at = 0;
	return true;
}

/* ---- checkpoint ---- */

static void
write_down(PlinthLane *lane, PlinthLaneMapping *unused, void *arg)
{
	List *fenced = arg;
	ListCell *lc;

	foreach (lc, fenced)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		ListCell *tc;

		if (lane->share > 0)
			plinth_sync_share_store_fence(lane, mapping);
		else
			plinth_sync_store_fenced(mapping);
		foreach (tc, mapping->tasks)
		{
			PlinthSyncTask *task = lfirst(tc);

			if (!task->sweep)
			{
				task->cursor_key = task->ahead_key;
				task->done = task->ahead;
			}
			(void) plinth_sync_store_task(mapping, task);
		}
	}
	/* Nobody waits for the disk here: checkpoint_finish looks when it is there. */
	plinth_sync_lane_commit_lazily();
}

static void
let_go(PlinthLaneMapping *mapping)
{
	ListCell *lc;

	foreach (lc, mapping->tasks)
	{
		if (((PlinthSyncTask *) lfirst(lc))->finished)
			mapping->tasks = foreach_delete_current (mapping->tasks, lc);
	}
	if (mapping->tasks == NIL)
		MemoryContextReset(mapping->tasks_context);
	plinth_sync_dirty_fenced(&mapping->dirty);
	mapping->fence_due = false;
}

void
plinth_sync_checkpoint_finish(PlinthLane *lane, bool wait)
{
	ListCell *lc;

	if (lane->fenced_lsn == InvalidXLogRecPtr)
		return;
	if (wait)
		XLogFlush(lane->fenced_lsn);
	else if (GetFlushRecPtr(NULL) < lane->fenced_lsn)
		return;
	lane->fenced_lsn = InvalidXLogRecPtr;
	foreach (lc, lane->mappings)
		plinth_sync_dirty_flushed(&((PlinthLaneMapping *) lfirst(lc))->dirty);
}

bool
plinth_sync_checkpoint(PlinthLane *lane)
{
	MemoryContext work =
		AllocSetContextCreate(lane->context, "plinth checkpoint", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);
	List *fenced = NIL;
	ListCell *lc;
	bool ok = true;

	plinth_sync_checkpoint_finish(lane, true);
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		PlinthMongoFence next;
		bool moved;

		if (!mapping->fence_due || !mapping->verified_fence || !ok)
			continue;
		our_fence(mapping, &next);
		next.epoch = mapping->fence.epoch;
		if (!move_fence(lane, mapping, &mapping->fence, &next, &moved))
			ok = false;
		else if (moved)
			fenced = lappend(fenced, mapping);
		else
			lose_fence(lane, mapping);
	}
	if (fenced != NIL)
	{
		if (plinth_sync_lane_run(lane, NULL, write_down, fenced))
		{
			lane->fenced_lsn = XactLastCommitEnd;
			MemoryContextSwitchTo(work);
			foreach (lc, fenced)
				let_go(lfirst(lc));
		}
		else
			ok = false;
	}
	lane->acked = 0;
	lane->last_checkpoint = GetCurrentTimestamp();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	return ok;
}
