/*
 * collect_int.h
 *		What the decoder's side of sync knows of the mappings.
 */
#ifndef PLINTH_COLLECT_INT_H
#define PLINTH_COLLECT_INT_H

#include "access/htup.h"
#include "fmgr.h"
#include "utils/relcache.h"

#include "sync/sync_int.h"

/*
 * A table whose changes concern a mapping, as much of it as decoding needs: the
 * mapping's own, or one of plinth.sync_sources.
 */
typedef struct PlinthCollectTarget
{
	int64 mapping;
	Oid relation;
	int lane; /* the first, which sweeps and resolves marks of kind VIA */
	int nlanes;
	bool append;                              /* only what is inserted matters */
	uint8 lanes[PLINTH_SYNC_MAX_LANES];       /* by share */
	int64 bucket;                             /* only rows of this one; 0: any */
	int source;                               /* of sync_sources; -1: the mapping's own table */
	bool via;                                 /* marks tell the columns' values, not a key */
	int nkeys;                                /* 0: not known, sweep (or send all) at any change */
	AttrNumber attnums[PLINTH_SYNC_MAX_KEYS]; /* in this relation, of the key or the way to it */
} PlinthCollectTarget;

/*
 * The mappings that have a lane, in context, and whose lanes those are.  Inside
 * a transaction.
 */
extern List *plinth_sync_targets_load(PlinthSyncDatabase *db, MemoryContext context,
									  bool *lane_used);
/* True while a mapping without a lane is not blocked yet; has it tried again. */
extern bool plinth_sync_targets_pending(void);

/* A target as seen from one table: its own, or a partition. */
typedef struct PlinthCollectSeen
{
	const PlinthCollectTarget *target;
	AttrNumber bucket; /* the column that tells it, where only one is wanted */
	bool covered;      /* an old tuple is missing only where these stayed as they were */
	bool held[PLINTH_SYNC_MAX_KEYS]; /* an old tuple has this one */
	AttrNumber attnums[PLINTH_SYNC_MAX_KEYS];
	FmgrInfo output[PLINTH_SYNC_MAX_KEYS];
} PlinthCollectSeen;

typedef enum PlinthCollectKey
{
	PLINTH_COLLECT_UNKNOWN, /* what the WAL holds does not tell */
	PLINTH_COLLECT_NONE,    /* there is none: a reference that is NULL */
	PLINTH_COLLECT_KNOWN
} PlinthCollectKey;

/* collect_key.c: the target's columns, by the names they have at this point of the WAL. */
extern void plinth_sync_collect_resolve(PlinthCollectSeen *seen, Relation relation, Oid relid);
/*
 * What one tuple marks, into key.  older: the same row before, or NULL;
 * is_old: the tuple is itself what the replica identity holds of a row.
 */
extern PlinthCollectKey plinth_sync_collect_key(PlinthCollectSeen *seen, Relation relation,
												HeapTuple tuple, HeapTuple older, bool is_old,
												StringInfo key);

#endif /* PLINTH_COLLECT_INT_H */
