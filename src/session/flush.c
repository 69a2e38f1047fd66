/*
 * flush.c
 *		The service of a database's sessions: writes when they were last in use,
 *		and deletes those that ended long ago; the use of API keys as well.
 *
 * Shared memory knows of each use at once; the table learns it every
 * plinth.session_flush_interval, or sooner when memory has no room for sessions
 * whose use is not written.  A clean stop writes it too; a crash forgets what was
 * not written.  A row that somebody has locked is left for the next time, so that a flush waits for
 * nobody; what memory knows is marked as written only once that has committed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "session/store.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define BATCH 1000
/* No stop waits longer for what is written last. */
#define LAST_FLUSH_MS 1000

PGDLLEXPORT Datum plinth_session_flush(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_flush);

/* Those that are returned need no more writing. */
static PlinthPlan write_plan = {
	.sql =
		"WITH d AS (SELECT d.id, d.at FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) "
		"AS d (id, at)), "
		"l AS (SELECT s.id, d.at FROM d JOIN plinth.sessions s ON s.id = d.id "
		"WHERE s.last_active_at < d.at AND s.revoked_at IS NULL FOR NO KEY UPDATE OF s SKIP "
		"LOCKED), u AS (UPDATE plinth.sessions s SET last_active_at = l.at FROM l WHERE s.id = "
		"l.id RETURNING s.id) "
		"SELECT d.id, d.at, u.id IS NOT NULL FROM d LEFT JOIN u ON u.id = d.id "
		"WHERE u.id IS NOT NULL OR NOT EXISTS (SELECT FROM plinth.sessions s WHERE s.id = d.id "
		"AND s.last_active_at < d.at AND s.revoked_at IS NULL)",
	.nargs = 2,
	.argtypes = {UUIDARRAYOID, TIMESTAMPTZARRAYOID},
};
static PlinthPlan purge_plan = {
	.sql = "DELETE FROM plinth.sessions WHERE id IN (SELECT s.id FROM plinth.sessions s "
		   "WHERE s.expires_at < $1 OR s.revoked_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, INT4OID},
};

typedef struct Used
{
	pg_uuid_t id;
	TimestampTz at;
} Used;

/* What a transaction wrote. */
typedef struct Written
{
	int n;
	Used used[FLEXIBLE_ARRAY_MEMBER];
} Written;

static void
publish(void *arg)
{
	const Written *written = arg;

	for (int i = 0; i < written->n; i++)
		plinth_session_store_written(&written->used[i].id, written->used[i].at);
}

static const PlinthXactAction written_action = {
	.name = "use of sessions",
	.reserve = NULL,
	.publish = publish,
	.discard = NULL,
	.shared = true,
};

/* Collects sessions of this database whose use is not written, from an entry on. */
static int
collect(uint32 *number, Used *used)
{
	uint32 end = PLINTH_SESSION_PARTITIONS * plinth_session_store->nentries;
	int n = 0;

	while (*number < end && n < BATCH)
	{
		uint32 p = *number / plinth_session_store->nentries;
		uint32 first = p * plinth_session_store->nentries;
		LWLock *lock = plinth_session_partition_lock(p);

		LWLockAcquire(lock, LW_SHARED);
		for (; *number < first + plinth_session_partition(p)->fresh && n < BATCH; (*number)++)
		{
			PlinthSessionEntry *entry = plinth_session_entry(*number);
			TimestampTz at = (TimestampTz) pg_atomic_read_u64(&entry->last_active);

			if (entry->database != MyDatabaseId || at <= entry->written)
				continue;
			used[n].id = entry->id;
			used[n++].at = at;
		}
		if (*number >= first + plinth_session_partition(p)->fresh)
			*number = first + plinth_session_store->nentries;
		LWLockRelease(lock);
	}
	return n;
}

/* Writes a batch in the running transaction; returns how many rows that were. */
static int64
write_batch(const Used *used, int n)
{
	Datum *ids = palloc(n * sizeof(Datum));
	Datum *times = palloc(n * sizeof(Datum));
	Written *written =
		MemoryContextAlloc(TopTransactionContext, offsetof(Written, used) + n * sizeof(Used));
	Datum values[2];
	int64 rows = 0;
	bool null;

	for (int i = 0; i < n; i++)
	{
		ids[i] = UUIDPGetDatum(&used[i].id);
		times[i] = TimestampTzGetDatum(used[i].at);
	}
	values[0] = PointerGetDatum(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	values[1] = PointerGetDatum(construct_array(times, n, TIMESTAMPTZOID, sizeof(TimestampTz),
												FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	plinth_base_spi_write(&write_plan, values, SPI_OK_SELECT, &plinth_session_writing);

	written->n = (int) SPI_processed;
	for (int i = 0; i < written->n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;

		written->used[i].id = *DatumGetUUIDP(SPI_getbinval(tuple, desc, 1, &null));
		written->used[i].at = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 2, &null));
		rows += DatumGetBool(SPI_getbinval(tuple, desc, 3, &null));
	}
	plinth_base_xact_add(&written_action, written);
	return rows;
}

/* Writes a batch, from an entry on; false when there was nothing left to write. */
static bool
flush_some(uint32 *number, int64 *rows)
{
	Used *used = palloc(BATCH * sizeof(Used));
	int n = collect(number, used);
	PlinthAsOwner owner;

	if (n == 0)
		return false;
	SPI_connect();
	plinth_base_owner_begin(&owner);
	*rows += write_batch(used, n);
	plinth_base_owner_end(&owner);
	SPI_finish();
	return true;
}

/* plinth.session_flush(): all of it, in the caller's transaction. */
Datum
plinth_session_flush(PG_FUNCTION_ARGS)
{
	uint32 number = 0;
	int64 rows = 0;

	PreventCommandIfReadOnly("plinth.session_flush()");
	while (flush_some(&number, &rows))
		CHECK_FOR_INTERRUPTS();
	PG_RETURN_INT64(rows);
}

/* -------------------------------------------------------------------------
 * The service
 * -------------------------------------------------------------------------
 */
/* A batch in a transaction of its own; false when there was none, or the worker must end. */
static bool
flush_batch(uint32 *number, bool *goes_on)
{
	int64 rows = 0;
	bool more;

	*goes_on = plinth_worker_transaction_begin();
	if (!*goes_on)
		return false;
	more = flush_some(number, &rows);
	plinth_worker_transaction_end();
	return more;
}

/* Deletes some of those that ended long ago; as above. */
static bool
purge_batch(bool *goes_on)
{
	Datum values[2];
	bool more;

	*goes_on = plinth_worker_transaction_begin();
	if (!*goes_on)
		return false;
	values[0] = TimestampTzGetDatum(GetCurrentTimestamp() -
									plinth_setting_session_retention * USECS_PER_SEC);
	values[1] = Int32GetDatum(BATCH);
	SPI_connect();
	plinth_base_spi_execute(&purge_plan, values, NULL, false, SPI_OK_DELETE);
	more = SPI_processed == BATCH;
	SPI_finish();
	plinth_worker_transaction_end();
	return more;
}

/* When API keys were last used; false when the worker must end. */
static bool
flush_api_keys(void)
{
	if (!plinth_worker_transaction_begin())
		return false;
	(void) plinth_identity_api_key_flush();
	plinth_worker_transaction_end();
	return true;
}

/* False when the worker must end. */
static bool
work(bool flush, bool purge)
{
	TimestampTz begin = GetCurrentTimestamp();
	uint32 number = 0;
	bool on = true;

	while (flush && flush_batch(&number, &on) && on)
	{
		CHECK_FOR_INTERRUPTS();
		if (plinth_worker_stopping() &&
			TimestampDifferenceExceeds(begin, GetCurrentTimestamp(), LAST_FLUSH_MS))
			break;
	}
	if (flush && on)
		on = flush_api_keys();
	while (purge && on && !plinth_worker_stopping() && purge_batch(&on))
		CHECK_FOR_INTERRUPTS();
	plinth_worker_report("running", NULL);
	return on;
}

static bool
pressed(void)
{
	return pg_atomic_exchange_u32(&plinth_session_store->pressed, 0) != 0;
}

static void
session_main(int instance)
{
	static const PlinthUpkeep upkeep = {
		.interval = &plinth_setting_session_flush_interval,
		.pressed = pressed,
		.work = work,
		.failure = "plinth could not look after sessions",
		.flush_at_end = true,
	};

	plinth_worker_upkeep(&upkeep);
}

/* While there is a session, or an API key, in this database. */
static int
session_wanted(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT WHERE EXISTS (SELECT FROM plinth.sessions) "
			   "OR EXISTS (SELECT FROM plinth.api_keys)",
	};

	return plinth_base_spi_finds(&plan) ? 1 : 0;
}

static const PlinthService session_service = {
	.name = "session",
	.group = NULL,
	.wanted = session_wanted,
	.main = session_main,
	.numbered = false,
	.standby = false,
};

void
plinth_session_flush_init(void)
{
	plinth_worker_service_declare(&session_service);
}
