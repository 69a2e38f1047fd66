/*
 * state.c
 *		A mapping's state and its tasks in their tables.
 *
 * Each function runs inside a transaction of the lane's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#include "sync/share_int.h"
#include "sync/index_int.h"
#include "sync/sync_int.h"

/* How many rows it touched. */
static uint64
run(PlinthPlan *plan, Datum *values, const char *nulls)
{
	uint64 n;

	SPI_connect();
	plinth_base_spi_execute(plan, values, nulls, false, 0);
	n = SPI_processed;
	SPI_finish();
	return n;
}

/*
 * Nothing more is written for this mapping until somebody acts; unless somebody
 * has just done so, which the lane has not seen yet.
 */
void
plinth_sync_store_block(PlinthLaneMapping *mapping, const char *reason, const char *hint)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_states AS s (mapping_id, blocked, blocked_hint, blocked_at)"
		" VALUES ($1, $2, $3, now()) ON CONFLICT (mapping_id) DO UPDATE"
		" SET blocked = excluded.blocked, blocked_hint = excluded.blocked_hint,"
		"     blocked_at = excluded.blocked_at"
		" WHERE (s.fence_epoch, s.adopting, s.resyncing) = ($4, $5, $6)",
		6,
		{INT8OID, TEXTOID, TEXTOID, INT8OID, BOOLOID, BOOLOID},
		NULL};
	Datum values[6] = {Int64GetDatum(mapping->id),
					   CStringGetTextDatum(reason),
					   CStringGetTextDatum(hint),
					   Int64GetDatum(mapping->def->fence_epoch),
					   BoolGetDatum(mapping->def->adopting),
					   BoolGetDatum(mapping->def->resyncing)};

	if (run(&plan, values, NULL) == 0)
		return;
	mapping->def->blocked = MemoryContextStrdup(mapping->def->context, reason);
	/* Other lanes are not to go on until they meet the reason themselves. */
	if (mapping->def->lanes > 1)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
}

/* The collection was looked at and the fence stands. */
void
plinth_sync_store_prepared(PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_states SET prepared = true, adopting = false, resyncing = false,"
		"       promoted = false, fence_lsn = $2,"
		"       fence_epoch = $3, fence_timeline = $4, slot_generation = $5"
		" WHERE mapping_id = $1",
		5,
		{INT8OID, LSNOID, INT8OID, INT4OID, INT8OID},
		NULL};
	Datum values[5] = {Int64GetDatum(mapping->id), LSNGetDatum(mapping->fence.lsn),
					   Int64GetDatum(mapping->fence.epoch), Int32GetDatum(mapping->fence.timeline),
					   Int64GetDatum(mapping->fence.slot_generation)};

	run(&plan, values, NULL);
	plinth_sync_indexes_doubt(mapping->id);
	mapping->def->prepared = true;
	mapping->def->adopting = false;
	mapping->def->resyncing = false;
	mapping->def->promoted = false;
	mapping->def->fence_lsn = mapping->fence.lsn;
	mapping->def->fence_epoch = mapping->fence.epoch;
	/* The other lanes wait for it. */
	if (mapping->def->lanes > 1)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
}

void
plinth_sync_store_fenced(PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {"UPDATE plinth.sync_states SET fence_lsn = $2, fence_timeline = $3"
							  " WHERE mapping_id = $1",
							  3,
							  {INT8OID, LSNOID, INT4OID},
							  NULL};
	Datum values[3] = {Int64GetDatum(mapping->id), LSNGetDatum(mapping->fence.lsn),
					   Int32GetDatum(mapping->fence.timeline)};

	run(&plan, values, NULL);
	mapping->def->fence_lsn = mapping->fence.lsn;
}

/* Writes down how far a task is, or that it is done; false when there is no such task any more. */
bool
plinth_sync_store_task(PlinthLaneMapping *mapping, PlinthSyncTask *task)
{
	static PlinthPlan move = {
		"UPDATE plinth.sync_tasks SET cursor_key = $2, sent_key = $3, cursor_id = $4, done = $5"
		" WHERE id = $1",
		5,
		{INT8OID, TEXTOID, TEXTOID, BYTEAOID, INT8OID},
		NULL};
	static PlinthPlan drop = {"DELETE FROM plinth.sync_tasks WHERE id = $1", 1, {INT8OID}, NULL};
	Datum values[5];
	char nulls[6] = "     ";

	values[0] = Int64GetDatum(task->id);
	if (task->finished)
	{
		(void) run(&drop, values, NULL);
		return true;
	}
	values[1] = values[2] = values[3] = (Datum) 0;
	if (task->cursor_key != NULL)
		values[1] = CStringGetTextDatum(task->cursor_key);
	else
		nulls[1] = 'n';
	if (task->sent_key != NULL)
		values[2] = CStringGetTextDatum(task->sent_key);
	else
		nulls[2] = 'n';
	if (task->cursor_id.data != NULL)
		values[3] = PointerGetDatum(
			cstring_to_text_with_len((char *) task->cursor_id.data, task->cursor_id.len));
	else
		nulls[3] = 'n';
	values[4] = Int64GetDatum(task->done);
	return run(&move, values, nulls) > 0;
}

/* About how many rows the task has before it. */
void
plinth_sync_store_task_total(PlinthSyncTask *task, int64 total)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_tasks SET total = $2 WHERE id = $1", 2, {INT8OID, INT8OID}, NULL};
	Datum values[2] = {Int64GetDatum(task->id), Int64GetDatum(total)};

	run(&plan, values, NULL);
}

static char *
text_column(MemoryContext context, uint64 row, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(context, value);
}

static PlinthSyncTask *
find_task(List *tasks, int64 id)
{
	ListCell *lc;

	foreach (lc, tasks)
	{
		PlinthSyncTask *task = lfirst(lc);

		if (task->id == id)
			return task;
	}
	return NULL;
}

/* What was settled since the definition was loaded is not this definition's work. */
static void
take_shape(PlinthLaneMapping *mapping, const char *shape)
{
	PlinthSyncMapping *def = mapping->def;

	if (shape == NULL || (def->stored_shape != NULL && strcmp(def->stored_shape, shape) == 0))
		return;
	def->stored_shape = MemoryContextStrdup(def->context, shape);
	mapping->shape_stale = true;
}

/*
 * The tasks that stand in the table now.  One that is known already keeps its
 * place: what it has written since is not in the table yet.
 */
void
plinth_sync_store_tasks_load(PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"SELECT t.id, t.kind = 'sweep', t.relation, t.cursor_key, t.sent_key, t.cursor_id, t.done,"
		"       t.old_filter, s.shape"
		"  FROM plinth.sync_tasks AS t LEFT JOIN plinth.sync_states AS s USING (mapping_id)"
		" WHERE t.mapping_id = $1 AND t.lane = $2 ORDER BY t.id",
		2,
		{INT8OID, INT4OID},
		NULL};
	Datum values[2] = {Int64GetDatum(mapping->id), Int32GetDatum(mapping->def->share)};
	MemoryContext context = mapping->tasks_context;
	List *tasks = NIL;

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		int64 id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		PlinthSyncTask *task = find_task(mapping->tasks, id);
		MemoryContext old = MemoryContextSwitchTo(context);

		if (task == NULL)
		{
			Datum cursor;

			task = palloc0(sizeof(PlinthSyncTask));
			task->id = id;
			task->sweep = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));
			task->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &isnull));
			task->cursor_key = text_column(context, i, 4);
			task->suspect_until = text_column(context, i, 5);
			task->old_filter = text_column(context, i, 8);
			cursor = SPI_getbinval(tuple, desc, 6, &isnull);
			if (!isnull)
			{
				bytea *bytes = DatumGetByteaPP(cursor);

				/* By itself: the next page's takes its place, and it is freed. */
				task->cursor_id.len = VARSIZE_ANY_EXHDR(bytes);
				task->cursor_id.data = palloc(task->cursor_id.len);
				memcpy(task->cursor_id.data, VARDATA_ANY(bytes), task->cursor_id.len);
			}
			task->done = DatumGetInt64(SPI_getbinval(tuple, desc, 7, &isnull));
			task->ahead_key = task->cursor_key;
			task->ahead = task->done;
			/* Begun before: those who wrote without the decoder's knowledge were waited for. */
			task->waited = task->sweep || task->cursor_key != NULL;
		}
		tasks = lappend(tasks, task);
		MemoryContextSwitchTo(old);
	}
	if (SPI_processed > 0)
		take_shape(mapping, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 9));
	SPI_finish();
	mapping->tasks = tasks;
}

void
plinth_sync_store_sweep(PlinthLaneMapping *mapping, bool everything)
{
	static PlinthPlan sweep = {"SELECT plinth._sync_sweep($1)", 1, {INT8OID}, NULL};
	static PlinthPlan again = {"SELECT plinth._sync_send_again($1)", 1, {INT8OID}, NULL};
	Datum value = Int64GetDatum(mapping->id);

	run(everything ? &again : &sweep, &value, NULL);
	if (everything)
		plinth_sync_share_leave_all(mapping);
	plinth_sync_store_tasks_load(mapping);
}

static Datum
bytes_array(PlinthBson *ids, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = PointerGetDatum(cstring_to_text_with_len((char *) ids[i].data, ids[i].len));
	return PointerGetDatum(construct_array(elements, n, BYTEAOID, -1, false, TYPALIGN_INT));
}

/* Remembers documents that were there before us. */
void
plinth_sync_store_foreign(PlinthLaneMapping *mapping, PlinthBson *ids, int n)
{
	static PlinthPlan plan = {"INSERT INTO plinth.sync_foreign_ids (mapping_id, id)"
							  " SELECT $1, i FROM unnest($2) AS i ON CONFLICT DO NOTHING",
							  2,
							  {INT8OID, BYTEAARRAYOID},
							  NULL};
	Datum values[2] = {Int64GetDatum(mapping->id), bytes_array(ids, n)};

	run(&plan, values, NULL);
}

/* Which of these are such documents: a palloc'd array of n. */
bool *
plinth_sync_store_are_foreign(PlinthLaneMapping *mapping, PlinthBson *ids, int n)
{
	static PlinthPlan plan = {
		"SELECT EXISTS (SELECT FROM plinth.sync_foreign_ids AS f"
		"                WHERE f.mapping_id = $1 AND md5(f.id) = md5(i.id) AND f.id = i.id)"
		"  FROM unnest($2) WITH ORDINALITY AS i (id, n) ORDER BY i.n",
		2,
		{INT8OID, BYTEAARRAYOID},
		NULL};
	Datum values[2] = {Int64GetDatum(mapping->id), bytes_array(ids, n)};
	bool *foreign = palloc0(sizeof(bool) * Max(n, 1));
	bool isnull;

	if (n == 0 || strcmp(mapping->def->on_existing, "keep") != 0)
		return foreign;
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
		foreign[i] =
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return foreign;
}
