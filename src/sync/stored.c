/*
 * stored.c
 *		Keys that stand in sync_dirty on their way: taken, read, written, answered.
 *
 * They are taken in lots, each in a transaction of its own: that a key is sent
 * must be known before it is, and what is read must be newer than the mark.  A
 * lot is written in several batches, the next of which is read while MongoDB
 * works on the one before; then, fence first, the keys that were answered
 * leave the table.  Keys of a lot that were not sent when it ends (the server
 * failed, or time is up) are unsent again, those that were sent without an
 * answer, or whose answer no fence covers, are taken again as suspects.
 *
 * A lot is as large as what is written in LOT_MS, within bounds: two flushes
 * of the WAL and a fence are its price, and other mappings wait for it.
 *
 * The transaction by which keys leave the table need not be flushed: what a
 * crash forgets of it is there again as sent, and is written again.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "worker/worker.h"

#include "sync/file_int.h"
#include "sync/report_int.h"

#define LOT_MS 200
#define LOT_BATCHES 16
/* A key over which the connection is closed: while others of its mapping are taken, and otherwise. */
#define CUT_ATTEMPTS 3
#define CUT_ATTEMPTS_ALONE 12

typedef enum KeyState
{
	KEY_WAITS,  /* taken, not sent */
	KEY_PICKED, /* in a batch that is read, or sent without an answer */
	KEY_ANSWERED,
	KEY_YIELDED, /* its document made way for another lane's */
} KeyState;

typedef struct StoredLot
{
	MemoryContext context;
	PlinthSyncTaken taken;
	KeyState *states; /* of the keys, as errors */
	const PlinthMongoError **errors;
	List *respelled; /* other lanes' keys that rows were found under */
	int max;
	int first; /* none before it waits */
	bool cut;  /* the server closed the connection over its one key */
} StoredLot;

/* The part of a lot that goes in one batch. */
typedef struct StoredBatch
{
	MemoryContext context; /* holds all of it */
	StoredLot *lot;
	int *places; /* in the lot */
	PlinthSyncKey *keys;
	int nkeys;
	PlinthSyncBatch *batch;
} StoredBatch;

bool
plinth_sync_stored_due(PlinthLaneMapping *mapping)
{
	return mapping->stored_any && mapping->stored_due <= GetCurrentTimestamp();
}

/* No more keys than the other half of the lane's memory has room for. */
static int
largest_lot(void)
{
	int most = Min(LOT_BATCHES * plinth_setting_sync_batch_rows, plinth_setting_sync_memory / 8);

	return Max(most, plinth_setting_sync_batch_rows);
}

static void
take_lot(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	StoredLot *lot = arg;
	MemoryContext old = MemoryContextSwitchTo(lot->context);

	if (!plinth_sync_report_was_cut(mapping))
		plinth_sync_store_take(mapping, PLINTH_SYNC_TAKE_ANY, lot->max, &lot->taken);
	else
	{
		/* Over which the connection was closed once is with no others again, or it would be sought anew. */
		plinth_sync_store_take(mapping, PLINTH_SYNC_TAKE_TRIED, 1, &lot->taken);
		if (lot->taken.nkeys == 0)
			plinth_sync_store_take(mapping, PLINTH_SYNC_TAKE_UNTRIED, lot->max, &lot->taken);
	}
	lot->states = palloc0(sizeof(KeyState) * Max(lot->taken.nkeys, 1));
	lot->errors = palloc0(sizeof(PlinthMongoError *) * Max(lot->taken.nkeys, 1));
	MemoryContextSwitchTo(old);
	if (lot->taken.nkeys == 0 && lot->taken.passed_on == 0)
		plinth_sync_store_counts(mapping);
}

static void
read_batch(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	StoredBatch *stored = arg;

	plinth_sync_read_keys(mapping->def, stored->keys, stored->nkeys, stored->batch);
}

static void
put_back(StoredBatch *stored)
{
	for (int i = 0; i < stored->nkeys; i++)
		stored->lot->states[stored->places[i]] = KEY_WAITS;
	if (stored->nkeys > 0)
		stored->lot->first = Min(stored->lot->first, stored->places[0]);
	MemoryContextDelete(stored->context);
}

/* The next keys that wait, and reads their rows; NULL when there are none, or reading failed. */
static StoredBatch *
pick_batch(PlinthLane *lane, PlinthLaneMapping *mapping, StoredLot *lot)
{
	MemoryContext context =
		AllocSetContextCreate(lane->context, "plinth stored batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	StoredBatch *stored = palloc0(sizeof(StoredBatch));
	int max = Min(plinth_setting_sync_batch_rows, lot->taken.nkeys);
	int kept = 0;
	bool ok;

	stored->context = context;
	stored->lot = lot;
	stored->places = palloc(sizeof(int) * max);
	stored->keys = palloc0(sizeof(PlinthSyncKey) * max);
	stored->batch = plinth_sync_batch_create(context);
	stored->batch->source = PLINTH_SYNC_FROM_TABLE;
	for (; lot->first < lot->taken.nkeys && stored->nkeys < max; lot->first++)
	{
		if (lot->states[lot->first] != KEY_WAITS)
			continue;
		lot->states[lot->first] = KEY_PICKED;
		stored->places[stored->nkeys] = lot->first;
		stored->keys[stored->nkeys++] = lot->taken.keys[lot->first];
	}
	ok = stored->nkeys > 0 && plinth_sync_lane_run(lane, mapping, read_batch, stored);
	MemoryContextSwitchTo(old);
	for (int i = 0; ok && i < stored->nkeys; i++)
		kept += stored->keys[i].done ? 1 : 0;
	if (kept > 0)
		return stored;
	put_back(stored);
	return NULL;
}

void
plinth_sync_stored_drop(PlinthLaneMapping *mapping)
{
	StoredBatch *stored = mapping->stored_ahead;

	mapping->stored_ahead = NULL;
	if (stored != NULL)
		put_back(stored);
}

typedef struct Ahead
{
	PlinthLane *lane;
	PlinthLaneMapping *mapping;
	StoredLot *lot;
} Ahead;

static void
read_ahead(void *arg)
{
	Ahead *ahead = arg;

	ahead->mapping->stored_ahead = pick_batch(ahead->lane, ahead->mapping, ahead->lot);
}

/* What became of a batch's keys, kept for when the lot is settled. */
static void
note_answers(StoredBatch *stored)
{
	StoredLot *lot = stored->lot;
	const PlinthMongoError **errors;
	ListCell *lc;
	MemoryContext old = MemoryContextSwitchTo(stored->context);

	errors = plinth_sync_apply_outcomes(stored->batch, stored->nkeys);
	MemoryContextSwitchTo(lot->context);
	foreach (lc, stored->batch->respelled)
		lot->respelled = lappend(lot->respelled, pstrdup(lfirst(lc)));
	for (int i = 0; i < stored->nkeys; i++)
	{
		int place = stored->places[i];
		PlinthSyncKey *key = &stored->keys[i];

		if (!key->done)
			continue;
		lot->states[place] = KEY_ANSWERED;
		if (key->poison != NULL)
		{
			lot->taken.keys[place].poison = pstrdup(key->poison);
			lot->taken.keys[place].poison_code = key->poison_code;
		}
		if (errors[i] != NULL)
		{
			PlinthMongoError *copy = palloc(sizeof(PlinthMongoError));

			*copy = *errors[i];
			lot->errors[place] = copy;
		}
	}
	MemoryContextSwitchTo(old);
}

static bool
write_batch(PlinthLane *lane, PlinthLaneMapping *mapping, StoredBatch *stored)
{
	StoredLot *lot = stored->lot;
	Ahead ahead = {lane, mapping, lot};
	bool unknown;
	bool written;

	if (!plinth_sync_fence_hold(lane, mapping))
	{
		put_back(stored);
		return false;
	}
	/* What the batch had no room for goes with the next one. */
	for (int i = 0; i < stored->nkeys; i++)
	{
		if (stored->keys[i].done)
			continue;
		lot->states[stored->places[i]] = KEY_WAITS;
		lot->first = Min(lot->first, stored->places[i]);
	}
	if (lot->first < lot->taken.nkeys)
		plinth_mongo_meanwhile(lane->client, read_ahead, &ahead);
	written = plinth_sync_apply(lane, mapping, stored->batch, &unknown);
	lot->cut = stored->batch->cut && lot->taken.nkeys == 1;
	if (written)
		note_answers(stored);
	MemoryContextDelete(stored->context);
	return written;
}

/* Keys whose documents another lane waits for; false when something failed. */
static bool
yield_keys(PlinthLane *lane, PlinthLaneMapping *mapping, StoredLot *lot)
{
	for (int i = 0; i < lot->taken.nkeys; i++)
	{
		bool yielded;

		if (!lot->taken.rows[i].yield)
			continue;
		if (!plinth_sync_fence_hold(lane, mapping) ||
			!plinth_sync_yield(lane, mapping, &lot->taken.keys[i], &yielded))
			return false;
		if (yielded)
			lot->states[i] = KEY_YIELDED;
		if (lane->client == NULL || plinth_worker_stopping())
			return false;
	}
	return true;
}

/* Batch after batch until the lot or the time is at its end; false when something failed. */
static bool
write_lot(PlinthLane *lane, PlinthLaneMapping *mapping, StoredLot *lot, TimestampTz start)
{
	bool written = true;

	while (written && !plinth_worker_stopping() &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), 2 * LOT_MS))
	{
		StoredBatch *stored = mapping->stored_ahead;

		mapping->stored_ahead = NULL;
		if (stored == NULL)
			stored = pick_batch(lane, mapping, lot);
		if (stored == NULL)
			break;
		written = write_batch(lane, mapping, stored);
	}
	plinth_sync_stored_drop(mapping);
	return written;
}

static void
settle_waiting(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	StoredLot *lot = arg;
	char **unsent = palloc(sizeof(char *) * lot->taken.nkeys);
	char **yielded = palloc(sizeof(char *) * lot->taken.nkeys);
	int nunsent = 0;
	int nyielded = 0;

	for (int i = 0; i < lot->taken.nkeys; i++)
	{
		char *literal;

		if (lot->states[i] != KEY_WAITS && lot->states[i] != KEY_YIELDED)
			continue;
		literal = plinth_sync_key_literal(mapping->def->nkeys, lot->taken.keys[i].key,
										  lot->taken.keys[i].keylen);
		if (lot->states[i] == KEY_WAITS)
			unsent[nunsent++] = literal;
		else
			yielded[nyielded++] = literal;
	}
	plinth_sync_store_unsent(mapping, unsent, nunsent);
	plinth_sync_store_yielded(mapping, yielded, nyielded);
	plinth_sync_lane_commit_lazily();
}

static void
settle_lot(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	StoredLot *lot = arg;
	char **done = palloc(sizeof(char *) * lot->taken.nkeys);
	char **later = palloc(sizeof(char *) * lot->taken.nkeys);
	char **held = palloc(sizeof(char *) * lot->taken.nkeys);
	PlinthSyncTakenRow **rows = palloc(sizeof(PlinthSyncTakenRow *) * lot->taken.nkeys);
	int ndone = 0;
	int nlater = 0;
	int nheld = 0;

	for (int i = 0; i < lot->taken.nkeys; i++)
	{
		PlinthSyncKey *key = &lot->taken.keys[i];
		const PlinthMongoError *error = lot->errors[i];
		char *literal;

		if (lot->states[i] != KEY_ANSWERED)
			continue;
		literal = plinth_sync_key_literal(mapping->def->nkeys, key->key, key->keylen);
		if (key->poison != NULL ||
			(error != NULL && plinth_sync_apply_never(error, lot->taken.rows[i].attempts)))
			plinth_sync_apply_bury(mapping, literal, key, error);
		else if (error != NULL && error->status == PLINTH_MONGO_HELD)
		{
			plinth_sync_file_tell_held(mapping, lot->taken.rows[i].attempts);
			held[nheld++] = literal;
		}
		else if (error != NULL)
		{
			later[nlater++] = literal;
			plinth_sync_apply_note(mapping, error);
		}
		else
		{
			done[ndone] = literal;
			rows[ndone++] = &lot->taken.rows[i];
		}
	}
	plinth_sync_store_undead(mapping, done, ndone);
	settle_waiting(lane, mapping, lot);
	plinth_sync_store_later(mapping, later, nlater);
	plinth_sync_store_list(mapping, lot->respelled);
	plinth_sync_file_hold(mapping, held, nheld);
	plinth_sync_store_done(mapping, done, rows, ndone);
	/* A whole lot leaves more behind it, which the next one sees. */
	if (lot->taken.nkeys + lot->taken.passed_on < lot->max)
		plinth_sync_store_counts(mapping);
}

static void
settle_cut(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	StoredLot *lot = arg;
	PlinthSyncKey *key = &lot->taken.keys[0];
	char *literal = plinth_sync_key_literal(mapping->def->nkeys, key->key, key->keylen);
	int most = mapping->cut_passed ? CUT_ATTEMPTS : CUT_ATTEMPTS_ALONE;

	if (lot->taken.rows[0].attempts + 1 < most)
		plinth_sync_store_later(mapping, &literal, 1);
	else
		plinth_sync_store_dead(mapping, literal, plinth_mongo_status_name(PLINTH_MONGO_UNREACHABLE),
							   0,
							   "MongoDB closes the connection whenever it is sent this document");
	plinth_sync_store_counts(mapping);
}

/* The next lot is what could have been written in its time. */
static void
adapt(PlinthLaneMapping *mapping, StoredLot *lot, TimestampTz start)
{
	bool slow = TimestampDifferenceExceeds(start, GetCurrentTimestamp(), LOT_MS);

	if (slow)
		mapping->stored_lot = lot->max / 2;
	else if (lot->taken.nkeys == lot->max)
		mapping->stored_lot = lot->max * 2;
}

bool
plinth_sync_apply_stored(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	StoredLot lot = {0};
	MemoryContext old;
	TimestampTz start = GetCurrentTimestamp();

	if (!plinth_sync_stored_due(mapping))
		return false;
	lot.context = AllocSetContextCreate(lane->context, "plinth stored lot", ALLOCSET_DEFAULT_SIZES);
	lot.max = Min(Max(mapping->stored_lot, plinth_setting_sync_batch_rows), largest_lot());
	if (mapping->cuts[PLINTH_SYNC_FROM_TABLE].max > 0)
		lot.max = plinth_sync_report_batch_rows(mapping, PLINTH_SYNC_FROM_TABLE);
	old = MemoryContextSwitchTo(lot.context);
	plinth_sync_apply_drop(mapping);
	plinth_sync_task_drop(mapping);

	if (plinth_sync_lane_run(lane, mapping, take_lot, &lot) && lot.taken.nkeys > 0)
	{
		MemoryContextSwitchTo(lot.context);
		if (yield_keys(lane, mapping, &lot) && write_lot(lane, mapping, &lot, start) &&
			plinth_sync_checkpoint(lane))
		{
			adapt(mapping, &lot, start);
			plinth_sync_lane_run(lane, mapping, settle_lot, &lot);
		}
		else
			plinth_sync_lane_run(lane, mapping, lot.cut ? settle_cut : settle_waiting, &lot);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(lot.context);
	return lot.taken.nkeys + lot.taken.passed_on > 0;
}
