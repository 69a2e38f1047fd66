/*
 * change.c
 *		Changes of what sessions depend on, made known to every backend at commit;
 *		store.c says why that is enough.
 *
 * Triggers tell, ENABLE ALWAYS, so that an UPDATE by hand, a cascade and a
 * replica's apply count as much as the API.  A transaction remembers the slots
 * of the users that it changed, as bits of a map.  Those of a subtransaction that
 * rolled back are kept: a slot too many costs others a look into the tables.
 * There is one action at most, pending as long as a change may survive; what is
 * marked once it has reserved goes in flux at once.
 *
 * A change of last_active_at by hand replaces what memory knows of it: that
 * session is forgotten after commit.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "session/store.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PGDLLEXPORT Datum plinth_session_user_changed(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_changed(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_truncated(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_user_changed);
PG_FUNCTION_INFO_V1(plinth_session_changed);
PG_FUNCTION_INFO_V1(plinth_session_truncated);

/* This transaction's; in TopTransactionContext. */
static uint64 *marked = NULL; /* a bit for each slot; NULL: none */
static bool pending = false;  /* the action is */
static bool reserved = false;

bool plinth_session_writing = false;

bool
plinth_session_changed_here(void)
{
	return pending;
}

static int
map_words(void)
{
	return plinth_session_store->nslots / 64;
}

static void
for_each_marked(void (*visit)(PlinthSessionSlot *slot, uint64 number), uint64 number)
{
	for (int word = 0; marked != NULL && word < map_words(); word++)
	{
		uint64 bits = marked[word];

		while (bits != 0)
		{
			visit(plinth_session_slot(word * 64 + pg_rightmost_one_pos64(bits)), number);
			bits &= bits - 1;
		}
	}
}

static void
begin_flux(PlinthSessionSlot *slot, uint64 number)
{
	pg_atomic_fetch_add_u32(&slot->flux, 1);
}

static void
end_flux(PlinthSessionSlot *slot, uint64 number)
{
	pg_atomic_fetch_sub_u32(&slot->flux, 1);
}

static void
move(PlinthSessionSlot *slot, uint64 number)
{
	uint64 old = pg_atomic_read_u64(&slot->moved);

	while (old < number && !pg_atomic_compare_exchange_u64(&slot->moved, &old, number))
		;
	end_flux(slot, number);
}

static void
reserve(void *arg)
{
	reserved = true;
	for_each_marked(begin_flux, 0);
}

static void
publish(void *arg)
{
	for_each_marked(move, pg_atomic_add_fetch_u64(&plinth_session_store->sequence, 1));
	marked = NULL;
}

static void
discard(void *arg)
{
	pending = false;
	if (!reserved)
		return; /* perhaps of a subtransaction only */
	for_each_marked(end_flux, 0);
	marked = NULL;
}

static const PlinthXactAction change_action = {
	.name = "sessions changed",
	.reserve = reserve,
	.publish = publish,
	.discard = discard,
	.shared = true,
};

/* The map's memory goes with the transaction. */
static void
end_transaction(bool committed, bool wrote)
{
	marked = NULL;
	pending = false;
	reserved = false;
}

/* What depends on this user changes when the transaction commits. */
static void
mark(const pg_uuid_t *user_id)
{
	uint32 slot = plinth_session_slot_of(MyDatabaseId, user_id);
	uint64 bit = UINT64CONST(1) << (slot % 64);

	if (marked == NULL)
		marked = MemoryContextAllocZero(TopTransactionContext, map_words() * sizeof(uint64));
	if (!pending)
	{
		plinth_base_xact_add(&change_action, NULL);
		pending = true;
	}
	if ((marked[slot / 64] & bit) != 0)
		return;
	marked[slot / 64] |= bit;
	if (reserved)
		begin_flux(plinth_session_slot(slot), 0);
}

static void
publish_forget(void *arg)
{
	plinth_session_store_forget(arg);
}

static const PlinthXactAction forget_action = {
	.name = "use of a session changed by hand",
	.reserve = NULL,
	.publish = publish_forget,
	.discard = NULL,
	.shared = true,
};

/* -------------------------------------------------------------------------
 * Triggers
 * -------------------------------------------------------------------------
 */
static int
column_number(const TriggerData *data, const char *name)
{
	int number = SPI_fnumber(RelationGetDescr(data->tg_relation), name);

	if (number <= 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" does not exist in \"%s\"", name,
							   RelationGetRelationName(data->tg_relation))));
	return number;
}

/* Marks the user whom a row names, if it names one. */
static void
mark_user(const TriggerData *data, HeapTuple tuple, int column)
{
	bool null;
	Datum user_id = heap_getattr(tuple, column, RelationGetDescr(data->tg_relation), &null);

	if (!null)
		mark(DatumGetUUIDP(user_id));
}

static bool
differs(const TriggerData *data, const char *name)
{
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	int number = column_number(data, name);
	Form_pg_attribute attribute = TupleDescAttr(desc, number - 1);
	bool old_null;
	bool new_null;
	Datum old = heap_getattr(data->tg_trigtuple, number, desc, &old_null);
	Datum new = heap_getattr(data->tg_newtuple, number, desc, &new_null);

	if (old_null || new_null)
		return old_null != new_null;
	return !datumIsEqual(old, new, attribute->attbyval, attribute->attlen);
}

/*
 * After each row; the first argument names the column that holds a user's id,
 * the others, if there are any, the only ones whose UPDATE counts.
 */
Datum
plinth_session_user_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_session_user_changed");
	char **arguments = data->tg_trigger->tgargs;
	int n = data->tg_trigger->tgnargs;
	int column = column_number(data, n > 0 ? arguments[0] : "user_id");
	bool counts = n <= 1 || !TRIGGER_FIRED_BY_UPDATE(data->tg_event);

	for (int i = 1; i < n && !counts; i++)
		counts = differs(data, arguments[i]);
	if (!counts)
		PG_RETURN_POINTER(NULL);
	mark_user(data, data->tg_trigtuple, column);
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		mark_user(data, data->tg_newtuple, column);
	PG_RETURN_POINTER(NULL);
}

/* After each row of plinth.sessions that is updated or deleted. */
Datum
plinth_session_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_session_changed");
	int column;

	/* What memory knows already. */
	if (plinth_session_writing)
		PG_RETURN_POINTER(NULL);
	column = column_number(data, "user_id");
	mark_user(data, data->tg_trigtuple, column);
	if (!TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		PG_RETURN_POINTER(NULL);
	mark_user(data, data->tg_newtuple, column);
	if (differs(data, "last_active_at"))
	{
		pg_uuid_t *id = MemoryContextAlloc(TopTransactionContext, sizeof(pg_uuid_t));
		bool null;

		*id = *DatumGetUUIDP(heap_getattr(data->tg_trigtuple, column_number(data, "id"),
										  RelationGetDescr(data->tg_relation), &null));
		plinth_base_xact_add(&forget_action, id);
	}
	PG_RETURN_POINTER(NULL);
}

/* After TRUNCATE of any of the tables. */
Datum
plinth_session_truncated(PG_FUNCTION_ARGS)
{
	static const pg_uuid_t nobody = {{0}};

	(void) plinth_base_trigger_data(fcinfo, "_session_truncated");
	plinth_base_generation_touch(PLINTH_GEN_SESSION);
	/* So that this transaction reads the tables. */
	mark(&nobody);
	PG_RETURN_POINTER(NULL);
}

void
plinth_session_change_init(void)
{
	plinth_base_xact_on_end(end_transaction);
}
