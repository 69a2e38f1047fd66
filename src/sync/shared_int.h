/*
 * shared_int.h
 *		Sync's part of shared memory; private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_SHARED_INT_H
#define PLINTH_SYNC_SHARED_INT_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/dsm.h"
#include "storage/lwlock.h"

#define PLINTH_SYNC_MAX_LANES 16

/* -------------------------------------------------------------------------
 * shared.c: shared memory.  A SyncDatabase a database, found by OID; a
 * SyncStat a mapping.  Fields marked (L) are written under the part's lock;
 * LSNs are atomics with one writer each.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthSyncLane
{
	NameData server;             /* (L) "" when free */
	Oid owner;                   /* (L) of its mappings: whose user mapping is used */
	int share;                   /* (L) which of the lanes of that server and owner: 0, 1, … */
	int pid;                     /* (L) of the lane that is attached to the channel, or 0 */
	pg_atomic_uint64 generation; /* sync generation whose mappings it has loaded */
	pg_atomic_uint64 durable;    /* below it nothing needs to be decoded again; 0: unknown */
	pg_atomic_uint64 delivered;  /* everything committed before it is in MongoDB */
	pg_atomic_uint64 look_asked; /* raised by those who wait; neither ever goes back */
	pg_atomic_uint64
		looked; /* definitions were looked at when so much was asked, and nothing is owed */
	pg_atomic_uint64 handed;  /* raised by those who left something to this lane */
	pg_atomic_uint64 taken;   /* handed when it last looked, and nothing of that is owed */
	pg_atomic_uint64 seen;    /* as looked, whatever is owed: statistics tell since */
	pg_atomic_uint64 counted; /* as taken, likewise */
} PlinthSyncLane;

typedef struct PlinthSyncDatabase
{
	Oid database;            /* (L) InvalidOid when free */
	dsm_handle channel;      /* (L) made by the decoder; 0 while there is none */
	int decoder_pid;         /* (L) */
	ConditionVariable moved; /* broadcast when a lane's delivered moves */
	PlinthSyncLane lanes[PLINTH_SYNC_MAX_LANES];
} PlinthSyncDatabase;

#define PLINTH_SYNC_STATE_LEN 32
#define PLINTH_SYNC_MESSAGE_LEN 400

/* What stat_sync shows; written by its lane, read by anyone, under a spinlock-free generation. */
typedef struct PlinthSyncStatKey
{
	int64 mapping;
	Oid database;
	Oid extension; /* created anew, it may give a mapping the number of another one */
	uint64 share;  /* the key is compared as bytes */
} PlinthSyncStatKey;

typedef struct PlinthSyncStat
{
	PlinthSyncStatKey key;
	char state[PLINTH_SYNC_STATE_LEN];
	char last_error[PLINTH_SYNC_MESSAGE_LEN];
	TimestampTz last_error_at; /* 0: never */
	TimestampTz next_try_at;   /* 0: not waiting */
	TimestampTz oldest_at;     /* since when something waits; 0: nothing does */
	uint64 documents_replaced;
	uint64 documents_deleted;
	uint64 bytes_sent;
	uint64 retries;
	uint64 keys_in_memory;
	uint64 lag_lsn; /* everything before it is in MongoDB */
	bool elsewhere; /* but for what is owed and not known by its keys */
	int shares;     /* of a sum: so many lanes have told */

	/* watch.c */
	double rate; /* documents written a second, while there was more to do; 0: not measured yet */
	bool behind_at_least; /* or since before oldest_at */
	/* by the first lane, for all: */
	TimestampTz state_since;
	bool late;                        /* the lag was told */
	bool dead;                        /* that there are dead letters was told */
	char told[PLINTH_SYNC_STATE_LEN]; /* the state that was told last */
} PlinthSyncStat;

extern void plinth_sync_shared_init(void);
/* NULL when there is no entry; with create an ERROR (53400) when all are taken. */
extern PlinthSyncDatabase *plinth_sync_database(Oid database, bool create);
extern LWLock *plinth_sync_lock(void);
/* Lane number share of an owner's mappings to a server, or -1; with assign a free one is taken (-1 when none is). */
extern int plinth_sync_lane_of(PlinthSyncDatabase *db, const char *server, Oid owner, int share,
							   bool assign);
/* Frees the lanes that no mapping uses. */
extern void plinth_sync_lanes_free(PlinthSyncDatabase *db, const bool *used);
extern void plinth_sync_stat_set(const PlinthSyncStat *stat);
/* Of all its lanes: counts are added up, and the state is the worst. */
extern bool plinth_sync_stat_get(int64 mapping, Oid extension, PlinthSyncStat *stat);
extern void plinth_sync_stat_remove(Oid database, int64 mapping);

#endif /* PLINTH_SYNC_SHARED_INT_H */
