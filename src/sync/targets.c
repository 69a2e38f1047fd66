/*
 * targets.c
 *		Which mappings the decoder gathers keys for, and for which lanes.
 *
 * A mapping for which there is no lane is blocked, and what changes in its
 * table is passed over: whatever ends a block sends everything again.  Until
 * the block is durable the slot does not move.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "sync/collect_int.h"
#include "worker/worker.h"

#define BLOCK_AGAIN_MS 1000
#define FREE_TRIES 100
#define FREE_MS 20

static bool block_pending = false;
static TimestampTz block_tried_at = 0;

/* False when there are not enough lanes. */
static bool
find_lanes(PlinthSyncDatabase *db, PlinthCollectTarget *target, const char *server, Oid owner)
{
	for (int share = 0; share < target->nlanes; share++)
	{
		int lane = plinth_sync_lane_of(db, server, owner, share, false);

		if (lane < 0)
		{
			lane = plinth_sync_lane_of(db, server, owner, share, true);
			/* It may be dropped already, and then the coordinator frees the lane. */
			plinth_worker_wake(MyDatabaseId, "coordinator", -1);
		}
		if (lane < 0)
			return false;
		target->lanes[share] = lane;
	}
	target->lane = target->lanes[0];
	return true;
}

/* False when there is no lane for it. */
static bool
add_target(PlinthSyncDatabase *db, HeapTuple tuple, TupleDesc desc, List **targets)
{
	PlinthCollectTarget *target = palloc0(sizeof(PlinthCollectTarget));
	char *server = SPI_getvalue(tuple, desc, 3);
	Oid owner;
	bool isnull;
	Datum attnums;

	target->mapping = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	target->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 4, &isnull));
	target->nlanes = DatumGetInt32(SPI_getbinval(tuple, desc, 7, &isnull));
	target->source = DatumGetInt32(SPI_getbinval(tuple, desc, 8, &isnull));
	target->via = DatumGetBool(SPI_getbinval(tuple, desc, 9, &isnull));
	target->append = DatumGetBool(SPI_getbinval(tuple, desc, 12, &isnull));
	if (!find_lanes(db, target, server, owner))
		return false;
	target->bucket = DatumGetInt64(SPI_getbinval(tuple, desc, 11, &isnull));
	attnums = SPI_getbinval(tuple, desc, 5, &isnull);
	if (!isnull)
	{
		ArrayType *array = DatumGetArrayTypeP(attnums);

		target->nkeys = ARR_NDIM(array) == 1 ? ARR_DIMS(array)[0] : 0;
		/* A column that is not there by its name now: nothing is told from it. */
		if (target->nkeys > PLINTH_SYNC_MAX_KEYS ||
			target->nkeys != DatumGetInt32(SPI_getbinval(tuple, desc, 10, &isnull)))
			target->nkeys = 0;
		memcpy(target->attnums, ARR_DATA_PTR(array), target->nkeys * sizeof(int16));
	}
	*targets = lappend(*targets, target);
	return true;
}

/*
 * Returns the tuples for which there is no lane.  Where there are enough of
 * them, those of mappings that were dropped a moment ago become free.
 */
static List *
add_targets(PlinthSyncDatabase *db, SPITupleTable *table, List **targets)
{
	List *laneless = NIL;
	ListCell *lc;
	bool isnull;

	for (uint64 i = 0; i < table->numvals; i++)
	{
		if (!add_target(db, table->vals[i], table->tupdesc, targets))
			laneless = lappend(laneless, table->vals[i]);
	}
	if (laneless == NIL || DatumGetInt64(SPI_getbinval(linitial(laneless), table->tupdesc, 6,
													   &isnull)) > PLINTH_SYNC_MAX_LANES)
		return laneless;
	for (int i = 0; laneless != NIL && i < FREE_TRIES && plinth_worker_wait(FREE_MS); i++)
	{
		foreach (lc, laneless)
		{
			if (add_target(db, lfirst(lc), table->tupdesc, targets))
				laneless = foreach_delete_current (laneless, lc);
		}
	}
	return laneless;
}

/*
 * Blocks those for which there is no lane.  Rows that somebody holds are left
 * for later: decoding must not wait for a client.
 */
static void
block_laneless(List *laneless)
{
	static PlinthPlan block = {
		"UPDATE plinth.sync_states AS s SET blocked = $2, blocked_hint = $3, blocked_at = now()"
		"  FROM (SELECT mapping_id FROM plinth.sync_states"
		"         WHERE mapping_id = ANY ($1) AND blocked IS NULL FOR UPDATE SKIP LOCKED) AS u"
		" WHERE s.mapping_id = u.mapping_id",
		3,
		{INT8ARRAYOID, TEXTOID, TEXTOID},
		NULL};
	static PlinthPlan left = {"SELECT FROM plinth.sync_states"
							  " WHERE mapping_id = ANY ($1) AND blocked IS NULL LIMIT 1",
							  1,
							  {INT8ARRAYOID},
							  NULL};
	Datum *mappings = palloc(sizeof(Datum) * Max(list_length(laneless), 1));
	Datum values[3];
	ListCell *lc;
	bool isnull;
	int n = 0;

	block_pending = false;
	if (laneless == NIL)
		return;
	foreach (lc, laneless)
		mappings[n++] = Int64GetDatum(
			DatumGetInt64(SPI_getbinval(lfirst(lc), SPI_tuptable->tupdesc, 1, &isnull)));
	values[0] = PointerGetDatum(construct_array(mappings, n, INT8OID, 8, true, TYPALIGN_DOUBLE));
	values[1] = CStringGetTextDatum(
		psprintf("more than %d pairs of server and owner, or lanes of them, are synced from this "
				 "database",
				 PLINTH_SYNC_MAX_LANES));
	values[2] = CStringGetTextDatum("Drop mappings by plinth.sync_drop() until fewer are left, "
									"then send this one by plinth.sync_resync(name).");
	plinth_base_spi_execute(&block, values, NULL, false, SPI_OK_UPDATE);
	if (SPI_processed > 0)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	plinth_base_spi_execute(&left, values, NULL, false, SPI_OK_SELECT);
	block_pending = SPI_processed > 0;
	block_tried_at = GetCurrentTimestamp();
}

/*
 * A mapping's lanes, and those that it does not need any more, which may hold
 * keys until they end.
 */
static void
use_lanes(PlinthSyncDatabase *db, const PlinthCollectTarget *target, bool *lane_used)
{
	const PlinthSyncLane *first = &db->lanes[target->lane];

	for (int share = 0; share < target->nlanes; share++)
		lane_used[target->lanes[share]] = true;
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		const PlinthSyncLane *lane = &db->lanes[i];

		if (lane->pid != 0 && lane->owner == first->owner &&
			strcmp(NameStr(lane->server), NameStr(first->server)) == 0)
			lane_used[i] = true;
	}
	LWLockRelease(plinth_sync_lock());
}

List *
plinth_sync_targets_load(PlinthSyncDatabase *db, MemoryContext context, bool *lane_used)
{
	static PlinthPlan plan = {
		"WITH lanes AS (SELECT sum(p.n)::bigint AS n"
		"                 FROM (SELECT max(plinth._sync_lanes(id)) AS n"
		"                         FROM plinth.sync_mappings GROUP BY server_name, owner) AS p)"
		"SELECT m.id, u.relation::oid, m.server_name::text, m.owner::oid, u.attnums, lanes.n,"
		"       plinth._sync_lanes(m.id), u.source, u.via, u.ncolumns,"
		"       coalesce(m.bucket_id, 0), m.kind = 'append'"
		"  FROM plinth.sync_mappings AS m CROSS JOIN lanes CROSS JOIN LATERAL"
		"       (SELECT m.relation, -1 AS source, false AS via, cardinality(m.key_columns) AS ncolumns,"
		"               coalesce((SELECT s.key_attnums FROM plinth.sync_states AS s"
		"                          WHERE s.mapping_id = m.id),"
		"                        plinth._sync_attnums(m.relation, m.key_columns)) AS attnums"
		"        UNION ALL"
		"        SELECT v.relation, v.source, v.roots IS NOT NULL, cardinality(v.columns),"
		"               plinth._sync_attnums(v.relation, v.columns)"
		"          FROM plinth.sync_sources AS v WHERE v.mapping_id = m.id) AS u"
		" ORDER BY m.id, u.source",
		0,
		{0},
		NULL};
	List *targets = NIL;
	List *laneless;
	ListCell *lc;
	MemoryContext old;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(context);
	laneless = add_targets(db, SPI_tuptable, &targets);
	MemoryContextSwitchTo(old);
	block_laneless(laneless);
	SPI_finish();
	foreach (lc, targets)
		use_lanes(db, lfirst(lc), lane_used);
	return targets;
}

bool
plinth_sync_targets_pending(void)
{
	if (block_pending &&
		TimestampDifferenceExceeds(block_tried_at, GetCurrentTimestamp(), BLOCK_AGAIN_MS))
	{
		block_tried_at = GetCurrentTimestamp();
		plinth_base_generation_bump(MyDatabaseId, PLINTH_GEN_SYNC);
	}
	return block_pending;
}
