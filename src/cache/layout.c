/*
 * layout.c
 *		The first level's shared memory: how it is divided, its locks, and which
 *		cache has which place; see store.h.
 *
 * A place is made at a cache's first use and goes to another cache only when
 * none is free and it has no entries.  It counts
 * for one generation of the extension: after DROP and CREATE EXTENSION the ids
 * of caches begin anew, and what the old ones left is not found any more.
 *
 * A new place begins as if everything in it had just been invalidated, by the
 * youngest transaction there is: whatever was missed while the cache had no
 * place cannot be put back by an older ticket.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "cache/store.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"

#define KNOWN_PLACES 64 /* a power of 2 */

PlinthCacheStore *plinth_cache_store = NULL;

/* One lock for each partition, and the last for the slots. */
static LWLockPadded *locks = NULL;

/* Where this backend found the places of caches; hints only. */
static uint32 known_places[KNOWN_PLACES];

bool
plinth_cache_usable(void)
{
	return plinth_cache_store != NULL && !RecoveryInProgress();
}

void
plinth_cache_lock(uint32 partition, LWLockMode mode, PlinthCacheView *view)
{
	PlinthCacheStore *store = plinth_cache_store;
	PlinthCachePartitionPadded *partitions = plinth_cache_at(store->partitions);

	view->partition = &partitions[partition].partition;
	view->number = partition;
	view->buckets = (uint32 *) plinth_cache_at(store->buckets) + (Size) partition * store->nbuckets;
	view->blocks = (char *) plinth_cache_at(store->blocks) +
				   (Size) partition * store->nblocks * PLINTH_CACHE_BLOCK;
	LWLockAcquire(&locks[partition].lock, mode);
}

void
plinth_cache_unlock(uint32 partition)
{
	LWLockRelease(&locks[partition].lock);
}

void
plinth_cache_slots_lock(void)
{
	LWLockAcquire(&locks[PLINTH_CACHE_MAX_PARTITIONS].lock, LW_EXCLUSIVE);
}

void
plinth_cache_slots_unlock(void)
{
	LWLockRelease(&locks[PLINTH_CACHE_MAX_PARTITIONS].lock);
}

/* -------------------------------------------------------------------------
 * Places
 * -------------------------------------------------------------------------
 */
static bool
place_is(uint32 place, int32 cache, uint64 generation)
{
	const PlinthCachePlace *p = plinth_cache_place(place);

	return p->cache == cache && p->database == MyDatabaseId && p->generation == generation &&
		   !p->forgotten;
}

bool
plinth_cache_place_is(uint32 place, int32 cache)
{
	return place != PLINTH_CACHE_NONE &&
		   place_is(place, cache, plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION));
}

static uint32
look_for_place(int32 cache, uint64 generation)
{
	for (uint32 i = 0; i < plinth_cache_store->nplaces; i++)
	{
		if (place_is(i, cache, generation))
			return i;
	}
	return PLINTH_CACHE_NONE;
}

/* Makes a place anew for a cache of this database; all locks are held. */
static void
begin_place(uint32 place, int32 cache, uint64 generation)
{
	PlinthCachePlace *p = plinth_cache_place(place);
	uint64 number = plinth_cache_sequence_next();

	p->database = MyDatabaseId;
	p->cache = cache;
	p->generation = generation;
	p->forgotten = false;
	pg_atomic_write_u64(&p->last_xid, U64FromFullTransactionId(ReadNextFullTransactionId()) - 1);
	pg_atomic_write_u64(&p->invalidations, 0);
	pg_atomic_write_u64(&p->refused_fills, 0);
	pg_atomic_write_u64(&p->waits, 0);
	pg_atomic_write_u64(&p->wait_timeouts, 0);
	for (uint32 i = 0; i < plinth_cache_store->npartitions; i++)
	{
		PlinthCacheShare *share = plinth_cache_share(place, i);

		pg_atomic_write_u64(&share->hits, 0);
		pg_atomic_write_u64(&share->stale_hits, 0);
		pg_atomic_write_u64(&share->misses, 0);
		share->evictions = share->expirations = share->fills = 0;
	}
	plinth_cache_slot_move(plinth_cache_slot_of_cache(MyDatabaseId, cache, false), number);
}

/* Entries that an older extension of this database, or a dropped cache, left; all locks are held. */
static void
clear_places_left(PlinthCacheView *views, uint64 generation)
{
	for (uint32 i = 0; i < plinth_cache_store->nplaces; i++)
	{
		PlinthCachePlace *p = plinth_cache_place(i);

		if (p->database != MyDatabaseId || (p->generation == generation && !p->forgotten))
			continue;
		p->forgotten = true;
		for (uint32 j = 0; j < plinth_cache_store->npartitions; j++)
			(void) plinth_cache_entries_remove(&views[j], i, NULL, "", 0);
	}
}

/* May a place be used for another cache, now or once its entries are cleared? */
static bool
is_available(PlinthCachePlace *p, uint64 generation)
{
	return p->database == InvalidOid || pg_atomic_read_u64(&p->bytes) == 0 ||
		   (p->database == MyDatabaseId && (p->generation != generation || p->forgotten));
}

/* A look without locks, which spares them who would find all places taken at every call. */
static bool
any_available(uint64 generation)
{
	for (uint32 i = 0; i < plinth_cache_store->nplaces; i++)
	{
		if (is_available(plinth_cache_place(i), generation))
			return true;
	}
	return false;
}

static uint32
make_place(int32 cache, uint64 generation)
{
	PlinthCacheView views[PLINTH_CACHE_MAX_PARTITIONS];
	uint32 found;
	uint32 dropped = PLINTH_CACHE_NONE;
	uint32 idle = PLINTH_CACHE_NONE;

	plinth_cache_slots_lock();
	for (uint32 i = 0; i < plinth_cache_store->npartitions; i++)
		plinth_cache_lock(i, LW_EXCLUSIVE, &views[i]);

	found = look_for_place(cache, generation);
	if (found == PLINTH_CACHE_NONE)
	{
		clear_places_left(views, generation);
		for (uint32 i = 0; i < plinth_cache_store->nplaces && found == PLINTH_CACHE_NONE; i++)
		{
			const PlinthCachePlace *p = plinth_cache_place(i);

			if (p->database == InvalidOid)
				found = i;
			else if (pg_atomic_read_u64(&plinth_cache_place(i)->bytes) != 0)
				continue;
			else if (p->forgotten)
				dropped = i;
			else
				idle = i;
		}
		if (found == PLINTH_CACHE_NONE)
			found = dropped != PLINTH_CACHE_NONE ? dropped : idle;
		if (found != PLINTH_CACHE_NONE)
			begin_place(found, cache, generation);
	}

	for (uint32 i = 0; i < plinth_cache_store->npartitions; i++)
		plinth_cache_unlock(i);
	plinth_cache_slots_unlock();
	return found;
}

uint32
plinth_cache_place_find(int32 cache)
{
	uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	uint32 *known = &known_places[(uint32) cache & (KNOWN_PLACES - 1)];
	uint32 found;

	if (place_is(*known, cache, generation))
		return *known;
	found = look_for_place(cache, generation);
	if (found == PLINTH_CACHE_NONE && any_available(generation))
		found = make_place(cache, generation);
	if (found != PLINTH_CACHE_NONE)
		*known = found;
	return found;
}

void
plinth_cache_place_note(int32 cache, FullTransactionId xid, int64 count)
{
	uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	uint32 found = known_places[(uint32) cache & (KNOWN_PLACES - 1)];
	PlinthCachePlace *p;

	if (!place_is(found, cache, generation))
		found = look_for_place(cache, generation);
	if (found == PLINTH_CACHE_NONE)
		return; /* a place made from now on begins with a younger xid */
	p = plinth_cache_place(found);
	if (pg_atomic_read_u64(&p->last_xid) < U64FromFullTransactionId(xid))
		pg_atomic_write_u64(&p->last_xid, U64FromFullTransactionId(xid));
	pg_atomic_fetch_add_u64(&p->invalidations, count);
}

/* -------------------------------------------------------------------------
 * Division of the memory
 * -------------------------------------------------------------------------
 */
static Size
bounded_power(Size value, Size low, Size high)
{
	return pg_prevpower2_64(Min(Max(value, low), high));
}

/* What is where; all of it fits in plinth.cache_memory. */
static void
divide(PlinthCacheStore *store)
{
	Size total = (Size) plinth_setting_cache_memory * 1024;
	Size at = MAXALIGN(sizeof(PlinthCacheStore));
	Size left;

	store->size = total;
	store->nslots = bounded_power(total / 4096, 1024, 65536);
	store->ncacheslots = store->nslots / 4;
	store->nplaces = bounded_power(total / 262144, 64, 4096);
	store->npartitions = bounded_power(total / (4 * 1024 * 1024), 1, PLINTH_CACHE_MAX_PARTITIONS);

	store->slots = at;
	at += (2 * (Size) store->nslots + store->ncacheslots) * sizeof(PlinthCacheSlot);
	store->places = at;
	at = CACHELINEALIGN(at + store->nplaces * sizeof(PlinthCachePlace));
	store->shares = at;
	at += (Size) store->nplaces * store->npartitions * sizeof(PlinthCacheSharePadded);
	store->partitions = at;
	at += store->npartitions * sizeof(PlinthCachePartitionPadded);

	left = (total - at - PG_CACHE_LINE_SIZE) / store->npartitions;
	store->nblocks = Min(left / (PLINTH_CACHE_BLOCK + sizeof(uint32)), UINT32_MAX / 2);
	store->nbuckets = pg_prevpower2_32(store->nblocks);
	store->buckets = at;
	at += (Size) store->npartitions * store->nbuckets * sizeof(uint32);
	store->blocks = CACHELINEALIGN(at);
}

static Size
memory_size(void)
{
	return (Size) plinth_setting_cache_memory * 1024;
}

static void
init_partition(uint32 number)
{
	PlinthCachePartitionPadded *partitions = plinth_cache_at(plinth_cache_store->partitions);
	PlinthCachePartition *partition = &partitions[number].partition;

	plinth_sieve_init(&partition->queue);
	partition->sweep = 0;
	partition->used = 0;
	partition->free = PLINTH_CACHE_NONE;
	partition->nfree = plinth_cache_store->nblocks;
}

static void
init_memory(void *ptr)
{
	PlinthCacheStore *store = ptr;
	uint32 *buckets;

	/* Only what is small: blocks are touched when they are first used. */
	memset(store, 0, sizeof(PlinthCacheStore));
	divide(store);
	if (!pg_strong_random(&store->seed, sizeof(store->seed)) ||
		!pg_strong_random(&store->first, sizeof(store->first)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate random values")));
	/* Somewhere else each time, and below 2^53, for clients whose numbers are doubles. */
	store->first = (UINT64_C(1) << 40) + store->first % (UINT64_C(1) << 51);
	pg_atomic_init_u64(&store->sequence, store->first);

	for (uint32 i = 0; i < 2 * store->nslots + store->ncacheslots; i++)
	{
		pg_atomic_init_u64(&plinth_cache_slot(i)->moved, store->first);
		pg_atomic_init_u32(&plinth_cache_slot(i)->flux, 0);
	}
	for (uint32 i = 0; i < store->nplaces; i++)
	{
		PlinthCachePlace *place = plinth_cache_place(i);

		memset(place, 0, sizeof(PlinthCachePlace));
		pg_atomic_init_u64(&place->last_xid, 0);
		pg_atomic_init_u64(&place->bytes, 0);
		pg_atomic_init_u64(&place->invalidations, 0);
		pg_atomic_init_u64(&place->refused_fills, 0);
		pg_atomic_init_u64(&place->waits, 0);
		pg_atomic_init_u64(&place->wait_timeouts, 0);
		for (uint32 j = 0; j < store->npartitions; j++)
		{
			PlinthCacheShare *share = plinth_cache_share(i, j);

			memset(share, 0, sizeof(PlinthCacheShare));
			plinth_sieve_init(&share->queue);
			pg_atomic_init_u64(&share->hits, 0);
			pg_atomic_init_u64(&share->stale_hits, 0);
			pg_atomic_init_u64(&share->misses, 0);
		}
	}
	buckets = plinth_cache_at(store->buckets);
	for (Size i = 0; i < (Size) store->npartitions * store->nbuckets; i++)
		buckets[i] = PLINTH_CACHE_NONE;
	for (uint32 i = 0; i < store->npartitions; i++)
		init_partition(i);
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth caches",
	.size = memory_size,
	.init = init_memory,
	.pointer = (void **) &plinth_cache_store,
	.lwlocks = PLINTH_CACHE_MAX_PARTITIONS + 1,
	.locks = &locks,
};

/* -------------------------------------------------------------------------
 * Forgetting
 * -------------------------------------------------------------------------
 */
static void
purge_database(Oid database)
{
	for (uint32 i = 0; i < plinth_cache_store->nplaces; i++)
	{
		PlinthCachePlace *p = plinth_cache_place(i);
		bool ours;

		if (p->database != database)
			continue;
		plinth_cache_slots_lock();
		ours = p->database == database;
		if (ours)
		{
			p->forgotten = true;
			plinth_cache_slot_move(plinth_cache_slot_of_cache(database, p->cache, false),
								   plinth_cache_sequence_next());
		}
		for (uint32 j = 0; ours && j < plinth_cache_store->npartitions; j++)
		{
			PlinthCacheView view;

			plinth_cache_lock(j, LW_EXCLUSIVE, &view);
			(void) plinth_cache_entries_remove(&view, i, NULL, "", 0);
			plinth_cache_unlock(j);
		}
		plinth_cache_slots_unlock();
	}
}

void
plinth_cache_store_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
	plinth_base_database_on_purge(purge_database);
}
