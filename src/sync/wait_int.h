/*
 * wait_int.h
 *		Waiting for lanes; private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_WAIT_INT_H
#define PLINTH_SYNC_WAIT_INT_H

#include "sync/sync_int.h"

/* What is waited for. */
typedef struct PlinthSyncWait
{
	PlinthSyncDatabase *db;
	XLogRecPtr lsn;
	uint64 generation;
	uint64 asked[PLINTH_SYNC_MAX_LANES]; /* each lane's look_asked when it was asked */
	TimestampTz asked_at;
	/* One mapping; all 0 for all of them. */
	int64 mapping;
	const char *name;
	Oid extension;
	NameData server;
	Oid owner;
	int nlanes; /* so many write it */
} PlinthSyncWait;

/* This mapping alone is waited for; by SPI. */
extern void plinth_sync_wait_mapping(PlinthSyncWait *wait, int64 mapping);
/* Asks the lanes to look at definitions; lsn: what is waited for. */
extern void plinth_sync_wait_begin(PlinthSyncWait *wait, XLogRecPtr lsn);
/* Of one mapping: have its lanes looked since, and told how far they are? */
extern bool plinth_sync_wait_seen(const PlinthSyncWait *wait);

#endif /* PLINTH_SYNC_WAIT_INT_H */
