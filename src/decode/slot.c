/*
 * slot.c
 *		This database's slot: what is recorded of it, and what the server has.
 *
 * A slot is no part of a transaction and is not dumped, restored, copied or
 * (before 17) upgraded, while the tables are.  So plinth.decode_state records
 * what should be there:
 *
 *	creating	committed before the slot is made: one that is found was never
 *				used and may be dropped
 *	ready		committed after it was made, with its generation: when there is
 *				none now, or not under this name, it was lost
 *	lost		recorded together with what consumers make of it; nothing is
 *				created until somebody asks
 *	recreate	somebody asked
 *	none		nobody wants a slot: one that is found is dropped
 *
 * ready is left for creating only through lost (in the same transaction when
 * somebody asks before the decoder noticed), or through none.  So no slot
 * ever takes the place of a used one without the consumers being told.
 *
 * Only the decoder records creating, ready and none; it and sessions that ask
 * for a new slot record lost and recreate, each on the state it expects.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "decode/internal.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

static const char *const state_names[] = {
	[PLINTH_SLOT_NONE] = "none", [PLINTH_SLOT_CREATING] = "creating", [PLINTH_SLOT_READY] = "ready",
	[PLINTH_SLOT_LOST] = "lost", [PLINTH_SLOT_RECREATE] = "recreate",
};

const char *
plinth_decode_slot_name(void)
{
	static char name[NAMEDATALEN];

	snprintf(name, sizeof(name), "plinth_%u", MyDatabaseId);
	return name;
}

PlinthSlotHealth
plinth_decode_slot_health(int *pid)
{
	PlinthSlotHealth health = PLINTH_SLOT_ABSENT;
	ReplicationSlot *slot;

	*pid = 0;
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	slot = SearchNamedReplicationSlot(plinth_decode_slot_name(), false);
	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		*pid = slot->active_pid;
		if (slot->data.database != MyDatabaseId ||
			strcmp(NameStr(slot->data.plugin), PLINTH_DECODE_PLUGIN) != 0)
			health = PLINTH_SLOT_FOREIGN;
		else if (plinth_compat_slot_invalidated(slot))
			health = PLINTH_SLOT_INVALID;
		else
			health = PLINTH_SLOT_HEALTHY;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
	return health;
}

void
plinth_decode_slot_read(PlinthSlotRecord *record)
{
	static PlinthPlan plan = {
		.sql = "SELECT state, slot_name, slot_generation, lost_reason FROM plinth.decode_state",
	};
	MemoryContext caller = CurrentMemoryContext;
	PlinthAsOwner as_owner;

	memset(record, 0, sizeof(*record));
	record->state = PLINTH_SLOT_NONE;

	plinth_base_owner_begin(&as_owner);
	SPI_connect();
	/* Not read-only: what this transaction recorded itself must be seen. */
	(void) plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		HeapTuple row = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *state = SPI_getvalue(row, desc, 1);
		char *reason = SPI_getvalue(row, desc, 4);
		bool isnull;

		for (int i = 0; i < lengthof(state_names); i++)
		{
			if (strcmp(state, state_names[i]) == 0)
				record->state = (PlinthSlotState) i;
		}
		namestrcpy(&record->slot_name, SPI_getvalue(row, desc, 2));
		record->generation = (uint64) DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
		if (reason != NULL)
			record->reason = MemoryContextStrdup(caller, reason);
	}
	SPI_finish();
	plinth_base_owner_end(&as_owner);
}

uint64
plinth_decode_slot_ready(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT slot_generation FROM plinth.decode_state"
			   " WHERE state OPERATOR(pg_catalog.=) 'ready'"
			   " AND slot_name OPERATOR(pg_catalog.=) $1",
		.nargs = 1,
		.argtypes = {NAMEOID},
	};
	PlinthAsOwner as_owner;
	NameData name;
	Datum values[1];
	uint64 generation = 0;
	bool isnull;
	int pid;

	if (plinth_decode_slot_health(&pid) != PLINTH_SLOT_HEALTHY)
		return 0;
	namestrcpy(&name, plinth_decode_slot_name());
	values[0] = NameGetDatum(&name);
	plinth_base_owner_begin(&as_owner);
	SPI_connect();
	plinth_base_spi_select_latest(&plan, values);
	if (SPI_processed == 1)
		generation = (uint64) DatumGetInt64(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	plinth_base_owner_end(&as_owner);
	return generation;
}

/* Runs a statement on the recorded state as plinth_owner; returns how many rows it met. */
static uint64
execute(PlinthPlan *plan, Datum *values, const char *nulls)
{
	PlinthAsOwner as_owner;
	uint64 processed;

	plinth_base_owner_begin(&as_owner);
	SPI_connect();
	(void) plinth_base_spi_execute(plan, values, nulls, false, 0);
	processed = SPI_processed;
	SPI_finish();
	plinth_base_owner_end(&as_owner);
	return processed;
}

void
plinth_decode_slot_record(PlinthSlotRecord *record, PlinthSlotState state)
{
	static PlinthPlan plan = {
		.sql =
			"INSERT INTO plinth.decode_state AS d (state, slot_name, slot_generation, created_at)"
			" VALUES ($1, $2, $3, CASE WHEN $1 = 'ready' THEN pg_catalog.now() END)"
			" ON CONFLICT (singleton) DO UPDATE SET state = excluded.state,"
			" slot_name = excluded.slot_name, slot_generation = excluded.slot_generation,"
			" created_at = excluded.created_at, lost_at = NULL, lost_reason = NULL",
		.nargs = 3,
		.argtypes = {TEXTOID, NAMEOID, INT8OID},
	};
	Datum values[3];

	/*
	 * By the clock, so that neither a restored copy nor an extension that was
	 * created anew uses a number again that the far side may remember.
	 */
	if (state == PLINTH_SLOT_CREATING)
		record->generation =
			Max(record->generation + 1,
				(uint64) (GetCurrentTimestamp() / 1000 +
						  (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000));
	record->state = state;
	namestrcpy(&record->slot_name, plinth_decode_slot_name());
	values[0] = CStringGetTextDatum(state_names[state]);
	values[1] = NameGetDatum(&record->slot_name);
	values[2] = Int64GetDatum((int64) record->generation);
	(void) execute(&plan, values, NULL);
}

static char *
loss_reason(const PlinthSlotRecord *record, PlinthSlotHealth health)
{
	if (strcmp(NameStr(record->slot_name), plinth_decode_slot_name()) != 0)
		return psprintf("this database is a copy: its slot was \"%s\"", NameStr(record->slot_name));
	switch (health)
	{
		case PLINTH_SLOT_ABSENT:
			return psprintf("replication slot \"%s\" does not exist", NameStr(record->slot_name));
		case PLINTH_SLOT_FOREIGN:
			return psprintf("replication slot \"%s\" was replaced by another one",
							NameStr(record->slot_name));
		case PLINTH_SLOT_INVALID:
		case PLINTH_SLOT_HEALTHY:
			break;
	}
	return psprintf("replication slot \"%s\" was invalidated", NameStr(record->slot_name));
}

void
plinth_decode_slot_record_loss(PlinthSlotRecord *record, PlinthSlotHealth health)
{
	static PlinthPlan plan = {
		.sql = "UPDATE plinth.decode_state SET state = 'lost', lost_at = pg_catalog.now(),"
			   " lost_reason = $1 WHERE state = 'ready'",
		.nargs = 1,
		.argtypes = {TEXTOID},
	};
	Datum values[1];

	record->reason = loss_reason(record, health);
	record->state = PLINTH_SLOT_LOST;
	values[0] = CStringGetTextDatum(record->reason);
	if (execute(&plan, values, NULL) == 0)
		return;
	/* Callbacks run statements: let them see this one's. */
	CommandCounterIncrement();
	plinth_decode_tell_lost(record->reason);
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
}

bool
plinth_decode_request_slot(void)
{
	static PlinthPlan plan = {
		.sql =
			"UPDATE plinth.decode_state SET state = 'recreate' WHERE state IN ('lost', 'recreate')",
	};
	PlinthSlotRecord record;
	PlinthSlotHealth health;
	int pid;

	plinth_decode_slot_read(&record);
	if (record.state == PLINTH_SLOT_READY)
	{
		health = plinth_decode_slot_health(&pid);
		if (health != PLINTH_SLOT_HEALTHY ||
			strcmp(NameStr(record.slot_name), plinth_decode_slot_name()) != 0)
			plinth_decode_slot_record_loss(&record, health);
	}
	if (execute(&plan, NULL, NULL) == 0)
		return false;
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
	return true;
}

PGDLLEXPORT Datum plinth_decode_request_slot_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_decode_request_slot_sql);

Datum
plinth_decode_request_slot_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(plinth_decode_request_slot());
}

void
plinth_decode_slot_drop(void)
{
	int pid;
	PlinthSlotHealth health = plinth_decode_slot_health(&pid);

	Assert(MyReplicationSlot == NULL);
	if (health == PLINTH_SLOT_ABSENT || health == PLINTH_SLOT_FOREIGN)
		return;
	ReplicationSlotDrop(plinth_decode_slot_name(), true);
	ereport(LOG, (errmsg("plinth dropped replication slot \"%s\"", plinth_decode_slot_name())));
}

bool
plinth_decode_slot_cleanup(void)
{
	int pid;
	PlinthSlotHealth health = plinth_decode_slot_health(&pid);

	if (health == PLINTH_SLOT_ABSENT || health == PLINTH_SLOT_FOREIGN)
		return true;
	if (pid != 0)
		return false;
	plinth_decode_slot_drop();
	return true;
}
