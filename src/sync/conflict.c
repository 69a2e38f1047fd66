/*
 * conflict.c
 *		Two rows that meet in a unique index of the collection.
 *
 * Rows that swapped a unique value, or passed it on, are a valid state here
 * that cannot be reached there one document at a time.  So a holder of the
 * value whose document is out of date makes way: it is marked (and that is
 * durable) before its document is deleted, ours is written, and the holder is
 * written again like any key that is owed.
 *
 * Where the holder's document is what its row is now, two rows really have the
 * value; where it was there before us, there is nothing to wait for either.
 * Then the error stays and the key becomes a dead letter.  Since only a
 * document that is out of date ever makes way, two rows cannot displace each
 * other for ever.  A document that no row of ours could have made and that was
 * not there before us goes, as it would in a sweep.
 *
 * Where the holder is another lane's key that lane is asked (in sync_dirty) to
 * let go: it deletes the document where that is out of date, and owes the key
 * as before, a little later.  Ours is tried again meanwhile.  So of rows that
 * pass values on in a circle each document goes, and then each comes back.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sync/share_int.h"

typedef struct Holder
{
	PlinthBson id;
	PlinthSyncKey key;
	char *literal;
	bool ours;
	PlinthSyncBatch *batch;
	MemoryContext context;
} Holder;

/* Leaves literal NULL where no row of ours could have the _id. */
static void
find_key(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Holder *holder = arg;
	MemoryContext old = MemoryContextSwitchTo(holder->context);

	if (plinth_sync_read_id(mapping->def, holder->id, &holder->key))
		holder->literal =
			plinth_sync_key_literal(mapping->def->nkeys, holder->key.key, holder->key.keylen);
	MemoryContextSwitchTo(old);
}

/*
 * Marked as suspect before the document is deleted: that its deletion lands
 * only after it was written again must not be its end.
 */
static void
mark_holder(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Holder *holder = arg;
	bool *foreign = plinth_sync_store_are_foreign(mapping, &holder->id, 1);

	holder->ours = !foreign[0];
	if (!holder->ours || holder->literal == NULL)
		return;
	plinth_sync_store_keys(mapping, &holder->literal, 1, 1);
	plinth_sync_store_keys(mapping, &holder->literal, 1, 0);
}

static void
ask_holder(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Holder *holder = arg;
	bool *foreign = plinth_sync_store_are_foreign(mapping, &holder->id, 1);

	holder->ours = !foreign[0];
	if (holder->ours)
		plinth_sync_store_ask(mapping, holder->literal);
}

/* The holder is another lane's: it makes way there, and op waits for it. */
static void
ask(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op, Holder *holder)
{
	bool told = plinth_sync_lane_run(lane, mapping, ask_holder, holder);

	if (told && !holder->ours)
		return;
	op->error.status = PLINTH_MONGO_OTHER;
	if (!told)
		return;
	op->error.code = PLINTH_SYNC_ASKED;
	strlcpy(op->error.message, "waits for another document to let go of a unique value",
			sizeof(op->error.message));
}

static void
read_holder(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Holder *holder = arg;

	plinth_sync_read_keys(mapping->def, &holder->key, 1, holder->batch);
}

/* Is the holder's document, which was found, what its row (which was read) is now? */
static bool
is_up_to_date(PlinthLane *lane, PlinthLaneMapping *mapping, Holder *holder)
{
	PlinthBson *documents;
	int ndocuments;
	PlinthMongoError ignored;

	if (plinth_mongo_find(lane->client, mapping->def->collection, &holder->id, 1, &documents,
						  &ndocuments, &ignored) != PLINTH_MONGO_OK ||
		ndocuments != 1)
		return false;
	for (int i = 0; i < holder->batch->nops; i++)
	{
		PlinthMongoOp *op = &holder->batch->ops[i].op;

		if (op->kind == PLINTH_MONGO_REPLACE && op->document.len == documents[0].len &&
			memcmp(op->document.data, documents[0].data, op->document.len) == 0)
			return true;
	}
	return false;
}

static bool
is_acknowledged(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op)
{
	PlinthMongoError error;

	memset(&op->error, 0, sizeof(op->error));
	if (!plinth_sync_fence_hold(lane, mapping))
	{
		op->error.status = PLINTH_MONGO_OTHER;
		strlcpy(op->error.message, "the collection may be another's by now",
				sizeof(op->error.message));
		return false;
	}
	return plinth_mongo_write(lane->client, mapping->def->collection, op, 1, &error) ==
			   PLINTH_MONGO_OK &&
		   op->error.status == PLINTH_MONGO_OK;
}

/*
 * Takes the holder's document out of the way; false when it stays: because it
 * has the value rightly (op's error is left), or because of what has nothing to
 * do with the value (op's error says so, and op is tried again).
 */
static bool
make_way(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op, Holder *holder)
{
	MemoryContext context = CurrentMemoryContext;
	PlinthMongoOp removal = {0};

	holder->context = context;
	holder->batch = plinth_sync_batch_create(context);
	if (!plinth_sync_lane_run(lane, mapping, find_key, holder) ||
		(holder->literal != NULL && !plinth_sync_lane_run(lane, mapping, read_holder, holder)))
	{
		op->error.status = PLINTH_MONGO_OTHER;
		return false;
	}
	MemoryContextSwitchTo(context);
	if (holder->literal != NULL && is_up_to_date(lane, mapping, holder))
		return false;
	if (holder->literal != NULL &&
		!plinth_sync_share_mine(lane, mapping, holder->key.key, holder->key.keylen))
	{
		ask(lane, mapping, op, holder);
		return false;
	}
	if (!plinth_sync_lane_run(lane, mapping, mark_holder, holder))
	{
		op->error.status = PLINTH_MONGO_OTHER;
		return false;
	}
	MemoryContextSwitchTo(context);
	if (!holder->ours)
		return false;
	removal.kind = PLINTH_MONGO_DELETE;
	removal.id = holder->id;
	if (is_acknowledged(lane, mapping, &removal))
		return holder->literal != NULL || plinth_sync_share_check_shape(lane, mapping);
	op->error = removal.error;
	return false;
}

bool
plinth_sync_yield(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthSyncKey *key,
				  bool *yielded)
{
	MemoryContext context = CurrentMemoryContext;
	PlinthMongoOp removal = {0};
	Holder holder = {0};
	bool done = true;

	holder.context = context;
	holder.key = *key;
	holder.batch = plinth_sync_batch_create(context);
	*yielded = false;
	if (!plinth_sync_lane_run(lane, mapping, read_holder, &holder))
		return false;
	MemoryContextSwitchTo(context);
	/* Without one it cannot be read: what is wrong with it is told when it is written. */
	if (holder.batch->nops > 0)
		holder.id = holder.batch->ops[0].op.id;
	if (holder.id.data != NULL && !is_up_to_date(lane, mapping, &holder))
	{
		removal.kind = PLINTH_MONGO_DELETE;
		removal.id = holder.id;
		done = *yielded = is_acknowledged(lane, mapping, &removal);
		if (done)
			mapping->stat.retries++;
	}
	plinth_sync_batch_free(holder.batch);
	return done;
}

void
plinth_sync_settle_conflict(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op)
{
	PlinthMongoError error = {0};

	/* A value may be taken by one document in each of several unique indexes. */
	for (int round = 0; round < 4 && op->error.status == PLINTH_MONGO_DUPLICATE_KEY; round++)
	{
		Holder holder = {0};

		if (plinth_mongo_conflict_holder(lane->client, mapping->def->collection, op, &holder.id,
										 &error) != PLINTH_MONGO_OK)
		{
			op->error = error;
			return;
		}
		/* Without a holder it has let go of the value meanwhile. */
		if (holder.id.data != NULL && !make_way(lane, mapping, op, &holder))
			return;
		mapping->stat.retries++;
		if (is_acknowledged(lane, mapping, op))
			return;
	}
}
