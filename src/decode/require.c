/*
 * require.c
 *		What must be right with the server before anything can be decoded.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "decode/internal.h"
#include "fmgr.h"
#include "replication/slot.h"
#include "utils/guc.h"
#include "utils/varlena.h"

/* Does output_plugin_libraries, where the server has it, name us? */
static bool
plugin_is_listed(void)
{
	const char *list = GetConfigOption("output_plugin_libraries", true, false);
	List *names = NIL;
	ListCell *cell;

	if (list == NULL)
		return true;
	if (!SplitGUCList(pstrdup(list), ',', &names))
		return false;
	foreach (cell, names)
	{
		if (strcmp((const char *) lfirst(cell), PLINTH_DECODE_PLUGIN) == 0)
			return true;
	}
	return false;
}

static bool
slot_is_free(void)
{
	bool found = false;

	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots && !found; i++)
		found = !ReplicationSlotCtl->replication_slots[i].in_use;
	LWLockRelease(ReplicationSlotControlLock);
	return found;
}

bool
plinth_decode_possible(PlinthDecodeProblem *problem)
{
	PlinthSlotHealth health;
	int pid;

	memset(problem, 0, sizeof(*problem));
	if (wal_level < WAL_LEVEL_LOGICAL)
	{
		problem->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		problem->message = "logical decoding requires \"wal_level\" to be \"logical\"";
		problem->hint = "Set wal_level = logical in postgresql.conf and restart the server.";
		return false;
	}
	if (!plugin_is_listed())
	{
		problem->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		problem->message = "\"output_plugin_libraries\" does not list plinth";
		problem->hint = "Add plinth to output_plugin_libraries in postgresql.conf and reload the "
						"configuration. The plugin refuses everybody but plinth itself.";
		return false;
	}
	health = plinth_decode_slot_health(&pid);
	if (health == PLINTH_SLOT_FOREIGN)
	{
		problem->sqlerrcode = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		problem->message = psprintf("replication slot \"%s\" exists but is not plinth's",
									plinth_decode_slot_name());
		problem->hint =
			psprintf("Drop it: SELECT pg_drop_replication_slot('%s').", plinth_decode_slot_name());
		return false;
	}
	if (health == PLINTH_SLOT_ABSENT && !slot_is_free())
	{
		problem->sqlerrcode = ERRCODE_CONFIGURATION_LIMIT_EXCEEDED;
		problem->message = psprintf("all %d replication slots are in use", max_replication_slots);
		problem->hint = "Drop one that is not needed, or raise \"max_replication_slots\" and "
						"restart the server.";
		return false;
	}
	return true;
}

void
plinth_decode_require(void)
{
	PlinthDecodeProblem problem;

	if (!plinth_decode_possible(&problem))
		ereport(ERROR, (errcode(problem.sqlerrcode), errmsg("%s", problem.message),
						errhint("%s", problem.hint)));
}

PGDLLEXPORT Datum plinth_decode_require_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_decode_require_sql);

Datum
plinth_decode_require_sql(PG_FUNCTION_ARGS)
{
	plinth_decode_require();
	PG_RETURN_VOID();
}
