/*
 * share_int.h
 *		Several lanes of one mapping: whose a key is, and what they leave to each other.
 */
#ifndef PLINTH_SYNC_SHARE_INT_H
#define PLINTH_SYNC_SHARE_INT_H

#include "sync/sync_int.h"

/* Which of n lanes a key (nkeys C strings in a row) belongs to. */
extern int plinth_sync_share_of(const char *key, uint32 keylen, int lanes);
/* The same for a key as the tables hold it. */
extern int plinth_sync_share_of_literal(int nkeys, const char *literal, int lanes);

/* Has this lane a share in the mapping at all? */
extern bool plinth_sync_share_any(const PlinthLane *lane, const PlinthLaneMapping *mapping);
/* Is it this lane's key? */
extern bool plinth_sync_share_mine(const PlinthLane *lane, const PlinthLaneMapping *mapping,
								   const char *key, uint32 keylen);
/* A new number of lanes was loaded: nothing is written until all lanes have seen it. */
extern void plinth_sync_share_changed(PlinthLane *lane, PlinthLaneMapping *mapping);
/* False as long as another lane may still act by an older number. */
extern bool plinth_sync_share_open(PlinthLane *lane, PlinthLaneMapping *mapping);

/* Is a row with this key another lane's than the one that reads? */
extern bool plinth_sync_share_passes(const PlinthSyncMapping *mapping, StringInfo key);
/*
 * A row was found under another lane's key: only the document of the older
 * spelling is this one's to delete.
 */
extern void plinth_sync_share_leave_row(PlinthSyncMapping *mapping, StringInfo key,
										PlinthSyncBatch *batch, int place, PlinthBson oldid);
/* A page ends behind the last rows that were passed (their last key, or nothing; NULL: none ever is). */
extern void plinth_sync_share_end_page(PlinthSyncMapping *mapping, StringInfo passed,
									   PlinthSyncBatch *batch);

/* A key of sync_dirty was left to these lanes: they are told when this transaction has committed. */
extern void plinth_sync_share_leave(PlinthLaneMapping *mapping, int share);
/* The same for all lanes of the mapping. */
extern void plinth_sync_share_leave_all(PlinthLaneMapping *mapping);
/* What was left in a transaction that has committed is told; or forgotten, when it has not. */
extern void plinth_sync_share_tell(PlinthLane *lane, bool committed);
/* Looks at what others left here. */
extern void plinth_sync_share_look(PlinthLane *lane);

/*
 * How many lanes there are, and this one's place in the fence as it was last
 * written down; and writing that down.  Inside a transaction.
 */
extern void plinth_sync_share_load(PlinthLane *lane, PlinthLaneMapping *mapping);
extern void plinth_sync_share_store_fence(PlinthLane *lane, PlinthLaneMapping *mapping);

/*
 * An _id that no row could have was deleted here: should the definition by
 * which that was so have changed meanwhile, another lane may have written the
 * document by the new one, and all is sent again.  False when it is not known.
 */
extern bool plinth_sync_share_check_shape(PlinthLane *lane, PlinthLaneMapping *mapping);

/* turns.c: one round over the mappings; true when anything was written. */
extern bool plinth_sync_turns(PlinthLane *lane);
/* How long there is nothing to do unless the latch is set, in ms. */
extern long plinth_sync_turns_pause(PlinthLane *lane);
/* When a page of a snapshot may be written; 0: now. */
extern TimestampTz plinth_sync_turns_page_due(PlinthLane *lane, PlinthLaneMapping *mapping);
/* A page of so many rows was written, which took since then. */
extern void plinth_sync_turns_page_done(PlinthLane *lane, PlinthLaneMapping *mapping, int nrows,
										TimestampTz since);
/* Most rows of a page, so that the rate holds within a second. */
extern int plinth_sync_turns_page_rows(PlinthLaneMapping *mapping);

#endif /* PLINTH_SYNC_SHARE_INT_H */
