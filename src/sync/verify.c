/*
 * verify.c
 *		sync_verify(): the backend's half.
 *
 * A backend never talks to MongoDB, so it starts a background worker that
 * does, and returns what comes through the queue.  The worker ends with the
 * segment: when this statement is cancelled, times out, or its backend goes,
 * the segment is detached and that terminates the worker.  The other way
 * round, a queue without a sender tells that the worker has gone.
 *
 * The worker sees only what is committed, and waits for the engine to deliver
 * it, while the engine may wait for writers.  So the caller's transaction must
 * not have written anything: it would wait for itself.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "sync/api_int.h"
#include "sync/index_int.h"
#include "sync/verify_int.h"

extern PGDLLEXPORT Datum plinth_sync_verify(PG_FUNCTION_ARGS);

#define REPAIR_CHUNK 1000

static void
end_worker(dsm_segment *segment, Datum arg)
{
	BackgroundWorkerHandle *handle = (BackgroundWorkerHandle *) DatumGetPointer(arg);

	TerminateBackgroundWorker(handle);
	pfree(handle);
}

/* Starts the worker and returns the queue that it writes to. */
static shm_mq_handle *
start_worker(int64 mapping, dsm_segment **segment)
{
	PlinthVerifyHeader *header;
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	MemoryContext old;
	shm_mq *queue;
	bool registered;

	*segment = dsm_create(PLINTH_VERIFY_QUEUE_OFFSET + PLINTH_VERIFY_QUEUE_SIZE, 0);
	header = dsm_segment_address(*segment);
	header->database = MyDatabaseId;
	header->mapping = mapping;
	queue = shm_mq_create((char *) header + PLINTH_VERIFY_QUEUE_OFFSET, PLINTH_VERIFY_QUEUE_SIZE);
	shm_mq_set_receiver(queue, MyProc);

	strlcpy(worker.bgw_name, "plinth verify", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "plinth verify", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "plinth", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "plinth_sync_verify_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(*segment));
	worker.bgw_notify_pid = MyProcPid;

	/* Detaching may come after the memory of this transaction has gone. */
	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(old);
	if (!registered)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("no background worker is free"),
						errhint("Raise \"max_worker_processes\" and restart the server.")));
	on_dsm_detach(*segment, end_worker, PointerGetDatum(handle));
	return shm_mq_attach(queue, *segment, handle);
}

/* The fields of a message, as plinth_sync_verify_send wrote them. */
static void
take_fields(StringInfo message, const char **fields)
{
	for (int i = 0; i < PLINTH_VERIFY_MAX_FIELDS; i++)
		fields[i] = message->cursor < message->len && pq_getmsgbyte(message) != 0
						? pq_getmsgrawstring(message)
						: NULL;
}

static void
raise_error(const char **fields)
{
	const char *state = fields[0];

	ereport(ERROR, (errcode(MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4])),
					errmsg("%s", fields[1]), fields[2] == NULL ? 0 : errdetail("%s", fields[2]),
					fields[3] == NULL ? 0 : errhint("%s", fields[3])));
}

/* A key as sync_resync takes it: the value itself, or the array literal of several. */
static char *
key_for_people(const PlinthSyncTarget *target, const char *literal)
{
	uint32 len;

	return target->nkeys == 1 ? plinth_sync_key_parse(1, literal, &len) : pstrdup(literal);
}

static void
add_difference(ReturnSetInfo *result, const PlinthSyncTarget *target, const char **fields)
{
	Datum values[3] = {0};
	bool nulls[3] = {false};

	nulls[0] = fields[0] == NULL;
	if (!nulls[0])
		values[0] = CStringGetTextDatum(key_for_people(target, fields[0]));
	values[1] = CStringGetTextDatum(fields[1]);
	nulls[2] = fields[2] == NULL;
	if (!nulls[2])
		values[2] = CStringGetTextDatum(fields[2]);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* Reads the queue to its end. */
static void
collect(shm_mq_handle *queue, ReturnSetInfo *result, const PlinthSyncTarget *target)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "plinth verify", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (;;)
	{
		const char *fields[PLINTH_VERIFY_MAX_FIELDS];
		StringInfoData message;
		Size len;
		void *data;
		int kind;

		MemoryContextReset(context);
		if (shm_mq_receive(queue, &len, &data, false) != SHM_MQ_SUCCESS)
			ereport(ERROR, (errcode(ERRCODE_OPERATOR_INTERVENTION),
							errmsg("the worker that compares ended before it was done"),
							errhint("See the server's log for the reason.")));
		initStringInfo(&message);
		appendBinaryStringInfo(&message, data, len);
		kind = pq_getmsgbyte(&message);
		take_fields(&message, fields);
		if (kind == PLINTH_VERIFY_DONE)
			break;
		if (kind == PLINTH_VERIFY_ERROR)
			raise_error(fields);
		if (kind == PLINTH_VERIFY_UNDECLARED)
		{
			ereport(NOTICE, (errmsg("index \"%s\" of collection \"%s\" is not declared", fields[1],
									fields[0])));
			continue;
		}
		add_difference(result, target, fields);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* The array literal of a key that key_for_people wrote. */
static char *
key_literal(const PlinthSyncTarget *target, const char *key)
{
	return target->nkeys == 1 ? plinth_sync_key_literal(1, key, strlen(key) + 1) : pstrdup(key);
}

static void
mark(const PlinthSyncTarget *target, Datum *keys, int n)
{
	PlinthSyncApi api;

	if (n == 0)
		return;
	plinth_sync_api_begin(&api);
	plinth_sync_api_mark(
		target->id, PointerGetDatum(construct_array(keys, n, TEXTOID, -1, false, TYPALIGN_INT)));
	plinth_sync_api_end(&api);
}

/* Those that MongoDB does not have are made; those that differ are not touched. */
static void
make_indexes(const PlinthSyncTarget *target)
{
	PlinthSyncApi api;

	plinth_sync_api_begin(&api);
	plinth_sync_indexes_doubt(target->id);
	plinth_sync_api_end(&api);
}

/* Marks what was found to be written again, in portions. */
static void
mark_differences(ReturnSetInfo *result, const PlinthSyncTarget *target)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "plinth repair", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(result->setDesc, &TTSOpsMinimalTuple);
	Datum *keys = palloc(sizeof(Datum) * REPAIR_CHUNK);
	int n = 0;

	tuplestore_rescan(result->setResult);
	while (tuplestore_gettupleslot(result->setResult, true, false, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool isnull;
		Datum key = slot_getattr(slot, 1, &isnull);

		if (!isnull)
			keys[n++] = CStringGetTextDatum(key_literal(target, TextDatumGetCString(key)));
		MemoryContextSwitchTo(old);
		if (n < REPAIR_CHUNK)
			continue;
		mark(target, keys, n);
		MemoryContextReset(context);
		n = 0;
	}
	mark(target, keys, n);
	make_indexes(target);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_rescan(result->setResult);
	MemoryContextDelete(context);
	pfree(keys);
}

PG_FUNCTION_INFO_V1(plinth_sync_verify);
Datum
plinth_sync_verify(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	bool repair = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;
	dsm_segment *segment;
	shm_mq_handle *queue;
	Oid mappings = get_relname_relid("sync_mappings", plinth_base_schema_oid());

	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("sync_verify() cannot run on a standby"),
						errhint("Call it on the primary.")));
	if (repair)
		PreventCommandIfReadOnly("sync_verify() with repair");
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						errmsg("sync_verify() cannot run in a transaction that has written"),
						errdetail("It waits until what is committed has been delivered."),
						errhint("COMMIT first.")));
	InitMaterializedSRF(fcinfo, 0);
	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, false, &target);
	plinth_sync_api_end(&api);

	/* One worker for a mapping: those of the engine need places too. */
	LockDatabaseObject(mappings, (Oid) target.id, 0, ExclusiveLock);
	queue = start_worker(target.id, &segment);
	collect(queue, result, &target);
	dsm_detach(segment);
	UnlockDatabaseObject(mappings, (Oid) target.id, 0, ExclusiveLock);
	if (repair)
		mark_differences(result, &target);
	return (Datum) 0;
}
