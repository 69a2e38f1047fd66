/*
 * file_lane.c
 *		The order in which a bucket's documents come and go.
 *
 * Two mappings write a bucket: one its files, one its chunks.  Whatever makes a
 * document be written (a change, sync_dirty, a snapshot, a sweep, a repair), it
 * comes through plinth_sync_file_write, which asks MongoDB first:
 *
 *	- a file is written when as many chunks of it are there as it has.  A
 *	  chunk has one content for ever, so a chunk that is there is right;
 *	- a chunk is deleted when its file is not there.
 *
 * What must wait is held: it goes to sync_dirty and is tried again soon.  As
 * keys in memory tell the LSN of their commit, a file is not even tried before
 * the chunks of its transaction are acknowledged.
 *
 * How versions go: file_step sees that a replaced version outlives its grace
 * and that its successor is in MongoDB, and hides it; sees that the document of
 * a hidden one is gone for good (no write of it may still land), and notes
 * that; and after one more grace deletes the rows of its chunks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/file_int.h"
#include "sync/report_int.h"

#define STEP_ROWS 500
/* So many times as long as a step took. */
#define STEP_PAUSES 4
/* Some ten seconds. */
#define TELL_ATTEMPTS 50
#define SLOWEST_STEP_MS 1000

static PlinthLaneMapping *
sibling(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *other = lfirst(lc);

		if (other != mapping && other->def != NULL && other->def->bucket == mapping->def->bucket)
			return other;
	}
	return NULL;
}

static PlinthMongoStatus
find_held(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthMongoOp *ops, int nops,
		  bool *held, PlinthMongoError *error)
{
	const char *own = mapping->def->collection;
	const char *other = mapping->def->bucket_other;

	if (mapping->def->chunks)
		return plinth_mongo_gridfs_in_use(lane->client, other, own, ops, nops, held, error);
	return plinth_mongo_gridfs_incomplete(lane->client, other, ops, nops, held, error);
}

PlinthMongoStatus
plinth_sync_file_write(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *ops, int nops,
					   PlinthMongoError *error)
{
	bool *held = palloc0(sizeof(bool) * Max(nops, 1));
	PlinthMongoOp *some =
		palloc_extended(sizeof(PlinthMongoOp) * Max(nops, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	PlinthMongoStatus status = find_held(lane, mapping, ops, nops, held, error);
	int n = 0;

	for (int i = 0; status == PLINTH_MONGO_OK && i < nops; i++)
	{
		if (held[i])
			continue;
		some[n].kind = ops[i].kind;
		some[n].id = ops[i].id;
		some[n++].document = ops[i].document;
	}
	if (status == PLINTH_MONGO_OK && n > 0)
		status = plinth_mongo_write(lane->client, mapping->def->collection, some, n, error);
	/* Where nothing is written there is no answer to wait for. */
	plinth_mongo_meanwhile(lane->client, NULL, NULL);
	n = 0;
	for (int i = 0; status == PLINTH_MONGO_OK && i < nops; i++)
	{
		ops[i].error = held[i] ? (PlinthMongoError){PLINTH_MONGO_HELD, 0, ""} : some[n++].error;
	}
	return status;
}

void
plinth_sync_file_hold(PlinthLaneMapping *mapping, char **literals, int n)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty SET sent_at = NULL, attempts = attempts + 1,"
		"       due_at = clock_timestamp() + interval '200 ms'"
		" WHERE mapping_id = $1 AND md5(key) IN (SELECT md5(k) FROM unnest($2) AS k)",
		2,
		{INT8OID, TEXTARRAYOID},
		NULL};

	plinth_sync_store_run(&plan, mapping, literals, n);
}

void
plinth_sync_file_tell_held(PlinthLaneMapping *mapping, int attempts)
{
	if (attempts > 0 && attempts % TELL_ATTEMPTS == 0)
		plinth_sync_report_failure(
			NULL, mapping, plinth_mongo_status_name(PLINTH_MONGO_HELD),
			mapping->def->chunks ? "a chunk cannot go before its file has gone from MongoDB"
								 : "a file cannot come before all of its chunks are in MongoDB");
}

XLogRecPtr
plinth_sync_file_before(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	PlinthLaneMapping *chunks = NULL;

	if (mapping->def->bucket != 0 && !mapping->def->chunks)
		chunks = sibling(lane, mapping);
	return chunks == NULL ? InvalidXLogRecPtr : plinth_sync_dirty_least(&chunks->dirty, true);
}

/* Chunks are sent before files, and files looked for before chunks. */
bool
plinth_sync_file_waits(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthSyncTask *task)
{
	PlinthLaneMapping *other;
	const PlinthSyncTask *first;

	if (mapping->def->bucket == 0 || task->sweep != mapping->def->chunks)
		return false;
	other = sibling(lane, mapping);
	first = other == NULL ? NULL : plinth_sync_task_next(other);
	return first != NULL && first->sweep == task->sweep;
}

/* ---- versions on their way out ---- */

typedef struct FileStep
{
	MemoryContext context;
	char **ids;    /* of the versions that are looked at */
	char **sought; /* whose documents decide: their own, or their successors' */
	PlinthBson *sought_ids;
	int n;
	int nhidden;           /* the first ones are hidden, those behind them replaced */
	PlinthBson *documents; /* of those that are sought */
	int ndocuments;
	bool *found;
	bool more; /* there is more to do than one step does */
} FileStep;

static void
add_version(PlinthLaneMapping *mapping, FileStep *step, HeapTuple tuple, TupleDesc desc)
{
	char *id = SPI_getvalue(tuple, desc, 1);
	char *successor = SPI_getvalue(tuple, desc, 2);
	Datum sought = CStringGetTextDatum(successor != NULL ? successor : id);
	MemoryContext old;

	/* What is in memory of it is written first. */
	if (plinth_sync_dirty_has(&mapping->dirty, id, strlen(id) + 1))
		return;
	old = MemoryContextSwitchTo(step->context);
	step->ids[step->n] = pstrdup(id);
	step->sought[step->n] = pstrdup(successor != NULL ? successor : id);
	step->sought_ids[step->n++] = plinth_mongo_id_encode(mapping->def->idspec, &sought);
	if (successor == NULL)
		step->nhidden++;
	MemoryContextSwitchTo(old);
}

static void
begin_step(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan purge = {"SELECT plinth._file_purge($1)", 1, {INT8OID}, NULL};
	static PlinthPlan leaving = {
		"SELECT id, NULL FROM (SELECT f.id FROM plinth.files AS f"
		"  WHERE f.bucket_id = $1 AND f.hidden_at IS NOT NULL AND f.vanished_at IS NULL"
		"    AND NOT EXISTS (SELECT FROM plinth.sync_dirty AS d WHERE d.mapping_id = $2"
		/* By the index, which is of another collation than files' ids. */
		"                       AND md5(d.key) = md5('{\"' || f.id || '\"}' COLLATE \"default\"))"
		"  ORDER BY f.hidden_at LIMIT $4) AS hidden"
		" UNION ALL"
		" SELECT id, replaced_by FROM (SELECT f.id, f.replaced_by FROM plinth.files AS f"
		"  WHERE f.bucket_id = $1 AND f.hidden_at IS NULL"
		"    AND f.replaced_at <= clock_timestamp() - $3 * interval '1 ms'"
		"  ORDER BY f.replaced_at LIMIT $4) AS replaced",
		4,
		{INT8OID, INT8OID, INT4OID, INT8OID},
		NULL};
	FileStep *step = arg;
	Datum values[4] = {Int64GetDatum(mapping->def->bucket), Int64GetDatum(mapping->id),
					   Int32GetDatum(plinth_setting_file_grace), Int64GetDatum(STEP_ROWS)};
	bool isnull;

	SPI_connect();
	plinth_base_spi_execute(&purge, values, NULL, false, SPI_OK_SELECT);
	step->more =
		DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) > 0;
	plinth_base_spi_execute(&leaving, values, NULL, false, SPI_OK_SELECT);
	step->more |= SPI_processed >= STEP_ROWS;
	for (uint64 i = 0; i < SPI_processed; i++)
		add_version(mapping, step, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	SPI_finish();
}

static void
match_documents(PlinthLaneMapping *mapping, FileStep *step)
{
	step->found = palloc0(sizeof(bool) * step->n);
	for (int j = 0; j < step->ndocuments; j++)
	{
		char *text;

		if (!plinth_mongo_id_decode(mapping->def->idspec, step->documents[j], &text))
			continue;
		for (int i = 0; i < step->n; i++)
			step->found[i] |= strcmp(step->sought[i], text) == 0;
	}
}

static Datum
some_ids(FileStep *step, int from, int to, bool found)
{
	char **some = palloc(sizeof(char *) * Max(to - from, 1));
	int n = 0;

	for (int i = from; i < to; i++)
	{
		if (step->found[i] == found)
			some[n++] = step->ids[i];
	}
	return plinth_sync_store_texts(some, n);
}

static void
end_step(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan vanished = {"UPDATE plinth.files SET vanished_at = clock_timestamp()"
								  " WHERE id = ANY ($1) AND vanished_at IS NULL",
								  1,
								  {TEXTARRAYOID},
								  NULL};
	/* A successor that is on its way out itself has been in MongoDB, or was never asked for. */
	static PlinthPlan hide = {
		"UPDATE plinth.files AS f SET hidden_at = clock_timestamp() WHERE f.hidden_at IS NULL"
		"   AND (f.id = ANY ($1)"
		"        OR (f.id = ANY ($2) AND NOT EXISTS (SELECT FROM plinth.files AS s"
		"             WHERE s.id = f.replaced_by AND s.hidden_at IS NULL)))",
		2,
		{TEXTARRAYOID, TEXTARRAYOID},
		NULL};
	FileStep *step = arg;
	Datum gone;
	Datum followed[2];

	match_documents(mapping, step);
	gone = some_ids(step, 0, step->nhidden, false);
	followed[0] = some_ids(step, step->nhidden, step->n, true);
	followed[1] = some_ids(step, step->nhidden, step->n, false);
	SPI_connect();
	plinth_base_spi_execute(&vanished, &gone, NULL, false, SPI_OK_UPDATE);
	plinth_base_spi_execute(&hide, followed, NULL, false, SPI_OK_UPDATE);
	SPI_finish();
}

/* Reads the documents that decide; false when the server failed. */
static bool
look_up(PlinthLane *lane, PlinthLaneMapping *mapping, FileStep *step)
{
	PlinthMongoError error = {0};

	if (plinth_mongo_find(lane->client, mapping->def->collection, step->sought_ids, step->n,
						  &step->documents, &step->ndocuments, &error) == PLINTH_MONGO_OK)
		return true;
	plinth_sync_report_outage(lane, &error);
	return false;
}

/* When the next step is due: one that takes long, of very many files, leaves most of the time to others. */
static TimestampTz
next_step(TimestampTz began)
{
	TimestampTz now = GetCurrentTimestamp();
	int pause = Max(50, Min(plinth_setting_file_grace / 4, SLOWEST_STEP_MS));

	return TimestampTzPlusMilliseconds(
		now, Max(pause, STEP_PAUSES * TimestampDifferenceMilliseconds(began, now)));
}

bool
plinth_sync_file_step(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	TimestampTz now = GetCurrentTimestamp();
	FileStep step = {0};
	MemoryContext old;

	if (mapping->def->bucket == 0 || mapping->def->chunks || mapping->file_step_at > now)
		return false;
	/* What was sent before a crash may still land, and is not known yet. */
	if (lane->progress < lane->start_lsn)
		return false;
	step.context = AllocSetContextCreate(lane->context, "plinth file step", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(step.context);
	step.ids = palloc(sizeof(char *) * 2 * STEP_ROWS);
	step.sought = palloc(sizeof(char *) * 2 * STEP_ROWS);
	step.sought_ids = palloc(sizeof(PlinthBson) * 2 * STEP_ROWS);
	/* What was read before must not be written after we have looked. */
	plinth_sync_apply_drop(mapping);
	plinth_sync_task_drop(mapping);
	if (plinth_sync_lane_run(lane, mapping, begin_step, &step) && step.n > 0)
	{
		MemoryContextSwitchTo(step.context);
		if (look_up(lane, mapping, &step))
			plinth_sync_lane_run(lane, mapping, end_step, &step);
	}
	mapping->file_step_at = step.more ? now : next_step(now);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(step.context);
	return step.more;
}
