/*
 * meter_cells.h
 *		How meters lie in shared memory: for meter_store.c, meter_take.c and
 *		meter_stat.c only.
 */
#ifndef PLINTH_LIMITS_METER_CELLS_H
#define PLINTH_LIMITS_METER_CELLS_H

#include "limits/meter.h"

#define METER_PARTITIONS 16
#define METER_COUNTERS 256
#define METER_NONE PG_UINT32_MAX

typedef struct MeterEntry
{
	uint32 next; /* in its bucket */
	uint32 hash;
	Oid database;
	Oid extension;
	int64 meter;
	uint32 slots;
	uint32 text;
	uint16 keylen;
	uint16 dimlen;
	uint8 scale;
} MeterEntry;

typedef struct MeterSlot
{
	uint32 next; /* of the entry, or of free cells */
	TransactionId xid;
	int64 start;
	int64 base;
	int64 pending;
	int64 in_flight;
	int64 soft;
	int64 hard;
	uint64 epoch; /* of base and quotas; 0: not known */
	PlinthMeterPeriod period;
} MeterSlot;

#define METER_TEXT (sizeof(MeterSlot) - sizeof(uint32))
typedef struct MeterText
{
	uint32 next;
	char data[METER_TEXT];
} MeterText;

/* next is the first member of each. */
typedef union MeterCell
{
	MeterEntry entry;
	MeterSlot slot;
	MeterText text;
} MeterCell;

typedef struct MeterPartition
{
	uint64 version;
	uint32 free;
	uint32 nfree;
} MeterPartition;

typedef struct MeterCounters
{
	Oid database; /* InvalidOid: free */
	Oid extension;
	int64 meter;
	pg_atomic_uint64 adds;
	pg_atomic_uint64 denied;
	pg_atomic_uint64 full;
} MeterCounters;

typedef struct MeterShared
{
	uint64 seed;
	pg_atomic_uint32 pressed; /* somebody found no room */
	uint32 places;            /* cells of each partition */
	MeterPartition partitions[METER_PARTITIONS];
	MeterCounters counters[METER_COUNTERS]; /* guarded by the last lock but for the atomics */
} MeterShared;

/* One partition's arrays; all indexes count within it. */
typedef struct MeterPart
{
	LWLock *lock;
	MeterPartition *head;
	MeterCell *cells;
	uint32 *buckets;
	uint32 nbuckets;
} MeterPart;

/* What an entry is of. */
typedef struct MeterName
{
	Oid database;
	Oid extension;
	int64 meter;
	const char *key;
	int keylen;
	const char *dimension; /* "" for the key as a whole */
	int dimlen;
} MeterName;

extern MeterShared *plinth_limits_meter_shared;
extern LWLockPadded *plinth_limits_meter_locks;
extern MeterPart plinth_limits_meter_part(int index);

/* Copies key and dimension of an entry, one behind the other. */
extern void plinth_limits_meter_text(const MeterPart *part, const MeterEntry *entry, char *text);

/* Throws out what is clean, or all of a database; the partition is locked. */
extern void plinth_limits_meter_evict(const MeterPart *part, Oid database);
extern void plinth_limits_meter_counters_purge(Oid database);

/* Calls visit for each slot of a locked partition, until it returns false; then returns false. */
typedef bool (*MeterVisitor)(const MeterPart *part, const MeterEntry *entry, uint32 slot,
							 void *arg);
extern bool plinth_limits_meter_walk(const MeterPart *part, MeterVisitor visit, void *arg);

#endif /* PLINTH_LIMITS_METER_CELLS_H */
