/*
 * meter_flush.c
 *		From shared memory to the table, exactly once.
 *
 * A flush is one transaction: it takes what is pending (which from then on is
 * in flight, under its transaction id), adds it to the rows, and commits.  What
 * becomes of the amounts in memory is decided by callbacks of that transaction,
 * not by code that runs after it: an ERROR, a FATAL, or a signal between the
 * last statement and the commit rolls back and gives the amounts back; once the
 * commit is recorded PostgreSQL lets nothing come before the callbacks.  A
 * crash loses the memory as a whole: what was committed is in the table, and
 * what was not is lost, at most what was counted in plinth.meter_flush_interval
 * and the time that a flush takes.  Where amounts are in flight is kept to the
 * end of the transaction; its callback is pending before the first is taken.
 *
 * One flush at a time in each database, by a lock that lasts to the end of the
 * transaction.  The service does not wait for it, nor long for anybody's row:
 * it tries again at its next turn.
 *
 * After a clean stop, what no flush has written stands in a file: meter_save.c.
 */
#include "postgres.h"

#include "catalog/pg_extension.h"
#include "catalog/pg_type.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "worker/worker.h"

/* Distinguishes our lock from those on the extension itself. */
#define FLUSH_LOCK 1
/* Less than PostgreSQL's least deadlock_timeout that anybody uses: we give way. */
#define LOCK_TIMEOUT "500ms"
/* So many rows whose time is over are deleted at a time. */
#define PURGE_ROWS 10000

static void
written(void *arg)
{
	plinth_limits_meter_taken_written(arg);
}

static void
taken_back(void *arg)
{
	plinth_limits_meter_taken_back(arg);
}

static const PlinthXactAction flush_action = {
	.name = "flush of meters",
	.reserve = NULL,
	.publish = written,
	.discard = taken_back,
	.shared = true,
};

static bool
lock_flush(bool wait)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, plinth_base_extension_oid(),
					   FLUSH_LOCK);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
write_batch(const PlinthMeterBatch *batch)
{
	MemoryContext context =
		AllocSetContextCreate(CurrentMemoryContext, "plinth flush", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	PlinthMeterRows rows;

	plinth_limits_meter_rows_init(&rows, batch->flights->n);
	for (int i = 0; i < batch->flights->n; i++)
	{
		const PlinthMeterTaken *taken = &batch->taken[i];
		const char *text = batch->text + taken->text;
		PlinthMeterKey key = {.key = text,
							  .keylen = taken->keylen,
							  .dimension = text + taken->keylen,
							  .dimlen = taken->dimlen};

		plinth_limits_meter_rows_add(&rows, taken->meter, &key, taken->period, taken->start,
									 plinth_limits_meter_numeric(taken->amount, taken->scale));
	}
	plinth_limits_meter_rows_write(&rows, true);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

int64
plinth_limits_meter_flush(bool wait)
{
	PlinthMeterBatch *batch;
	int64 amounts = 0;

	if (!lock_flush(wait))
		return -1;
	batch = palloc(sizeof(PlinthMeterBatch));
	do
	{
		PlinthMeterFlights *flights =
			MemoryContextAllocZero(TopTransactionContext, sizeof(PlinthMeterFlights));

		flights->xid = GetCurrentTransactionId();
		plinth_base_xact_add(&flush_action, flights);
		plinth_limits_meter_take(batch, flights);
		amounts += flights->n;
		if (flights->n > 0)
			write_batch(batch);
		CHECK_FOR_INTERRUPTS();
	} while (batch->more);
	pfree(batch);
	return amounts;
}

/* Deletes rows that a meter's retention keeps no longer; true when there may be more. */
static bool
purge_rows(void)
{
	static PlinthPlan plan = {
		.sql = "DELETE FROM plinth.meter_usage u WHERE u.ctid = ANY (ARRAY(SELECT o.ctid FROM "
			   "plinth.meters m JOIN plinth.meter_usage o ON o.meter_id = m.id AND o.period IN "
			   "('minute', 'hour', 'day') AND o.period_start < clock_timestamp() - m.retention "
			   "WHERE m.retention IS NOT NULL LIMIT $1))",
		.nargs = 1,
		.argtypes = {INT4OID},
	};
	Datum values[1] = {Int32GetDatum(PURGE_ROWS)};
	bool more;

	SPI_connect();
	/* No base is of a period that is over. */
	plinth_base_spi_write(&plan, values, SPI_OK_DELETE, &plinth_limits_meter_writing);
	more = SPI_processed == PURGE_ROWS;
	SPI_finish();
	return more;
}

/* False when the worker must end.  What fails waits in memory for the next turn. */
static bool
work(bool flush, bool purge)
{
	if (flush && plinth_limits_meter_has_pending())
	{
		bool mine;

		if (!plinth_worker_transaction_begin())
			return false;
		mine = plinth_limits_meter_flush(false) >= 0;
		plinth_worker_transaction_end();
		if (mine)
			plinth_worker_report("running", NULL);
		else
			plinth_worker_report("waiting", "another transaction flushes or resets meters");
	}
	while (purge)
	{
		if (!plinth_worker_transaction_begin())
			return false;
		purge = purge_rows();
		plinth_worker_transaction_end();
	}
	return true;
}

static void
meter_main(int instance)
{
	static const PlinthUpkeep upkeep = {
		.interval = &plinth_setting_meter_flush_interval,
		.pressed = plinth_limits_meter_pressed,
		.work = work,
		.failure = "plinth could not write usage",
	};

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	/* An entry for this database, without which nobody may keep a definition. */
	(void) plinth_base_generation_keep(PLINTH_GEN_LIMITS);
	plinth_worker_upkeep(&upkeep);
}

static int
meter_wanted(void)
{
	static PlinthPlan plan = {.sql = "SELECT FROM plinth.meters LIMIT 1"};

	return plinth_base_spi_finds(&plan) || plinth_limits_meter_has_pending() ? 1 : 0;
}

static const PlinthService meter_service = {
	.name = "meter",
	.group = NULL,
	.wanted = meter_wanted,
	.main = meter_main,
	.numbered = false,
	.standby = false,
};

void
plinth_limits_meter_flush_init(void)
{
	plinth_worker_service_declare(&meter_service);
}
