/*
 * report_int.h
 *		What becomes of failures: states, backoff, log.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_REPORT_INT_H
#define PLINTH_SYNC_REPORT_INT_H

#include "sync/sync_int.h"

extern void plinth_sync_report_failure(PlinthLane *lane, PlinthLaneMapping *mapping,
									   const char *kind, const char *message);
extern void plinth_sync_report_success(PlinthLaneMapping *mapping, PlinthSyncSource source);
extern void plinth_sync_report_log(PlinthLane *lane, const char *what, const char *message);
extern void plinth_sync_report_stats(PlinthLane *lane);
extern void plinth_sync_report_publish(PlinthLane *lane);
/* Was the connection closed over the mapping's documents so lately that what failed before goes alone? */
extern bool plinth_sync_report_was_cut(PlinthLaneMapping *mapping);
/* How many keys a batch may have. */
extern int plinth_sync_report_batch_rows(PlinthLaneMapping *mapping, PlinthSyncSource source);
/*
 * The server closed the connection over a batch of nkeys: should it do so again
 * and again, though it answers otherwise, the batch is halved until it is one
 * key (then true), and other mappings go on.
 */
extern bool plinth_sync_report_cut(PlinthLane *lane, PlinthLaneMapping *mapping,
								   PlinthSyncSource source, int nkeys,
								   const PlinthMongoError *error);
/* The server failed: everything on this lane waits. */
extern void plinth_sync_report_outage(PlinthLane *lane, const PlinthMongoError *error);

#endif
