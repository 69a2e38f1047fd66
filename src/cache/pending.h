/*
 * pending.h
 *		What pending.c (the transaction's own view) and commit.c (what becomes of
 *		it) share; and what invalidate.c asks.
 */
#ifndef PLINTH_CACHE_PENDING_H
#define PLINTH_CACHE_PENDING_H

#include "cache/internal.h"

typedef enum PlinthCacheOpKind
{
	PLINTH_CACHE_OP_KEY,
	PLINTH_CACHE_OP_PREFIX,
	PLINTH_CACHE_OP_TAG,
	PLINTH_CACHE_OP_CLEAR
} PlinthCacheOpKind;

/* What an operation is about. */
typedef struct PlinthCacheOpName
{
	PlinthCacheOpKind kind;
	int32 cache;
	bool all_users; /* of PREFIX and CLEAR; always for TAG */
	pg_uuid_t user;
	uint32 tag;
	const char *bytes; /* key or prefix */
	int len;
} PlinthCacheOpName;

/* Operations between two changes of the subtransaction; undone together. */
typedef struct PlinthCacheLevel
{
	struct PlinthCacheLevel *below;
	SubTransactionId subid; /* in which it began */
	bool reserved;
} PlinthCacheLevel;

typedef struct PlinthCacheOp
{
	struct PlinthCacheOp *below;        /* the one before it in the journal */
	struct PlinthCacheOp *before;       /* the last one of this name before it */
	struct PlinthCacheOp *below_prefix; /* of PREFIX: the one before it */
	PlinthCacheLevel *level;
	const PlinthCacheOpName *name;
	uint64 order;   /* later ones have more */
	uint64 number;  /* sequence number of the last invalidation by this name; 0: none */
	bool is_set;    /* KEY: a value; else deleted */
	bool publish;   /* commit.c: the value may be put */
	bool reserving; /* commit.c: its level was not reserved before */
	PlinthCacheValue value;
	int64 ticket;
	int64 max_bytes;
} PlinthCacheOp;

/* A cache that the transaction changed. */
typedef struct PlinthCacheTouched
{
	int32 cache;
	CommandId command; /* of the last invalidation; InvalidCommandId: only values set */
	int64 count;       /* of invalidations */
} PlinthCacheTouched;

typedef struct PlinthCachePending
{
	MemoryContext context;
	struct names_hash *names;
	struct held_hash *held; /* slots in flux through us; NULL before reserve */
	PlinthCacheOp *last;
	PlinthCacheOp *last_prefix;
	PlinthCacheLevel *level;
	uint64 order;
	PlinthCacheTouched *touched;
	int ntouched;
	int maxtouched;
} PlinthCachePending;

/* NULL when the transaction did nothing to any cache. */
extern PlinthCachePending *plinth_cache_pending;

/* Is it the last operation of its name, and no wider one came after it? */
extern bool plinth_cache_op_stands(const PlinthCacheOp *op);

/* Undoes the operations of the topmost level, or forgets all. */
extern void plinth_cache_pending_pop(PlinthCacheLevel *level);
extern void plinth_cache_pending_end(void);

/* The command of the transaction's last invalidation of a cache, or InvalidCommandId. */
extern CommandId plinth_cache_pending_command(int32 cache);

extern const PlinthXactAction plinth_cache_commit_action;

#endif /* PLINTH_CACHE_PENDING_H */
