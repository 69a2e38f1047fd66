/*
 * watch_int.h
 *		What runs beside delivering: telling its course, going on after a
 *		promotion, verifying by itself, roles that go.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_WATCH_INT_H
#define PLINTH_SYNC_WATCH_INT_H

#include "sync/sync_int.h"

/* after.c: plinth.sync_after_promotion. */
/* Is the fence one that this server's own past has moved, on an older timeline? */
extern bool plinth_sync_is_promotion(const PlinthSyncMapping *mapping,
									 const PlinthMongoFence *fence);
/* Has a mapping sent again over a fence of that kind, if it is to be; true when it is (other lanes than the first wait for that). */
extern bool plinth_sync_promote(PlinthLane *lane, PlinthLaneMapping *mapping,
								const PlinthMongoFence *fence);
/* All of them, as the slot was lost by a promotion; inside a transaction. */
extern bool plinth_sync_promote_all(void);

/* schedule.c: the worker that verifies mappings by itself. */
extern void plinth_sync_schedule_main(int instance);
extern int plinth_sync_schedule_wanted(void);

/* owned.c: takes along what roles own here, when they or what they own is dropped. */
extern void plinth_sync_owned_init(void);

/* Where what has changed is told, as JSON. */
#define PLINTH_SYNC_CHANNEL "plinth_sync"

/* watch.c: measures, before stat is published. */
extern void plinth_sync_watch(PlinthLane *lane, PlinthLaneMapping *mapping);
/* Tells by NOTIFY what has changed, after that; in no transaction. */
extern void plinth_sync_watch_tell(PlinthLane *lane, PlinthLaneMapping *mapping);

#endif /* PLINTH_SYNC_WATCH_INT_H */
