/*
 * share.c
 *		Several lanes of one mapping: whose a key is, and what they leave to each other.
 *
 * A key belongs to the lane that its hash says, of as many as the mapping has.
 * Every lane of a server and owner knows all their mappings, those in which it
 * has no share too.  Invariants:
 *
 *	- A lane takes in a new number of lanes only between writes, and tells so by
 *	  the generation it publishes; one that does writes nothing of the mapping
 *	  until all others have published a generation that is younger than the
 *	  change.  So no two lanes ever write by different numbers.
 *	- A key that is another lane's is never written here.  It goes to sync_dirty,
 *	  where a row's lane is only a hint: who takes a row asks the key.
 *	- What is left to another lane is told to it (handed) after it is committed
 *	  and before this lane says that it has delivered it; who waits compares
 *	  with what that lane has taken since.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "worker/worker.h"

#include "sync/share_int.h"

extern PGDLLEXPORT Datum plinth_sync_lane_of_key(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_type_is_shared(PG_FUNCTION_ARGS);

int
plinth_sync_share_of(const char *key, uint32 keylen, int lanes)
{
	/* The plain hash finds keys in tables of which one holds those of one lane. */
	return lanes > 1 ? (int) (murmurhash32(hash_bytes((const unsigned char *) key, keylen)) % lanes)
					 : 0;
}

int
plinth_sync_share_of_literal(int nkeys, const char *literal, int lanes)
{
	char *key;
	uint32 keylen;
	int share;

	if (lanes <= 1)
		return 0;
	key = plinth_sync_key_parse(nkeys, literal, &keylen);
	share = plinth_sync_share_of(key, keylen, lanes);
	pfree(key);
	return share;
}

/* _sync_lane(key text, lanes integer): which of so many lanes a key as sync_dirty holds it belongs to. */
PG_FUNCTION_INFO_V1(plinth_sync_lane_of_key);
Datum
plinth_sync_lane_of_key(PG_FUNCTION_ARGS)
{
	int lanes = PG_GETARG_INT32(1);

	if (lanes <= 1)
		PG_RETURN_INT16(0);
	PG_RETURN_INT16(plinth_sync_share_of_literal(0, text_to_cstring(PG_GETARG_TEXT_PP(0)), lanes));
}

/*
 * Two texts of a value of the key's type must never be one _id, or it would be
 * two lanes' document.
 */
PG_FUNCTION_INFO_V1(plinth_sync_type_is_shared);
Datum
plinth_sync_type_is_shared(PG_FUNCTION_ARGS)
{
	Oid type = getBaseType(PG_GETARG_OID(0));
	char category;
	bool preferred;

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case BOOLOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case BYTEAOID:
			PG_RETURN_BOOL(true);
		case BPCHAROID:
			PG_RETURN_BOOL(false);
	}
	get_type_category_preferred(type, &category, &preferred);
	PG_RETURN_BOOL(category == TYPCATEGORY_STRING || category == TYPCATEGORY_ENUM);
}

bool
plinth_sync_share_any(const PlinthLane *lane, const PlinthLaneMapping *mapping)
{
	return lane->share < Max(mapping->def->lanes, 1);
}

bool
plinth_sync_share_mine(const PlinthLane *lane, const PlinthLaneMapping *mapping, const char *key,
					   uint32 keylen)
{
	return plinth_sync_share_of(key, keylen, mapping->def->lanes) == lane->share;
}

void
plinth_sync_share_changed(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	mapping->barrier = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	/* What comes from now on is looked at when it comes. */
	mapping->foreign |= mapping->dirty.nowed > 0;
}

bool
plinth_sync_share_open(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	bool open = true;

	if (mapping->barrier == 0)
		return true;
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES && open; i++)
	{
		PlinthSyncLane *other = &lane->db->lanes[i];

		if (other == lane->shared || other->pid == 0 || other->owner != lane->owner ||
			strcmp(NameStr(other->server), lane->server) != 0)
			continue;
		open = pg_atomic_read_u64(&other->generation) >= mapping->barrier;
	}
	LWLockRelease(plinth_sync_lock());
	if (open)
		mapping->barrier = 0;
	return open;
}

bool
plinth_sync_share_passes(const PlinthSyncMapping *mapping, StringInfo key)
{
	return mapping->lanes > 1 &&
		   plinth_sync_share_of(key->data, key->len, mapping->lanes) != mapping->share;
}

void
plinth_sync_share_leave_row(PlinthSyncMapping *mapping, StringInfo key, PlinthSyncBatch *batch,
							int place, PlinthBson oldid)
{
	PlinthSyncOp *op = plinth_sync_batch_add(batch, PLINTH_MONGO_DELETE, place);
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	op->op.id = oldid;
	batch->bytes += oldid.len;
	batch->respelled =
		lappend(batch->respelled, plinth_sync_key_literal(mapping->nkeys, key->data, key->len));
	MemoryContextSwitchTo(old);
}

void
plinth_sync_share_end_page(PlinthSyncMapping *mapping, StringInfo passed, PlinthSyncBatch *batch)
{
	MemoryContext old;

	if (passed == NULL || passed->len == 0)
		return;
	old = MemoryContextSwitchTo(batch->context);
	batch->last_key = plinth_sync_key_literal(mapping->nkeys, passed->data, passed->len);
	MemoryContextSwitchTo(old);
}

void
plinth_sync_share_leave(PlinthLaneMapping *mapping, int share)
{
	mapping->handed |= (uint32) 1 << share;
}

void
plinth_sync_share_leave_all(PlinthLaneMapping *mapping)
{
	for (int share = 0; share < mapping->def->lanes; share++)
		plinth_sync_share_leave(mapping, share);
}

void
plinth_sync_share_tell(PlinthLane *lane, bool committed)
{
	uint32 handed = 0;
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		handed |= mapping->handed;
		mapping->handed = 0;
	}
	if (!committed)
		return;
	for (int share = 0; handed != 0; share++, handed >>= 1)
	{
		int other;

		if ((handed & 1) == 0 || share == lane->share)
			continue;
		other = plinth_sync_lane_of(lane->db, lane->server, lane->owner, share, false);
		if (other < 0)
			continue;
		pg_atomic_fetch_add_u64(&lane->db->lanes[other].handed, 1);
		plinth_worker_wake(MyDatabaseId, "lane", other);
	}
}

static void
count_all(PlinthLane *lane, PlinthLaneMapping *unused, void *arg)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->def != NULL && mapping->def->lanes > 1 && plinth_sync_share_any(lane, mapping))
			plinth_sync_store_counts(mapping);
	}
}

void
plinth_sync_share_look(PlinthLane *lane)
{
	uint64 handed = pg_atomic_read_u64(&lane->shared->handed);

	/* What was told was committed before: so was the generation that goes with it. */
	pg_read_barrier();
	if (lane->generation != plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC))
		plinth_sync_lane_load(lane);
	if (lane->handed == handed)
		return;
	if (plinth_sync_lane_run(lane, NULL, count_all, NULL))
		lane->handed = handed;
}

void
plinth_sync_share_load(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"SELECT plinth._sync_lanes($1),"
		"       (SELECT l.fence_lsn FROM plinth.sync_lanes AS l"
		"          JOIN plinth.sync_states AS s USING (mapping_id, fence_epoch)"
		"         WHERE l.mapping_id = $1 AND l.lane = $2)",
		2,
		{INT8OID, INT4OID},
		NULL};
	Datum values[2] = {Int64GetDatum(mapping->id), Int32GetDatum(lane->share)};
	HeapTuple tuple;
	bool isnull;
	Datum lsn;

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	tuple = SPI_tuptable->vals[0];
	mapping->def->lanes = DatumGetInt32(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
	if (isnull)
		mapping->def->lanes = 1;
	mapping->def->share = lane->share;
	lsn = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull);
	mapping->share_fence = isnull ? InvalidXLogRecPtr : DatumGetLSN(lsn);
	SPI_finish();
}

void
plinth_sync_share_store_fence(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_lanes (mapping_id, lane, fence_lsn, fence_epoch)"
		" SELECT id, $2, $3, $4 FROM plinth.sync_mappings WHERE id = $1"
		" ON CONFLICT (mapping_id, lane) DO UPDATE"
		" SET fence_lsn = excluded.fence_lsn, fence_epoch = excluded.fence_epoch",
		4,
		{INT8OID, INT4OID, LSNOID, INT8OID},
		NULL};
	Datum values[4] = {Int64GetDatum(mapping->id), Int32GetDatum(lane->share)};

	mapping->share_fence = mapping->fence.lane_lsn[lane->share];
	values[2] = LSNGetDatum(mapping->share_fence);
	values[3] = Int64GetDatum(mapping->fence.epoch);
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT);
	SPI_finish();
}

static void
compare_shape(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan plan = {
		"SELECT shape FROM plinth.sync_states WHERE mapping_id = $1", 1, {INT8OID}, NULL};
	Datum id = Int64GetDatum(mapping->id);
	char *shape;

	SPI_connect();
	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
	shape =
		SPI_processed == 0 ? NULL : SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (shape != NULL && mapping->def->shape != NULL && strcmp(shape, mapping->def->shape) != 0)
		plinth_sync_store_sweep(mapping, true);
	SPI_finish();
}

bool
plinth_sync_share_check_shape(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	return mapping->def->lanes == 1 || plinth_sync_lane_run(lane, mapping, compare_shape, NULL);
}
