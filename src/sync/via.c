/*
 * via.c
 *		From a changed row of a joined table to the roots it concerns.
 *
 * The decoder tells the source (plinth.sync_sources) and the values that its
 * columns had before and after a change.  The lane keeps such marks by what
 * they say, so that a thousand changes of the same row's children are one, and
 * asks the source's query for the roots: in a transaction that begins when the
 * mark's own is visible, as the mapping's owner.  Roots become keys that are
 * owed.  Invariants:
 *
 *	- A mark holds the slot (its lsn) until the roots found by it are either in
 *	  memory under that same lsn, or committed in sync_dirty, or the mark itself
 *	  is in sync_via.  So nothing is lost at whatever point a crash comes.
 *	- A fresh snapshot suffices: where the way from the changed row to a root is
 *	  no longer what it was then, the change that altered it left marks of its
 *	  own, by its old and its new values.
 *	- Memory is bounded: marks count as keys do (room.c), and roots go to
 *	  sync_dirty, a portion at a time and all in one transaction, once they are
 *	  more than a few.
 *
 * Roots do not depend on MongoDB, so they are looked for also while that is
 * away or the mapping waits; sync_dirty holds them then.  What cannot be
 * resolved (the query's tables cannot be read) waits in sync_via, and no WAL
 * is kept for it.  A mark that says nothing any more, since its values are none
 * of the columns' type, has all sent again.  One of a source that is not there
 * is let go: other sources are another definition (plinth._sync_shape), by which
 * all is sent again anyhow, once the decoder knows them too; and no source ever
 * gets the number that another had.
 *
 * All of it belongs to the mapping's first lane and needs no lock.  Where there
 * are several, roots go to theirs by sync_dirty.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/read_int.h"
#include "sync/report_int.h"
#include "sync/via_int.h"

#define MARKS_AT_ONCE 1000
/* Beyond so many roots of one step they go to sync_dirty. */
#define ROOTS_IN_MEMORY 1000
#define PORTION 1000

/* A mark as it is resolved. */
typedef struct ViaMark
{
	const char *text; /* C strings: the source, then its values */
	uint32 len;
	PlinthDirtyKey *dirty; /* NULL: it came from sync_via */
	bool zombie;
} ViaMark;

/* A root that was found. */
typedef struct ViaRoot
{
	const char *key;
	uint32 keylen;
	const ViaMark *mark;
} ViaRoot;

typedef struct ViaStep
{
	MemoryContext context; /* of the marks */
	MemoryContext found;   /* of the roots' keys */
	ViaMark *marks;
	int nmarks;
	bool durable; /* roots go to sync_dirty, however few they are */
	bool stored;  /* they do */
	bool more;    /* out: there may be more in sync_via */
	ViaRoot *roots;
	int nroots;
	bool everything; /* out: no roots can be found by one of the marks */
} ViaStep;

bool
plinth_sync_via_due(PlinthLaneMapping *mapping)
{
	return (mapping->via.nowed > 0 || mapping->via_stored) && mapping->def->problem == NULL &&
		   mapping->retry_at <= GetCurrentTimestamp();
}

/* ---- finding roots ---- */

static PlinthSyncVia *
find_source(PlinthSyncMapping *def, const ViaMark *mark)
{
	int source = atoi(mark->text);

	for (int i = 0; i < def->nvias; i++)
	{
		if (def->vias[i].source == source)
			return &def->vias[i];
	}
	return NULL;
}

/* Does it have as many values as the source has columns? */
static bool
fits_source(const PlinthSyncVia *via, const ViaMark *mark)
{
	int values = -1;

	for (uint32 i = 0; i < mark->len; i++)
		values += mark->text[i] == '\0';
	return via->roots != NULL && via->ncolumns == values;
}

static Portal
open_roots(PlinthSyncVia *via, const ViaMark *mark)
{
	Datum values[PLINTH_SYNC_MAX_KEYS];
	char nulls[PLINTH_SYNC_MAX_KEYS];
	const char *at = mark->text + strlen(mark->text) + 1;

	if (via->plan == NULL)
		via->plan = plinth_sync_query_prepare(via->roots, via->ncolumns, TEXTOID, InvalidOid, true);
	for (int i = 0; i < via->ncolumns; i++)
	{
		nulls[i] = *at == '-' ? 'n' : ' ';
		values[i] = *at == '-' ? (Datum) 0 : CStringGetTextDatum(at + 1);
		at += strlen(at) + 1;
	}
	return SPI_cursor_open(NULL, via->plan, values, nulls, false);
}

static int
compare_roots(const void *a, const void *b)
{
	const ViaRoot *left = a;
	const ViaRoot *right = b;
	int order = memcmp(left->key, right->key, Min(left->keylen, right->keylen));

	return order != 0 ? order : (int) left->keylen - (int) right->keylen;
}

/*
 * Into sync_dirty, each once; those of a mark that was decoded before as what
 * may have been sent already.
 */
static void
store_roots(PlinthLaneMapping *mapping, ViaStep *step)
{
	MemoryContext old = MemoryContextSwitchTo(step->found);
	char **literals = palloc(sizeof(char *) * (step->nroots + 1));
	char **zombies = palloc(sizeof(char *) * (step->nroots + 1));
	int n = 0;
	int nzombies = 0;

	qsort(step->roots, step->nroots, sizeof(ViaRoot), compare_roots);
	for (int i = 0; i < step->nroots;)
	{
		const ViaRoot *root = &step->roots[i];
		bool zombie = false;

		for (; i < step->nroots && compare_roots(root, &step->roots[i]) == 0; i++)
			zombie |= step->roots[i].mark->zombie;
		literals[n] = plinth_sync_key_literal(mapping->def->nkeys, root->key, root->keylen);
		if (zombie)
			zombies[nzombies++] = literals[n];
		n++;
	}
	/* First as zombies, then as owed: that leaves them owed and suspect. */
	plinth_sync_store_keys(mapping, zombies, nzombies, 1);
	plinth_sync_store_keys(mapping, literals, n, 0);
	step->stored = true;
	step->nroots = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(step->found);
}

static void
add_root(PlinthSyncMapping *def, ViaStep *step, const ViaMark *mark, HeapTuple tuple,
		 TupleDesc desc)
{
	MemoryContext old = MemoryContextSwitchTo(step->found);
	StringInfoData key;

	initStringInfo(&key);
	for (int i = 0; i < def->nkeys; i++)
	{
		char *value = SPI_getvalue(tuple, desc, i + 1);

		/* No root has a key that is NULL. */
		if (value == NULL)
		{
			MemoryContextSwitchTo(old);
			return;
		}
		appendBinaryStringInfo(&key, value, strlen(value) + 1);
	}
	step->roots[step->nroots].key = key.data;
	step->roots[step->nroots].keylen = key.len;
	step->roots[step->nroots++].mark = mark;
	MemoryContextSwitchTo(old);
}

typedef struct RootsRead
{
	PlinthLaneMapping *mapping;
	ViaStep *step;
	const ViaMark *mark;
	PlinthSyncVia *via;
} RootsRead;

/* The roots of one mark, in portions; each portion but the last into sync_dirty at once. */
static void
read_roots_function(void *arg)
{
	RootsRead *read = arg;
	PlinthSyncMapping *def = read->mapping->def;
	ViaStep *step = read->step;
	PlinthAsOwner state;
	Portal portal;
	uint64 fetched;

	SPI_connect();
	plinth_sync_query_as_owner(def, &state);
	portal = open_roots(read->via, read->mark);
	plinth_sync_document_check(def, read->via->plan);
	plinth_sync_query_as_before(&state);
	do
	{
		plinth_sync_query_as_owner(def, &state);
		SPI_cursor_fetch(portal, true, PORTION);
		plinth_sync_query_as_before(&state);
		fetched = SPI_processed;
		if (fetched > 0 && SPI_tuptable->tupdesc->natts != def->nkeys)
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("the way to the root gives %d columns, its key has %d",
								   SPI_tuptable->tupdesc->natts, def->nkeys)));
		if (fetched + step->nroots > ROOTS_IN_MEMORY)
			store_roots(read->mapping, step);
		for (uint64 i = 0; i < fetched; i++)
			add_root(def, step, read->mark, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		SPI_freetuptable(SPI_tuptable);
	} while (fetched == PORTION);
	SPI_cursor_close(portal);
	SPI_finish();
}

static void
resolve(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	ViaStep *step = arg;
	MemoryContext old = MemoryContextSwitchTo(step->context);

	step->found = AllocSetContextCreate(step->context, "plinth via roots", ALLOCSET_DEFAULT_SIZES);
	step->roots = palloc(sizeof(ViaRoot) * Max(ROOTS_IN_MEMORY, PORTION));
	(void) plinth_sync_query_lock(mapping->def->relation, mapping->def->relation_name);
	for (int i = 0; i < step->nmarks; i++)
	{
		RootsRead read = {mapping, step, &step->marks[i],
						  find_source(mapping->def, &step->marks[i])};
		int before = step->nroots;
		ErrorData *error;

		CHECK_FOR_INTERRUPTS();
		if (read.via == NULL)
			continue;
		if (!fits_source(read.via, read.mark))
			step->everything = true;
		else if (!plinth_sync_query_guarded(read_roots_function, &read, &error))
		{
			step->nroots = Min(before, step->nroots);
			step->everything = true;
			plinth_sync_report_failure(NULL, mapping, unpack_sql_state(error->sqlerrcode),
									   error->message);
		}
	}
	if (step->nroots > 0 && (step->durable || step->stored))
		store_roots(mapping, step);
	if (step->everything)
		plinth_sync_store_sweep(mapping, true);
	MemoryContextSwitchTo(old);
}

/* ---- marks in memory ---- */

/* Few enough to be owed at once, each with what its mark says. */
static void
owe_roots(PlinthLaneMapping *mapping, ViaStep *step)
{
	for (int i = 0; i < step->nroots; i++)
	{
		ViaRoot *root = &step->roots[i];
		PlinthSyncMark mark = {0};

		mark.mapping = mapping->id;
		mark.lsn = root->mark->dirty->lsn;
		mark.keylen = root->keylen;
		plinth_sync_dirty_mark(&mapping->dirty, &mark, root->key, root->mark->zombie);
	}
}

static bool
step_memory(PlinthLane *lane, PlinthLaneMapping *mapping, MemoryContext context)
{
	PlinthDirtyKey **dirty = palloc(sizeof(PlinthDirtyKey *) * MARKS_AT_ONCE);
	ViaStep step = {.context = context};
	bool resolved;

	step.nmarks = plinth_sync_dirty_take(&mapping->via, dirty, MARKS_AT_ONCE);
	if (step.nmarks == 0)
		return false;
	step.marks = palloc0(sizeof(ViaMark) * step.nmarks);
	for (int i = 0; i < step.nmarks; i++)
	{
		step.marks[i].text = dirty[i]->key;
		step.marks[i].len = dirty[i]->keylen;
		step.marks[i].dirty = dirty[i];
		step.marks[i].zombie = dirty[i]->zombie;
	}
	step.durable =
		lane->failures > 0 || !plinth_sync_lane_ready(mapping) || mapping->def->lanes > 1;
	resolved = plinth_sync_lane_run(lane, mapping, resolve, &step);
	if (resolved)
		owe_roots(mapping, &step);
	plinth_sync_dirty_settle(&mapping->via, dirty, step.nmarks, resolved);
	return resolved;
}

/* ---- marks in sync_via ---- */

static void
resolve_stored(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan take = {
		"DELETE FROM plinth.sync_via AS v"
		" USING (SELECT p.ctid FROM plinth.sync_via AS p WHERE p.mapping_id = $1"
		"         LIMIT $2 FOR UPDATE SKIP LOCKED) AS picked"
		" WHERE v.ctid = picked.ctid RETURNING v.mark, v.suspect",
		2,
		{INT8OID, INT4OID},
		NULL};
	ViaStep *step = arg;
	Datum values[2] = {Int64GetDatum(mapping->id), Int32GetDatum(MARKS_AT_ONCE)};
	MemoryContext old = MemoryContextSwitchTo(step->context);

	SPI_connect();
	plinth_base_spi_execute(&take, values, NULL, false, SPI_OK_DELETE_RETURNING);
	MemoryContextSwitchTo(step->context);
	step->nmarks = (int) SPI_processed;
	step->marks = palloc0(sizeof(ViaMark) * Max(step->nmarks, 1));
	for (int i = 0; i < step->nmarks; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		ViaMark *mark = &step->marks[i];
		bool isnull;
		bytea *bytes = DatumGetByteaPCopy(SPI_getbinval(tuple, desc, 1, &isnull));

		mark->text = VARDATA(bytes);
		mark->len = VARSIZE(bytes) - VARHDRSZ;
		mark->zombie = DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull));
	}
	SPI_finish();
	MemoryContextSwitchTo(old);
	step->more = step->nmarks == MARKS_AT_ONCE;
	resolve(lane, mapping, step);
}

static bool
step_stored(PlinthLane *lane, PlinthLaneMapping *mapping, MemoryContext context)
{
	ViaStep step = {.context = context};

	step.durable = true;
	if (!plinth_sync_lane_run(lane, mapping, resolve_stored, &step))
		return false;
	mapping->via_stored = step.more;
	return true;
}

typedef struct ViaStore
{
	PlinthDirtyKey **marks;
	int n;
} ViaStore;

static void
store_marks(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_via AS v (mapping_id, mark, suspect)"
		" SELECT $1, m.mark, m.suspect FROM unnest($2, $3) AS m (mark, suspect)"
		" ON CONFLICT (mapping_id, md5(mark)) DO UPDATE"
		"    SET suspect = v.suspect OR excluded.suspect",
		3,
		{INT8OID, BYTEAARRAYOID, BOOLARRAYOID},
		NULL};
	ViaStore *store = arg;
	Datum *marks = palloc(sizeof(Datum) * store->n);
	Datum *suspects = palloc(sizeof(Datum) * store->n);
	Datum values[3];

	for (int i = 0; i < store->n; i++)
	{
		marks[i] = PointerGetDatum(
			cstring_to_text_with_len(store->marks[i]->key, (int) store->marks[i]->keylen));
		suspects[i] = BoolGetDatum(store->marks[i]->zombie);
	}
	values[0] = Int64GetDatum(mapping->id);
	values[1] =
		PointerGetDatum(construct_array(marks, store->n, BYTEAOID, -1, false, TYPALIGN_INT));
	values[2] =
		PointerGetDatum(construct_array(suspects, store->n, BOOLOID, 1, true, TYPALIGN_CHAR));
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT);
	SPI_finish();
}

void
plinth_sync_via_store(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	ViaStore store;
	bool stored = true;

	if (mapping->via.nowed == 0)
		return;
	store.marks = palloc(sizeof(PlinthDirtyKey *) * MARKS_AT_ONCE);
	while (stored &&
		   (store.n = plinth_sync_dirty_take(&mapping->via, store.marks, MARKS_AT_ONCE)) > 0)
	{
		stored = plinth_sync_lane_run(lane, mapping, store_marks, &store);
		mapping->via_stored |= stored;
		plinth_sync_dirty_settle(&mapping->via, store.marks, store.n, stored);
	}
	pfree(store.marks);
}

void
plinth_sync_via_counts(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"SELECT FROM plinth.sync_via WHERE mapping_id = $1 LIMIT 1", 1, {INT8OID}, NULL};
	Datum id = Int64GetDatum(mapping->id);

	SPI_connect();
	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
	mapping->via_stored = SPI_processed > 0 && lane->share == 0;
	SPI_finish();
}

bool
plinth_sync_via_step(PlinthLane *lane)
{
	ListCell *lc;
	bool did = false;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);
		MemoryContext context;
		MemoryContext old;

		if (lane->gone || !plinth_sync_via_due(mapping))
			continue;
		context = AllocSetContextCreate(lane->context, "plinth via", ALLOCSET_DEFAULT_SIZES);
		old = MemoryContextSwitchTo(context);
		if (mapping->via_stored)
			did |= step_stored(lane, mapping, context);
		if (plinth_sync_via_due(mapping) && mapping->via.nowed > 0)
			did |= step_memory(lane, mapping, context);
		MemoryContextSwitchTo(old);
		MemoryContextDelete(context);
	}
	return did;
}
