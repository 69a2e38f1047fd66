/*
 * via_int.h
 *		The way from a row of a document's tables to its root.  Include after
 *		"postgres.h".
 */
#ifndef PLINTH_SYNC_VIA_INT_H
#define PLINTH_SYNC_VIA_INT_H

#include "executor/spi.h"

#include "sync/sync_int.h"

/* A row of sync_sources: a table of a document's query, and the way to its root. */
typedef struct PlinthSyncVia
{
	int source;
	Oid relation;
	int ncolumns;
	char *roots; /* a SELECT of roots' keys; NULL: the columns are the key */
	SPIPlanPtr plan;
} PlinthSyncVia;

/* mapping_document.c */
/* Every table whose changes concern it, partitions too: a palloc'd List of OIDs. */
extern List *plinth_sync_mapping_tables(PlinthSyncMapping *mapping);
/* Does this table stand in its query, beside its own? */
extern bool plinth_sync_mapping_reads(PlinthSyncMapping *mapping, Oid relation);

/* via.c: marks of kind VIA become keys that are owed. */
/* Each mapping's, as far as they are visible and can be resolved; true when there were any. */
extern bool plinth_sync_via_step(PlinthLane *lane);
/* Moves to sync_via what cannot be resolved now. */
extern void plinth_sync_via_store(PlinthLane *lane, PlinthLaneMapping *mapping);
/* Whether there are any in sync_via for this lane; inside a transaction. */
extern void plinth_sync_via_counts(PlinthLane *lane, PlinthLaneMapping *mapping);
/* Could they be resolved at this moment? */
extern bool plinth_sync_via_due(PlinthLaneMapping *mapping);

#endif /* PLINTH_SYNC_VIA_INT_H */
