/*
 * meter_stat.c
 *		Statistics of meters, for plinth.stat_meters.
 *
 * Counters are a fixed array by (database, extension, meter); a meter that
 * finds no place goes without, and nothing else.  How much is pending is no
 * counter: it is added up when somebody asks.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "limits/meter.h"
#include "limits/meter_cells.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_limits_meter_stat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_meter_stat);

static LWLock *
counters_lock(void)
{
	return &plinth_limits_meter_locks[METER_PARTITIONS].lock;
}

/* The place of a meter, or -1 and one that it can have, if there is; the lock is held. */
static int
find_place(int64 meter, Oid extension, Oid committed, int *unused)
{
	*unused = -1;
	for (int i = 0; i < METER_COUNTERS; i++)
	{
		const MeterCounters *c = &plinth_limits_meter_shared->counters[i];

		if (c->database == MyDatabaseId && c->extension == extension && c->meter == meter)
			return i;
		if (*unused < 0 &&
			(!OidIsValid(c->database) ||
			 (c->database == MyDatabaseId && plinth_base_oid_is_older(c->extension, committed))))
			*unused = i;
	}
	return -1;
}

int
plinth_limits_meter_counters(int64 meter)
{
	Oid extension = plinth_base_extension_oid();
	Oid committed = plinth_base_extension_committed();
	int found;
	int unused;

	LWLockAcquire(counters_lock(), LW_EXCLUSIVE);
	found = find_place(meter, extension, committed, &unused);
	if (found < 0 && unused >= 0)
	{
		MeterCounters *c = &plinth_limits_meter_shared->counters[unused];

		c->database = MyDatabaseId;
		c->extension = extension;
		c->meter = meter;
		pg_atomic_write_u64(&c->adds, 0);
		pg_atomic_write_u64(&c->denied, 0);
		pg_atomic_write_u64(&c->full, 0);
		found = unused;
	}
	LWLockRelease(counters_lock());
	return found;
}

void
plinth_limits_meter_counters_purge(Oid database)
{
	LWLockAcquire(counters_lock(), LW_EXCLUSIVE);
	for (int i = 0; i < METER_COUNTERS; i++)
	{
		if (plinth_limits_meter_shared->counters[i].database == database)
			plinth_limits_meter_shared->counters[i].database = InvalidOid;
	}
	LWLockRelease(counters_lock());
}

void
plinth_limits_meter_counted(int counters, PlinthMeterOutcome outcome)
{
	MeterCounters *c;

	if (counters < 0)
		return;
	c = &plinth_limits_meter_shared->counters[counters];
	if (outcome == PLINTH_METER_COUNTED)
		pg_atomic_fetch_add_u64(&c->adds, 1);
	else if (outcome == PLINTH_METER_EXCEEDED)
		pg_atomic_fetch_add_u64(&c->denied, 1);
	else if (outcome == PLINTH_METER_FULL)
		pg_atomic_fetch_add_u64(&c->full, 1);
}

typedef struct StatState
{
	int64 meter;
	Oid extension;
	int64 keys;
	int64 pending;
} StatState;

static bool
add_slot(const MeterPart *part, const MeterEntry *entry, uint32 index, void *arg)
{
	StatState *state = arg;
	const MeterSlot *slot = &part->cells[index].slot;

	/* Each key has its total once, and all of its dimensions in it. */
	if (entry->database == MyDatabaseId && entry->extension == state->extension &&
		entry->meter == state->meter && slot->period == PLINTH_METER_TOTAL && entry->dimlen == 0)
	{
		state->keys++;
		state->pending += slot->pending + slot->in_flight;
	}
	return true;
}

/* _stat_meter(meter_id, scale): one row */
Datum
plinth_limits_meter_stat(PG_FUNCTION_ARGS)
{
	StatState state = {.meter = PG_GETARG_INT64(0), .extension = plinth_base_extension_oid()};
	TupleDesc desc;
	Datum values[5];
	bool nulls[5] = {false};
	Oid committed = plinth_base_extension_committed();
	MeterCounters *c;
	int place;
	int unused;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("function returning record called in context that cannot accept "
							   "type record")));
	/* A meter that nobody has used yet has no place. */
	LWLockAcquire(counters_lock(), LW_SHARED);
	place = find_place(state.meter, state.extension, committed, &unused);
	LWLockRelease(counters_lock());
	c = place < 0 ? NULL : &plinth_limits_meter_shared->counters[place];
	for (int p = 0; p < METER_PARTITIONS; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);

		LWLockAcquire(part.lock, LW_SHARED);
		(void) plinth_limits_meter_walk(&part, add_slot, &state);
		LWLockRelease(part.lock);
	}
	nulls[0] = nulls[1] = nulls[2] = c == NULL && unused < 0;
	values[0] = Int64GetDatum(c != NULL ? pg_atomic_read_u64(&c->adds) : 0);
	values[1] = Int64GetDatum(c != NULL ? pg_atomic_read_u64(&c->denied) : 0);
	values[2] = Int64GetDatum(c != NULL ? pg_atomic_read_u64(&c->full) : 0);
	values[3] = Int64GetDatum(state.keys);
	values[4] = NumericGetDatum(plinth_limits_meter_numeric(state.pending, PG_GETARG_INT32(1)));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
