/*
 * store.c
 *		What the engine keeps in its tables: keys owed, dead letters, states.
 *
 * Each function runs inside a transaction of the caller's.  sync_dirty's
 * protocol: a mark (from anyone) sets sent_at to NULL; taking a row sets
 * sent_at in a transaction that commits before anything is sent; an
 * acknowledgement touches a row only while sent_at is set, so it never clears
 * a mark made meanwhile.  A row that is taken with sent_at set had been sent
 * before without an answer: it is a suspect, and is written again at the three
 * zombie stages after it is acknowledged.
 *
 * A row's lane says who looks at it first.  Whoever takes a row asks the key
 * itself, and passes on what is another lane's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"

#include "sync/share_int.h"

#define STRAYS_AT_ONCE 5000

Datum
plinth_sync_store_texts(char **texts, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(texts[i]);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static int
run(PlinthPlan *plan, Datum *values, const char *nulls)
{
	SPI_connect();
	plinth_base_spi_execute(plan, values, nulls, false, 0);
	SPI_finish();
	return (int) SPI_processed;
}

void
plinth_sync_store_run(PlinthPlan *plan, PlinthLaneMapping *mapping, char **literals, int n)
{
	Datum values[2];

	if (n == 0)
		return;
	values[0] = Int64GetDatum(mapping->id);
	values[1] = plinth_sync_store_texts(literals, n);
	run(plan, values, NULL);
}

/* Whose each key is; those of other lanes are left to them. */
static Datum
lane_array(PlinthLaneMapping *mapping, char **literals, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		int share =
			plinth_sync_share_of_literal(mapping->def->nkeys, literals[i], mapping->def->lanes);

		plinth_sync_share_leave(mapping, share);
		elements[i] = Int16GetDatum(share);
	}
	return PointerGetDatum(
		construct_array(elements, n, INT2OID, sizeof(int16), true, TYPALIGN_SHORT));
}

void
plinth_sync_store_keys(PlinthLaneMapping *mapping, char **literals, int n, int zombie_stage)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_dirty AS d (mapping_id, key, zombie_stage, due_at, lane)"
		" SELECT DISTINCT $1, k.key, $3::smallint, CASE $3 WHEN 0 THEN '-infinity' ELSE"
		"        clock_timestamp() + $4 * interval '1 ms' END, k.lane"
		"   FROM unnest($2, $5) AS k (key, lane)"
		" ON CONFLICT (mapping_id, md5(key)) DO UPDATE"
		"    SET suspect = d.suspect OR d.zombie_stage > 0 OR d.sent_at IS NOT NULL"
		"                  OR (d.zombie_stage = 0 AND excluded.zombie_stage > 0),"
		"        zombie_stage = least(d.zombie_stage, excluded.zombie_stage),"
		"        due_at = CASE WHEN d.zombie_stage = 0 THEN d.due_at ELSE excluded.due_at END,"
		"        sent_at = NULL, attempts = 0, lane = excluded.lane",
		5,
		{INT8OID, TEXTARRAYOID, INT4OID, INT4OID, INT2ARRAYOID},
		NULL};
	Datum values[5];
	TimestampTz due =
		zombie_stage == 0
			? DT_NOBEGIN
			: TimestampTzPlusMilliseconds(GetCurrentTimestamp(), plinth_setting_sync_zombie_window);

	/* An insert that lands late finds its _id there, or inserts what is owed anyway. */
	if (n == 0 || (mapping->def->append && zombie_stage > 0))
		return;
	values[0] = Int64GetDatum(mapping->id);
	values[1] = plinth_sync_store_texts(literals, n);
	values[2] = Int32GetDatum(zombie_stage);
	values[3] = Int32GetDatum(plinth_setting_sync_zombie_window);
	values[4] = lane_array(mapping, literals, n);
	run(&plan, values, NULL);
	if (!mapping->stored_any || due < mapping->stored_due)
		mapping->stored_due = due;
	mapping->stored_any = true;
	if (zombie_stage == 0)
		mapping->stored_owed = true;
}

void
plinth_sync_store_owed(PlinthLaneMapping *mapping, PlinthDirtyKey **keys, int n)
{
	char **literals = palloc(sizeof(char *) * Max(n, 1));
	char **zombies = palloc(sizeof(char *) * Max(n, 1));
	int nzombies = 0;
	int nkeys = mapping->def->nkeys;

	for (int i = 0; i < n; i++)
	{
		literals[i] = plinth_sync_key_literal(nkeys, keys[i]->key, keys[i]->keylen);
		if (keys[i]->zombie)
			zombies[nzombies++] = literals[i];
	}
	/* First as zombies, then as owed: that leaves them owed and suspect. */
	plinth_sync_store_keys(mapping, zombies, nzombies, 1);
	plinth_sync_store_keys(mapping, literals, n, 0);
}

void
plinth_sync_store_list(PlinthLaneMapping *mapping, List *literals)
{
	char **array = palloc(sizeof(char *) * (list_length(literals) + 1));
	ListCell *lc;

	foreach (lc, literals)
		array[foreach_current_index(lc)] = lfirst(lc);
	plinth_sync_store_keys(mapping, array, list_length(literals), 0);
}

#define TAKE(which)                                                                                \
	"UPDATE plinth.sync_dirty AS d"                                                                \
	"   SET suspect = d.suspect OR d.sent_at IS NOT NULL, sent_at = clock_timestamp()"             \
	"  FROM (SELECT p.ctid FROM plinth.sync_dirty AS p"                                            \
	"         WHERE p.mapping_id = $1 AND p.lane = $3 AND p.due_at <= clock_timestamp()" which     \
	"         ORDER BY p.due_at LIMIT $2 FOR UPDATE SKIP LOCKED) AS picked"                        \
	" WHERE d.ctid = picked.ctid"                                                                  \
	" RETURNING d.key, d.zombie_stage, d.suspect, d.attempts, d.ctid, d.yield",                    \
		3, {INT8OID, INT4OID, INT4OID}, NULL

/* Rows that were taken, but whose keys are others': as before, and in the right lane. */
static void
pass_on(PlinthLaneMapping *mapping, List *strays)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty AS d SET sent_at = NULL, lane = k.lane"
		"  FROM unnest($2, $3) AS k (key, lane)"
		" WHERE d.mapping_id = $1 AND md5(d.key) = md5(k.key) AND d.key = k.key",
		3,
		{INT8OID, TEXTARRAYOID, INT2ARRAYOID},
		NULL};
	int n = list_length(strays);
	char **literals = palloc(sizeof(char *) * Max(n, 1));
	Datum values[3] = {Int64GetDatum(mapping->id)};
	ListCell *lc;

	if (n == 0)
		return;
	foreach (lc, strays)
		literals[foreach_current_index(lc)] = lfirst(lc);
	values[1] = plinth_sync_store_texts(literals, n);
	values[2] = lane_array(mapping, literals, n);
	run(&plan, values, NULL);
}

void
plinth_sync_store_take(PlinthLaneMapping *mapping, PlinthSyncTake which, int max,
					   PlinthSyncTaken *taken)
{
	static PlinthPlan plans[] = {
		[PLINTH_SYNC_TAKE_ANY] = {TAKE("")},
		[PLINTH_SYNC_TAKE_UNTRIED] = {TAKE(" AND p.attempts = 0")},
		/* Which have a time; there may be very many that have none. */
		[PLINTH_SYNC_TAKE_TRIED] = {TAKE(" AND p.attempts > 0 AND p.due_at > '-infinity'")},
	};
	Datum values[3] = {Int64GetDatum(mapping->id), Int32GetDatum(max),
					   Int32GetDatum(mapping->def->share)};
	MemoryContext caller = CurrentMemoryContext;
	List *strays = NIL;
	int n;
	int kept = 0;

	SPI_connect();
	plinth_base_spi_execute(&plans[which], values, NULL, false, SPI_OK_UPDATE_RETURNING);
	n = (int) SPI_processed;
	taken->keys = MemoryContextAllocZero(caller, sizeof(PlinthSyncKey) * Max(n, 1));
	taken->rows = MemoryContextAllocZero(caller, sizeof(PlinthSyncTakenRow) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		PlinthSyncKey *key = &taken->keys[kept];
		PlinthSyncTakenRow *row = &taken->rows[kept];
		MemoryContext old = MemoryContextSwitchTo(caller);
		bool isnull;

		key->key =
			plinth_sync_key_parse(mapping->def->nkeys, SPI_getvalue(tuple, desc, 1), &key->keylen);
		row->stage = DatumGetInt16(SPI_getbinval(tuple, desc, 2, &isnull));
		row->suspect = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
		row->attempts = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
		ItemPointerCopy((ItemPointer) DatumGetPointer(SPI_getbinval(tuple, desc, 5, &isnull)),
						&row->place);
		row->yield = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
		if (plinth_sync_share_of(key->key, key->keylen, mapping->def->lanes) == mapping->def->share)
			kept++;
		else
			strays = lappend(strays, SPI_getvalue(tuple, desc, 1));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	taken->nkeys = kept;
	taken->passed_on = list_length(strays);
	pass_on(mapping, strays);
}

/*
 * Rows of lanes that there are not any more are passed on by the first lane,
 * some at a time.
 */
void
plinth_sync_store_move_strays(PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty AS d SET lane = plinth._sync_lane(d.key, $2)"
		"  FROM (SELECT p.ctid FROM plinth.sync_dirty AS p"
		"         WHERE p.mapping_id = $1 AND p.lane >= $2 LIMIT $3 FOR UPDATE SKIP LOCKED) AS picked"
		" WHERE d.ctid = picked.ctid",
		3,
		{INT8OID, INT4OID, INT4OID},
		NULL};
	Datum values[3] = {Int64GetDatum(mapping->id), Int32GetDatum(mapping->def->lanes),
					   Int32GetDatum(STRAYS_AT_ONCE)};

	run(&plan, values, NULL);
	plinth_sync_share_leave_all(mapping);
	plinth_sync_store_counts(mapping);
}

/* Another lane waits for a unique value of this key's document. */
void
plinth_sync_store_ask(PlinthLaneMapping *mapping, char *literal)
{
	static PlinthPlan plan = {"UPDATE plinth.sync_dirty SET yield = true, due_at = '-infinity'"
							  " WHERE mapping_id = $1 AND md5(key) = md5($2) AND key = $2",
							  2,
							  {INT8OID, TEXTOID},
							  NULL};
	Datum values[2] = {Int64GetDatum(mapping->id), CStringGetTextDatum(literal)};

	plinth_sync_store_keys(mapping, &literal, 1, 0);
	run(&plan, values, NULL);
}

/* Their documents made way: they are owed as before, a little later. */
void
plinth_sync_store_yielded(PlinthLaneMapping *mapping, char **literals, int n)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty SET yield = false, sent_at = NULL, zombie_stage = 0,"
		"       suspect = suspect OR zombie_stage > 0,"
		"       due_at = clock_timestamp() + interval '1 ms' * (100 + 100 * random())"
		" WHERE mapping_id = $1 AND md5(key) IN (SELECT md5(k) FROM unnest($2) AS k)",
		2,
		{INT8OID, TEXTARRAYOID},
		NULL};

	plinth_sync_store_run(&plan, mapping, literals, n);
}

/*
 * Rows are found by where they are: one that was marked meanwhile is elsewhere
 * (and its sent_at is NULL), and whatever has taken its place has another key,
 * or was not sent.
 */
void
plinth_sync_store_done(PlinthLaneMapping *mapping, char **literals, PlinthSyncTakenRow **rows,
					   int n)
{
	static PlinthPlan later = {
		"UPDATE plinth.sync_dirty AS d SET suspect = false, sent_at = NULL, attempts = 0,"
		"       zombie_stage = $4, due_at = clock_timestamp() + $5 * interval '1 ms'"
		"  FROM unnest($2, $3) AS k (place, key)"
		" WHERE d.ctid = k.place AND d.key = k.key AND d.mapping_id = $1 AND d.sent_at IS NOT NULL",
		5,
		{INT8OID, TIDARRAYOID, TEXTARRAYOID, INT2OID, FLOAT8OID},
		NULL};
	static PlinthPlan done = {
		"DELETE FROM plinth.sync_dirty AS d USING unnest($2, $3) AS k (place, key)"
		" WHERE d.ctid = k.place AND d.key = k.key AND d.mapping_id = $1 AND d.sent_at IS NOT NULL",
		3,
		{INT8OID, TIDARRAYOID, TEXTARRAYOID},
		NULL};
	/* 1, 10 and 100 windows after the write whose answer was missed. */
	static const double waits[4] = {0, 1, 9, 90};
	char **some = palloc(sizeof(char *) * Max(n, 1));
	Datum *places = palloc(sizeof(Datum) * Max(n, 1));

	for (int stage = 0; stage <= 3; stage++)
	{
		int count = 0;
		Datum values[5];

		for (int i = 0; i < n; i++)
		{
			int now = rows[i]->stage;
			int next = rows[i]->suspect ? 1 : (now == 0 || now == 3 ? 0 : now + 1);

			if (next != stage)
				continue;
			places[count] = PointerGetDatum(&rows[i]->place);
			some[count++] = literals[i];
		}
		if (count == 0)
			continue;
		values[0] = Int64GetDatum(mapping->id);
		values[1] = PointerGetDatum(
			construct_array(places, count, TIDOID, sizeof(ItemPointerData), false, TYPALIGN_SHORT));
		values[2] = plinth_sync_store_texts(some, count);
		values[3] = Int16GetDatum(stage);
		values[4] = Float8GetDatum(waits[stage] * plinth_setting_sync_zombie_window);
		run(stage == 0 ? &done : &later, values, NULL);
	}
}

/* Keys whose document failed by itself and is tried again later, and later each time. */
void
plinth_sync_store_later(PlinthLaneMapping *mapping, char **literals, int n)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty SET attempts = attempts + 1,"
		"       due_at = clock_timestamp() + interval '1 ms'"
		"       * (least(200 * power(2, least(attempts, 30)), $3) * (0.5 + random() / 2))"
		" WHERE mapping_id = $1 AND md5(key) IN (SELECT md5(k) FROM unnest($2) AS k)",
		3,
		{INT8OID, TEXTARRAYOID, FLOAT8OID},
		NULL};
	Datum values[3] = {Int64GetDatum(mapping->id), plinth_sync_store_texts(literals, n),
					   Float8GetDatum(plinth_setting_sync_retry_max)};

	if (n > 0)
		run(&plan, values, NULL);
}

void
plinth_sync_store_cut(PlinthLaneMapping *mapping, char *literal)
{
	/* First as a zombie, then as owed: that leaves it owed and suspect. */
	plinth_sync_store_keys(mapping, &literal, 1, 1);
	plinth_sync_store_keys(mapping, &literal, 1, 0);
	plinth_sync_store_later(mapping, &literal, 1);
}

/* Keys that were taken, but for which the batch had no room. */
void
plinth_sync_store_unsent(PlinthLaneMapping *mapping, char **literals, int n)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_dirty SET sent_at = NULL"
		" WHERE mapping_id = $1 AND md5(key) IN (SELECT md5(k) FROM unnest($2) AS k)",
		2,
		{INT8OID, TEXTARRAYOID},
		NULL};

	plinth_sync_store_run(&plan, mapping, literals, n);
}

void
plinth_sync_store_dead(PlinthLaneMapping *mapping, const char *literal, const char *status,
					   int code, const char *reason)
{
	static PlinthPlan plan = {
		"WITH gone AS (DELETE FROM plinth.sync_dirty"
		"               WHERE mapping_id = $1 AND md5(key) = md5($2) AND sent_at IS NOT NULL)"
		"INSERT INTO plinth.sync_dead_letters AS l (mapping_id, key, status, code, reason)"
		" VALUES ($1, $2, $3, $4, $5)"
		" ON CONFLICT (mapping_id, md5(key)) DO UPDATE"
		"    SET status = excluded.status, code = excluded.code, reason = excluded.reason,"
		"        attempts = l.attempts + 1, failed_at = excluded.failed_at",
		5,
		{INT8OID, TEXTOID, TEXTOID, INT4OID, TEXTOID},
		NULL};
	Datum values[5] = {Int64GetDatum(mapping->id), CStringGetTextDatum(literal),
					   CStringGetTextDatum(status), Int32GetDatum(code),
					   CStringGetTextDatum(reason)};

	run(&plan, values, NULL);
	mapping->dead = true;
}

void
plinth_sync_store_undead(PlinthLaneMapping *mapping, char **literals, int n)
{
	static PlinthPlan plan = {"DELETE FROM plinth.sync_dead_letters WHERE mapping_id = $1"
							  "   AND md5(key) IN (SELECT md5(k) FROM unnest($2) AS k)",
							  2,
							  {INT8OID, TEXTARRAYOID},
							  NULL};

	if (mapping->dead)
		plinth_sync_store_run(&plan, mapping, literals, n);
}

void
plinth_sync_store_counts(PlinthLaneMapping *mapping)
{
	static PlinthPlan plan = {
		"SELECT EXISTS (SELECT FROM plinth.sync_dirty"
		"                WHERE mapping_id = $1 AND lane = $2 AND zombie_stage = 0),"
		"       (SELECT due_at FROM plinth.sync_dirty WHERE mapping_id = $1 AND lane = $2"
		"         ORDER BY due_at LIMIT 1),"
		"       EXISTS (SELECT FROM plinth.sync_dead_letters WHERE mapping_id = $1),"
		"       $2 = 0 AND EXISTS (SELECT FROM plinth.sync_dirty"
		"                           WHERE mapping_id = $1 AND lane >= $3)",
		3,
		{INT8OID, INT4OID, INT4OID},
		NULL};
	Datum values[3] = {Int64GetDatum(mapping->id), Int32GetDatum(mapping->def->share),
					   Int32GetDatum(mapping->def->lanes)};
	HeapTuple tuple;
	TupleDesc desc;
	bool isnull;
	Datum due;

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_SELECT);
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	mapping->stored_owed = DatumGetBool(SPI_getbinval(tuple, desc, 1, &isnull));
	due = SPI_getbinval(tuple, desc, 2, &isnull);
	mapping->stored_any = !isnull;
	mapping->stored_due = isnull ? 0 : DatumGetTimestampTz(due);
	mapping->dead = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
	mapping->stored_stray = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
	SPI_finish();
}
