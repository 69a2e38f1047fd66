/*
 * table_int.h
 *		The table of keys, for the two files that know how it is laid out.
 */
#ifndef PLINTH_LIMITS_TABLE_INT_H
#define PLINTH_LIMITS_TABLE_INT_H

#include "limits/table.h"
#include "storage/lwlock.h"

#define PLINTH_LIMITS_WAYS 8

typedef struct PlinthLimitEntry
{
	pg_atomic_uint64 word;
	uint64 high;
	uint32 low;
	Oid database; /* InvalidOid: nobody's */
	uint32 policy;
	uint32 hold; /* seconds since the Unix epoch */
} PlinthLimitEntry;

typedef struct PlinthLimitSet
{
	PlinthLimitEntry entries[PLINTH_LIMITS_WAYS];
} PlinthLimitSet;

typedef struct PlinthLimitTable
{
	uint8 salt[PLINTH_LIMITS_SALT_BYTES];
	uint32 nsets;
	char pad[PG_CACHE_LINE_SIZE - PLINTH_LIMITS_SALT_BYTES - sizeof(uint32)];
	PlinthLimitSet sets[FLEXIBLE_ARRAY_MEMBER];
} PlinthLimitTable;

extern PlinthLimitTable *plinth_limits_table;
extern LWLockPadded *plinth_limits_table_locks; /* PLINTH_LIMITS_PARTITIONS of them */

/* The two sets of a key; they may be the same. */
extern void plinth_limits_table_sets(const PlinthLimitKey *key, uint32 sets[2]);

#endif /* PLINTH_LIMITS_TABLE_INT_H */
