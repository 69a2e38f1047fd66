/*
 * append_int.h
 *		Mappings to collections that only grow: sync_append().
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_APPEND_INT_H
#define PLINTH_SYNC_APPEND_INT_H

#include "sync/sync_int.h"

/* What a mapping's row and declared indexes say of growth.  SPI is connected. */
extern void plinth_sync_append_load(PlinthSyncMapping *mapping);

/*
 * Makes the capped collection that the mapping asks for.  False when it cannot
 * be written: reason says why, or is NULL where the server failed (reported).
 */
extern bool plinth_sync_append_prepare(PlinthLane *lane, PlinthLaneMapping *mapping,
									   const char **reason, const char **hint);

/* Writes a batch: rows that were found are inserted in order, all else is left as it is. */
extern PlinthMongoStatus plinth_sync_append_write(PlinthLane *lane, PlinthLaneMapping *mapping,
												  PlinthMongoOp *ops, int nops,
												  PlinthMongoError *error);

/* Will a TTL index that is declared have removed the document in so many seconds? */
extern bool plinth_sync_append_expires(const PlinthSyncMapping *mapping, PlinthBson document,
									   int64 seconds);

/*
 * append_api.c: an ERROR where documents are to expire by a field that is no date.  SPI is
 * connected, as plinth_owner.
 */
extern void plinth_sync_append_expires_by_dates(int64 mapping);

#endif /* PLINTH_SYNC_APPEND_INT_H */
