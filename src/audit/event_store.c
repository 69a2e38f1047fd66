/*
 * event_store.c
 *		Stores audit events, each once.
 *
 * An event has the id that it was made with, and the primary key of its
 * partition lets it in once: what the decoder is told again after a crash, or
 * what somebody copied, is there already.  Hence the commits need not be
 * flushed one by one; the consumer holds the slot until they are.
 *
 * Whatever keeps an entry out of plinth.audit_entries (a lock that somebody
 * holds, a trigger of somebody's) must neither delay the decoder nor hold WAL
 * back.  So storing waits for no lock longer than a moment, and what fails goes
 * to plinth.audit_pending, a plain table that nobody else uses; from there it
 * is tried again every RETRY_MS.  Meanwhile new events go straight there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "audit/internal.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define LOCK_WAIT "300ms"
#define RETRY_MS 10000
#define WARN_MS 60000
/* How many pending entries are tried in one transaction, and how many may fail in it. */
#define RETRY_ROWS 500
#define RETRY_FAILURES 5

#define ENTRY_ARGS (PLINTH_AUDIT_NCOLUMNS + 1)

/* All of a round in one statement: of each one, most would be its beginning and end. */
static PlinthPlan store_plan = {
	.sql = "INSERT INTO plinth.audit_entries (" PLINTH_AUDIT_COLUMNS ", source_lsn) "
		   "SELECT * FROM unnest(" PLINTH_AUDIT_VALUES ", $16) ON CONFLICT DO NOTHING",
	.nargs = ENTRY_ARGS,
	.argtypes = {UUIDARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
				 UUIDARRAYOID, TEXTARRAYOID, UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, INETARRAYOID,
				 TEXTARRAYOID, NAMEARRAYOID, TEXTARRAYOID, JSONBARRAYOID, PG_LSNARRAYOID},
};
static const Oid entry_types[ENTRY_ARGS] = {PLINTH_AUDIT_TYPES, LSNOID};

static PlinthPlan pend_plan = {
	.sql = "INSERT INTO plinth.audit_pending (" PLINTH_AUDIT_COLUMNS ", source_lsn, reason) "
		   "VALUES (" PLINTH_AUDIT_VALUES ", $16, $17) ON CONFLICT DO NOTHING",
	.nargs = ENTRY_ARGS + 1,
	.argtypes = {PLINTH_AUDIT_TYPES, LSNOID, TEXTOID},
};

/* May there be anything in audit_pending, and from when on is it to be tried? */
static bool pending = false;
static TimestampTz retry_at = 0;
static TimestampTz warned_at = 0;
static char last_reason[256] = "";

typedef void (*Attempt)(void *arg);

/* Sets what holds for this transaction alone. */
static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_OVERRIDE, GUC_ACTION_LOCAL, true, 0,
							 false);
}

/*
 * Runs something in a subtransaction; false, with last_reason and the
 * SQLSTATE, when it failed and was rolled back.
 */
static bool
attempt(Attempt work, void *arg, int *sqlerrcode)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY ()
		;
	{
		work(arg);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH ()
		;
	{
		ErrorData *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(edata);
		strlcpy(last_reason, edata->message, sizeof(last_reason));
		*sqlerrcode = edata->sqlerrcode;
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return done;
}

/* A column of an event; the last is where it stands in the WAL. */
static Datum
column_of(const PlinthAuditEvent *event, int column, bool *null)
{
	if (column < PLINTH_AUDIT_NCOLUMNS)
	{
		*null = event->row.nulls[column];
		return event->row.values[column];
	}
	*null = XLogRecPtrIsInvalid(event->lsn);
	return LSNGetDatum(event->lsn);
}

/* A column of all events, as an array. */
static Datum
column_array(List *events, int column)
{
	int n = list_length(events);
	int lower = 1;
	Datum *values = palloc(sizeof(Datum) * n);
	bool *nulls = palloc(sizeof(bool) * n);
	Oid type = entry_types[column];
	int16 typlen;
	bool typbyval;
	char typalign;

	for (int i = 0; i < n; i++)
		values[i] = column_of(list_nth(events, i), column, &nulls[i]);
	get_typlenbyvalalign(type, &typlen, &typbyval, &typalign);
	return PointerGetDatum(
		construct_md_array(values, nulls, 1, &n, &lower, type, typlen, typbyval, typalign));
}

static void
store_events(void *arg)
{
	List *events = arg;
	Datum values[ENTRY_ARGS];
	ListCell *lc;

	SPI_connect();
	foreach (lc, events)
		plinth_audit_partition_ensure(((const PlinthAuditEvent *) lfirst(lc))->row.recorded_at);
	for (int i = 0; i < ENTRY_ARGS; i++)
		values[i] = column_array(events, i);
	plinth_base_spi_execute(&store_plan, values, NULL, false, SPI_OK_INSERT);
	SPI_finish();
}

/* Writes events down where nothing is in the way. */
static void
pend_events(List *events)
{
	ListCell *lc;

	SPI_connect();
	foreach (lc, events)
	{
		Datum values[ENTRY_ARGS + 1];
		char nulls[ENTRY_ARGS + 1];

		for (int i = 0; i < ENTRY_ARGS; i++)
		{
			bool null;

			values[i] = column_of(lfirst(lc), i, &null);
			nulls[i] = null ? 'n' : ' ';
		}
		values[ENTRY_ARGS] = CStringGetTextDatum(last_reason);
		nulls[ENTRY_ARGS] = ' ';
		plinth_base_spi_execute(&pend_plan, values, nulls, false, SPI_OK_INSERT);
	}
	SPI_finish();
	pending = true;
}

typedef struct PendingEntry
{
	Datum id;
	TimestampTz recorded_at;
} PendingEntry;

static void
move_pending(void *arg)
{
	static PlinthPlan plan = {
		.sql = "WITH gone AS (DELETE FROM plinth.audit_pending"
			   " WHERE id OPERATOR(pg_catalog.=) $1 RETURNING *)"
			   " INSERT INTO plinth.audit_entries (" PLINTH_AUDIT_COLUMNS ", source_lsn)"
			   " SELECT " PLINTH_AUDIT_COLUMNS ", source_lsn FROM gone ON CONFLICT DO NOTHING",
		.nargs = 1,
		.argtypes = {UUIDOID},
	};
	PendingEntry *entry = arg;

	SPI_connect();
	plinth_audit_partition_ensure(entry->recorded_at);
	plinth_base_spi_execute(&plan, &entry->id, NULL, false, SPI_OK_INSERT);
	SPI_finish();
}

static void
note_failure(Datum id)
{
	static PlinthPlan plan = {
		.sql = "UPDATE plinth.audit_pending SET reason = $2,"
			   " tried_at = pg_catalog.clock_timestamp() WHERE id OPERATOR(pg_catalog.=) $1",
		.nargs = 2,
		.argtypes = {UUIDOID, TEXTOID},
	};
	Datum values[2] = {id, CStringGetTextDatum(last_reason)};

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
	SPI_finish();
}

/* Tries pending entries again, those that were tried longest ago first; false when it had to give up. */
static bool
retry_pending(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT id, recorded_at FROM plinth.audit_pending ORDER BY tried_at LIMIT $1",
		.nargs = 1,
		.argtypes = {INT4OID},
	};
	Datum values[1] = {Int32GetDatum(RETRY_ROWS)};
	PendingEntry *entries;
	int n;
	int failures = 0;
	int sqlerrcode = 0;
	MemoryContext caller = CurrentMemoryContext;

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_SELECT);
	n = (int) SPI_processed;
	entries = MemoryContextAlloc(caller, sizeof(PendingEntry) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool isnull;
		HeapTuple row = SPI_tuptable->vals[i];
		pg_uuid_t *id = MemoryContextAlloc(caller, sizeof(pg_uuid_t));

		*id = *DatumGetUUIDP(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		entries[i].id = UUIDPGetDatum(id);
		entries[i].recorded_at =
			DatumGetTimestampTz(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	SPI_finish();

	for (int i = 0; i < n && failures < RETRY_FAILURES; i++)
	{
		if (attempt(move_pending, &entries[i], &sqlerrcode))
			continue;
		note_failure(entries[i].id);
		failures = sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ? RETRY_FAILURES : failures + 1;
	}
	pending = failures > 0 || n == RETRY_ROWS;
	if (failures > 0)
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);
	return failures < RETRY_FAILURES;
}

void
plinth_audit_events_look(void)
{
	pending = true;
	retry_at = 0;
}

static void
warn(int sqlerrcode)
{
	TimestampTz now = GetCurrentTimestamp();

	if (warned_at != 0 && !TimestampDifferenceExceeds(warned_at, now, WARN_MS))
		return;
	warned_at = now;
	ereport(WARNING, (errcode(sqlerrcode),
					  errmsg("plinth could not store audit events of database %u: %s", MyDatabaseId,
							 last_reason),
					  errdetail("They are kept in plinth.audit_pending and tried again every %d s.",
								RETRY_MS / 1000)));
}

/* In a transaction, as plinth_owner. */
static void
store(List *events, bool blocked)
{
	int sqlerrcode = 0;

	if (!blocked && pending)
		blocked = !retry_pending();
	if (events == NIL)
		return;
	if (!blocked)
	{
		if (attempt(store_events, events, &sqlerrcode))
			return;
		retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_MS);
		warn(sqlerrcode);
	}
	pend_events(events);
}

XLogRecPtr
plinth_audit_events_store(List *events, const PlinthAuditEntry *own)
{
	MemoryContext caller = CurrentMemoryContext;
	bool blocked = retry_at != 0 && GetCurrentTimestamp() < retry_at;
	XLogRecPtr before = XactLastCommitEnd;
	PlinthAsOwner owner;
	ListCell *lc;

	if (events == NIL && own == NULL && (blocked || !pending))
		return InvalidXLogRecPtr;
	if (!plinth_worker_transaction_begin())
		return InvalidXLogRecPtr;
	MemoryContextSwitchTo(caller);
	set_local("synchronous_commit", "off");
	set_local("lock_timeout", LOCK_WAIT);
	foreach (lc, events)
	{
		PlinthAuditEvent *event = lfirst(lc);

		plinth_audit_message_open(event->body, event->size, &event->row);
	}
	if (own != NULL)
	{
		PlinthAuditEvent *event = palloc0(sizeof(PlinthAuditEvent));

		plinth_audit_row_fill(&event->row, own);
		events = lappend(events, event);
	}
	plinth_base_owner_begin(&owner);
	store(events, blocked);
	plinth_base_owner_end(&owner);
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);
	return XactLastCommitEnd == before ? InvalidXLogRecPtr : XactLastCommitEnd;
}
