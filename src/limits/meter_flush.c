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
#include "utils/timestamp.h"
#include "worker/worker.h"

/* Distinguishes our lock from those on the extension itself. */
#define FLUSH_LOCK 1
/* Less than PostgreSQL's least deadlock_timeout that anybody uses: we give way. */
#define LOCK_TIMEOUT "500ms"
/* Rows whose time is over are deleted this often, and so many at a time. */
#define PURGE_INTERVAL (10 * USECS_PER_MINUTE)
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
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_DELETE);
	more = SPI_processed == PURGE_ROWS;
	SPI_finish();
	return more;
}

/* Shows what the service does while it is anything but running. */
static void
report(const char *state, const char *message)
{
	static bool special = false;

	if (special || message != NULL)
		plinth_worker_report(state, message);
	special = message != NULL;
}

/* One transaction or more of the service; false when it must end. */
static bool
work_once(bool flush, bool purge)
{
	if (flush)
	{
		bool mine;

		if (!plinth_worker_transaction_begin())
			return false;
		mine = plinth_limits_meter_flush(false) >= 0;
		plinth_worker_transaction_end();
		if (mine)
			report("running", NULL);
		else
			report("waiting", "another transaction flushes or resets meters");
	}
	while (purge)
	{
		if (!plinth_worker_transaction_begin())
			return false;
		/* No base is of a period that is over. */
		plinth_limits_meter_writing(true);
		purge = purge_rows();
		plinth_limits_meter_writing(false);
		plinth_worker_transaction_end();
	}
	return true;
}

/* As work_once, but what fails is told and tried again: amounts wait in memory meanwhile. */
static bool
try_work(bool flush, bool purge)
{
	static bool failed = false;
	MemoryContext context = CurrentMemoryContext;
	volatile bool goes_on = true;

	if (!flush && !purge)
		return true;
	PG_TRY ()
		;
	{
		goes_on = work_once(flush, purge);
		failed = false;
	}
	PG_CATCH ()
		;
	{
		ErrorData *edata;

		plinth_limits_meter_writing(false);
		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		HOLD_INTERRUPTS();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		/* Whoever waits for a row of ours is no fault; anything else is logged once. */
		if (!failed && edata->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(WARNING, (errcode(edata->sqlerrcode),
							  errmsg("plinth could not write usage: %s", edata->message)));
		report("retrying", edata->message);
		failed = true;
		FreeErrorData(edata);
		MemoryContextSwitchTo(context);
	}
	PG_END_TRY();
	return goes_on;
}

static void
meter_main(int instance)
{
	TimestampTz purged_at = DT_NOBEGIN;
	TimestampTz flushed_at = GetCurrentTimestamp();

	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	/* An entry for this database, without which nobody may keep a definition. */
	if (plinth_base_generation(MyDatabaseId, PLINTH_GEN_LIMITS) == 0)
		plinth_base_generation_bump(MyDatabaseId, PLINTH_GEN_LIMITS);
	/* In slices, so that a shorter interval is soon obeyed. */
	while (plinth_worker_wait(Min(plinth_setting_meter_flush_interval, 1000)))
	{
		TimestampTz now = GetCurrentTimestamp();
		bool purge =
			purged_at == DT_NOBEGIN || now - purged_at >= PURGE_INTERVAL || now < purged_at;
		bool flush = plinth_limits_meter_pressed() || now < flushed_at ||
					 now - flushed_at >= (int64) plinth_setting_meter_flush_interval * 1000;

		if (!try_work(flush && plinth_limits_meter_has_pending(), purge))
			return;
		if (flush)
			flushed_at = GetCurrentTimestamp();
		if (purge)
			purged_at = now;
	}
}

static int
meter_wanted(void)
{
	static PlinthPlan plan = {
		.sql = "SELECT FROM plinth.meters LIMIT 1",
		.nargs = 0,
	};
	bool wanted;

	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, true, SPI_OK_SELECT);
	wanted = SPI_processed > 0;
	SPI_finish();
	return wanted || plinth_limits_meter_has_pending() ? 1 : 0;
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
