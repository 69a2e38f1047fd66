/*
 * table.h
 *		The table of keys in shared memory, and the counters of policies.
 *
 * Private to room limits.
 */
#ifndef PLINTH_LIMITS_TABLE_H
#define PLINTH_LIMITS_TABLE_H

#include "limits/rate.h"
#include "port/atomics.h"

/* Most policies that one decision may ask. */
#define PLINTH_LIMITS_MAX_TOGETHER 16

/* The policy of limits that have none, rate_limit_check_adhoc's. */
#define PLINTH_LIMITS_ADHOC 0

/* What stands for several policies where keys are forgotten. */
#define PLINTH_LIMITS_ALL (-1)          /* and those without one */
#define PLINTH_LIMITS_ALL_POLICIES (-2) /* but those without one */

#define PLINTH_LIMITS_SALT_BYTES 16

/* Who is counted for what. */
typedef struct PlinthLimitKey
{
	uint64 high; /* of the keyed hash */
	uint32 low;
	Oid database;
	uint32 policy;
} PlinthLimitKey;

typedef struct PlinthLimitRequest
{
	PlinthLimitKey key;
	const PlinthRate *rate;
	int64 cost;
	bool shadow;          /* does not keep others from being allowed */
	bool allow_when_full; /* the policy's on_error */

	/* What came of it. */
	PlinthRateDecision decision;
	bool full;    /* there was no place for the key: decided by allow_when_full */
	bool evicted; /* an idle key made place */
} PlinthLimitRequest;

/*
 * The key that a text stands for, for a policy whose words have these units
 * (plinth_limits_table_units): other units are other buckets.
 */
extern void plinth_limits_table_key(PlinthLimitKey *key, Oid database, uint32 policy, uint64 units,
									const char *text, size_t len);
extern uint64 plinth_limits_table_units(Oid incarnation, bool window, int64 limit, int64 period);

extern void plinth_limits_table_decide(PlinthLimitRequest *request, int64 now);

/* All or nothing, at one instant; true when all allow.  n <= PLINTH_LIMITS_MAX_TOGETHER, no key twice. */
extern bool plinth_limits_table_decide_all(PlinthLimitRequest *requests, int n, int64 now);

/* Gives a key all of its limit again; true when some of it was used. */
extern bool plinth_limits_table_reset(const PlinthLimitKey *key, const PlinthRate *rate, int64 now);

/* Forgets keys of a database: of one policy, or several.  Takes locks, raises no error. */
extern void plinth_limits_table_purge(Oid database, int64 policy);

static inline bool
plinth_limits_is_among(uint32 policy, int64 which)
{
	if (which == PLINTH_LIMITS_ALL_POLICIES)
		return policy != PLINTH_LIMITS_ADHOC;
	return which == PLINTH_LIMITS_ALL || policy == which;
}

/* Shows each key of a database that has used some of its limit. */
typedef void (*PlinthLimitVisit)(void *arg, uint32 policy);
extern void plinth_limits_table_visit(Oid database, int64 now, PlinthLimitVisit visit, void *arg);

extern void plinth_limits_table_init(void);

/* ---- counters (count.c) ---- */

typedef enum PlinthLimitCount
{
	PLINTH_LIMITS_ALLOWED,
	PLINTH_LIMITS_DENIED,
	PLINTH_LIMITS_SHADOW_DENIED,
	PLINTH_LIMITS_TABLE_FULL,
	PLINTH_LIMITS_EVICTED,
	PLINTH_LIMITS_COUNTS
} PlinthLimitCount;

/* Where a policy's counters are; -1 when all places are taken: then it is not counted. */
extern int plinth_limits_count_slot(Oid database, uint32 policy);

/*
 * Where limits without a policy are counted; what another extension of this
 * database, dropped since, had counted and keeps in use is forgotten first.
 */
extern int plinth_limits_count_incarnation(Oid database, Oid incarnation);
extern void plinth_limits_count_add(int slot, PlinthLimitCount which);
extern uint64 plinth_limits_count_read(int slot, PlinthLimitCount which);
extern void plinth_limits_count_purge(Oid database, int64 policy);
extern void plinth_limits_count_init(void);

/* ---- saving (save.c) ---- */

/* An entry as it is saved: no padding. */
typedef struct PlinthLimitSaved
{
	uint64 word;
	uint64 high;
	uint32 low;
	Oid database;
	uint32 policy;
	uint32 unused;
} PlinthLimitSaved;

#define PLINTH_LIMITS_PARTITIONS 128

extern const uint8 *plinth_limits_table_salt(void);
extern void plinth_limits_table_salt_set(const uint8 *salt);

/*
 * Copies what of a partition is in use at a time; at most so many.  alone:
 * without locks, in the postmaster when nobody else runs; -1 when somebody was
 * killed in the middle of a change.
 */
extern int64 plinth_limits_table_copy_max(void);
extern int64 plinth_limits_table_copy(int partition, PlinthLimitSaved *array, int64 now,
									  bool alone);

/* Puts one back into a table that nobody uses yet. */
extern void plinth_limits_table_put(const PlinthLimitSaved *saved, int64 now);

/* In the postmaster, as shared memory is made: fills the table, and sees to it that it is saved. */
extern void plinth_limits_save_load(void);
extern void plinth_limits_save_init(void);

#endif /* PLINTH_LIMITS_TABLE_H */
