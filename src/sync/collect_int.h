/*
 * collect_int.h
 *		What the decoder's side of sync knows of the mappings.
 */
#ifndef PLINTH_COLLECT_INT_H
#define PLINTH_COLLECT_INT_H

#include "sync/sync_int.h"

/* A mapping, as much of it as decoding needs. */
typedef struct PlinthCollectTarget
{
	int64 mapping;
	Oid relation;
	int lane; /* the first, which sweeps */
	int nlanes;
	uint8 lanes[PLINTH_SYNC_MAX_LANES];       /* by share */
	int nkeys;                                /* 0: the key is not known, sweep at any change */
	AttrNumber attnums[PLINTH_SYNC_MAX_KEYS]; /* in the mapping's own table */
} PlinthCollectTarget;

/*
 * The mappings that have a lane, in context, and whose lanes those are.  Inside
 * a transaction.
 */
extern List *plinth_sync_targets_load(PlinthSyncDatabase *db, MemoryContext context,
									  bool *lane_used);
/* True while a mapping without a lane is not blocked yet; has it tried again. */
extern bool plinth_sync_targets_pending(void);

#endif /* PLINTH_COLLECT_INT_H */
