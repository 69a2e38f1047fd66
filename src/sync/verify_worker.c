/*
 * verify_worker.c
 *		sync_verify(): the process that compares.
 *
 * It runs as the bootstrap superuser, reads rows as the mapping's owner by the
 * engine's own code, and has no transaction open while it talks to MongoDB or
 * waits for the backend to take what it sent.
 *
 * It ends with its backend: SIGTERM (from the backend, the postmaster or
 * DROP DATABASE) ends every wait, MongoDB's too, and a queue that nobody reads
 * ends the process.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "decode/decode.h"
#include "sync/verify_int.h"
#include "worker/worker.h"

#define POLL_MS 100
#define STUCK_MS 10000
/* For so long it is waited for a MongoDB that has answered before: others elect a primary in that time. */
#define AWAY_MS 30000

/*
 * As the engine's processes: keys have one text form, policies hide no row
 * silently, and keys are looked up by their index.
 */
void
plinth_sync_verify_settle_session(void)
{
	static const char *const settings[][2] = {{"search_path", "pg_catalog, pg_temp"},
											  {"row_security", "off"},
											  {"default_transaction_isolation", "read committed"},
											  {"default_transaction_read_only", "off"},
											  {"statement_timeout", "0"},
											  {"lock_timeout", "0"},
											  {"DateStyle", "ISO, YMD"},
											  {"IntervalStyle", "postgres"},
											  {"TimeZone", "UTC"},
											  {"bytea_output", "hex"},
											  {"extra_float_digits", "1"},
											  {"enable_hashjoin", "off"},
											  {"enable_mergejoin", "off"},
											  {"max_parallel_workers_per_gather", "0"},
											  {"jit", "off"}};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

void
plinth_sync_verify_begin(PlinthVerify *verify)
{
	MemoryContext context = CurrentMemoryContext;

	if (!plinth_worker_transaction_begin())
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the extension was dropped"),
						errhint("CREATE EXTENSION plinth;")));
	MemoryContextSwitchTo(context);
}

void
plinth_sync_verify_end(PlinthVerify *verify)
{
	MemoryContext context = CurrentMemoryContext;

	plinth_worker_transaction_end();
	MemoryContextSwitchTo(context);
}

static void
refuse(const PlinthSyncMapping *mapping, const char *reason, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("cannot verify sync mapping \"%s\": %s", mapping->name, reason),
					hint == NULL ? 0 : errhint("%s", hint)));
}

/* Loads the mapping (again); an ERROR when it cannot be compared.  Inside a transaction. */
static void
load(PlinthVerify *verify)
{
	PlinthSyncMapping *mapping = plinth_sync_mapping_load(verify->run, verify->id);

	verify->wait.extension = plinth_base_extension_oid();
	if (mapping == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("the sync mapping was dropped"),
						errhint("SELECT name FROM plinth.sync_mappings; lists yours.")));
	if (mapping->problem != NULL)
		refuse(mapping, mapping->problem, mapping->problem_hint);
	if (mapping->blocked != NULL)
		refuse(mapping, psprintf("it is blocked (%s)", mapping->blocked),
			   "SELECT * FROM plinth.sync_states; says what to do.");
	if (mapping->paused)
		refuse(mapping, "it is paused", "SELECT plinth.sync_resume(name); first.");
	if (!plinth_worker_is_adopted())
		refuse(mapping, "this database is a copy of the one that delivers",
			   "SELECT plinth.adopt(); if this one is to deliver from now on.");
	if (verify->shape != NULL && strcmp(verify->shape, mapping->shape) != 0)
		refuse(mapping, "the table's definition changed meanwhile", "Call sync_verify() again.");
	if (verify->mapping != NULL)
		plinth_sync_mapping_free(verify->mapping);
	verify->mapping = mapping;
}

/* Has the engine seen this definition of the table, and sent all rows of it? */
static bool
is_settled(PlinthVerify *verify)
{
	static PlinthPlan plan = {
		"SELECT FROM plinth.sync_tasks WHERE mapping_id = $1 LIMIT 1", 1, {INT8OID}, NULL};
	Datum values[1];
	uint64 ntasks;

	values[0] = Int64GetDatum(verify->id);
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	ntasks = SPI_processed;
	SPI_finish();
	return ntasks == 0 && verify->mapping->stored_shape != NULL &&
		   strcmp(verify->mapping->stored_shape, verify->mapping->shape) == 0;
}

/* Why the mapping's lane delivers nothing just now, or NULL. */
static const char *
why_stuck(PlinthVerify *verify)
{
	PlinthSyncDatabase *db = plinth_sync_database(MyDatabaseId, true);
	int lane = plinth_sync_lane_of(db, verify->mapping->server, verify->mapping->owner, 0, false);
	PlinthDecodeStatus status;
	PlinthSyncStat stat;

	plinth_decode_status(MyDatabaseId, &status);
	if (lane < 0 || db->lanes[lane].pid == 0 || status.pid == 0)
		return "no worker delivers it, see plinth.stat_workers";
	if (!plinth_sync_stat_get(verify->id, verify->wait.extension, &stat) ||
		(strcmp(stat.state, "unreachable") != 0 && strcmp(stat.state, "retrying") != 0))
		return NULL;
	return psprintf("it is %s (%s)", stat.state, stat.last_error);
}

/* Waits a moment; an ERROR when the lane has delivered nothing for too long. */
static void
wait_for_lane(PlinthVerify *verify)
{
	const char *reason = why_stuck(verify);
	TimestampTz now = GetCurrentTimestamp();

	if (reason == NULL)
		verify->stuck_at = 0;
	else if (verify->stuck_at == 0)
		verify->stuck_at = now;
	else if (TimestampDifferenceExceeds(verify->stuck_at, now, STUCK_MS))
		refuse(verify->mapping, reason, "Mend that, and call sync_verify() again.");
	(void) plinth_worker_wait(POLL_MS);
}

static void
wait_until_settled(PlinthVerify *verify)
{
	bool settled = false;

	while (!settled)
	{
		plinth_sync_verify_begin(verify);
		load(verify);
		settled = is_settled(verify);
		plinth_sync_verify_end(verify);
		if (!settled)
		{
			plinth_worker_report("waiting", "for snapshot and sweep");
			wait_for_lane(verify);
		}
		MemoryContextReset(verify->page);
	}
	verify->shape = MemoryContextStrdup(verify->run, verify->mapping->shape);
}

/*
 * Is a key of the mapping in sync_dirty that could be written now, or a snapshot
 * or a sweep to be done (of a partition that was attached, of a TRUNCATE)?
 * Inside a transaction.
 */
static bool
is_owed(PlinthVerify *verify)
{
	static PlinthPlan plan = {"(SELECT FROM plinth.sync_dirty WHERE mapping_id = $1"
							  " AND zombie_stage = 0 AND due_at <= clock_timestamp() LIMIT 1)"
							  " UNION ALL"
							  " (SELECT FROM plinth.sync_via WHERE mapping_id = $1 LIMIT 1)"
							  " UNION ALL"
							  " (SELECT FROM plinth.sync_tasks WHERE mapping_id = $1 LIMIT 1)",
							  1,
							  {INT8OID},
							  NULL};
	Datum values[1];
	bool found;

	values[0] = Int64GetDatum(verify->id);
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}

/*
 * A record of our own stands behind every commit that was visible until now.
 * This mapping alone is waited for: others, and another MongoDB that is away,
 * do not matter here.
 */
void
plinth_sync_verify_catch_up(PlinthVerify *verify)
{
	XLogRecPtr lsn = plinth_compat_log_message("plinth verify", "", 0, false, true);

	plinth_sync_verify_begin(verify);
	SPI_connect();
	plinth_sync_wait_mapping(&verify->wait, verify->id);
	SPI_finish();
	plinth_sync_verify_end(verify);
	plinth_sync_wait_begin(&verify->wait, lsn);
	for (;;)
	{
		PlinthSyncStat stat;
		bool past;
		bool owed;

		/* First: what a lane leaves to another is in the table before it says that it is past it. */
		past = plinth_sync_wait_seen(&verify->wait) &&
			   plinth_sync_stat_get(verify->id, verify->wait.extension, &stat) &&
			   stat.shares >= verify->wait.nlanes && stat.lag_lsn >= lsn;
		plinth_sync_verify_begin(verify);
		load(verify);
		owed = is_owed(verify);
		plinth_sync_verify_end(verify);
		if (!owed && past)
			return;
		/* Idle, they would look only once in a while. */
		plinth_worker_wake(MyDatabaseId, "decoder", -1);
		plinth_worker_wake(MyDatabaseId, "lane", -1);
		wait_for_lane(verify);
	}
}

bool
plinth_sync_verify_again(PlinthVerify *verify, PlinthMongoStatus status,
						 const PlinthMongoError *error)
{
	TimestampTz now = GetCurrentTimestamp();

	CHECK_FOR_INTERRUPTS();
	if (status == PLINTH_MONGO_OK)
	{
		verify->answered_at = now;
		return false;
	}
	if (verify->answered_at == 0 || !plinth_mongo_status_is_transient(status) ||
		TimestampDifferenceExceeds(verify->answered_at, now, AWAY_MS))
		plinth_sync_verify_check(verify, status, error);
	(void) plinth_worker_wait(POLL_MS);
	return true;
}

void
plinth_sync_verify_check(PlinthVerify *verify, PlinthMongoStatus status,
						 const PlinthMongoError *error)
{
	CHECK_FOR_INTERRUPTS();
	if (status != PLINTH_MONGO_OK)
		ereport(ERROR, (errcode(status == PLINTH_MONGO_CONFIG ? ERRCODE_FDW_OPTION_NAME_NOT_FOUND
															  : ERRCODE_FDW_ERROR),
						errmsg("could not read collection \"%s\": %s", verify->mapping->collection,
							   error->message),
						errdetail("MongoDB is %s.", plinth_mongo_status_name(status)),
						errhint("Look at plinth.stat_sync, and call sync_verify() again.")));
}

void
plinth_sync_verify_send(PlinthVerify *verify, PlinthVerifyMessage kind, int nfields,
						const char *const *fields)
{
	StringInfoData message;

	if (verify->queue == NULL)
	{
		plinth_sync_schedule_found(verify, fields);
		return;
	}
	initStringInfo(&message);
	appendStringInfoChar(&message, (char) kind);
	for (int i = 0; i < nfields; i++)
	{
		appendStringInfoChar(&message, fields[i] != NULL);
		if (fields[i] != NULL)
			appendBinaryStringInfo(&message, fields[i], strlen(fields[i]) + 1);
	}
	if (shm_mq_send(verify->queue, message.len, message.data, false, true) != SHM_MQ_SUCCESS)
		proc_exit(0);
	pfree(message.data);
}

void
plinth_sync_verify_compare(PlinthVerify *verify)
{
	PlinthMongoError error;

	wait_until_settled(verify);
	plinth_sync_verify_begin(verify);
	verify->client = plinth_mongo_open(verify->mapping->server, verify->mapping->owner, &error);
	plinth_sync_verify_end(verify);
	if (verify->client == NULL)
		plinth_sync_verify_check(verify, error.status, &error);
	plinth_worker_report("comparing", "rows");
	plinth_sync_verify_rows(verify);
	plinth_worker_report("comparing", "documents");
	plinth_sync_verify_documents(verify);
	plinth_sync_verify_indexes(verify);
	plinth_mongo_close(verify->client);
	verify->client = NULL;
}

static void
compare_all(void *arg)
{
	plinth_sync_verify_compare(arg);
	plinth_sync_verify_send(arg, PLINTH_VERIFY_DONE, 0, NULL);
}

/* The backend raises the error in its own name. */
static void
send_error(PlinthVerify *verify, const ErrorData *error)
{
	const char *fields[4] = {unpack_sql_state(error->sqlerrcode), error->message, error->detail,
							 error->hint};

	plinth_sync_verify_send(verify, PLINTH_VERIFY_ERROR, 4, fields);
}

void
plinth_sync_verify_main(Datum arg)
{
	PlinthVerify verify = {0};
	PlinthVerifyHeader *header;
	dsm_segment *segment;
	shm_mq *queue;
	ErrorData *error;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0);
	header = dsm_segment_address(segment);
	queue = (shm_mq *) ((char *) header + PLINTH_VERIFY_QUEUE_OFFSET);
	shm_mq_set_sender(queue, MyProc);
	verify.queue = shm_mq_attach(queue, segment, NULL);
	verify.id = header->mapping;
	verify.run = AllocSetContextCreate(TopMemoryContext, "plinth verify", ALLOCSET_DEFAULT_SIZES);
	verify.page = AllocSetContextCreate(verify.run, "plinth verify page", ALLOCSET_DEFAULT_SIZES);

	/* As every worker that talks to MongoDB. */
	SetConfigOption("client_encoding", "UTF8", PGC_SUSET, PGC_S_OVERRIDE);
	BackgroundWorkerInitializeConnectionByOid(header->database, InvalidOid, 0);
	plinth_sync_verify_settle_session();
	MemoryContextSwitchTo(verify.page);
	error = plinth_worker_try(compare_all, &verify);
	if (error != NULL)
		send_error(&verify, error);
	proc_exit(0);
}
