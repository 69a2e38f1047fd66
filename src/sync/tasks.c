/*
 * tasks.c
 *		Snapshots and sweeps, a page at a time.
 *
 * A snapshot is in shares, one for each lane of the mapping, which are tasks of
 * their own: each lane reads all rows and sends those of its keys.  It pages through the table (or one partition) in the order of its
 * key.  Before its first page it waits for the transactions that held a lock
 * to write the table when the decoder already knew the mapping: whoever wrote
 * without being decoded for it has then ended and is visible to every page.
 *
 * Where it is stands in sync_tasks.  cursor_key moves with the fence;
 * sent_key is written down before a page is sent, so that after a crash the
 * rows between the two are known to be suspect.
 *
 * While MongoDB works on a page the next one is read.  Should anything of the
 * mapping be written in between, that page is dropped and read again: rows are
 * written in the order in which they were read.
 *
 * A sweep pages through the collection in the order of _id and marks, in
 * sync_dirty, the keys that no row (any more) stands behind; their documents
 * go the way of every key that is owed.  An _id that no row of ours could
 * have is deleted here, unless it was there before us.
 */
#include "postgres.h"

#include "access/xact.h"
#include "decode/decode.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "sync/file_int.h"
#include "sync/report_int.h"
#include "sync/share_int.h"
#include "sync/via_int.h"

static char *
keep(PlinthLaneMapping *mapping, const char *text)
{
	return MemoryContextStrdup(mapping->tasks_context, text);
}

void
plinth_sync_task_rewind(PlinthLaneMapping *mapping)
{
	ListCell *lc;

	foreach (lc, mapping->tasks)
	{
		PlinthSyncTask *task = lfirst(lc);

		if (task->sweep)
			continue;
		task->ahead_key = task->cursor_key;
		task->ahead = task->done;
		task->finished = false;
		if (task->sent_key != NULL)
			task->suspect_until = task->sent_key;
	}
}

/* ---- waiting for those who wrote before the decoder knew ---- */

static void
add_lockers(PlinthLaneMapping *mapping, PlinthSyncTask *task, Oid relation)
{
	LOCKTAG tag;
	VirtualTransactionId *lockers;
	int n;
	MemoryContext old;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relation);
	lockers = GetLockConflicts(&tag, ShareLock, &n);
	old = MemoryContextSwitchTo(mapping->tasks_context);
	for (int i = 0; i < n; i++)
	{
		VirtualTransactionId *copy = palloc(sizeof(VirtualTransactionId));

		*copy = lockers[i];
		task->lockers = lappend(task->lockers, copy);
	}
	MemoryContextSwitchTo(old);
}

static void
find_lockers(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	PlinthSyncTask *task = arg;
	List *relations;
	ListCell *lc;

	plinth_sync_store_task_total(task,
								 plinth_sync_estimate_rows(task->relation) / mapping->def->lanes);
	relations = plinth_sync_mapping_tables(mapping->def);
	foreach (lc, relations)
		add_lockers(mapping, task, lfirst_oid(lc));
	task->waited = true;
}

static void
poll_lockers(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	PlinthSyncTask *task = arg;
	ListCell *lc;

	foreach (lc, task->lockers)
	{
		if (VirtualXactLock(*(VirtualTransactionId *) lfirst(lc), false))
			task->lockers = foreach_delete_current (task->lockers, lc);
	}
}

/* True when the snapshot may begin. */
static bool
writers_gone(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncTask *task)
{
	PlinthDecodeStatus status;

	if (!task->waited)
	{
		if (mapping->indexes_pending)
			return false;
		plinth_decode_status(MyDatabaseId, &status);
		if (status.pid == 0 || status.generation < mapping->loaded_generation)
			return false;
		if (!plinth_sync_lane_run(lane, mapping, find_lockers, task))
			return false;
	}
	if (task->lockers != NIL)
		plinth_sync_lane_run(lane, mapping, poll_lockers, task);
	return task->lockers == NIL;
}

/* ---- snapshot ---- */

typedef struct SnapshotPage
{
	MemoryContext context; /* holds all of it */
	PlinthSyncTask *task;
	char *after; /* where it begins; NULL: at the start */
	char *last;  /* where it ends; NULL: there was no row */
	PlinthSyncBatch *batch;
	bool gone;    /* the task is: it was shared out anew */
	bool written; /* or it is not known whether it has landed, and it is sent again */
} SnapshotPage;

void
plinth_sync_task_drop(PlinthLaneMapping *mapping)
{
	if (mapping->page_ahead != NULL)
		MemoryContextDelete(mapping->page_ahead->context);
	mapping->page_ahead = NULL;
}

static void
read_page(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	SnapshotPage *page = arg;
	PlinthSyncTask *task = page->task;
	PlinthSyncBatch *batch = page->batch;

	if (task->relation != mapping->def->relation && get_rel_relkind(task->relation) == '\0')
	{
		/* A partition that has gone: the sweep that this started sees to it. */
		batch->exhausted = true;
		return;
	}
	plinth_sync_read_page(mapping->def, task->relation, task->old_filter, page->after,
						  Min(plinth_sync_report_batch_rows(mapping, PLINTH_SYNC_FROM_PAGE),
							  plinth_sync_turns_page_rows(mapping)),
						  batch);
	if (batch->unusable)
	{
		plinth_sync_store_sweep(mapping, true);
		page->gone = true;
	}
	if (batch->last_key == NULL)
		return;
	page->last = task->sent_key = keep(mapping, batch->last_key);
	/* Of a part of the rows the last that is sent, which is what a crash is to find again. */
	if ((mapping->def->lanes > 1 || task->old_filter != NULL) && batch->nops > 0)
		task->sent_key = keep(mapping, batch->ops[batch->nops - 1].literal);
	page->gone = !plinth_sync_store_task(mapping, task);
}

/* NULL when it cannot be read now. */
static SnapshotPage *
take_page(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncTask *task, char *after)
{
	MemoryContext context =
		AllocSetContextCreate(lane->context, "plinth snapshot page", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SnapshotPage *page = palloc0(sizeof(SnapshotPage));
	bool ok;

	page->context = context;
	page->task = task;
	page->after = after;
	page->batch = plinth_sync_batch_create(context);
	page->batch->source = PLINTH_SYNC_FROM_PAGE;
	ok = plinth_sync_lane_run(lane, mapping, read_page, page);
	MemoryContextSwitchTo(old);
	if (ok && !page->gone)
		return page;
	MemoryContextDelete(context);
	return NULL;
}

typedef struct Ahead
{
	PlinthLane *lane;
	PlinthLaneMapping *mapping;
	SnapshotPage *page; /* the one that goes before */
} Ahead;

static void
read_ahead(void *arg)
{
	Ahead *ahead = arg;

	ahead->mapping->page_ahead =
		take_page(ahead->lane, ahead->mapping, ahead->page->task, ahead->page->last);
}

/* Keys of the page that are suspect, failed for now, or never will do. */
static void
settle_page(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	SnapshotPage *page = arg;
	PlinthSyncBatch *batch = page->batch;
	char **suspects = palloc(sizeof(char *) * (batch->nops + 1));
	char **later = palloc(sizeof(char *) * (batch->nops + 1));
	int nsuspects = 0;
	int nlater = 0;
	ListCell *lc;

	for (int i = 0; i < batch->nops; i++)
	{
		PlinthMongoError *error = &batch->ops[i].op.error;

		if (!page->written || page->task->suspect_until != NULL ||
			plinth_mongo_status_is_unknown(error->status))
			suspects[nsuspects++] = batch->ops[i].literal;
		if (!page->written || error->status == PLINTH_MONGO_OK)
			continue;
		if (plinth_mongo_status_is_transient(error->status))
			later[nlater++] = batch->ops[i].literal;
		else
			plinth_sync_store_dead(mapping, batch->ops[i].literal,
								   plinth_mongo_status_name(error->status), error->code,
								   error->message);
	}
	foreach (lc, batch->poison)
	{
		PlinthSyncKey *key = lfirst(lc);

		plinth_sync_store_dead(mapping,
							   plinth_sync_key_literal(mapping->def->nkeys, key->key, key->keylen),
							   unpack_sql_state(key->poison_code), 0, key->poison);
	}
	plinth_sync_store_keys(mapping, suspects, nsuspects, 1);
	plinth_sync_store_keys(mapping, later, nlater, 0);
}

/* Over the row of this page the server closed the connection: it is owed, the snapshot goes on. */
static void
settle_cut(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	SnapshotPage *page = arg;

	/* Everything before it is fenced, and it is in sync_dirty: so this is where the cursor stands. */
	plinth_sync_store_cut(mapping, page->batch->ops[0].literal);
	page->task->cursor_key = page->task->ahead_key = page->last;
	page->task->done = ++page->task->ahead;
	(void) plinth_sync_store_task(mapping, page->task);
}

/* Is everything before the page fenced? */
static bool
follows_fence(const SnapshotPage *page)
{
	const char *cursor = page->task->cursor_key;

	return page->after == NULL || cursor == NULL ? page->after == cursor
												 : strcmp(page->after, cursor) == 0;
}

/* Nearly every page leaves nothing to write down. */
static bool
is_clean(SnapshotPage *page)
{
	bool clean = page->written && page->task->suspect_until == NULL && page->batch->poison == NIL;

	for (int i = 0; clean && i < page->batch->nops; i++)
		clean = page->batch->ops[i].op.error.status == PLINTH_MONGO_OK;
	return clean;
}

/* Has the snapshot come past what was sent before a crash? */
static void
leave_suspects(PlinthSyncTask *task, PlinthSyncBatch *batch)
{
	for (int i = 0; i < batch->nops && task->suspect_until != NULL; i++)
	{
		if (strcmp(batch->ops[i].literal, task->suspect_until) == 0)
			task->suspect_until = NULL;
	}
	/* That row may have gone; a fence covers at most so many. */
	if (task->ahead - task->done > 20000)
		task->suspect_until = NULL;
}

/* False when the page after it must be read anew. */
static bool
write_page(PlinthLane *lane, PlinthLaneMapping *mapping, SnapshotPage *page)
{
	PlinthSyncTask *task = page->task;
	PlinthSyncBatch *batch = page->batch;
	TimestampTz began = GetCurrentTimestamp();
	Ahead ahead = {lane, mapping, page};
	bool limited = mapping->cuts[PLINTH_SYNC_FROM_PAGE].max > 0;
	bool unknown;
	bool clean;

	if (!plinth_sync_fence_hold(lane, mapping))
		return false;
	/* Keys that are owed go first, and the page after would be read for nothing. */
	if (!batch->exhausted && page->last != NULL && mapping->dirty.nowed == 0 &&
		!plinth_sync_stored_due(mapping))
		plinth_mongo_meanwhile(lane->client, read_ahead, &ahead);
	page->written = plinth_sync_apply(lane, mapping, batch, &unknown);
	plinth_sync_turns_page_done(lane, mapping, batch->nops, began);
	if (!page->written && !unknown)
		return false;
	if (batch->cut && batch->nops == 1 && page->last != NULL && follows_fence(page))
	{
		plinth_sync_lane_run(lane, mapping, settle_cut, page);
		return false;
	}
	MemoryContextSwitchTo(page->context);
	clean = is_clean(page);
	if ((!clean && !plinth_sync_lane_run(lane, mapping, settle_page, page)) || !page->written)
		return false;
	task->ahead += batch->nops;
	leave_suspects(task, batch);
	if (page->last != NULL)
		task->ahead_key = page->last;
	task->finished = batch->exhausted;
	mapping->fence_due = true;
	/* Where the connection may be closed at the next page, this one must stand. */
	if (limited && !plinth_sync_checkpoint(lane))
		return false;
	return clean;
}

static bool
snapshot_step(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncTask *task)
{
	SnapshotPage *page = mapping->page_ahead;

	if (plinth_sync_turns_page_due(lane, mapping) > GetCurrentTimestamp() ||
		!writers_gone(lane, mapping, task))
		return false;
	mapping->page_ahead = NULL;
	if (page == NULL)
		page = take_page(lane, mapping, task, task->ahead_key);
	if (page == NULL)
		return true;
	if (!write_page(lane, mapping, page))
		plinth_sync_task_drop(mapping);
	MemoryContextDelete(page->context);
	return true;
}

/* ---- sweep ---- */

typedef struct Sweep
{
	PlinthSyncTask *task;
	PlinthBson *ids;
	int nids;
	PlinthSyncKey *keys; /* of those that could be ours */
	int nkeys;
	bool *absent;
	PlinthBson *strangers; /* that could not */
	int nstrangers;
	bool *foreign; /* strangers that were there before us */
	MemoryContext context;
} Sweep;

static void
move_sweep(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Sweep *sweep = arg;
	char **literals = palloc(sizeof(char *) * (sweep->nkeys + 1));
	int n = 0;

	for (int i = 0; i < sweep->nkeys; i++)
	{
		if (sweep->absent[i])
			literals[n++] = plinth_sync_key_literal(mapping->def->nkeys, sweep->keys[i].key,
													sweep->keys[i].keylen);
	}
	plinth_sync_store_keys(mapping, literals, n, 0);
	(void) plinth_sync_store_task(mapping, sweep->task);
}

static void
sort_ids(PlinthLaneMapping *mapping, Sweep *sweep)
{
	sweep->keys = palloc0(sizeof(PlinthSyncKey) * (sweep->nids + 1));
	sweep->absent = palloc0(sizeof(bool) * (sweep->nids + 1));
	sweep->strangers = palloc(sizeof(PlinthBson) * (sweep->nids + 1));
	sweep->foreign = palloc0(sizeof(bool) * (sweep->nids + 1));
	for (int i = 0; i < sweep->nids; i++)
	{
		if (plinth_sync_read_id(mapping->def, sweep->ids[i], &sweep->keys[sweep->nkeys]))
			sweep->nkeys++;
		else
			sweep->strangers[sweep->nstrangers++] = sweep->ids[i];
	}
}

static void
look_up(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Sweep *sweep = arg;
	MemoryContext old = MemoryContextSwitchTo(sweep->context);
	bool *foreign;

	sort_ids(mapping, sweep);
	plinth_sync_read_absent(mapping->def, sweep->keys, sweep->nkeys, sweep->absent);
	foreign = plinth_sync_store_are_foreign(mapping, sweep->strangers, sweep->nstrangers);
	memcpy(sweep->foreign, foreign, sizeof(bool) * sweep->nstrangers);
	MemoryContextSwitchTo(old);
}

/* Documents that no row of ours can stand behind, now or later. */
static bool
remove_strangers(PlinthLane *lane, PlinthLaneMapping *mapping, Sweep *sweep)
{
	PlinthMongoOp *ops = palloc0(sizeof(PlinthMongoOp) * (sweep->nstrangers + 1));
	PlinthMongoError error = {0};
	int n = 0;

	for (int i = 0; i < sweep->nstrangers; i++)
	{
		if (sweep->foreign[i])
			continue;
		ops[n].kind = PLINTH_MONGO_DELETE;
		ops[n++].id = sweep->strangers[i];
	}
	if (n == 0)
		return true;
	if (!plinth_sync_fence_hold(lane, mapping))
		return false;
	if (plinth_mongo_write(lane->client, mapping->def->collection, ops, n, &error) !=
		PLINTH_MONGO_OK)
	{
		plinth_sync_report_outage(lane, &error);
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		if (ops[i].error.status != PLINTH_MONGO_OK)
		{
			plinth_sync_report_failure(lane, mapping, plinth_mongo_status_name(ops[i].error.status),
									   ops[i].error.message);
			return false;
		}
		mapping->stat.documents_deleted++;
	}
	mapping->fence_due = true;
	return plinth_sync_share_check_shape(lane, mapping);
}

static bool
sweep_step(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncTask *task, MemoryContext work)
{
	Sweep sweep = {0};
	PlinthMongoError error = {0};
	PlinthSyncTask before = *task;

	sweep.task = task;
	sweep.context = work;
	if (plinth_mongo_scan(lane->client, mapping->def->collection, task->cursor_id, true,
						  plinth_setting_sync_batch_rows, &sweep.ids, &sweep.nids,
						  &error) != PLINTH_MONGO_OK)
	{
		plinth_sync_report_outage(lane, &error);
		return true;
	}
	if (!plinth_sync_lane_run(lane, mapping, look_up, &sweep))
		return true;
	MemoryContextSwitchTo(work);
	if (!remove_strangers(lane, mapping, &sweep))
		return true;
	if (sweep.nids > 0)
	{
		PlinthBson last = sweep.ids[sweep.nids - 1];

		task->cursor_id.data = MemoryContextAlloc(mapping->tasks_context, last.len);
		memcpy(task->cursor_id.data, last.data, last.len);
		task->cursor_id.len = last.len;
	}
	task->done += sweep.nids;
	task->finished = sweep.nids < plinth_setting_sync_batch_rows;
	if (!plinth_sync_lane_run(lane, mapping, move_sweep, &sweep))
	{
		/* The marks are not durable: the page is swept again. */
		*task = before;
		return true;
	}
	if (before.cursor_id.data != NULL && sweep.nids > 0)
		pfree(before.cursor_id.data);
	task->ahead = task->done;
	mapping->fence_due = true;
	return true;
}

PlinthSyncTask *
plinth_sync_task_next(PlinthLaneMapping *mapping)
{
	ListCell *lc;

	foreach (lc, mapping->tasks)
	{
		PlinthSyncTask *task = lfirst(lc);

		if (!task->finished)
			return task;
	}
	return NULL;
}

bool
plinth_sync_task_step(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthSyncTask *task = plinth_sync_task_next(mapping);
	MemoryContext work;
	MemoryContext old;
	bool did;

	if (task == NULL || plinth_sync_file_waits(lane, mapping, task))
		return false;
	work = AllocSetContextCreate(lane->context, "plinth sync task", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(work);
	if (task->sweep)
		did = sweep_step(lane, mapping, task, work);
	else
		did = snapshot_step(lane, mapping, task);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	return did;
}
