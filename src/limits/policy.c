/*
 * policy.c
 *		Policies of rate limits, as each backend keeps them.
 *
 * All policies, tiers and rules of the database are read together, with a
 * snapshot of this moment rather than the transaction's, and kept under the
 * generation of limits that was there before they were read; a trigger moves it
 * at the commit of any change (change.c).  So a change counts for every backend
 * from its commit on.  They are not kept
 * - by a transaction that has changed them itself, which sees its own change
 *   and may yet roll it back;
 * - in a parallel operation, where only the query's own snapshot can be had;
 * - where the database has no place for a generation.
 * On a standby no trigger tells of a change: there they are kept for a second.
 *
 * What the extension itself asks has a policy in plinth.rate_limit_defaults
 * while the table has none of that name.
 *
 * Memory: one context under TopMemoryContext, replaced as a whole.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "limits/table.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define STANDBY_KEEP_US USECS_PER_SEC

static PlinthPlan policies_plan = {
	.sql = "SELECT r.id, r.name, r.algorithm = 'fixed_window', r.limit_count, r.period, r.burst, "
		   "r.scope, r.shadow, r.enabled, r.on_error = 'allow' FROM "
		   "(SELECT t.id, t.name, t.algorithm, t.limit_count, t.period, t.burst, t.scope, "
		   "t.shadow, t.enabled, t.on_error FROM plinth.rate_limits t UNION ALL "
		   "SELECT b.id, b.name, b.algorithm, b.limit_count, b.period, b.burst, b.scope, "
		   "b.shadow, b.enabled, b.on_error FROM plinth.rate_limit_defaults b WHERE NOT EXISTS "
		   "(SELECT FROM plinth.rate_limits t WHERE t.name = b.name)) r "
		   "ORDER BY r.name COLLATE \"C\"",
};

static PlinthPlan tiers_plan = {
	.sql = "SELECT r.id, t.key, "
		   "coalesce((t.value ->> 'limit_count')::int8, r.limit_count), "
		   "coalesce((t.value ->> 'period')::interval, r.period), "
		   "coalesce((t.value ->> 'burst')::int8, "
		   "CASE WHEN t.value ->> 'limit_count' IS NULL THEN r.burst END) "
		   "FROM plinth.rate_limits r, pg_catalog.jsonb_each(r.tiers) t "
		   "WHERE r.tiers <> '{}' ORDER BY r.name COLLATE \"C\"",
};

static PlinthPlan rules_plan = {
	.sql = "SELECT coalesce(r.id, 0), u.action = 'allow', u.key, u.network::inet "
		   "FROM plinth.rate_limit_rules u LEFT JOIN plinth.rate_limits r ON r.name = u.policy",
};

static MemoryContext kept_memory = NULL;
static PlinthLimitPolicies *kept = NULL;
static uint64 kept_generation = 0;
static bool kept_on_standby = false;
static int64 kept_at = 0;

static LocalTransactionId changing_lxid = InvalidLocalTransactionId;

void
plinth_limits_policies_changing(void)
{
	changing_lxid = plinth_compat_lxid();
}

static bool
within(int64 value, int64 bound)
{
	return value >= -bound && value <= bound;
}

int64
plinth_limits_interval(const Interval *interval)
{
	if (interval->month < 0 || interval->month > 4800 || !within(interval->day, 146100) ||
		!within(interval->time / USECS_PER_DAY, 146100))
		return -1;
	return (interval->month * INT64CONST(30) + interval->day) * USECS_PER_DAY + interval->time;
}

static Datum
column(uint64 row, int number, bool *null)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, number, null);
}

/* Terms as they stand from a column on: limit_count, period, burst. */
static void
read_terms(PlinthLimitTerms *terms, Oid incarnation, bool window, uint64 row, int number)
{
	bool null;
	int64 limit = DatumGetInt64(column(row, number, &null));
	int64 period = plinth_limits_interval(DatumGetIntervalP(column(row, number + 1, &null)));
	int64 burst = DatumGetInt64(column(row, number + 2, &null));

	if (null)
		burst = limit;
	if (window ? !plinth_rate_window(&terms->rate, limit, period)
			   : !plinth_rate_bucket(&terms->rate, limit, period, burst))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("a rate limit in plinth.rate_limits is out of bounds")));
	terms->units = plinth_limits_table_units(incarnation, window, limit, period);
}

static void
read_policies(PlinthLimitPolicies *all, MemoryContext memory)
{
	plinth_base_spi_execute(&policies_plan, NULL, NULL, true, SPI_OK_SELECT);
	all->npolicies = SPI_processed;
	all->policies =
		MemoryContextAllocZero(memory, sizeof(PlinthLimitPolicy) * Max(all->npolicies, 1));
	for (int i = 0; i < all->npolicies; i++)
	{
		PlinthLimitPolicy *policy = &all->policies[i];
		bool null;

		policy->id = DatumGetInt32(column(i, 1, &null));
		policy->name = MemoryContextStrdup(memory, TextDatumGetCString(column(i, 2, &null)));
		read_terms(&policy->terms, all->incarnation, DatumGetBool(column(i, 3, &null)), i, 4);
		policy->scope = MemoryContextStrdup(memory, TextDatumGetCString(column(i, 7, &null)));
		policy->shadow = DatumGetBool(column(i, 8, &null));
		policy->enabled = DatumGetBool(column(i, 9, &null));
		policy->allow_on_error = DatumGetBool(column(i, 10, &null));
		policy->count_slot = plinth_limits_count_slot(MyDatabaseId, policy->id);
	}
}

/* The tiers come in the order of the policies. */
static void
read_tiers(PlinthLimitPolicies *all, MemoryContext memory)
{
	PlinthLimitTerms *tiers;
	PlinthLimitPolicy *policy = all->policies;
	bool null;

	plinth_base_spi_execute(&tiers_plan, NULL, NULL, true, SPI_OK_SELECT);
	tiers = MemoryContextAllocZero(memory, sizeof(PlinthLimitTerms) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		uint32 id = DatumGetInt32(column(i, 1, &null));

		while (policy->id != id)
			policy++;
		if (policy->ntiers++ == 0)
			policy->tiers = &tiers[i];
		tiers[i].tier = MemoryContextStrdup(memory, TextDatumGetCString(column(i, 2, &null)));
		read_terms(&tiers[i], all->incarnation, policy->terms.rate.window, i, 3);
	}
}

static void
read_rules(PlinthLimitPolicies *all, MemoryContext memory)
{
	plinth_base_spi_execute(&rules_plan, NULL, NULL, true, SPI_OK_SELECT);
	all->keys = MemoryContextAllocZero(memory, sizeof(PlinthLimitRule) * Max(SPI_processed, 1));
	all->networks = MemoryContextAllocZero(memory, sizeof(PlinthLimitRule) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		PlinthLimitRule rule = {0};
		bool null;
		Datum key;

		rule.policy = DatumGetInt32(column(i, 1, &null));
		rule.allow = DatumGetBool(column(i, 2, &null));
		key = column(i, 3, &null);
		if (!null)
		{
			rule.key = MemoryContextStrdup(memory, TextDatumGetCString(key));
			all->keys[all->nkeys++] = rule;
		}
		else
		{
			plinth_limits_rule_network(&rule, column(i, 4, &null));
			all->networks[all->nnetworks++] = rule;
		}
	}
	qsort(all->keys, all->nkeys, sizeof(PlinthLimitRule), plinth_limits_rule_compare);
}

static PlinthLimitPolicies *
read_all(MemoryContext memory)
{
	PlinthLimitPolicies *all = MemoryContextAllocZero(memory, sizeof(PlinthLimitPolicies));
	bool latest = !IsInParallelMode();
	PlinthAsOwner owner;

	all->incarnation = get_relname_relid("rate_limits", plinth_base_schema_oid());
	all->adhoc_slot = plinth_limits_count_incarnation(MyDatabaseId, all->incarnation);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	if (latest)
		PushActiveSnapshot(GetLatestSnapshot());
	read_policies(all, memory);
	read_tiers(all, memory);
	read_rules(all, memory);
	if (latest)
		PopActiveSnapshot();
	plinth_base_owner_end(&owner);
	SPI_finish();
	return all;
}

static void
load(uint64 now_generation, bool standby)
{
	MemoryContext memory;
	PlinthLimitPolicies *all;
	int64 now = plinth_limits_now();

	memory = AllocSetContextCreate(CurrentMemoryContext, "plinth rate limit policies",
								   ALLOCSET_SMALL_SIZES);
	all = read_all(memory);
	MemoryContextSetParent(memory, TopMemoryContext);
	if (kept_memory != NULL)
		MemoryContextDelete(kept_memory);
	kept_memory = memory;
	kept = all;
	kept_generation = now_generation;
	kept_on_standby = standby;
	kept_at = now;
}

const PlinthLimitPolicies *
plinth_limits_policies(void)
{
	uint64 now = plinth_base_generation_keep(PLINTH_GEN_LIMITS);

	if (kept != NULL && changing_lxid != plinth_compat_lxid())
	{
		if (!kept_on_standby)
		{
			if (kept_generation == now && now != 0)
				return kept;
		}
		else if (RecoveryInProgress() && plinth_limits_now() - kept_at < STANDBY_KEEP_US)
			return kept;
	}
	load(IsInParallelMode() || changing_lxid == plinth_compat_lxid() ? 0 : now,
		 RecoveryInProgress());
	return kept;
}

const PlinthLimitPolicy *
plinth_limits_policy_find(const PlinthLimitPolicies *policies, const char *name, size_t len)
{
	int low = 0;
	int high = policies->npolicies;

	while (low < high)
	{
		int middle = (low + high) / 2;
		const PlinthLimitPolicy *policy = &policies->policies[middle];
		int order = strncmp(name, policy->name, len);

		if (order == 0 && policy->name[len] != '\0')
			order = -1;
		if (order == 0)
			return policy;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("rate limit policy \"%s\" does not exist", pnstrdup(name, Min(len, 100))),
			 errhint("Create it with plinth.rate_limit_create().")));
}

/* The extension is gone from this database. */
static bool
forget_all(void)
{
	plinth_limits_table_purge(MyDatabaseId, PLINTH_LIMITS_ALL);
	return true;
}

void
plinth_limits_policy_init(void)
{
	plinth_limits_table_init();
	plinth_limits_count_init();
	plinth_limits_save_init();
	plinth_worker_on_absent(forget_all);
}
