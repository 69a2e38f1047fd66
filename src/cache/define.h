/*
 * define.h
 *		Definitions of caches, and what the files of cache that know SQL share.
 */
#ifndef PLINTH_CACHE_DEFINE_H
#define PLINTH_CACHE_DEFINE_H

#include "cache/internal.h"
#include "fmgr.h"
#include "utils/array.h"

/* -------------------------------------------------------------------------
 * Definitions (define.c)
 * -------------------------------------------------------------------------
 */
typedef struct PlinthCacheDef
{
	char name[NAMEDATALEN];
	int32 id;
	Oid owner;
	bool per_user;
	bool durable;
	bool overflow;
	bool enabled;
	bool manages; /* the caller is a member of the owner or of plinth_admin */
	int64 ttl;    /* us; 0: none */
	int64 stale_ttl;
	double jitter;
	int64 max_bytes;
	int32 max_value_bytes;
} PlinthCacheDef;

typedef enum PlinthCacheRight
{
	PLINTH_CACHE_USE,
	PLINTH_CACHE_MANAGE, /* alter, drop, watch */
	PLINTH_CACHE_MONITOR /* the caller has made sure */
} PlinthCacheRight;

/* Finds a cache, and makes sure that the current role has a right to it; ERROR otherwise. */
extern void plinth_cache_use(text *name, PlinthCacheRight right, PlinthCacheDef *def);

/* As above, by its id and without asking who may; false when there is none. */
extern bool plinth_cache_by_id(int32 id, PlinthCacheDef *def);

/* Whose entries the caller's are: the user of the request context, zero in a shared cache. */
extern void plinth_cache_user(const PlinthCacheDef *def, pg_uuid_t *user);

/* The name of an entry of the caller's.  key is used where it stands. */
extern void plinth_cache_key(const PlinthCacheDef *def, text *key, PlinthCacheKey *result);

/* The generation under which what definitions say may be kept; 0: keep nothing. */
extern uint64 plinth_cache_generation(void);

/* A length of time in us, a month counted as 30 days; ERROR unless above 0, or 0 and zero_ok. */
extern int64 plinth_cache_interval(const Interval *interval, const char *name, bool zero_ok);

/* Argument of a function, or ERROR when it is NULL. */
extern text *plinth_cache_text_required(FunctionCallInfo fcinfo, int argument, const char *name);

/* Has the cache a table? */
#define PLINTH_CACHE_HAS_SECOND(def) ((def)->durable || (def)->overflow)

/* -------------------------------------------------------------------------
 * Reading and writing (get.c, set.c)
 * -------------------------------------------------------------------------
 */
/*
 * Looks through the transaction's own changes, shared memory and the table.
 * The value is palloc'd, with room for a varlena header before its data.
 */
extern PlinthCacheResult plinth_cache_find(const PlinthCacheDef *def, const PlinthCacheKey *key,
										   PlinthCacheValue *value);

/* The datum of a value that is not PLINTH_CACHE_NULL: fills in its header. */
extern Datum plinth_cache_datum(const PlinthCacheValue *value);

/* ERROR for a value of another type. */
extern void plinth_cache_require_kind(const PlinthCacheValue *value, PlinthCacheKind kind);

/* Times of an entry made now; ttl 0: the cache's. */
extern void plinth_cache_times(const PlinthCacheDef *def, int64 ttl, PlinthCacheValue *value);

/* Tags of an entry, by their array, which may be NULL. */
extern void plinth_cache_tags(ArrayType *tags, PlinthCacheValue *value);

/* Whether a value is not too large for the cache. */
extern bool plinth_cache_fits(const PlinthCacheDef *def, const PlinthCacheKey *key, Size size);

/* -------------------------------------------------------------------------
 * Second level (second.c): tables
 * -------------------------------------------------------------------------
 */
/* The newest valid entry; fresh: under a snapshot taken now, else under the active one. */
extern PlinthCacheResult plinth_cache_second_get(const PlinthCacheDef *def,
												 const PlinthCacheKey *key, bool fresh,
												 PlinthCacheValue *value);

/*
 * Adds an entry.  Without a ticket its value was computed under the running
 * statement's snapshot.  False when the ticket is not good any more.
 */
extern bool plinth_cache_second_put(const PlinthCacheDef *def, const PlinthCacheKey *key,
									const PlinthCacheValue *value, bool ticketed, int64 ticket);

/* Gives the valid entry, if there is one, other times. */
extern void plinth_cache_second_touch(const PlinthCacheDef *def, const PlinthCacheKey *key,
									  const PlinthCacheValue *value);

/* Adds an invalidation: of a key ('k'), prefix ('p'), tag ('t') or all ('a'); user NULL: every. */
extern void plinth_cache_second_invalidate(const PlinthCacheDef *def, char kind,
										   const pg_uuid_t *user, const char *key, int keylen,
										   uint32 tag);

/* Whether the cache has a table, and this transaction may write it. */
extern bool plinth_cache_second_writable(const PlinthCacheDef *def);

/* -------------------------------------------------------------------------
 * Invalidation of both levels (forget.c); user NULL: of every user
 * -------------------------------------------------------------------------
 */
extern void plinth_cache_forget_key(const PlinthCacheDef *def, const PlinthCacheKey *key);
extern void plinth_cache_forget_prefix(const PlinthCacheDef *def, const pg_uuid_t *user,
									   const char *prefix, int len);
extern void plinth_cache_forget_tag(const PlinthCacheDef *def, uint32 tag);
extern void plinth_cache_forget_all(const PlinthCacheDef *def, const pg_uuid_t *user);

/* Drops the triggers of a cache's watches, of one table or (InvalidOid) of all (watch.c). */
extern int plinth_cache_watch_drop(int32 cache, Oid relation);

#endif /* PLINTH_CACHE_DEFINE_H */
