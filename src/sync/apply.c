/*
 * apply.c
 *		A batch of keys on its way: read, written, answered.
 *
 * What an answer means for a key:
 *	 acknowledged by the majority	done, once the fence has moved
 *	 a unique index refuses it		settled in conflict.c, else a dead letter
 *	 it can never be stored			a dead letter; the next change tries again
 *	 answered with another error	owed again, later and later (in sync_dirty,
 *									so that it delays no other); a dead letter
 *									after MAX_ATTEMPTS
 *	 another lane's key has its		asked to let go: owed again, later and later,
 *	 unique value no more			however long that lane takes
 *	 no answer						owed again, and suspect: the write may land
 *									after a newer one (docs/sync.md, zombies)
 *	 the connection is closed over	sent in ever smaller batches, until it is one
 *	 it, again and again			key alone; a dead letter after CUT_ATTEMPTS when
 *									other documents were taken meanwhile, else
 *									after MAX_ATTEMPTS
 *
 * While MongoDB works on a batch the next one is read.  Rows are written in
 * the order in which they were read: a batch that was read ahead is written
 * before anything else of its mapping is read, or it is dropped, and its keys
 * are owed as before.  So nothing is read ahead while keys in sync_dirty,
 * snapshots or sweeps take turns with it.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sync/append_int.h"
#include "sync/file_int.h"
#include "sync/report_int.h"

#define MAX_ATTEMPTS 12

/* Once settling was stopped by something else, the others wait with it. */
static void
settle_conflict(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op,
				PlinthMongoError *stopped)
{
	if (stopped->status != PLINTH_MONGO_OK)
	{
		op->error = *stopped;
		return;
	}
	plinth_sync_settle_conflict(lane, mapping, op);
	if (op->error.status != PLINTH_MONGO_OK && plinth_mongo_status_is_transient(op->error.status) &&
		op->error.code != PLINTH_SYNC_ASKED)
		*stopped = op->error;
}

/* With two ops where it is spelled anew. */
static bool
is_one_key(const PlinthSyncBatch *batch)
{
	return batch->nops == 1 ||
		   (batch->nops == 2 && batch->ops[0].key >= 0 && batch->ops[0].key == batch->ops[1].key);
}

static PlinthMongoStatus
write_ops(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *ops, int nops,
		  PlinthMongoError *error)
{
	PlinthMongoStatus status;

	if (mapping->def->append)
		status = plinth_sync_append_write(lane, mapping, ops, nops, error);
	else if (mapping->def->bucket != 0)
		status = plinth_sync_file_write(lane, mapping, ops, nops, error);
	else
		status = plinth_mongo_write(lane->client, mapping->def->collection, ops, nops, error);
	/* What was to be read meanwhile is on our caller's stack, and must not wait for the next write. */
	if (lane->client != NULL)
		plinth_mongo_meanwhile(lane->client, NULL, NULL);
	return status;
}

bool
plinth_sync_apply(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncBatch *batch,
				  bool *unknown)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PlinthMongoOp *ops =
		palloc_extended(sizeof(PlinthMongoOp) * Max(batch->nops, 1), MCXT_ALLOC_HUGE);
	PlinthMongoError error = {0};
	PlinthMongoError stopped = {0};
	PlinthMongoStatus status;
	TimestampTz began = GetCurrentTimestamp();

	*unknown = false;
	/*
	 * Nobody sends these rows again: what was read under a definition that has
	 * changed before (the read has taken in of which) is read anew.
	 */
	if (mapping->def->append && mapping->shape_stale)
	{
		plinth_mongo_meanwhile(lane->client, NULL, NULL);
		MemoryContextSwitchTo(old);
		return false;
	}
	for (int i = 0; i < batch->nops; i++)
	{
		ops[i].kind = batch->ops[i].op.kind;
		ops[i].id = batch->ops[i].op.id;
		ops[i].document = batch->ops[i].op.document;
	}
	status = write_ops(lane, mapping, ops, batch->nops, &error);
	if (status == PLINTH_MONGO_OK)
	{
		for (int i = 0; i < batch->nops; i++)
		{
			if (ops[i].error.status == PLINTH_MONGO_DUPLICATE_KEY && !mapping->def->append)
			{
				/* The holder may be in what was read ahead, and is written out of turn. */
				plinth_sync_apply_drop(mapping);
				plinth_sync_task_drop(mapping);
				settle_conflict(lane, mapping, &ops[i], &stopped);
			}
			if (ops[i].error.status == PLINTH_MONGO_WRITE_CONCERN)
				*unknown = true;
			if (ops[i].error.status != PLINTH_MONGO_OK)
			{
				batch->ops[i].op.error = ops[i].error;
				continue;
			}
			if (ops[i].kind == PLINTH_MONGO_DELETE)
				mapping->stat.documents_deleted += mapping->def->append ? 0 : 1;
			else
				mapping->stat.documents_replaced++;
			mapping->stat.bytes_sent += ops[i].document.len;
		}
		lane->acked += batch->nops;
		mapping->fence_due = true;
		plinth_sync_report_success(mapping, batch->source);
		if (!mapping->verified_fence)
		{
			/* Settling a conflict lost the fence, and with it what was acknowledged. */
			*unknown = true;
			status = PLINTH_MONGO_OTHER;
		}
	}
	else
	{
		*unknown = plinth_mongo_status_is_unknown(status);
		if (status == PLINTH_MONGO_UNREACHABLE &&
			!TimestampDifferenceExceeds(began, GetCurrentTimestamp(), plinth_setting_sync_timeout))
			batch->cut = plinth_sync_report_cut(lane, mapping, batch->source,
												is_one_key(batch) ? 1 : batch->nops, &error);
		else
			plinth_sync_report_outage(lane, &error);
	}
	MemoryContextSwitchTo(old);
	return status == PLINTH_MONGO_OK;
}

const PlinthMongoError **
plinth_sync_apply_outcomes(PlinthSyncBatch *batch, int nkeys)
{
	const PlinthMongoError **worst = palloc0(sizeof(PlinthMongoError *) * Max(nkeys, 1));

	for (int i = 0; i < batch->nops; i++)
	{
		PlinthSyncOp *op = &batch->ops[i];

		if (op->key >= 0 && op->op.error.status != PLINTH_MONGO_OK)
			worst[op->key] = &op->op.error;
	}
	return worst;
}

bool
plinth_sync_apply_never(const PlinthMongoError *error, int attempts)
{
	return !plinth_mongo_status_is_transient(error->status) ||
		   (error->status == PLINTH_MONGO_OTHER && error->code != PLINTH_SYNC_ASKED &&
			attempts >= MAX_ATTEMPTS);
}

void
plinth_sync_apply_note(PlinthLaneMapping *mapping, const PlinthMongoError *error)
{
	/* That rows pass on a unique value is no fault. */
	if (error->code == PLINTH_SYNC_ASKED)
		mapping->stat.retries++;
	else
		plinth_sync_report_failure(NULL, mapping, plinth_mongo_status_name(error->status),
								   error->message);
}

void
plinth_sync_apply_bury(PlinthLaneMapping *mapping, const char *literal, const PlinthSyncKey *key,
					   const PlinthMongoError *error)
{
	if (key->poison != NULL)
		plinth_sync_store_dead(mapping, literal, unpack_sql_state(key->poison_code), 0,
							   key->poison);
	else
		plinth_sync_store_dead(mapping, literal, plinth_mongo_status_name(error->status),
							   error->code, error->message);
	plinth_sync_report_failure(NULL, mapping, "dead letter",
							   key->poison != NULL ? key->poison : error->message);
}

typedef struct OwedBatch
{
	MemoryContext context; /* holds all of it */
	PlinthDirtyKey **dirty;
	PlinthSyncKey *keys;
	int nkeys;
	PlinthSyncBatch *batch;
	const PlinthMongoError **errors;
} OwedBatch;

static void
read_owed(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	OwedBatch *owed = arg;

	plinth_sync_read_keys(mapping->def, owed->keys, owed->nkeys, owed->batch);
}

/* What an answered batch leaves to be written down: dead letters, letters that live again, zombies. */
static void
settle_owed(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	OwedBatch *owed = arg;
	char **zombies = palloc(sizeof(char *) * owed->nkeys);
	char **alive = palloc(sizeof(char *) * owed->nkeys);
	char **later = palloc(sizeof(char *) * owed->nkeys);
	char **held = palloc(sizeof(char *) * owed->nkeys);
	int nzombies = 0;
	int nalive = 0;
	int nlater = 0;
	int nheld = 0;
	bool dead = false;

	for (int i = 0; i < owed->nkeys; i++)
	{
		PlinthSyncKey *key = &owed->keys[i];
		PlinthDirtyKey *dirty = owed->dirty[i];
		char *literal;

		if (!key->done ||
			(owed->errors[i] == NULL && key->poison == NULL && !dirty->zombie && !mapping->dead))
			continue;
		literal = plinth_sync_key_literal(mapping->def->nkeys, key->key, key->keylen);
		if (key->poison != NULL ||
			(owed->errors[i] != NULL && plinth_sync_apply_never(owed->errors[i], 0)))
		{
			plinth_sync_apply_bury(mapping, literal, key, owed->errors[i]);
			dead = true;
			continue;
		}
		if (owed->errors[i] == NULL)
			alive[nalive++] = literal;
		else if (owed->errors[i]->status == PLINTH_MONGO_HELD)
			held[nheld++] = literal;
		else
			later[nlater++] = literal;
		if (dirty->zombie ||
			(owed->errors[i] != NULL && plinth_mongo_status_is_unknown(owed->errors[i]->status)))
			zombies[nzombies++] = literal;
	}
	plinth_sync_store_undead(mapping, alive, nalive);
	plinth_sync_store_keys(mapping, zombies, nzombies, 1);
	plinth_sync_store_keys(mapping, later, nlater, 0);
	plinth_sync_store_later(mapping, later, nlater);
	plinth_sync_store_keys(mapping, held, nheld, 0);
	plinth_sync_file_hold(mapping, held, nheld);
	plinth_sync_store_list(mapping, owed->batch->respelled);
	/* Nothing leaves memory by it: before the slot passes these keys a fence is written down, and flushed. */
	if (!dead && nlater == 0 && nheld == 0 && owed->batch->respelled == NIL)
		plinth_sync_lane_commit_lazily();
}

/* Nearly every batch leaves nothing to write down, and needs no transaction for it. */
static bool
is_clean(PlinthLaneMapping *mapping, OwedBatch *owed)
{
	bool clean = !mapping->dead && owed->batch->respelled == NIL;

	for (int i = 0; clean && i < owed->nkeys; i++)
		clean = !owed->keys[i].done || (owed->errors[i] == NULL && owed->keys[i].poison == NULL &&
										!owed->dirty[i]->zombie);
	return clean;
}

static void
return_all(PlinthLaneMapping *mapping, OwedBatch *owed, bool zombie)
{
	for (int i = 0; i < owed->nkeys; i++)
		owed->dirty[i]->zombie |= zombie && owed->keys[i].done;
	plinth_sync_dirty_settle(&mapping->dirty, owed->dirty, owed->nkeys, false);
}

static void
finish_owed(PlinthLaneMapping *mapping, OwedBatch *owed)
{
	for (int i = owed->nkeys - 1; i >= 0; i--)
		if (!owed->keys[i].done)
			plinth_sync_dirty_return(&mapping->dirty, owed->dirty[i]);
	for (int i = 0; i < owed->nkeys; i++)
	{
		PlinthDirtyKey *dirty = owed->dirty[i];
		const PlinthMongoError *error = owed->errors[i];

		if (!owed->keys[i].done)
			continue;
		if (error == NULL && owed->keys[i].poison == NULL)
		{
			dirty->zombie = false;
			plinth_sync_dirty_ack(&mapping->dirty, dirty);
		}
		else
		{
			/* A dead letter, or in sync_dirty. */
			plinth_sync_dirty_forget(&mapping->dirty, dirty);
			if (error != NULL && error->status != PLINTH_MONGO_HELD &&
				!plinth_sync_apply_never(error, 0))
				plinth_sync_apply_note(mapping, error);
		}
	}
}

/* Takes the oldest keys that are owed and reads their rows; NULL when there are none, or reading failed (*failed). */
static OwedBatch *
take_owed(PlinthLane *lane, PlinthLaneMapping *mapping, bool *failed)
{
	MemoryContext context =
		AllocSetContextCreate(lane->context, "plinth owed batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	OwedBatch *owed = palloc0(sizeof(OwedBatch));
	int max = plinth_sync_report_batch_rows(mapping, PLINTH_SYNC_FROM_MEMORY);

	*failed = false;
	owed->context = context;
	owed->dirty = palloc(sizeof(PlinthDirtyKey *) * max);
	mapping->dirty.before = plinth_sync_file_before(lane, mapping);
	owed->nkeys = plinth_sync_dirty_take(&mapping->dirty, owed->dirty, max);
	mapping->dirty.before = InvalidXLogRecPtr;
	if (owed->nkeys > 0)
	{
		owed->keys = palloc0(sizeof(PlinthSyncKey) * owed->nkeys);
		for (int i = 0; i < owed->nkeys; i++)
		{
			owed->keys[i].key = owed->dirty[i]->key;
			owed->keys[i].keylen = owed->dirty[i]->keylen;
		}
		owed->batch = plinth_sync_batch_create(context);
		*failed = !plinth_sync_lane_run(lane, mapping, read_owed, owed);
		if (*failed)
			return_all(mapping, owed, false);
	}
	MemoryContextSwitchTo(old);
	if (owed->nkeys > 0 && !*failed)
		return owed;
	MemoryContextDelete(context);
	return NULL;
}

void
plinth_sync_apply_drop(PlinthLaneMapping *mapping)
{
	OwedBatch *owed = mapping->owed_ahead;

	plinth_sync_stored_drop(mapping);
	if (owed == NULL)
		return;
	mapping->owed_ahead = NULL;
	return_all(mapping, owed, false);
	MemoryContextDelete(owed->context);
}

typedef struct Ahead
{
	PlinthLane *lane;
	PlinthLaneMapping *mapping;
} Ahead;

static void
read_ahead(void *arg)
{
	Ahead *ahead = arg;
	bool failed;

	ahead->mapping->owed_ahead = take_owed(ahead->lane, ahead->mapping, &failed);
}

static bool
write_owed(PlinthLane *lane, PlinthLaneMapping *mapping, OwedBatch *owed)
{
	Ahead ahead = {lane, mapping};
	bool unknown;
	bool clean;

	if (!plinth_sync_fence_hold(lane, mapping))
	{
		return_all(mapping, owed, false);
		return false;
	}
	if (mapping->dirty.nowed > 0 && !plinth_sync_stored_due(mapping) && mapping->tasks == NIL)
		plinth_mongo_meanwhile(lane->client, read_ahead, &ahead);
	if (!plinth_sync_apply(lane, mapping, owed->batch, &unknown))
	{
		return_all(mapping, owed, unknown);
		return false;
	}
	MemoryContextSwitchTo(owed->context);
	owed->errors = plinth_sync_apply_outcomes(owed->batch, owed->nkeys);
	clean = is_clean(mapping, owed);
	if (clean || plinth_sync_lane_run(lane, mapping, settle_owed, owed))
		finish_owed(mapping, owed);
	else
		return_all(mapping, owed, false);
	return clean;
}

bool
plinth_sync_apply_owed(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	MemoryContext old = CurrentMemoryContext;
	OwedBatch *owed = mapping->owed_ahead;
	bool failed = false;

	mapping->owed_ahead = NULL;
	if (owed == NULL)
		owed = take_owed(lane, mapping, &failed);
	if (owed == NULL)
		return failed;
	plinth_sync_task_drop(mapping);
	MemoryContextSwitchTo(owed->context);
	if (!write_owed(lane, mapping, owed))
		plinth_sync_apply_drop(mapping);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(owed->context);
	return true;
}
