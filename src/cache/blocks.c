/*
 * blocks.c
 *		Entries in a partition of the first level: chains of blocks.
 *
 * All of this happens under the partition's lock: exclusive for what changes
 * anything, shared for what reads.  An entry's variable part (tags, key, value)
 * begins behind its header and goes on in the blocks of its chain.
 */
#include "postgres.h"

#include "cache/store.h"
#include "utils/timestamp.h"

#define HEAD_ROOM (PLINTH_CACHE_BLOCK - offsetof(PlinthCacheEntry, bytes))
#define BLOCK_ROOM (PLINTH_CACHE_BLOCK - offsetof(PlinthCacheBlock, bytes))

StaticAssertDecl(offsetof(PlinthCacheEntry, is_head) == offsetof(PlinthCacheBlock, is_head),
				 "an entry's header begins as any block does");

/* Where in a chain reading or writing goes on. */
typedef struct Cursor
{
	const PlinthCacheView *view;
	char *at;
	Size left; /* in this block */
	uint32 next;
} Cursor;

static PlinthCacheBlock *
block_at(const PlinthCacheView *view, uint32 block)
{
	return (PlinthCacheBlock *) plinth_cache_entry(view, block);
}

static uint32
block_number(const PlinthCacheView *view, const PlinthCacheEntry *entry)
{
	return ((const char *) entry - view->blocks) / PLINTH_CACHE_BLOCK;
}

static void
cursor_begin(Cursor *cursor, const PlinthCacheView *view, const PlinthCacheEntry *entry)
{
	cursor->view = view;
	cursor->at = (char *) entry->bytes;
	cursor->left = HEAD_ROOM;
	cursor->next = entry->next;
}

/* How many of size bytes are in this block; goes to the next when it is used up. */
static Size
cursor_piece(Cursor *cursor, Size size)
{
	if (cursor->left == 0)
	{
		PlinthCacheBlock *block = block_at(cursor->view, cursor->next);

		cursor->at = block->bytes;
		cursor->left = BLOCK_ROOM;
		cursor->next = block->next;
	}
	return Min(cursor->left, size);
}

static void
cursor_advance(Cursor *cursor, Size size)
{
	cursor->at += size;
	cursor->left -= size;
}

static void
cursor_skip(Cursor *cursor, Size size)
{
	while (size > 0)
	{
		Size piece = cursor_piece(cursor, size);

		cursor_advance(cursor, piece);
		size -= piece;
	}
}

static void
cursor_read(Cursor *cursor, char *to, Size size)
{
	while (size > 0)
	{
		Size piece = cursor_piece(cursor, size);

		memcpy(to, cursor->at, piece);
		cursor_advance(cursor, piece);
		to += piece;
		size -= piece;
	}
}

static void
cursor_write(Cursor *cursor, const char *from, Size size)
{
	while (size > 0)
	{
		Size piece = cursor_piece(cursor, size);

		memcpy(cursor->at, from, piece);
		cursor_advance(cursor, piece);
		from += piece;
		size -= piece;
	}
}

static bool
cursor_equals(Cursor *cursor, const char *what, Size size)
{
	while (size > 0)
	{
		Size piece = cursor_piece(cursor, size);

		if (memcmp(cursor->at, what, piece) != 0)
			return false;
		cursor_advance(cursor, piece);
		what += piece;
		size -= piece;
	}
	return true;
}

Size
plinth_cache_entry_blocks(int ntags, int keylen, uint32 size)
{
	Size bytes = ntags * sizeof(uint32) + keylen + (Size) size;

	if (bytes <= HEAD_ROOM)
		return 1;
	return 1 + (bytes - HEAD_ROOM + BLOCK_ROOM - 1) / BLOCK_ROOM;
}

static uint32 *
bucket_of(const PlinthCacheView *view, uint32 hash)
{
	return &view->buckets[hash & (plinth_cache_store->nbuckets - 1)];
}

PlinthCacheEntry *
plinth_cache_entry_find(const PlinthCacheView *view, const PlinthCacheProbe *probe)
{
	const PlinthCacheKey *key = probe->key;
	uint32 block = *bucket_of(view, (uint32) probe->hash);

	while (block != PLINTH_CACHE_NONE)
	{
		PlinthCacheEntry *entry = plinth_cache_entry(view, block);

		if (entry->hash == (uint32) probe->hash && entry->place == probe->place &&
			entry->keylen == key->keylen && memcmp(&entry->user, &key->user, UUID_LEN) == 0)
		{
			Cursor cursor;

			cursor_begin(&cursor, view, entry);
			cursor_skip(&cursor, entry->ntags * sizeof(uint32));
			if (cursor_equals(&cursor, key->key, key->keylen))
				return entry;
		}
		block = entry->next_entry;
	}
	return NULL;
}

static PlinthSieveEntries
queue_entries(const PlinthCacheView *view, bool own)
{
	PlinthSieveEntries entries = {
		.base = view->blocks,
		.stride = PLINTH_CACHE_BLOCK,
		.node = own ? offsetof(PlinthCacheEntry, own) : offsetof(PlinthCacheEntry, all),
		.visited = offsetof(PlinthCacheEntry, visited),
	};

	return entries;
}

/* A block that is free: of the list of those, or one that was never used. */
static uint32
take_block(const PlinthCacheView *view)
{
	PlinthCachePartition *partition = view->partition;
	uint32 block = partition->free;

	Assert(partition->nfree > 0);
	partition->nfree--;
	if (block != PLINTH_CACHE_NONE)
		partition->free = block_at(view, block)->next;
	else
		block = partition->used++;
	block_at(view, block)->is_head = false;
	return block;
}

PlinthCacheEntry *
plinth_cache_entry_add(const PlinthCacheView *view, const PlinthCacheProbe *probe,
					   const PlinthCacheValue *value)
{
	PlinthCachePartition *partition = view->partition;
	const PlinthCacheKey *key = probe->key;
	Size nblocks = plinth_cache_entry_blocks(value->ntags, key->keylen, value->size);
	PlinthSieveEntries all = queue_entries(view, false);
	PlinthSieveEntries own = queue_entries(view, true);
	PlinthCacheShare *share = plinth_cache_share(probe->place, view->number);
	uint32 first = take_block(view);
	uint32 last = first;
	uint32 *bucket = bucket_of(view, (uint32) probe->hash);
	PlinthCacheEntry *entry = plinth_cache_entry(view, first);
	Cursor cursor;

	for (Size i = 1; i < nblocks; i++)
	{
		uint32 block = take_block(view);

		block_at(view, last)->next = block;
		last = block;
	}
	block_at(view, last)->next = PLINTH_CACHE_NONE;

	entry->is_head = true;
	entry->kind = value->kind;
	entry->ntags = value->ntags;
	entry->hash = (uint32) probe->hash;
	entry->place = probe->place;
	entry->size = value->size;
	entry->keylen = key->keylen;
	entry->user = key->user;
	entry->expires_at = value->expires_at;
	entry->stale_at = value->stale_at;
	pg_atomic_init_u64(&entry->hits, 0);
	pg_atomic_init_u64(&entry->last_access, 0);
	entry->nblocks = nblocks;
	cursor_begin(&cursor, view, entry);
	cursor_write(&cursor, (const char *) value->tags, value->ntags * sizeof(uint32));
	cursor_write(&cursor, key->key, key->keylen);
	cursor_write(&cursor, value->data, value->size);

	entry->next_entry = *bucket;
	*bucket = first;
	plinth_sieve_insert(&all, &partition->queue, first);
	plinth_sieve_insert(&own, &share->queue, first);
	share->bytes += nblocks * PLINTH_CACHE_BLOCK;
	return entry;
}

void
plinth_cache_entry_remove(const PlinthCacheView *view, PlinthCacheEntry *entry)
{
	PlinthCachePartition *partition = view->partition;
	PlinthSieveEntries all = queue_entries(view, false);
	PlinthSieveEntries own = queue_entries(view, true);
	PlinthCacheShare *share = plinth_cache_share(entry->place, view->number);
	uint32 first = block_number(view, entry);
	uint32 last = first;
	uint32 *link = bucket_of(view, entry->hash);
	Size bytes = (Size) entry->nblocks * PLINTH_CACHE_BLOCK;

	while (*link != first)
		link = &plinth_cache_entry(view, *link)->next_entry;
	*link = entry->next_entry;
	plinth_sieve_remove(&all, &partition->queue, first);
	plinth_sieve_remove(&own, &share->queue, first);
	share->bytes -= bytes;
	pg_atomic_fetch_sub_u64(&plinth_cache_place(entry->place)->bytes, bytes);

	entry->is_head = false;
	while (block_at(view, last)->next != PLINTH_CACHE_NONE)
		last = block_at(view, last)->next;
	block_at(view, last)->next = partition->free;
	partition->free = first;
	partition->nfree += entry->nblocks;
}

void
plinth_cache_entry_tags(const PlinthCacheView *view, const PlinthCacheEntry *entry, uint32 *tags)
{
	Cursor cursor;

	cursor_begin(&cursor, view, entry);
	cursor_read(&cursor, (char *) tags, entry->ntags * sizeof(uint32));
}

void
plinth_cache_entry_value(const PlinthCacheView *view, const PlinthCacheEntry *entry, char *data)
{
	Cursor cursor;

	cursor_begin(&cursor, view, entry);
	cursor_skip(&cursor, entry->ntags * sizeof(uint32) + entry->keylen);
	cursor_read(&cursor, data, entry->size);
}

static bool
has_prefix(const PlinthCacheView *view, const PlinthCacheEntry *entry, const char *prefix, int len)
{
	Cursor cursor;

	if (entry->keylen < len)
		return false;
	cursor_begin(&cursor, view, entry);
	cursor_skip(&cursor, entry->ntags * sizeof(uint32));
	return cursor_equals(&cursor, prefix, len);
}

int64
plinth_cache_entries_remove(const PlinthCacheView *view, uint32 place, const pg_uuid_t *user,
							const char *prefix, int len)
{
	PlinthCacheShare *share = plinth_cache_share(place, view->number);
	uint32 block = share->queue.oldest;
	int64 removed = 0;

	while (block != PLINTH_CACHE_NONE)
	{
		PlinthCacheEntry *entry = plinth_cache_entry(view, block);

		block = entry->own.newer;
		if ((user == NULL || memcmp(&entry->user, user, UUID_LEN) == 0) &&
			has_prefix(view, entry, prefix, len))
		{
			plinth_cache_entry_remove(view, entry);
			removed++;
		}
	}
	return removed;
}

PlinthCacheEntry *
plinth_cache_entry_victim(const PlinthCacheView *view, uint32 place)
{
	bool own = place != PLINTH_CACHE_NONE;
	PlinthSieveEntries entries = queue_entries(view, own);
	uint32 block = plinth_sieve_victim(
		&entries, own ? &plinth_cache_share(place, view->number)->queue : &view->partition->queue);

	return block == PLINTH_CACHE_NONE ? NULL : plinth_cache_entry(view, block);
}
