/*
 * meter_take.c
 *		What is pending, on its way from shared memory to the table or the file.
 *
 * See meter_store.c for what moves where.  A slot of which something is in
 * flight stays where it is, so a batch finds it again by its place.
 */
#include "postgres.h"

#include "common/int.h"
#include "limits/meter.h"
#include "limits/meter_cells.h"
#include "miscadmin.h"
#include "worker/worker.h"

bool
plinth_limits_meter_walk(const MeterPart *part, MeterVisitor visit, void *arg)
{
	for (uint32 b = 0; b < part->nbuckets; b++)
	{
		for (uint32 i = part->buckets[b]; i != METER_NONE; i = part->cells[i].entry.next)
		{
			const MeterEntry *entry = &part->cells[i].entry;

			for (uint32 s = entry->slots; s != METER_NONE; s = part->cells[s].slot.next)
			{
				if (!visit(part, entry, s, arg))
					return false;
			}
		}
	}
	return true;
}

typedef struct TakeState
{
	PlinthMeterBatch *batch;
	Oid extension;
	Oid committed; /* what is of an older one is forgotten */
	int partition;
} TakeState;

static bool
take_slot(const MeterPart *part, const MeterEntry *entry, uint32 index, void *arg)
{
	TakeState *state = arg;
	PlinthMeterBatch *batch = state->batch;
	PlinthMeterFlights *flights = batch->flights;
	MeterSlot *slot = &part->cells[index].slot;
	PlinthMeterTaken *taken = &batch->taken[flights->n];
	int len = entry->keylen + entry->dimlen;

	if (entry->database != MyDatabaseId)
		return true;
	if (plinth_base_oid_is_older(entry->extension, state->committed))
		slot->pending = slot->in_flight = 0;
	if (entry->extension != state->extension || slot->pending == 0 || slot->in_flight != 0)
		return true;
	if (flights->n == PLINTH_METER_BATCH || batch->text_used + len > PLINTH_METER_BATCH_TEXT)
	{
		batch->more = true;
		return false;
	}
	flights->flights[flights->n].partition = state->partition;
	flights->flights[flights->n].slot = index;
	flights->flights[flights->n].amount = slot->pending;
	taken->meter = entry->meter;
	taken->period = slot->period;
	taken->start = slot->start;
	taken->amount = slot->pending;
	taken->scale = entry->scale;
	taken->text = batch->text_used;
	taken->keylen = entry->keylen;
	taken->dimlen = entry->dimlen;
	plinth_limits_meter_text(part, entry, batch->text + batch->text_used);
	batch->text_used += len;
	flights->n++;
	slot->in_flight = slot->pending;
	slot->pending = 0;
	slot->xid = flights->xid;
	return true;
}

void
plinth_limits_meter_take(PlinthMeterBatch *batch, PlinthMeterFlights *flights)
{
	TakeState state;

	batch->flights = flights;
	batch->text_used = 0;
	batch->more = false;
	state.batch = batch;
	state.extension = plinth_base_extension_oid();
	state.committed = plinth_base_extension_committed();
	for (int p = 0; p < METER_PARTITIONS && !batch->more; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);
		int before = flights->n;

		state.partition = p;
		LWLockAcquire(part.lock, LW_EXCLUSIVE);
		(void) plinth_limits_meter_walk(&part, take_slot, &state);
		if (flights->n != before)
			part.head->version++;
		LWLockRelease(part.lock);
	}
}

/* Ends the flight of all of a batch; only of those that are still as they were taken. */
static void
land(PlinthMeterFlights *flights, bool written)
{
	for (int i = 0; i < flights->n; i++)
	{
		int64 amount = flights->flights[i].amount;
		MeterPart part = plinth_limits_meter_part(flights->flights[i].partition);
		MeterSlot *slot = &part.cells[flights->flights[i].slot].slot;

		LWLockAcquire(part.lock, LW_EXCLUSIVE);
		if (slot->in_flight == amount && slot->xid == flights->xid)
		{
			part.head->version++;
			slot->in_flight = 0;
			slot->xid = InvalidTransactionId;
			if (!written)
				slot->pending += amount;
			else if (pg_add_s64_overflow(slot->base, amount, &slot->base))
				slot->epoch = 0;
		}
		LWLockRelease(part.lock);
	}
	flights->n = 0;
}

void
plinth_limits_meter_taken_written(PlinthMeterFlights *flights)
{
	land(flights, true);
}

void
plinth_limits_meter_taken_back(PlinthMeterFlights *flights)
{
	land(flights, false);
}

void
plinth_limits_meter_press(void)
{
	pg_atomic_write_u32(&plinth_limits_meter_shared->pressed, 1);
	plinth_worker_wake(MyDatabaseId, "meter", 0);
}

bool
plinth_limits_meter_pressed(void)
{
	return pg_atomic_exchange_u32(&plinth_limits_meter_shared->pressed, 0) != 0;
}

static bool
is_settled(const MeterPart *part, const MeterEntry *entry, uint32 index, void *arg)
{
	const MeterSlot *slot = &part->cells[index].slot;

	return entry->database != MyDatabaseId || (slot->pending == 0 && slot->in_flight == 0);
}

bool
plinth_limits_meter_has_pending(void)
{
	bool settled = true;

	for (int p = 0; p < METER_PARTITIONS && settled; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);

		LWLockAcquire(part.lock, LW_SHARED);
		settled = plinth_limits_meter_walk(&part, is_settled, NULL);
		LWLockRelease(part.lock);
	}
	return !settled;
}

typedef struct SaveState
{
	PlinthMeterSaver saver;
	void *arg;
} SaveState;

static bool
save_slot(const MeterPart *part, const MeterEntry *entry, uint32 index, void *arg)
{
	const SaveState *state = arg;
	const MeterSlot *slot = &part->cells[index].slot;
	char text[PLINTH_METER_MAX_KEY + PLINTH_METER_MAX_DIMENSION];
	PlinthMeterSaved saved;

	if (slot->pending == 0)
		return true;
	memset(&saved, 0, sizeof(saved));
	saved.database = entry->database;
	saved.extension = entry->extension;
	saved.meter = entry->meter;
	saved.scale = entry->scale;
	saved.keylen = entry->keylen;
	saved.dimlen = entry->dimlen;
	saved.period = slot->period;
	saved.start = slot->start;
	saved.amount = slot->pending;
	plinth_limits_meter_text(part, entry, text);
	return state->saver(&saved, text, state->arg);
}

bool
plinth_limits_meter_save_all(PlinthMeterSaver saver, void *arg)
{
	SaveState state = {.saver = saver, .arg = arg};

	for (int p = 0; p < METER_PARTITIONS; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);

		if (!plinth_limits_meter_walk(&part, save_slot, &state))
			return false;
	}
	return true;
}
