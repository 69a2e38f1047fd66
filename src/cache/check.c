/*
 * check.c
 *		Accounts for every block of the first level: for tests, and for whoever
 *		doubts.
 *
 * Each partition is looked at under its exclusive lock, one after the other, so
 * the sums are exact only while nobody puts anything.  What is found wrong is
 * wrong all the same.
 */
#include "postgres.h"

#include "cache/store.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

extern PGDLLEXPORT Datum plinth_cache_check(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_cache_check);

typedef struct Account
{
	int64 used; /* blocks */
	int64 entries;
	int64 in_flux; /* slots */
} Account;

static uint32
count_chain(const PlinthCacheView *view, uint32 block)
{
	uint32 n = 0;

	while (block != PLINTH_CACHE_NONE && n <= plinth_cache_store->nblocks)
	{
		block = plinth_cache_entry(view, block)->next;
		n++;
	}
	return n;
}

/* What is wrong with a partition, or NULL. */
static const char *
check_partition(const PlinthCacheView *view, Account *account)
{
	const PlinthCachePartition *partition = view->partition;
	uint32 nblocks = plinth_cache_store->nblocks;
	uint32 used = 0;
	uint32 entries = 0;
	uint32 hashed = 0;
	uint32 block;
	int64 bytes = 0;
	uint32 owned = 0;

	for (block = partition->queue.oldest; block != PLINTH_CACHE_NONE && entries <= nblocks;
		 block = plinth_cache_entry(view, block)->all.newer)
	{
		const PlinthCacheEntry *entry = plinth_cache_entry(view, block);

		if (!entry->is_head || entry->place >= plinth_cache_store->nplaces)
			return "an entry is none";
		if (count_chain(view, block) != entry->nblocks)
			return "an entry's chain has not as many blocks as it says";
		used += entry->nblocks;
		entries++;
	}
	if (entries != partition->queue.count)
		return "the queue is not as long as it says";
	if (count_chain(view, partition->free) + nblocks - partition->used != partition->nfree)
		return "there are not as many free blocks as it says";
	if (used + partition->nfree != nblocks)
		return "blocks are neither free nor in use, or both";
	for (uint32 i = 0; i < plinth_cache_store->nbuckets; i++)
	{
		for (block = view->buckets[i]; block != PLINTH_CACHE_NONE && hashed <= nblocks;
			 block = plinth_cache_entry(view, block)->next_entry)
			hashed++;
	}
	if (hashed != entries)
		return "the hash table has not as many entries as the queue";
	for (uint32 i = 0; i < plinth_cache_store->nplaces; i++)
	{
		owned += plinth_cache_share(i, view->number)->queue.count;
		bytes += plinth_cache_share(i, view->number)->bytes;
	}
	if (owned != entries || bytes != (int64) used * PLINTH_CACHE_BLOCK)
		return "the caches' shares do not add up";
	account->used += used;
	account->entries += entries;
	return NULL;
}

Datum
plinth_cache_check(PG_FUNCTION_ARGS)
{
	Account account = {0};
	Datum values[4];
	bool nulls[4] = {false};
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (uint32 i = 0; i < plinth_cache_store->npartitions; i++)
	{
		PlinthCacheView view;
		const char *problem;

		plinth_cache_lock(i, LW_EXCLUSIVE, &view);
		problem = check_partition(&view, &account);
		plinth_cache_unlock(i);
		if (problem != NULL)
			ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
							errmsg("the caches' memory is damaged in partition %u: %s", i, problem),
							errhint("Restart the server, and report this as a bug.")));
	}
	for (uint32 i = 0; i < 2 * plinth_cache_store->nslots + plinth_cache_store->ncacheslots; i++)
		account.in_flux += pg_atomic_read_u32(&plinth_cache_slot(i)->flux) != 0;

	values[0] =
		Int64GetDatum((int64) plinth_cache_store->nblocks * plinth_cache_store->npartitions);
	values[1] = Int64GetDatum(account.used);
	values[2] = Int64GetDatum(account.entries);
	values[3] = Int64GetDatum(account.in_flux);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
