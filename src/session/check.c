/*
 * check.c
 *		What is in the sessions' shared memory, and whether it adds up: for
 *		plinth.stat_sessions, for tests, and for whoever doubts.
 *
 * Each partition is looked at under its exclusive lock, one after the other,
 * so that the sums are exact only while nobody puts anything.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "session/store.h"

PGDLLEXPORT Datum plinth_session_stats(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_check(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_stats);
PG_FUNCTION_INFO_V1(plinth_session_check);

typedef struct Sums
{
	int64 entries;
	int64 unwritten;
	int64 hits;
	int64 misses;
	int64 evicted;
	int64 refused;
	int64 with_text;
} Sums;

static void
damaged(uint32 partition, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("shared memory of sessions, partition %u: %s", partition, what)));
}

static bool
is_in_id_chain(uint32 number)
{
	const PlinthSessionEntry *entry = plinth_session_entry(number);
	uint32 bucket = plinth_session_id_bucket_of(entry->database, &entry->id);
	int found = 0;

	LWLockAcquire(plinth_session_id_lock(bucket), LW_SHARED);
	for (uint32 i = *plinth_session_id_head(bucket); i != PLINTH_SESSION_NONE;
		 i = plinth_session_entry(i)->next_id)
		found += i == number;
	LWLockRelease(plinth_session_id_lock(bucket));
	return found == 1;
}

/* Adds up a partition that is locked; what is wrong with it, or NULL. */
static const char *
add_partition(uint32 p, bool check, Sums *sums)
{
	PlinthSessionPartition *partition = plinth_session_partition(p);
	uint32 n = plinth_session_store->nentries;
	uint32 *buckets = (uint32 *) plinth_session_at(plinth_session_store->buckets) +
					  p * plinth_session_store->nbuckets;
	uint32 used = 0;
	uint32 nfree = 0;

	sums->hits += (int64) pg_atomic_read_u64(&partition->hits);
	sums->misses += (int64) pg_atomic_read_u64(&partition->misses);
	sums->evicted += (int64) partition->evicted;
	sums->refused += (int64) partition->refused;
	for (uint32 b = 0; b < plinth_session_store->nbuckets; b++)
	{
		for (uint32 i = buckets[b]; i != PLINTH_SESSION_NONE; i = plinth_session_entry(i)->next)
		{
			PlinthSessionEntry *entry = plinth_session_entry(i);

			if (i / n != p || used++ >= n)
				return "a chain leads astray";
			sums->unwritten +=
				(TimestampTz) pg_atomic_read_u64(&entry->last_active) > entry->written;
			sums->with_text += entry->text != PLINTH_SESSION_NONE;
			if (!check)
				continue;
			if (!OidIsValid(entry->database) ||
				plinth_session_bucket_of(p, entry->hash) != &buckets[b])
				return "an entry is in the wrong chain";
			if (!is_in_id_chain(i))
				return "an entry is not found by its id";
			if (entry->ticket != 0 && entry->text == PLINTH_SESSION_NONE)
				return "an entry has no roles";
		}
	}
	for (uint32 i = partition->free; i != PLINTH_SESSION_NONE && nfree <= n;
		 i = plinth_session_entry(i)->next)
		nfree++;
	if (used != partition->used || used + nfree + (n - partition->fresh) != n)
		return "entries are lost";
	sums->entries += used;
	return NULL;
}

static void
add_all(bool check, Sums *sums)
{
	memset(sums, 0, sizeof(*sums));
	for (uint32 p = 0; p < PLINTH_SESSION_PARTITIONS; p++)
	{
		const char *wrong;

		LWLockAcquire(plinth_session_partition_lock(p), LW_EXCLUSIVE);
		wrong = add_partition(p, check, sums);
		LWLockRelease(plinth_session_partition_lock(p));
		if (wrong != NULL)
			damaged(p, wrong);
	}
}

/* OUT entries, capacity, unwritten, hits, misses, evictions, refused, lost. */
Datum
plinth_session_stats(PG_FUNCTION_ARGS)
{
	static PlinthRow kept;
	bool nulls[8] = {false};
	Datum values[8];
	Sums sums;

	add_all(false, &sums);
	values[0] = Int64GetDatum(sums.entries);
	values[1] = Int64GetDatum((int64) plinth_session_store->nentries * PLINTH_SESSION_PARTITIONS);
	values[2] = Int64GetDatum(sums.unwritten);
	values[3] = Int64GetDatum(sums.hits);
	values[4] = Int64GetDatum(sums.misses);
	values[5] = Int64GetDatum(sums.evicted);
	values[6] = Int64GetDatum(sums.refused);
	values[7] = Int64GetDatum((int64) pg_atomic_read_u64(&plinth_session_store->lost));
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &kept), values, nulls)));
}

/* OUT entries, with_text, references to texts, slots in flux. */
Datum
plinth_session_check(PG_FUNCTION_ARGS)
{
	static PlinthRow kept;
	bool nulls[4] = {false};
	Datum values[4];
	Sums sums;
	int64 refs = 0;
	int64 flux = 0;

	add_all(true, &sums);
	LWLockAcquire(plinth_session_text_lock(), LW_SHARED);
	for (uint32 i = 0; i < plinth_session_store->fresh_text; i++)
		refs += plinth_session_text(i)->refs;
	LWLockRelease(plinth_session_text_lock());
	for (uint32 i = 0; i < plinth_session_store->nslots; i++)
		flux += pg_atomic_read_u32(&plinth_session_slot(i)->flux);
	values[0] = Int64GetDatum(sums.entries);
	values[1] = Int64GetDatum(sums.with_text);
	values[2] = Int64GetDatum(refs);
	values[3] = Int64GetDatum(flux);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &kept), values, nulls)));
}
