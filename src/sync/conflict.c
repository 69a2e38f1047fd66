/*
 * conflict.c
 *		Two rows that meet in a unique index of the collection.
 *
 * Rows that swapped a unique value, or passed it on, are a valid state here
 * that cannot be reached there one document at a time.  So the holder of the
 * value makes way: it is marked (and that is durable) before its document is
 * deleted, ours is written, and the holder is written again like any key that
 * is owed.  Where the holder is not ours, or the value is still taken then,
 * the error stays and the key becomes a dead letter.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sync/sync_int.h"

typedef struct Holder
{
	PlinthBson id;
	char *literal;
	bool ours;
} Holder;

static void
mark_holder(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	Holder *holder = arg;
	bool *foreign = plinth_sync_store_are_foreign(mapping, &holder->id, 1);

	holder->ours = !foreign[0];
	if (holder->ours)
		plinth_sync_store_keys(mapping, &holder->literal, 1, 0);
}

static bool
is_acknowledged(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op)
{
	PlinthMongoError error;

	memset(&op->error, 0, sizeof(op->error));
	return plinth_mongo_write(lane->client, mapping->def->collection, op, 1, &error) ==
			   PLINTH_MONGO_OK &&
		   op->error.status == PLINTH_MONGO_OK;
}

void
plinth_sync_settle_conflict(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *op)
{
	char *texts[PLINTH_SYNC_MAX_KEYS];
	StringInfoData key;
	PlinthMongoError ignored;
	MemoryContext context = CurrentMemoryContext;

	/* A value may be taken by one document in each of several unique indexes. */
	for (int round = 0; round < 4 && op->error.status == PLINTH_MONGO_DUPLICATE_KEY; round++)
	{
		Holder holder = {0};
		PlinthMongoOp removal = {0};

		if (plinth_mongo_conflict_holder(lane->client, mapping->def->collection, op, &holder.id,
										 &ignored) != PLINTH_MONGO_OK)
			return;
		if (holder.id.data != NULL)
		{
			if (!plinth_mongo_id_decode(mapping->def->idspec, holder.id, texts))
				return;
			initStringInfo(&key);
			for (int i = 0; i < mapping->def->nkeys; i++)
			{
				appendStringInfoString(&key, texts[i]);
				appendStringInfoChar(&key, '\0');
			}
			holder.literal = plinth_sync_key_literal(mapping->def->nkeys, key.data, key.len);
			if (!plinth_sync_lane_run(lane, mapping, mark_holder, &holder) || !holder.ours)
				return;
			MemoryContextSwitchTo(context);
			removal.kind = PLINTH_MONGO_DELETE;
			removal.id = holder.id;
			if (!is_acknowledged(lane, mapping, &removal))
				return;
		}
		/* Without a holder it has let go of the value meanwhile. */
		mapping->stat.retries++;
		if (is_acknowledged(lane, mapping, op))
			return;
	}
}
