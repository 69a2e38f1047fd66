/*
 * status.c
 *		The decoder's state in shared memory, and the wake-up after a commit.
 *
 * One entry for each database that has or had a decoder since the server
 * started.  Entries are taken and freed under the part's LWLock and found
 * without it; every field is atomic, read one by one, and written by the one
 * decoder of the database (sleeping is also cleared by who wakes it).
 *
 * Wake-up: the decoder sets sleeping, then looks at the flush position once
 * more, then waits.  A backend has flushed its commit before it looks at
 * sleeping, with a full barrier between.  So either the decoder sees the WAL
 * or the backend sees the flag.  Commits that are not flushed yet
 * (synchronous_commit = off), COMMIT PREPARED, and WAL messages without a
 * transaction are found by polling.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "decode/internal.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/pg_lsn.h"
#include "worker/worker.h"

typedef struct DecodeState
{
	pg_atomic_uint32 attached; /* grows with each entry taken, so that backends look again */
	int nentries;
	PlinthDecodeEntry entries[FLEXIBLE_ARRAY_MEMBER];
} DecodeState;

static DecodeState *state = NULL;
static LWLockPadded *locks = NULL;

/* This backend's database's entry, or none as of kept_attached. */
static PlinthDecodeEntry *kept_entry = NULL;
static uint32 kept_attached = 0;

static PlinthDecodeEntry *
find_entry(Oid database)
{
	for (int i = 0; state != NULL && i < state->nentries; i++)
	{
		if (pg_atomic_read_u32(&state->entries[i].database) == database)
			return &state->entries[i];
	}
	return NULL;
}

static void
detach(int code, Datum arg)
{
	PlinthDecodeEntry *entry = (PlinthDecodeEntry *) DatumGetPointer(arg);

	if (pg_atomic_read_u32(&entry->pid) == (uint32) MyProcPid)
	{
		pg_atomic_write_u32(&entry->sleeping, 0);
		pg_atomic_write_u32(&entry->pid, 0);
	}
}

static void
clear_entry(PlinthDecodeEntry *entry)
{
	pg_atomic_write_u32(&entry->pid, 0);
	pg_atomic_write_u32(&entry->sleeping, 0);
	pg_atomic_write_u64(&entry->decoded, 0);
	pg_atomic_write_u64(&entry->confirmed, 0);
	pg_atomic_write_u64(&entry->generation, 0);
	pg_atomic_write_u64(&entry->slot_generation, 0);
}

PlinthDecodeEntry *
plinth_decode_attach(void)
{
	PlinthDecodeEntry *entry;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = find_entry(MyDatabaseId);
	if (entry == NULL)
	{
		entry = find_entry(InvalidOid);
		if (entry != NULL)
		{
			clear_entry(entry);
			pg_write_barrier();
			pg_atomic_write_u32(&entry->database, MyDatabaseId);
			pg_atomic_fetch_add_u32(&state->attached, 1);
		}
	}
	LWLockRelease(&locks[0].lock);

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all %d databases of \"plinth.max_databases\" are taken", state->nentries),
				 errhint("Raise \"plinth.max_databases\" and restart the server.")));

	pg_atomic_write_u32(&entry->sleeping, 0);
	pg_atomic_write_u64(&entry->generation, 0);
	pg_atomic_write_u32(&entry->pid, (uint32) MyProcPid);
	before_shmem_exit(detach, PointerGetDatum(entry));
	return entry;
}

void
plinth_decode_status(Oid database, PlinthDecodeStatus *status)
{
	PlinthDecodeEntry *entry = OidIsValid(database) ? find_entry(database) : NULL;

	memset(status, 0, sizeof(*status));
	if (entry == NULL)
		return;
	status->pid = (int) pg_atomic_read_u32(&entry->pid);
	status->generation = pg_atomic_read_u64(&entry->generation);
	pg_read_barrier();
	status->slot_generation = pg_atomic_read_u64(&entry->slot_generation);
	status->confirmed = pg_atomic_read_u64(&entry->confirmed);
	status->decoded = pg_atomic_read_u64(&entry->decoded);
}

static void
purge_database(Oid database)
{
	PlinthDecodeEntry *entry;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = find_entry(database);
	if (entry != NULL)
	{
		pg_atomic_write_u32(&entry->database, InvalidOid);
		clear_entry(entry);
	}
	LWLockRelease(&locks[0].lock);
}

/* After every transaction: next to nothing where nothing is decoded. */
static void
wake_decoder(bool committed, bool wrote)
{
	if (!committed || !wrote || state == NULL)
		return;

	if (kept_entry == NULL || pg_atomic_read_u32(&kept_entry->database) != MyDatabaseId)
	{
		uint32 attached = pg_atomic_read_u32(&state->attached);

		if (kept_entry == NULL && attached == kept_attached)
			return;
		kept_attached = attached;
		kept_entry = find_entry(MyDatabaseId);
		if (kept_entry == NULL)
			return;
	}

	pg_memory_barrier();
	if (pg_atomic_read_u32(&kept_entry->sleeping) != 0 &&
		pg_atomic_exchange_u32(&kept_entry->sleeping, 0) != 0)
		plinth_worker_wake(MyDatabaseId, PLINTH_DECODE_SERVICE, -1);
}

PGDLLEXPORT Datum plinth_decode_shared(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_decode_shared);

/* What this database's decoder published: pid, decoded, confirmed, slot_generation. */
Datum
plinth_decode_shared(PG_FUNCTION_ARGS)
{
	PlinthDecodeStatus status;
	TupleDesc desc;
	Datum values[4];
	bool nulls[4];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("function returning record called in context that cannot accept "
							   "type record")));
	plinth_decode_status(MyDatabaseId, &status);
	values[0] = Int32GetDatum(status.pid);
	nulls[0] = status.pid == 0;
	values[1] = LSNGetDatum(status.decoded);
	nulls[1] = XLogRecPtrIsInvalid(status.decoded);
	values[2] = LSNGetDatum(status.confirmed);
	nulls[2] = XLogRecPtrIsInvalid(status.confirmed);
	values[3] = Int64GetDatum((int64) status.slot_generation);
	nulls[3] = status.slot_generation == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

static Size
state_size(void)
{
	return add_size(offsetof(DecodeState, entries),
					mul_size(plinth_setting_max_databases, sizeof(PlinthDecodeEntry)));
}

static void
state_init(void *ptr)
{
	DecodeState *s = ptr;

	pg_atomic_init_u32(&s->attached, 0);
	s->nentries = plinth_setting_max_databases;
	for (int i = 0; i < s->nentries; i++)
	{
		PlinthDecodeEntry *entry = &s->entries[i];

		pg_atomic_init_u32(&entry->database, InvalidOid);
		pg_atomic_init_u32(&entry->pid, 0);
		pg_atomic_init_u32(&entry->sleeping, 0);
		pg_atomic_init_u64(&entry->decoded, 0);
		pg_atomic_init_u64(&entry->confirmed, 0);
		pg_atomic_init_u64(&entry->generation, 0);
		pg_atomic_init_u64(&entry->slot_generation, 0);
	}
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth decode",
	.size = state_size,
	.init = state_init,
	.pointer = (void **) &state,
	.lwlocks = 1,
	.locks = &locks,
};

void
plinth_decode_status_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
	plinth_base_database_on_purge(purge_database);
	plinth_base_xact_on_end(wake_decoder);
}
