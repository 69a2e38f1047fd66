/*
 * lease.c
 *		Concurrency leases: at most so many at a time.
 *
 * A lease lives in shared memory only (lease_store.c), so that taking one
 * works in READ ONLY transactions and on a standby; each server has its own.
 * Taking and giving back happen at once, whatever becomes of the transaction;
 * but a lease that is bound to the commit comes back when its transaction or
 * savepoint rolls back, and one bound to the transaction comes back at its
 * end in any case.  Both are actions of base's list, so PREPARE TRANSACTION
 * is refused while one is pending.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "funcapi.h"
#include "limits/internal.h"
#include "limits/lease.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_NAME 200
#define MAX_KEY 1024
#define MAX_COUNT 1000000
#define MAX_TTL (100 * 365 * USECS_PER_DAY)

PGDLLEXPORT Datum plinth_limits_lease_acquire(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_lease_release(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_lease_renew(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_lease_stat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_lease_acquire);
PG_FUNCTION_INFO_V1(plinth_limits_lease_release);
PG_FUNCTION_INFO_V1(plinth_limits_lease_renew);
PG_FUNCTION_INFO_V1(plinth_limits_lease_stat);

typedef enum LeaseBinding
{
	BOUND_TO_SESSION,
	BOUND_TO_COMMIT,
	BOUND_TO_TRANSACTION,
	BOUND_TO_NOTHING
} LeaseBinding;

static const char *const bindings[] = {"session", "commit", "transaction", "none"};

static bool exit_registered = false;

static void
give_at_exit(int code, Datum arg)
{
	plinth_limits_lease_give_bound();
}

static void
give_at_end(void *arg)
{
	(void) plinth_limits_lease_give(arg);
}

static const PlinthXactAction commit_action = {
	.name = "lease",
	.reserve = NULL,
	.publish = NULL,
	.discard = give_at_end,
	.shared = true,
};

static const PlinthXactAction transaction_action = {
	.name = "lease",
	.reserve = NULL,
	.publish = give_at_end,
	.discard = give_at_end,
	.shared = true,
};

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *argument, int max)
{
	char *value;
	size_t len;

	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("%s of a lease must not be null", argument)));
	value = text_to_cstring(PG_GETARG_TEXT_PP(n));
	len = strlen(value);
	if (len == 0 || len > max)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a lease must have 1 to %d bytes, not %zu", argument, max, len)));
	return value;
}

/* When a lease ends that begins now; NULL for never. */
static int64
expiry_argument(FunctionCallInfo fcinfo, int n)
{
	Interval *ttl;
	double length;

	if (PG_ARGISNULL(n))
		return PLINTH_LEASE_NEVER;
	ttl = PG_GETARG_INTERVAL_P(n);
	length = ((double) ttl->month * DAYS_PER_MONTH + ttl->day) * USECS_PER_DAY + (double) ttl->time;
	if (length < 1 || length > MAX_TTL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("ttl of a lease must be more than 0 and at most 100 years")));
	return plinth_limits_now() + (int64) length;
}

static LeaseBinding
binding_argument(FunctionCallInfo fcinfo, int n)
{
	char *value;

	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("bound_to of a lease must not be null")));
	value = text_to_cstring(PG_GETARG_TEXT_PP(n));
	for (int i = 0; i < lengthof(bindings); i++)
	{
		if (strcmp(value, bindings[i]) == 0)
			return (LeaseBinding) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a lease cannot be bound to \"%s\"", value),
			 errhint("Use \"session\", \"commit\", \"transaction\", or \"none\" with a ttl.")));
}

static int
count_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("max_count of a lease must not be null")));
	if (PG_GETARG_INT32(n) < 1 || PG_GETARG_INT32(n) > MAX_COUNT)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_count of a lease must be 1 to %d, not %d", MAX_COUNT,
							   PG_GETARG_INT32(n))));
	return PG_GETARG_INT32(n);
}

/* Lets a lease that is taken come back with its transaction; gives it back where that fails. */
static void
bind_to_transaction(LeaseBinding binding, pg_uuid_t *id)
{
	if (binding != BOUND_TO_COMMIT && binding != BOUND_TO_TRANSACTION)
		return;
	PG_TRY ()
		;
	{
		plinth_base_xact_add(binding == BOUND_TO_COMMIT ? &commit_action : &transaction_action, id);
	}
	PG_CATCH ()
		;
	{
		(void) plinth_limits_lease_give(id);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* lease_acquire(name, key, max_count, ttl, bound_to) */
Datum
plinth_limits_lease_acquire(PG_FUNCTION_ARGS)
{
	PlinthLeaseName name;
	int max_count = count_argument(fcinfo, 2);
	int64 expires_at = expiry_argument(fcinfo, 3);
	LeaseBinding binding = binding_argument(fcinfo, 4);
	pg_uuid_t *id;

	name.name = text_argument(fcinfo, 0, "name", MAX_NAME);
	name.key = text_argument(fcinfo, 1, "key", MAX_KEY);
	if (binding == BOUND_TO_NOTHING && expires_at == PLINTH_LEASE_NEVER)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a lease that is bound to nothing needs a ttl"),
						errhint("Without one it would be held for ever when it is forgotten.")));
	if (!exit_registered)
	{
		before_shmem_exit(give_at_exit, (Datum) 0);
		exit_registered = true;
	}

	id = MemoryContextAllocZero(TopTransactionContext, sizeof(pg_uuid_t));
	switch (plinth_limits_lease_take(&name, max_count, expires_at, binding != BOUND_TO_NOTHING, id))
	{
		case PLINTH_LEASE_TAKEN:
			bind_to_transaction(binding, id);
			PG_RETURN_UUID_P(id);
		case PLINTH_LEASE_NONE_LEFT:
			pfree(id);
			PG_RETURN_NULL();
		case PLINTH_LEASE_NO_MEMORY:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("no memory is left for leases"),
			 errhint("Raise \"plinth.limits_memory\" and restart the server, or let leases "
					 "end earlier by their ttl; one name and key can have a sixteenth of the "
					 "leases' memory.")));
}

/* lease_release(id) */
Datum
plinth_limits_lease_release(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(plinth_limits_lease_give(PG_GETARG_UUID_P(0)));
}

/* lease_renew(id, ttl) */
Datum
plinth_limits_lease_renew(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("ttl of a lease must not be null")));
	PG_RETURN_BOOL(plinth_limits_lease_extend(PG_GETARG_UUID_P(0), expiry_argument(fcinfo, 1)));
}

/* _lease_stat() */
Datum
plinth_limits_lease_stat(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int n;
	PlinthLeaseStat *list;
	int64 now = plinth_limits_now();

	InitMaterializedSRF(fcinfo, 0);
	list = plinth_limits_lease_list(&n);
	for (int i = 0; i < n; i++)
	{
		Interval left = {0};
		Datum values[4];
		bool nulls[4] = {false};

		left.time = Max(list[i].first_expires_at - now, 0);
		nulls[3] = list[i].first_expires_at == PLINTH_LEASE_NEVER;
		values[0] = CStringGetTextDatum(list[i].name);
		values[1] = CStringGetTextDatum(list[i].key);
		values[2] = Int64GetDatum(list[i].held);
		values[3] = IntervalPGetDatum(&left);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_VOID();
}

void
plinth_limits_lease_init(void)
{
	plinth_limits_lease_store_init();
}
