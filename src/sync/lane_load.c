/*
 * lane_load.c
 *		Which mappings a lane serves, and keeping them true to the catalogs.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "worker/worker.h"

#include "sync/index_int.h"
#include "sync/share_int.h"
#include "sync/via_int.h"

PlinthLaneMapping *
plinth_sync_lane_mapping(PlinthLane *lane, int64 id)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->id == id)
			return mapping;
	}
	return NULL;
}

/*
 * A definition by which nothing was settled yet writes nothing: what it wrote
 * would stand there for good, should the definition go back to what it was.
 */
bool
plinth_sync_lane_ready(PlinthLaneMapping *mapping)
{
	PlinthSyncMapping *def = mapping->def;

	return !def->paused && def->blocked == NULL && def->problem == NULL &&
		   def->stored_shape != NULL && def->shape != NULL &&
		   strcmp(def->stored_shape, def->shape) == 0;
}

static PlinthLaneMapping *
mapping_create(PlinthLane *lane, int64 id)
{
	PlinthLaneMapping *mapping = MemoryContextAllocZero(lane->context, sizeof(PlinthLaneMapping));

	mapping->id = id;
	mapping->tasks_context =
		AllocSetContextCreate(lane->context, "plinth sync tasks", ALLOCSET_SMALL_SIZES);
	mapping->stat.key.database = MyDatabaseId;
	mapping->stat.key.extension = plinth_base_extension_oid();
	mapping->stat.key.mapping = id;
	mapping->shape_stale = true;
	plinth_sync_dirty_init(&mapping->dirty, lane->context);
	plinth_sync_dirty_init(&mapping->via, lane->context);
	mapping->via.many_rows = true;
	return mapping;
}

static void
mapping_remove(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	if (mapping->def != NULL)
		plinth_sync_mapping_free(mapping->def);
	plinth_sync_apply_drop(mapping);
	plinth_sync_task_drop(mapping);
	MemoryContextDelete(mapping->dirty.context);
	MemoryContextDelete(mapping->via.context);
	MemoryContextDelete(mapping->tasks_context);
	plinth_sync_stat_remove(MyDatabaseId, mapping->id);
	pfree(mapping);
}

/* Who loads from now on takes in what this lane has seen; the decoder is not to wait with that. */
static void
move_generation(void)
{
	plinth_base_generation_bump(MyDatabaseId, PLINTH_GEN_SYNC);
	plinth_worker_wake(MyDatabaseId, "decoder", -1);
}

/* A number of lanes that this one has not seen before: all must see it before any goes by it. */
static void
load_share(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthSyncMapping *old)
{
	bool several;

	plinth_sync_share_load(lane, mapping);
	several = mapping->def->lanes > 1 || lane->share > 0;
	if (old == NULL ? !several : old->lanes == mapping->def->lanes)
		return;
	move_generation();
	plinth_sync_share_changed(lane, mapping);
}

static void
mapping_reload(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthSyncMapping *old = mapping->def;

	/* What was read under the old definition is read again. */
	plinth_sync_apply_drop(mapping);
	plinth_sync_task_drop(mapping);
	mapping->def = plinth_sync_mapping_load(lane->context, mapping->id);
	if (mapping->def != NULL)
		load_share(lane, mapping, old);
	if (old == NULL || mapping->def == NULL || mapping->def->adopting || mapping->def->resyncing ||
		!mapping->def->prepared || (old->blocked != NULL && mapping->def->blocked == NULL))
		mapping->verified_fence = false;
	if (old != NULL && mapping->def != NULL && old->query != NULL &&
		strcmp(old->vias_text, mapping->def->vias_text) != 0)
	{
		/* As with a new mapping: a snapshot begins when the decoder knows these sources for sure. */
		move_generation();
		mapping->loaded_generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	}
	if (old != NULL)
		plinth_sync_mapping_free(old);
	if (mapping->def == NULL)
		return;
	mapping->dirty.many_rows = mapping->def->query != NULL;
	plinth_sync_via_counts(lane, mapping);
	plinth_sync_store_tasks_load(mapping);
	plinth_sync_store_counts(mapping);
	mapping->indexes_pending = plinth_sync_indexes_pending(mapping->id);
}

static void
do_load(PlinthLane *lane, PlinthLaneMapping *unused, void *arg)
{
	List *ids = plinth_sync_mapping_ids(lane->server, lane->owner);
	List *created = NIL;
	ListCell *lc;

	foreach (lc, ids)
	{
		int64 id = *(int64 *) lfirst(lc);
		PlinthLaneMapping *mapping = plinth_sync_lane_mapping(lane, id);

		if (mapping == NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(lane->context);

			mapping = mapping_create(lane, id);
			lane->mappings = lappend(lane->mappings, mapping);
			MemoryContextSwitchTo(old);
			created = lappend(created, mapping);
		}
		mapping_reload(lane, mapping);
	}
	/*
	 * The decoder may have loaded under this generation just before the new
	 * mappings became visible; under the next one it has them for sure.
	 */
	if (created != NIL)
		move_generation();
	foreach (lc, created)
		((PlinthLaneMapping *) lfirst(lc))->loaded_generation =
			plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		ListCell *ic;
		bool stays = false;

		foreach (ic, ids)
			stays |= *(int64 *) lfirst(ic) == mapping->id;
		if (stays && mapping->def != NULL)
			continue;
		mapping_remove(lane, mapping);
		lane->mappings = foreach_delete_current (lane->mappings, lc);
	}
}

/* The server, owner and share that the coordinator gave this lane; others mean a new start. */
static void
take_assignment(PlinthLane *lane)
{
	NameData server;
	Oid owner;
	int share;

	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	server = lane->shared->server;
	owner = lane->shared->owner;
	share = lane->shared->share;
	LWLockRelease(plinth_sync_lock());
	if (strcmp(NameStr(server), lane->server) == 0 && owner == lane->owner && share == lane->share)
		return;
	if (lane->client != NULL)
		plinth_sync_disconnect(lane);
	strlcpy(lane->server, NameStr(server), NAMEDATALEN);
	lane->owner = owner;
	lane->share = share;
	lane->failures = 0;
	lane->retry_at = 0;
}

void
plinth_sync_lane_load(PlinthLane *lane)
{
	ListCell *lc;

	/* The generation first: what is committed meanwhile is loaded again. */
	lane->generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	take_assignment(lane);
	plinth_sync_lane_run(lane, NULL, do_load, NULL);
	foreach (lc, lane->mappings)
		((PlinthLaneMapping *) lfirst(lc))->look_due = true;
	lane->shapes_stale = true;
}

static void
do_settle(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan plan = {
		"SELECT plinth._sync_settle($1),"
		"       (SELECT s.shape FROM plinth.sync_states AS s WHERE s.mapping_id = $1)",
		1,
		{INT8OID},
		NULL};
	Datum id = Int64GetDatum(mapping->id);
	const char *known = mapping->def->stored_shape;
	const char *shape;
	bool isnull;

	SPI_connect();
	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
	*(bool *) arg =
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (*(bool *) arg)
		plinth_sync_share_leave_all(mapping);
	/* Another lane may have settled it. */
	shape = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	*(bool *) arg |= shape != NULL && (known == NULL || strcmp(shape, known) != 0);
	SPI_finish();
}

static void
do_reload(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	mapping_reload(lane, mapping);
}

/* Looks at each table's definition, and takes what changed into account. */
void
plinth_sync_lane_settle(PlinthLane *lane)
{
	ListCell *lc;

	lane->shapes_stale = false;
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		bool changed = false;
		bool stale = mapping->shape_stale;

		if ((!stale && !mapping->look_due) || !plinth_sync_share_any(lane, mapping))
			continue;
		/*
		 * Cleared before: what moves meanwhile sets it again.  What makes a
		 * mapping impossible to run may go without a sign, such as a GRANT.
		 */
		mapping->shape_stale = mapping->look_due = false;
		if (!plinth_sync_lane_run(lane, mapping, do_settle, &changed) ||
			((changed || stale || mapping->def->problem != NULL) &&
			 !plinth_sync_lane_run(lane, mapping, do_reload, NULL)))
			mapping->shape_stale = true;
		else
			lane->shapes_stale |= mapping->shape_stale;
		if (mapping->def == NULL)
		{
			/* Dropped this instant, before the load that would have seen it. */
			mapping_remove(lane, mapping);
			lane->mappings = foreach_delete_current (lane->mappings, lc);
		}
	}
}
