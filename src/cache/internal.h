/*
 * internal.h
 *		What the files of cache share with each other.
 *
 * Below: store.c, sieve.c, invalidate.c, pending.c know entries, memory and
 * transactions, but no SQL.  Above: define.c, get.c, set.c, fetch.c, watch.c,
 * second.c (tables) know SQL, and shared memory only through this header.
 *
 * Consistency.  An invalidation (of a key, a tag, a prefix, a whole cache)
 * moves sequence numbers in shared memory: in "slots", a fixed array into
 * which keys and tags of a database's caches are hashed, and in one slot per
 * cache.  It does so twice: at pre-commit (reserve), when it also removes the
 * entries and marks the slots as in flux, and after commit (publish), when it
 * ends the flux.  A ticket is the global sequence number as of when it was
 * taken; a value is published only if none of its slots is in flux or has
 * moved since its ticket.  What may have been computed under a snapshot that
 * is older than the ticket is no good: see plinth_cache_ticket_take.
 */
#ifndef PLINTH_CACHE_INTERNAL_H
#define PLINTH_CACHE_INTERNAL_H

#include "base/base.h"
#include "cache/cache.h"
#include "datatype/timestamp.h"

#define PLINTH_CACHE_MAX_KEY 1024 /* bytes */
#define PLINTH_CACHE_MAX_TAGS 16

/* One entry's name.  user is all zero for a cache that is not per user. */
typedef struct PlinthCacheKey
{
	int32 cache; /* plinth.caches.id, of this database */
	pg_uuid_t user;
	const char *key;
	int keylen;
} PlinthCacheKey;

typedef enum PlinthCacheKind
{
	PLINTH_CACHE_NULL, /* negative entry: known to be absent */
	PLINTH_CACHE_JSONB,
	PLINTH_CACHE_TEXT,
	PLINTH_CACHE_BYTEA
} PlinthCacheKind;

/* A value: its kind, and the bytes behind the varlena header. */
typedef struct PlinthCacheValue
{
	PlinthCacheKind kind;
	const char *data;
	uint32 size;
	TimestampTz expires_at; /* not given out after; DT_NOEND for never */
	TimestampTz stale_at;   /* fresh before; between the two it is stale */
	int ntags;
	uint32 tags[PLINTH_CACHE_MAX_TAGS]; /* hashes, by plinth_cache_tag_hash */
} PlinthCacheValue;

typedef enum PlinthCacheResult
{
	PLINTH_CACHE_MISS,
	PLINTH_CACHE_HIT,
	PLINTH_CACHE_STALE /* stale_at has passed; value given out all the same */
} PlinthCacheResult;

/* -------------------------------------------------------------------------
 * First level (store.c): shared memory
 * -------------------------------------------------------------------------
 */
/*
 * Looks an entry up; its value is copied into the current memory context, data
 * behind room for a varlena header (VARHDRSZ bytes before it are the caller's,
 * so that a text, bytea or jsonb needs no second copy).  Counts hit or miss.
 */
extern PlinthCacheResult plinth_cache_store_get(const PlinthCacheKey *key, PlinthCacheValue *value);

/*
 * Puts a value in place at once, if its slots allow it by the ticket.  False
 * when they do not, or there is no room for it.  Not for values computed in a
 * transaction that has written: those go through plinth_cache_pending_set.
 * max_bytes: the cache's share; 0 for no bound of its own.
 */
extern bool plinth_cache_store_put(const PlinthCacheKey *key, const PlinthCacheValue *value,
								   int64 ticket, int64 max_bytes);

/* The largest value that is ever kept in bytes; it depends on plinth.cache_memory. */
extern Size plinth_cache_store_max_size(void);

/* Moves expiry of an entry; false when it is not there. */
extern bool plinth_cache_store_touch(const PlinthCacheKey *key, TimestampTz stale_at,
									 TimestampTz expires_at);

/* An entry's hits and last access, for cache_stats and listings; false when absent. */
extern bool plinth_cache_store_usage(const PlinthCacheKey *key, int64 *hits,
									 TimestampTz *last_access);

/* Counters of a cache, since its first use after the server's start. */
typedef struct PlinthCacheStats
{
	int64 entries, bytes, hits, misses, stale_hits, evictions, expirations, invalidations, fills,
		refused_fills, waits, wait_timeouts;
} PlinthCacheStats;
extern void plinth_cache_store_stats(int32 cache, PlinthCacheStats *stats);
extern void plinth_cache_store_count_wait(int32 cache, bool timed_out);
extern void plinth_cache_store_init(void);

/* -------------------------------------------------------------------------
 * Tickets and invalidations (invalidate.c)
 * -------------------------------------------------------------------------
 */
extern uint32 plinth_cache_tag_hash(const char *tag, int len);

/*
 * A ticket for values computed from now on, or 0: not good for anything.  0 is
 * given under REPEATABLE READ and above, on a standby, where the cache's
 * memory is not usable, and where the running statement may compute from a
 * snapshot taken before an invalidation that has ended since (fresh_snapshot
 * true says that the caller computes under a snapshot it takes after this
 * call, so that this last reason does not count).
 */
extern int64 plinth_cache_ticket_take(int32 cache, bool fresh_snapshot);

/*
 * Whether SQL was given a ticket in the running transaction (set.c sets it):
 * then a value may be computed from changes that are rolled back, and be set
 * after that, so a rollback ends the tickets of what it invalidated.
 */
extern bool plinth_cache_ticket_given;

/*
 * What the running transaction will do to the first level when it commits
 * (pending.c).  A value that is set also invalidates its key; with ticket 0, or
 * one that does not hold at commit, it does only that, and the transaction
 * itself sees the value.  False, and nothing done, when it was invalidated after
 * its ticket already, by others or by the transaction itself.
 */
extern bool plinth_cache_pending_set(const PlinthCacheKey *key, const PlinthCacheValue *value,
									 int64 ticket, int64 max_bytes);
/* Was a value invalidated after its ticket, by others (published) or by the transaction itself? */
extern bool plinth_cache_pending_outdated(const PlinthCacheKey *key, const PlinthCacheValue *value,
										  int64 ticket);
extern void plinth_cache_pending_delete(const PlinthCacheKey *key);
extern void plinth_cache_pending_prefix(int32 cache, const pg_uuid_t *user, const char *prefix,
										int len);
extern void plinth_cache_pending_tag(int32 cache, uint32 tag);
extern void plinth_cache_pending_clear(int32 cache, const pg_uuid_t *user); /* NULL: all users */

/*
 * What the running transaction itself did to an entry: true when it decides
 * what a reader in it sees.  Then *value is what it set (data, without room for a
 * header, is good until it changes a cache again or a savepoint ends), or *found is false: invalidated, look it up nowhere else.
 */
extern bool plinth_cache_pending_get(const PlinthCacheKey *key, bool *found,
									 PlinthCacheValue *value);
/* Whether the transaction invalidated anything that touches this entry or these tags. */
extern bool plinth_cache_pending_touches(const PlinthCacheKey *key, const uint32 *tags, int ntags);
/* How often the transaction invalidated something of a cache, as far as that is known. */
extern int64 plinth_cache_pending_count(int32 cache);

/* Gives the value that the transaction set other times; false when it set none that stands. */
extern bool plinth_cache_pending_touch(const PlinthCacheKey *key, TimestampTz stale_at,
									   TimestampTz expires_at);
extern void plinth_cache_pending_init(void);

#endif /* PLINTH_CACHE_INTERNAL_H */
