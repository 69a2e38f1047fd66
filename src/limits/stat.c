/*
 * stat.c
 *		What plinth.stat_limits shows.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "funcapi.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "limits/table.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"

#define COLUMNS (2 + PLINTH_LIMITS_COUNTS)

PGDLLEXPORT Datum plinth_limits_stat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_stat);

typedef struct KeysOfPolicy
{
	uint32 policy; /* hash key */
	int64 keys;
} KeysOfPolicy;

static void
visit_key(void *arg, uint32 policy)
{
	KeysOfPolicy *keys = hash_search(arg, &policy, HASH_FIND, NULL);

	if (keys != NULL)
		keys->keys++;
}

static void
expect_policy(HTAB *hash, uint32 policy)
{
	KeysOfPolicy *keys = hash_search(hash, &policy, HASH_ENTER, NULL);

	keys->keys = 0;
}

static void
put_row(ReturnSetInfo *rsinfo, HTAB *hash, const char *name, uint32 policy, int slot)
{
	Datum values[COLUMNS] = {0};
	bool nulls[COLUMNS] = {false};
	KeysOfPolicy *keys = hash_search(hash, &policy, HASH_FIND, NULL);

	values[0] = CStringGetTextDatum(name);
	for (int i = 0; i < PLINTH_LIMITS_COUNTS; i++)
		values[1 + i] = Int64GetDatum((int64) plinth_limits_count_read(slot, i));
	values[1 + PLINTH_LIMITS_COUNTS] = Int64GetDatum(keys->keys);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
plinth_limits_stat(PG_FUNCTION_ARGS)
{
	const PlinthLimitPolicies *all = plinth_limits_policies();
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HASHCTL ctl = {
		.keysize = sizeof(uint32),
		.entrysize = sizeof(KeysOfPolicy),
		.hcxt = CurrentMemoryContext,
	};
	HTAB *hash = hash_create("plinth stat_limits", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);

	InitMaterializedSRF(fcinfo, 0);

	/* Nothing may be allocated while the table is looked at under its locks. */
	expect_policy(hash, PLINTH_LIMITS_ADHOC);
	for (int i = 0; i < all->npolicies; i++)
		expect_policy(hash, all->policies[i].id);
	plinth_limits_table_visit(MyDatabaseId, plinth_limits_now(), visit_key, hash);

	for (int i = 0; i < all->npolicies; i++)
		put_row(rsinfo, hash, all->policies[i].name, all->policies[i].id,
				all->policies[i].count_slot);
	put_row(rsinfo, hash, "(ad hoc)", PLINTH_LIMITS_ADHOC, all->adhoc_slot);
	return (Datum) 0;
}
