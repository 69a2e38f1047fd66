/*
 * lease.h
 *		Leases in shared memory, as lease.c asks for them.
 */
#ifndef PLINTH_LIMITS_LEASE_H
#define PLINTH_LIMITS_LEASE_H

#include "datatype/timestamp.h"
#include "utils/uuid.h"

#define PLINTH_LEASE_LABEL 64 /* bytes of a name, and of a key, that stat_leases shows */
#define PLINTH_LEASE_NEVER PG_INT64_MAX

/* What a lease is of. */
typedef struct PlinthLeaseName
{
	const char *name;
	const char *key;
} PlinthLeaseName;

typedef enum PlinthLeaseResult
{
	PLINTH_LEASE_TAKEN,
	PLINTH_LEASE_NONE_LEFT, /* as many as allowed are held */
	PLINTH_LEASE_NO_MEMORY
} PlinthLeaseResult;

/*
 * Takes one of max_count leases, until expires_at in the time of
 * plinth_limits_now().  bound: it ends with this process too.
 */
extern PlinthLeaseResult plinth_limits_lease_take(const PlinthLeaseName *name, int64 max_count,
												  int64 expires_at, bool bound, pg_uuid_t *id);

/* Gives a lease of this database back; false when there is none.  Raises no error. */
extern bool plinth_limits_lease_give(const pg_uuid_t *id);

/* Moves a lease's end; false when there is none (any more). */
extern bool plinth_limits_lease_extend(const pg_uuid_t *id, int64 expires_at);

/* Gives back what is bound to this process. */
extern void plinth_limits_lease_give_bound(void);

/* How many hold what, in this database. */
typedef struct PlinthLeaseStat
{
	char name[PLINTH_LEASE_LABEL];
	char key[PLINTH_LEASE_LABEL];
	int64 held;
	int64 first_expires_at; /* PLINTH_LEASE_NEVER: none of them by itself */
} PlinthLeaseStat;
extern PlinthLeaseStat *plinth_limits_lease_list(int *n);

extern void plinth_limits_lease_store_init(void);

#endif /* PLINTH_LIMITS_LEASE_H */
