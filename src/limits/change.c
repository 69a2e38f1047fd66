/*
 * change.c
 *		What follows from a change of policies or rules: triggers, ENABLE ALWAYS,
 *		so that an UPDATE by hand and a replica's apply count as much as the API.
 *
 * Each change moves the generation of limits at commit, so that every backend
 * reads the policies anew.  Keys of a policy that is gone are forgotten at
 * commit too: another with its id, restored by hand, shall not begin with them.
 */
#include "postgres.h"

#include "base/base.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "limits/table.h"
#include "miscadmin.h"
#include "utils/rel.h"

PGDLLEXPORT Datum plinth_limits_changed(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_changed);
PGDLLEXPORT Datum plinth_limits_dropped(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_dropped);

static void
purge_policy(void *arg)
{
	plinth_limits_table_purge(MyDatabaseId, (intptr_t) arg);
}

static const PlinthXactAction purge_action = {
	.name = "rate limit policy dropped",
	.reserve = NULL,
	.publish = purge_policy,
	.discard = NULL,
	.shared = true,
};

/* After each statement on either table, and each row in a subscription's apply, which has no statements. */
Datum
plinth_limits_changed(PG_FUNCTION_ARGS)
{
	(void) plinth_base_trigger_data(fcinfo, "_limits_changed");
	plinth_base_generation_touch(PLINTH_GEN_LIMITS);
	plinth_limits_policies_changing();
	PG_RETURN_POINTER(NULL);
}

/* After each row that is deleted from rate_limits, and after its TRUNCATE. */
Datum
plinth_limits_dropped(PG_FUNCTION_ARGS)
{
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_limits_dropped");
	intptr_t policy = PLINTH_LIMITS_ALL_POLICIES;

	if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
	{
		TupleDesc desc = RelationGetDescr(data->tg_relation);
		bool null;

		policy =
			DatumGetInt32(SPI_getbinval(data->tg_trigtuple, desc, SPI_fnumber(desc, "id"), &null));
	}
	plinth_base_xact_add(&purge_action, (void *) policy);
	PG_RETURN_POINTER(NULL);
}
