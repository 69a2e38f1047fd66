/*
 * schedule.c
 *		Mappings that are verified by themselves, every so often.
 *
 * One worker for a database, which is there while anything is scheduled,
 * compares one mapping after another by the code of sync_verify() and writes
 * down what it found.  With repair it marks what differs in portions as it is
 * found, so that its memory is bounded however much that is.
 *
 * When a mapping is due follows from when its last run began, so that nothing
 * but the runs is written.  A mapping that cannot be verified (paused, blocked,
 * MongoDB away) makes a run with an error, and is due again after its time.
 *
 * No transaction is open while it compares, and no snapshot is held.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#include "sync/api_int.h"
#include "sync/verify_int.h"
#include "sync/watch_int.h"

extern PGDLLEXPORT Datum plinth_sync_verify_schedule(PG_FUNCTION_ARGS);

#define MARK_CHUNK 1000
#define MAX_EXAMPLES 10
/* When something is scheduled the generation moves; but let nothing rest on that alone. */
#define LOOK_MS 60000

typedef struct PlinthVerifyRun
{
	int64 mapping;
	char *name;
	bool repair;
	TimestampTz due;
	TimestampTz started_at;
	int64 missing;
	int64 different;
	int64 extra;
	StringInfoData examples; /* a JSON array without its end */
	int nexamples;
	Datum *keys; /* to be marked */
	int nkeys;
	char *error;
} PlinthVerifyRun;

/* ---- asked for ---- */

PG_FUNCTION_INFO_V1(plinth_sync_verify_schedule);
Datum
plinth_sync_verify_schedule(PG_FUNCTION_ARGS)
{
	static PlinthPlan set = {"INSERT INTO plinth.sync_verify_schedules (mapping_id, every, repair)"
							 " VALUES ($1, $2, $3) ON CONFLICT (mapping_id) DO UPDATE"
							 " SET every = excluded.every, repair = excluded.repair",
							 3,
							 {INT8OID, INTERVALOID, BOOLOID},
							 NULL};
	static PlinthPlan end = {
		"DELETE FROM plinth.sync_verify_schedules WHERE mapping_id = $1", 1, {INT8OID}, NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;
	Datum values[3];

	if (!PG_ARGISNULL(1))
	{
		static const Interval second = {.time = USECS_PER_SEC};

		if (!DatumGetBool(
				DirectFunctionCall2(interval_ge, PG_GETARG_DATUM(1), IntervalPGetDatum(&second))))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a mapping cannot be verified more often than once a second"),
							errhint("Pass a longer time, or NULL to end the schedule.")));
	}
	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	values[0] = Int64GetDatum(target.id);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = BoolGetDatum(!PG_ARGISNULL(2) && PG_GETARG_BOOL(2));
	if (PG_ARGISNULL(1))
		plinth_base_spi_execute(&end, values, NULL, false, SPI_OK_DELETE);
	else
		plinth_base_spi_execute(&set, values, NULL, false, SPI_OK_INSERT);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

/* ---- a run ---- */

static void
mark_found(PlinthVerify *verify)
{
	PlinthVerifyRun *run = verify->run_by_itself;
	PlinthSyncApi api;

	if (run->nkeys == 0)
		return;
	plinth_sync_verify_begin(verify);
	plinth_sync_api_begin(&api);
	plinth_sync_api_mark(verify->id, PointerGetDatum(construct_array(run->keys, run->nkeys, TEXTOID,
																	 -1, false, TYPALIGN_INT)));
	plinth_sync_api_end(&api);
	plinth_sync_verify_end(verify);
	for (int i = 0; i < run->nkeys; i++)
		pfree(DatumGetPointer(run->keys[i]));
	run->nkeys = 0;
}

/* With the key as sync_resync takes it. */
static void
add_example(PlinthVerify *verify, const char *const *found)
{
	static const char *const names[] = {"key", "difference", "document_id"};
	PlinthVerifyRun *run = verify->run_by_itself;
	const char *fields[] = {found[0], found[1], found[2]};
	uint32 len;

	if (fields[0] != NULL && verify->mapping->nkeys == 1)
		fields[0] = plinth_sync_key_parse(1, fields[0], &len);

	appendStringInfoString(&run->examples, run->nexamples++ == 0 ? "[{" : ", {");
	for (int i = 0; i < lengthof(names); i++)
	{
		appendStringInfo(&run->examples, "%s\"%s\": ", i == 0 ? "" : ", ", names[i]);
		if (fields[i] == NULL)
			appendStringInfoString(&run->examples, "null");
		else
			escape_json(&run->examples, fields[i]);
	}
	appendStringInfoChar(&run->examples, '}');
}

void
plinth_sync_schedule_found(PlinthVerify *verify, const char *const *fields)
{
	PlinthVerifyRun *run = verify->run_by_itself;
	MemoryContext old = MemoryContextSwitchTo(verify->run);

	if (strcmp(fields[1], "missing") == 0)
		run->missing++;
	else if (strcmp(fields[1], "extra") == 0)
		run->extra++;
	else
		run->different++;
	if (run->nexamples < MAX_EXAMPLES)
		add_example(verify, fields);
	if (run->repair && fields[0] != NULL)
		run->keys[run->nkeys++] = CStringGetTextDatum(fields[0]);
	MemoryContextSwitchTo(old);
	if (run->nkeys == MARK_CHUNK)
		mark_found(verify);
}

/* The mapping may have been dropped meanwhile; then there is nothing to write down. */
static void
write_run(PlinthVerifyRun *run)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_verify_runs (mapping_id, started_at, finished_at, missing,"
		"                                     different, extra, repaired, examples, error)"
		" SELECT id, $2, clock_timestamp(), $3, $4, $5, $6, $7::jsonb, $8"
		"   FROM plinth.sync_mappings WHERE id = $1 FOR KEY SHARE",
		8,
		{INT8OID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, BOOLOID, TEXTOID, TEXTOID},
		NULL};
	static PlinthPlan forget = {
		"DELETE FROM plinth.sync_verify_runs WHERE mapping_id = $1 AND id <="
		" (SELECT id FROM plinth.sync_verify_runs WHERE mapping_id = $1"
		"   ORDER BY id DESC OFFSET 100 LIMIT 1)",
		1,
		{INT8OID},
		NULL};
	Datum values[8] = {Int64GetDatum(run->mapping),
					   TimestampTzGetDatum(run->started_at),
					   Int64GetDatum(run->missing),
					   Int64GetDatum(run->different),
					   Int64GetDatum(run->extra),
					   BoolGetDatum(run->repair && run->missing + run->different + run->extra > 0),
					   CStringGetTextDatum(run->examples.data),
					   (Datum) 0};
	char nulls[9] = "        ";

	if (run->error != NULL)
		values[7] = CStringGetTextDatum(run->error);
	else
		nulls[7] = 'n';
	SPI_connect();
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT);
	plinth_base_spi_execute(&forget, values, NULL, false, SPI_OK_DELETE);
	SPI_finish();
}

static void
tell_run(PlinthVerifyRun *run)
{
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"event\": \"verify\", \"mapping\": ");
	escape_json(&payload, run->name);
	appendStringInfo(&payload,
					 ", \"complete\": %s, \"missing\": " INT64_FORMAT
					 ", \"different\": " INT64_FORMAT ", \"extra\": " INT64_FORMAT
					 ", \"repaired\": %s}",
					 run->error == NULL ? "true" : "false", run->missing, run->different,
					 run->extra, run->repair ? "true" : "false");
	Async_Notify(PLINTH_SYNC_CHANNEL, payload.data);
}

static void
compare_all(void *arg)
{
	plinth_sync_verify_compare(arg);
	mark_found(arg);
}

/* Compares; what fails is the run's error. */
static void
compare(PlinthVerify *verify)
{
	ErrorData *error = plinth_worker_try(compare_all, verify);

	/* This worker is to end, or was told to leave off. */
	if (error != NULL && (error->sqlerrcode == ERRCODE_QUERY_CANCELED || plinth_worker_stopping()))
		ReThrowError(error);
	if (error != NULL)
		verify->run_by_itself->error = MemoryContextStrdup(
			verify->run, psprintf("%s: %s", unpack_sql_state(error->sqlerrcode), error->message));
	if (verify->client != NULL)
		plinth_mongo_close(verify->client);
}

static void
run_one(MemoryContext context, PlinthVerifyRun *run)
{
	PlinthVerify verify = {0};

	verify.id = run->mapping;
	verify.run = context;
	verify.page = AllocSetContextCreate(context, "plinth verify page", ALLOCSET_DEFAULT_SIZES);
	verify.run_by_itself = run;
	run->started_at = GetCurrentTimestamp();
	run->keys = palloc(sizeof(Datum) * MARK_CHUNK);
	initStringInfo(&run->examples);
	plinth_worker_report("comparing", run->name);
	MemoryContextSwitchTo(verify.page);
	compare(&verify);
	MemoryContextSwitchTo(context);
	appendStringInfoString(&run->examples, run->nexamples == 0 ? "[]" : "]");
	plinth_sync_verify_begin(&verify);
	write_run(run);
	tell_run(run);
	plinth_sync_verify_end(&verify);
	if (run->error != NULL)
		ereport(LOG, (errmsg("could not verify sync mapping \"%s\" to its end", run->name),
					  errdetail_internal("%s", run->error)));
	else
		ereport(LOG, (errmsg("verified sync mapping \"%s\": " INT64_FORMAT " missing, " INT64_FORMAT
							 " different, " INT64_FORMAT " extra",
							 run->name, run->missing, run->different, run->extra)));
}

/* ---- the worker ---- */

/* The mapping that is due first; false when none is scheduled, or the extension has gone. */
static bool
next_run(PlinthVerifyRun *run, bool *gone)
{
	static PlinthPlan plan = {
		"SELECT s.mapping_id, m.name, s.repair,"
		"       coalesce((SELECT r.started_at FROM plinth.sync_verify_runs AS r"
		"                  WHERE r.mapping_id = s.mapping_id ORDER BY r.id DESC LIMIT 1) + s.every,"
		"                s.created_at) AS due"
		"  FROM plinth.sync_verify_schedules AS s JOIN plinth.sync_mappings AS m ON m.id = s.mapping_id"
		" ORDER BY due LIMIT 1",
		0,
		{0},
		NULL};
	MemoryContext caller = CurrentMemoryContext;
	bool found;

	*gone = !plinth_worker_transaction_begin();
	if (*gone)
		return false;
	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;

		run->mapping = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		run->name = MemoryContextStrdup(caller, SPI_getvalue(tuple, desc, 2));
		run->repair = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
		run->due = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
	}
	SPI_finish();
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);
	return found;
}

void
plinth_sync_schedule_main(int instance)
{
	MemoryContext context =
		AllocSetContextCreate(TopMemoryContext, "plinth verifier", ALLOCSET_DEFAULT_SIZES);
	TimestampTz look_at = 0;
	uint64 seen = 0;
	bool gone = false;
	bool ran = true;

	plinth_sync_verify_settle_session();
	while (!gone && plinth_worker_wait(ran ? 0 : 1000))
	{
		uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
		PlinthVerifyRun run = {0};

		ran = false;
		if (generation == seen && GetCurrentTimestamp() < look_at)
			continue;
		seen = generation;
		MemoryContextReset(context);
		MemoryContextSwitchTo(context);
		look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_MS);
		if (!next_run(&run, &gone))
			continue;
		if (run.due > GetCurrentTimestamp())
		{
			plinth_worker_report("waiting", NULL);
			look_at = Min(look_at, run.due);
			continue;
		}
		run_one(context, &run);
		look_at = 0;
		ran = true;
	}
}

int
plinth_sync_schedule_wanted(void)
{
	bool any;

	if (!plinth_worker_is_adopted())
		return 0;
	SPI_connect();
	if (SPI_execute("SELECT FROM plinth.sync_verify_schedules LIMIT 1", true, 0) != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not read the schedules")));
	any = SPI_processed > 0;
	SPI_finish();
	return any ? 1 : 0;
}
