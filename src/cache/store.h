/*
 * store.h
 *		How the first level lies in shared memory; for the files below the SQL.
 *
 * One piece of fixed size (plinth.cache_memory):
 *
 *	header, slots (of keys, of marks, of caches), places, shares (place x
 *	partition), partitions, buckets, blocks
 *
 * A partition has its lock, a hash table, a SIEVE queue and a pool of blocks.
 * An entry is a chain of blocks in one partition; the first begins with its
 * header.  Nothing is ever allocated after the start, and blocks are all of
 * one size, so memory neither grows nor becomes fragmented.
 *
 * A place belongs to one cache of one database, as of one generation of the
 * extension there, and has an entry queue of its own in each partition, so
 * that its bound of bytes, a prefix, and dropping it need not look at others.
 *
 * Locks.  Who holds any partition's lock, or the slots' lock, may rely on what
 * a place stands for; places change hands only under all of them.  Order: slots,
 * then partitions ascending; except there nobody holds two.  Hits happen under
 * the shared lock of a partition: what they write (the visited flag, hits, last
 * access, counters) is atomic; all else in a partition needs its exclusive
 * lock.  No ERROR is raised while one is held, but for memory to copy a hit to.
 */
#ifndef PLINTH_CACHE_STORE_H
#define PLINTH_CACHE_STORE_H

#include "access/transam.h"
#include "cache/internal.h"
#include "cache/sieve.h"

#define PLINTH_CACHE_BLOCK 256 /* bytes */
#define PLINTH_CACHE_MAX_PARTITIONS 64
#define PLINTH_CACHE_NONE PLINTH_SIEVE_NONE

/* Any block; the first of an entry is a PlinthCacheEntry instead. */
typedef struct PlinthCacheBlock
{
	uint32 next; /* in its chain, or among the free */
	bool is_head;
	char bytes[PLINTH_CACHE_BLOCK - 5];
} PlinthCacheBlock;

typedef struct PlinthCacheEntry
{
	uint32 next; /* block */
	bool is_head;
	uint8 visited;
	uint8 kind;
	uint8 ntags;
	uint32 next_entry; /* in its bucket */
	uint32 hash;
	uint32 place;
	uint32 size; /* of the value */
	uint16 keylen;
	PlinthSieveNode all; /* in its partition's queue */
	PlinthSieveNode own; /* in its place's queue there */
	pg_uuid_t user;
	int64 ticket; /* void as soon as one of its slots has moved beyond */
	TimestampTz expires_at;
	TimestampTz stale_at;
	pg_atomic_uint64 hits;
	pg_atomic_uint64 last_access; /* TimestampTz */
	uint32 nblocks;
	char bytes[FLEXIBLE_ARRAY_MEMBER]; /* tags, key, value; goes on in further blocks */
} PlinthCacheEntry;

/* Something that invalidations are about. */
typedef struct PlinthCacheSlot
{
	pg_atomic_uint64 moved; /* the sequence number of the last invalidation */
	pg_atomic_uint32 flux;  /* transactions between reserve and publish */
} PlinthCacheSlot;

/* A cache that has been used; all zero when free. */
typedef struct PlinthCachePlace
{
	Oid database;
	int32 cache;
	uint64 generation; /* of the extension in the database */
	bool forgotten;    /* dropped: the first to be used again */
	pg_atomic_uint64 last_xid;
	pg_atomic_uint64 bytes; /* of all partitions, and those being put */
	pg_atomic_uint64 invalidations;
	pg_atomic_uint64 refused_fills;
	pg_atomic_uint64 waits;
	pg_atomic_uint64 wait_timeouts;
} PlinthCachePlace;

/* What a place has in one partition. */
typedef struct PlinthCacheShare
{
	PlinthSieveQueue queue;
	pg_atomic_uint64 hits;
	pg_atomic_uint64 stale_hits;
	pg_atomic_uint64 misses;
	int64 bytes;
	int64 evictions;
	int64 expirations;
	int64 fills;
} PlinthCacheShare;

typedef struct PlinthCachePartition
{
	uint32 free;  /* the first free block of those that were in use */
	uint32 nfree; /* with those that never were */
	uint32 used;  /* blocks from here on never were, and hold nothing */
	uint32 sweep; /* the next block to be looked at for a dead entry */
	PlinthSieveQueue queue;
} PlinthCachePartition;

/* Both padded, so that partitions do not share cache lines. */
typedef union PlinthCacheSharePadded
{
	PlinthCacheShare share;
	char pad[PG_CACHE_LINE_SIZE];
} PlinthCacheSharePadded;

typedef union PlinthCachePartitionPadded
{
	PlinthCachePartition partition;
	char pad[PG_CACHE_LINE_SIZE];
} PlinthCachePartitionPadded;

typedef struct PlinthCacheStore
{
	pg_atomic_uint64 sequence;
	uint64 first; /* where the sequence began */
	uint64 seed;
	uint32 nslots;      /* of keys, and as many of marks; a power of 2 */
	uint32 ncacheslots; /* a power of 2 */
	uint32 nplaces;
	uint32 npartitions; /* a power of 2 */
	uint32 nbuckets;    /* each partition's; a power of 2 */
	uint32 nblocks;     /* each partition's */
	/* Where they begin, from the header. */
	Size slots, places, shares, partitions, buckets, blocks, size;
} PlinthCacheStore;

extern PlinthCacheStore *plinth_cache_store;

/* An open partition, and where things are in it. */
typedef struct PlinthCacheView
{
	PlinthCachePartition *partition;
	uint32 number;
	uint32 *buckets;
	char *blocks;
} PlinthCacheView;

/* An entry looked for. */
typedef struct PlinthCacheProbe
{
	const PlinthCacheKey *key;
	uint32 place;
	uint64 hash;
	uint32 partition;
} PlinthCacheProbe;

static inline void *
plinth_cache_at(Size offset)
{
	return (char *) plinth_cache_store + offset;
}

static inline PlinthCachePlace *
plinth_cache_place(uint32 place)
{
	return (PlinthCachePlace *) plinth_cache_at(plinth_cache_store->places) + place;
}

static inline PlinthCacheShare *
plinth_cache_share(uint32 place, uint32 partition)
{
	PlinthCacheSharePadded *shares = plinth_cache_at(plinth_cache_store->shares);

	return &shares[place * plinth_cache_store->npartitions + partition].share;
}

static inline PlinthCacheSlot *
plinth_cache_slot(uint32 slot)
{
	return (PlinthCacheSlot *) plinth_cache_at(plinth_cache_store->slots) + slot;
}

static inline PlinthCacheEntry *
plinth_cache_entry(const PlinthCacheView *view, uint32 block)
{
	return (PlinthCacheEntry *) (view->blocks + (Size) block * PLINTH_CACHE_BLOCK);
}

/* ---- layout.c: memory, locks and places ---- */

/* Whether there is a first level to use: not on a standby. */
extern bool plinth_cache_usable(void);

extern void plinth_cache_lock(uint32 partition, LWLockMode mode, PlinthCacheView *view);
extern void plinth_cache_unlock(uint32 partition);
extern void plinth_cache_slots_lock(void);
extern void plinth_cache_slots_unlock(void);

/*
 * The place of a cache of this database, made when there is none yet; NONE
 * when all are taken.  Only a hint until looked at again (place_is) under a
 * lock.  No lock may be held.
 */
extern uint32 plinth_cache_place_find(int32 cache);
extern bool plinth_cache_place_is(uint32 place, int32 cache);

/* Notes what published invalidations of a cache of this database; the slots are locked. */
extern void plinth_cache_place_note(int32 cache, FullTransactionId xid, int64 count);

/* ---- blocks.c: entries in a partition ---- */
extern Size plinth_cache_entry_blocks(int ntags, int keylen, uint32 size);
extern PlinthCacheEntry *plinth_cache_entry_find(const PlinthCacheView *view,
												 const PlinthCacheProbe *probe);

/* Makes an entry; the partition must have blocks enough. */
extern PlinthCacheEntry *plinth_cache_entry_add(const PlinthCacheView *view,
												const PlinthCacheProbe *probe,
												const PlinthCacheValue *value);
extern void plinth_cache_entry_remove(const PlinthCacheView *view, PlinthCacheEntry *entry);
extern void plinth_cache_entry_tags(const PlinthCacheView *view, const PlinthCacheEntry *entry,
									uint32 *tags);
extern void plinth_cache_entry_value(const PlinthCacheView *view, const PlinthCacheEntry *entry,
									 char *data);
/* The next victim of a place in a partition (NONE: of any place), or NULL. */
extern PlinthCacheEntry *plinth_cache_entry_victim(const PlinthCacheView *view, uint32 place);

/*
 * Removes the entries of a place in a partition whose keys begin with a prefix
 * (len 0: all), of one user, or of all (NULL).  Returns how many.
 */
extern int64 plinth_cache_entries_remove(const PlinthCacheView *view, uint32 place,
										 const pg_uuid_t *user, const char *prefix, int len);

/* ---- store.c ---- */
extern void plinth_cache_store_delete(const PlinthCacheKey *key);
extern void plinth_cache_store_delete_prefix(int32 cache, const pg_uuid_t *user, const char *prefix,
											 int len);

/* ---- invalidate.c: slots ---- */

/*
 * The slots that a value depends on: of its tags, user and cache, which an
 * entry is held against at every hit; and of its key and of prefixes, which
 * remove entries, and so only matter to fills.  Returns how many.
 */
#define PLINTH_CACHE_ENTRY_SLOTS (PLINTH_CACHE_MAX_TAGS + 2)
#define PLINTH_CACHE_FILL_SLOTS (PLINTH_CACHE_ENTRY_SLOTS + 3)
extern int plinth_cache_slots_of_entry(Oid database, int32 cache, const pg_uuid_t *user,
									   const uint32 *tags, int ntags, uint32 *slots);
extern int plinth_cache_slots_of_fill(const PlinthCacheKey *key, const uint32 *tags, int ntags,
									  uint32 *slots);

/* Single slots; prefix: what holds back fills only. */
extern uint32 plinth_cache_slot_of_key(const PlinthCacheKey *key);
extern uint32 plinth_cache_slot_of_tag(Oid database, int32 cache, uint32 tag);
extern uint32 plinth_cache_slot_of_cache(Oid database, int32 cache, bool prefix);
extern uint32 plinth_cache_slot_of_user(Oid database, int32 cache, const pg_uuid_t *user,
										bool prefix);

/* A key's hash. */
extern uint64 plinth_cache_key_hash(const PlinthCacheKey *key);

/* A ticket of this server, since its start. */
extern bool plinth_cache_ticket_known(int64 ticket);

/* No slot has moved since the ticket; for a fill: and none is in flux. */
extern bool plinth_cache_slots_unmoved(const uint32 *slots, int n, int64 ticket);
extern bool plinth_cache_slots_still(const uint32 *slots, int n, int64 ticket);

/* Do all snapshots that this backend is using see the same as the active one? */
extern bool plinth_cache_snapshots_agree(void);

/* Moves a slot to a sequence number, never back. */
extern void plinth_cache_slot_move(uint32 slot, uint64 number);
extern uint64 plinth_cache_sequence_next(void);

#endif /* PLINTH_CACHE_STORE_H */
