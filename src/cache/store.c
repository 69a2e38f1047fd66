/*
 * store.c
 *		The first level's verbs: get, put, touch, delete, usage, statistics.
 *
 * An entry is found by cache, user and key in full, never by a hash alone: a
 * per-user cache's isolation rests on that.  It is given out as long as it has
 * not expired and none of its slots has moved since the ticket that it was
 * put under (see invalidate.c); what is dead stays until somebody stumbles
 * over it: a get of its key, a put that needs room, or the eviction.
 *
 * A put looks at its slots under its partition's exclusive lock.  An
 * invalidation first marks its slots and then, under that lock, removes its
 * entries: so either the put finds the mark, or the removal finds the entry.
 *
 * Room is made by the dead first, of which each put looks for some, then by
 * SIEVE; for a cache's own bound among its entries alone, beginning in the
 * partition of the new one.
 */
#include "postgres.h"

#include "cache/store.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define SWEEP_BLOCKS 16 /* looked at by a put that needs room */

/* Prepares to look a key up; false when there is no first level for it. */
static bool
probe_for(PlinthCacheProbe *probe, const PlinthCacheKey *key)
{
	if (!plinth_cache_usable())
		return false;
	probe->key = key;
	probe->place = plinth_cache_place_find(key->cache);
	if (probe->place == PLINTH_CACHE_NONE)
		return false;
	probe->hash = plinth_cache_key_hash(key);
	probe->partition = (probe->hash >> 48) & (plinth_cache_store->npartitions - 1);
	return true;
}

/* Has an invalidation come over this entry? */
static bool
is_void(const PlinthCacheView *view, const PlinthCacheEntry *entry)
{
	uint32 tags[PLINTH_CACHE_MAX_TAGS];
	uint32 slots[PLINTH_CACHE_ENTRY_SLOTS];
	int n;

	plinth_cache_entry_tags(view, entry, tags);
	n = plinth_cache_slots_of_entry(plinth_cache_place(entry->place)->database,
									plinth_cache_place(entry->place)->cache, &entry->user, tags,
									entry->ntags, slots);
	return !plinth_cache_slots_unmoved(slots, n, entry->ticket);
}

/* Does it belong to a cache, or to an extension, that is no more? */
static bool
is_abandoned(const PlinthCacheEntry *entry)
{
	const PlinthCachePlace *place = plinth_cache_place(entry->place);

	return place->forgotten ||
		   place->generation != plinth_base_generation(place->database, PLINTH_GEN_EXTENSION);
}

static bool
is_dead(const PlinthCacheView *view, const PlinthCacheEntry *entry, TimestampTz now)
{
	return entry->expires_at <= now || is_abandoned(entry) || is_void(view, entry);
}

/* Removes an entry to make room, or because it is dead. */
static void
drop_entry(const PlinthCacheView *view, PlinthCacheEntry *entry, TimestampTz now)
{
	PlinthCacheShare *share = plinth_cache_share(entry->place, view->number);

	if (entry->expires_at <= now)
		share->expirations++;
	else if (!is_dead(view, entry, now))
		share->evictions++;
	plinth_cache_entry_remove(view, entry);
}

/* -------------------------------------------------------------------------
 * Get
 * -------------------------------------------------------------------------
 */
/* Copies an entry out; ERROR when there is no memory for it. */
static void
copy_out(const PlinthCacheView *view, const PlinthCacheEntry *entry, PlinthCacheValue *value)
{
	char *data = palloc(VARHDRSZ + entry->size);

	value->kind = entry->kind;
	value->size = entry->size;
	value->expires_at = entry->expires_at;
	value->stale_at = entry->stale_at;
	value->ntags = entry->ntags;
	plinth_cache_entry_tags(view, entry, value->tags);
	plinth_cache_entry_value(view, entry, data + VARHDRSZ);
	value->data = data + VARHDRSZ;
}

/* Removes what a get found dead, if it still is. */
static void
bury(const PlinthCacheProbe *probe, TimestampTz now)
{
	PlinthCacheView view;
	PlinthCacheEntry *entry;

	plinth_cache_lock(probe->partition, LW_EXCLUSIVE, &view);
	entry = plinth_cache_entry_find(&view, probe);
	if (entry != NULL && is_dead(&view, entry, now))
		drop_entry(&view, entry, now);
	plinth_cache_unlock(probe->partition);
}

PlinthCacheResult
plinth_cache_store_get(const PlinthCacheKey *key, PlinthCacheValue *value)
{
	PlinthCacheResult result = PLINTH_CACHE_MISS;
	PlinthCacheProbe probe;
	PlinthCacheView view;
	TimestampTz now;
	bool dead = false;

	if (!probe_for(&probe, key))
		return PLINTH_CACHE_MISS;
	now = GetCurrentTimestamp();
	plinth_cache_lock(probe.partition, LW_SHARED, &view);
	if (plinth_cache_place_is(probe.place, key->cache))
	{
		PlinthCacheShare *share = plinth_cache_share(probe.place, view.number);
		PlinthCacheEntry *entry = plinth_cache_entry_find(&view, &probe);

		dead = entry != NULL && is_dead(&view, entry, now);
		if (entry == NULL || dead)
			pg_atomic_fetch_add_u64(&share->misses, 1);
		else
		{
			copy_out(&view, entry, value);
			result = entry->stale_at <= now ? PLINTH_CACHE_STALE : PLINTH_CACHE_HIT;
			if (entry->visited == 0)
				entry->visited = 1;
			pg_atomic_fetch_add_u64(&entry->hits, 1);
			pg_atomic_write_u64(&entry->last_access, now);
			pg_atomic_fetch_add_u64(result == PLINTH_CACHE_HIT ? &share->hits : &share->stale_hits,
									1);
		}
	}
	plinth_cache_unlock(probe.partition);
	if (dead)
		bury(&probe, now);
	return result;
}

/* -------------------------------------------------------------------------
 * Put
 * -------------------------------------------------------------------------
 */
/* Removes some dead entries, if there are any among the next blocks. */
static void
sweep(const PlinthCacheView *view, TimestampTz now)
{
	PlinthCachePartition *partition = view->partition;

	for (int i = 0; i < SWEEP_BLOCKS && partition->used > 0; i++)
	{
		PlinthCacheEntry *entry = plinth_cache_entry(view, partition->sweep);

		if (++partition->sweep >= partition->used)
			partition->sweep = 0;
		if (entry->is_head && is_dead(view, entry, now))
			drop_entry(view, entry, now);
	}
}

static void
make_room(const PlinthCacheView *view, Size nblocks, TimestampTz now)
{
	if (view->partition->nfree < nblocks)
		sweep(view, now);
	while (view->partition->nfree < nblocks)
		drop_entry(view, plinth_cache_entry_victim(view, PLINTH_CACHE_NONE), now);
}

/*
 * Takes bytes of a cache's bound, at the cost of its other entries.  False when
 * that does not help; then nothing is taken.
 */
static bool
take_bytes(const PlinthCacheProbe *probe, Size bytes, int64 max_bytes, TimestampTz now)
{
	PlinthCachePlace *place = plinth_cache_place(probe->place);
	uint32 mask = plinth_cache_store->npartitions - 1;

	pg_atomic_fetch_add_u64(&place->bytes, bytes);
	if (max_bytes <= 0)
		return true;
	for (uint32 i = 0; i <= mask && pg_atomic_read_u64(&place->bytes) > max_bytes; i++)
	{
		PlinthCacheEntry *victim;
		PlinthCacheView view;

		plinth_cache_lock((probe->partition + i) & mask, LW_EXCLUSIVE, &view);
		while (plinth_cache_place_is(probe->place, probe->key->cache) &&
			   pg_atomic_read_u64(&place->bytes) > max_bytes &&
			   (victim = plinth_cache_entry_victim(&view, probe->place)) != NULL)
			drop_entry(&view, victim, now);
		plinth_cache_unlock(view.number);
	}
	if (pg_atomic_read_u64(&place->bytes) <= max_bytes)
		return true;
	pg_atomic_fetch_sub_u64(&place->bytes, bytes);
	return false;
}

bool
plinth_cache_store_put(const PlinthCacheKey *key, const PlinthCacheValue *value, int64 ticket,
					   int64 max_bytes)
{
	uint32 slots[PLINTH_CACHE_FILL_SLOTS];
	PlinthCacheProbe probe;
	PlinthCacheView view;
	PlinthCachePlace *place;
	TimestampTz now;
	Size nblocks;
	int nslots;
	bool allowed = false;

	if (ticket == 0 || !probe_for(&probe, key) || !plinth_cache_ticket_known(ticket))
		return false;
	place = plinth_cache_place(probe.place);
	now = GetCurrentTimestamp();
	nblocks = plinth_cache_entry_blocks(value->ntags, key->keylen, value->size);
	nslots = plinth_cache_slots_of_fill(key, value->tags, value->ntags, slots);
	if (value->size <= plinth_cache_store_max_size() && value->expires_at > now &&
		take_bytes(&probe, nblocks * PLINTH_CACHE_BLOCK, max_bytes, now))
	{
		plinth_cache_lock(probe.partition, LW_EXCLUSIVE, &view);
		allowed = plinth_cache_place_is(probe.place, key->cache) &&
				  plinth_cache_slots_still(slots, nslots, ticket);
		if (allowed)
		{
			PlinthCacheEntry *entry = plinth_cache_entry_find(&view, &probe);
			uint64 hits = 0;

			if (entry != NULL)
			{
				hits = pg_atomic_read_u64(&entry->hits);
				plinth_cache_entry_remove(&view, entry);
			}
			make_room(&view, nblocks, now);
			entry = plinth_cache_entry_add(&view, &probe, value);
			entry->ticket = ticket;
			pg_atomic_write_u64(&entry->hits, hits);
			pg_atomic_write_u64(&entry->last_access, now);
			plinth_cache_share(probe.place, view.number)->fills++;
		}
		else
			pg_atomic_fetch_sub_u64(&place->bytes, nblocks * PLINTH_CACHE_BLOCK);
		plinth_cache_unlock(probe.partition);
	}
	if (!allowed)
		pg_atomic_fetch_add_u64(&place->refused_fills, 1);
	return allowed;
}

Size
plinth_cache_store_max_size(void)
{
	Size blocks;

	if (plinth_cache_store == NULL)
		return 0;
	/* A quarter of a partition, less what the longest key and all tags take. */
	blocks = plinth_cache_store->nblocks / 4 -
			 plinth_cache_entry_blocks(PLINTH_CACHE_MAX_TAGS, PLINTH_CACHE_MAX_KEY, 0);
	return Min(blocks * (PLINTH_CACHE_BLOCK - offsetof(PlinthCacheBlock, bytes)), MaxAllocSize / 4);
}

/* -------------------------------------------------------------------------
 * The rest
 * -------------------------------------------------------------------------
 */
/* Finds a live entry, for update; its partition stays locked when there is one. */
static PlinthCacheEntry *
find_live(PlinthCacheProbe *probe, const PlinthCacheKey *key, LWLockMode mode)
{
	PlinthCacheEntry *entry = NULL;
	PlinthCacheView view;

	if (!probe_for(probe, key))
		return NULL;
	plinth_cache_lock(probe->partition, mode, &view);
	if (plinth_cache_place_is(probe->place, key->cache))
		entry = plinth_cache_entry_find(&view, probe);
	if (entry != NULL && is_dead(&view, entry, GetCurrentTimestamp()))
		entry = NULL;
	if (entry == NULL)
		plinth_cache_unlock(probe->partition);
	return entry;
}

bool
plinth_cache_store_touch(const PlinthCacheKey *key, TimestampTz stale_at, TimestampTz expires_at)
{
	PlinthCacheProbe probe;
	PlinthCacheEntry *entry = find_live(&probe, key, LW_EXCLUSIVE);

	if (entry == NULL)
		return false;
	entry->stale_at = stale_at;
	entry->expires_at = expires_at;
	plinth_cache_unlock(probe.partition);
	return true;
}

bool
plinth_cache_store_usage(const PlinthCacheKey *key, int64 *hits, TimestampTz *last_access)
{
	PlinthCacheProbe probe;
	PlinthCacheEntry *entry = find_live(&probe, key, LW_SHARED);

	if (entry == NULL)
		return false;
	*hits = pg_atomic_read_u64(&entry->hits);
	*last_access = pg_atomic_read_u64(&entry->last_access);
	plinth_cache_unlock(probe.partition);
	return true;
}

void
plinth_cache_store_delete(const PlinthCacheKey *key)
{
	PlinthCacheProbe probe;
	bool done = false;

	/* Once more when the place changed hands meanwhile. */
	while (!done && probe_for(&probe, key))
	{
		PlinthCacheView view;
		PlinthCacheEntry *entry;

		plinth_cache_lock(probe.partition, LW_EXCLUSIVE, &view);
		done = plinth_cache_place_is(probe.place, key->cache);
		if (done && (entry = plinth_cache_entry_find(&view, &probe)) != NULL)
			plinth_cache_entry_remove(&view, entry);
		plinth_cache_unlock(probe.partition);
	}
}

void
plinth_cache_store_delete_prefix(int32 cache, const pg_uuid_t *user, const char *prefix, int len)
{
	uint32 i = 0;

	while (plinth_cache_usable() && i < plinth_cache_store->npartitions)
	{
		uint32 place = plinth_cache_place_find(cache);
		PlinthCacheView view;

		if (place == PLINTH_CACHE_NONE)
			break;
		plinth_cache_lock(i, LW_EXCLUSIVE, &view);
		if (plinth_cache_place_is(place, cache))
		{
			(void) plinth_cache_entries_remove(&view, place, user, prefix, len);
			i++;
		}
		else
			i = 0;
		plinth_cache_unlock(view.number);
	}
}

void
plinth_cache_store_stats(int32 cache, PlinthCacheStats *stats)
{
	uint32 place = plinth_cache_usable() ? plinth_cache_place_find(cache) : PLINTH_CACHE_NONE;
	PlinthCachePlace *p;

	memset(stats, 0, sizeof(PlinthCacheStats));
	if (place == PLINTH_CACHE_NONE)
		return;
	for (uint32 i = 0; i < plinth_cache_store->npartitions; i++)
	{
		PlinthCacheView view;
		PlinthCacheShare *share = plinth_cache_share(place, i);

		plinth_cache_lock(i, LW_SHARED, &view);
		if (plinth_cache_place_is(place, cache))
		{
			stats->entries += share->queue.count;
			stats->bytes += share->bytes;
			stats->hits += pg_atomic_read_u64(&share->hits);
			stats->stale_hits += pg_atomic_read_u64(&share->stale_hits);
			stats->misses += pg_atomic_read_u64(&share->misses);
			stats->evictions += share->evictions;
			stats->expirations += share->expirations;
			stats->fills += share->fills;
		}
		plinth_cache_unlock(i);
	}
	p = plinth_cache_place(place);
	stats->invalidations = pg_atomic_read_u64(&p->invalidations);
	stats->refused_fills = pg_atomic_read_u64(&p->refused_fills);
	stats->waits = pg_atomic_read_u64(&p->waits);
	stats->wait_timeouts = pg_atomic_read_u64(&p->wait_timeouts);
}

void
plinth_cache_store_count_wait(int32 cache, bool timed_out)
{
	uint32 place = plinth_cache_usable() ? plinth_cache_place_find(cache) : PLINTH_CACHE_NONE;

	if (place == PLINTH_CACHE_NONE)
		return;
	pg_atomic_fetch_add_u64(&plinth_cache_place(place)->waits, 1);
	if (timed_out)
		pg_atomic_fetch_add_u64(&plinth_cache_place(place)->wait_timeouts, 1);
}
