/*
 * meter_read.c
 *		What was used: the table's amounts and those in shared memory, each once.
 *
 * A flush may commit while somebody reads.  So a reader looks at shared
 * memory, reads the table under a snapshot taken after that, and looks again.
 * If the partition's version is the same, nothing was taken, written or given
 * back in between: what is in flight now was in flight then, by one
 * transaction, and its amounts are in the rows if and only if the snapshot sees
 * that transaction.  Otherwise it reads again; a flush takes much longer than
 * a read.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/snapmgr.h"

static PlinthPlan load_plan = {
	.sql =
		"SELECT u.amount, q.soft, q.hard FROM ROWS FROM (unnest($3), unnest($4)) WITH ORDINALITY "
		"AS p (period, period_start, n) LEFT JOIN plinth.meter_usage u ON u.meter_id = $1 AND "
		"u.key = $2 AND u.dimension = '' AND u.period = p.period AND u.period_start = "
		"p.period_start LEFT JOIN LATERAL (SELECT o.soft, o.hard FROM plinth.meter_quotas o WHERE "
		"o.meter_id = $1 AND o.period = p.period AND (o.key = $2 OR o.key IS NULL AND (o.tier IS "
		"NULL OR o.tier = (SELECT t.tier FROM plinth.users t WHERE t.id = CASE WHEN $2 ~ "
		"'^user:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN "
		"substr($2, 6)::uuid END))) ORDER BY o.key IS NULL, o.tier IS NULL LIMIT 1) q ON true "
		"ORDER BY p.n",
	.nargs = 4,
	.argtypes = {INT8OID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID},
};

static PlinthPlan read_plan = {
	.sql = "SELECT u.period_start, u.amount FROM plinth.meter_usage u WHERE u.meter_id = $1 AND "
		   "u.key = $2 AND u.dimension = $3 AND u.period = $4 AND u.period_start BETWEEN $5 AND $6",
	.nargs = 6,
	.argtypes = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID},
};

/* Does the active snapshot see what a transaction wrote that carries an amount? */
static bool
is_seen(const PlinthMeterPending *pending)
{
	if (pending->in_flight == 0)
		return false;
	if (TransactionIdIsCurrentTransactionId(pending->xid))
		return true;
	return !XidInMVCCSnapshot(pending->xid, GetActiveSnapshot()) &&
		   TransactionIdDidCommit(pending->xid);
}

static void
read_base(HeapTuple tuple, TupleDesc desc, int scale, int64 in_flight, int p,
		  PlinthMeterBases *bases)
{
	int64 *quotas[2] = {&bases->soft[p], &bases->hard[p]};
	bool isnull;
	Datum amount = SPI_getbinval(tuple, desc, 1, &isnull);

	bases->base[p] =
		isnull ? 0 : plinth_limits_meter_amount_clamped(DatumGetNumeric(amount), scale);
	bases->exact[p] = bases->base[p] != PG_INT64_MAX && bases->base[p] != PG_INT64_MIN;
	if (bases->exact[p] && pg_sub_s64_overflow(bases->base[p], in_flight, &bases->base[p]))
		bases->exact[p] = false;
	for (int q = 0; q < 2; q++)
	{
		Datum quota = SPI_getbinval(tuple, desc, q + 2, &isnull);

		/* A quota that is too large is still a quota. */
		*quotas[q] = isnull ? PLINTH_METER_NO_QUOTA
							: Min(plinth_limits_meter_amount_clamped(DatumGetNumeric(quota), scale),
								  PLINTH_METER_NO_QUOTA - 1);
	}
}

void
plinth_limits_meter_load(const PlinthMeter *meter, const PlinthMeterKey *key,
						 PlinthMeterBases *bases)
{
	PlinthMeterKey whole = {.key = key->key, .keylen = key->keylen};
	PlinthMeterPending pending[4 * PLINTH_METER_PERIODS];
	Datum names[PLINTH_METER_PERIODS];
	Datum starts[PLINTH_METER_PERIODS];
	int64 seen[PLINTH_METER_PERIODS] = {0};
	Datum values[4];
	PlinthAsOwner owner;
	int n;

	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		names[p] = CStringGetTextDatum(plinth_limits_meter_period_names[p]);
		bases->start[p] = meter->bounds.start[p];
		starts[p] = TimestampTzGetDatum(bases->start[p]);
	}
	values[0] = Int64GetDatum(meter->id);
	values[1] = PointerGetDatum(cstring_to_text_with_len(key->key, key->keylen));
	values[2] = PointerGetDatum(
		construct_array(names, PLINTH_METER_PERIODS, TEXTOID, -1, false, TYPALIGN_INT));
	values[3] = PointerGetDatum(construct_array(starts, PLINTH_METER_PERIODS, TIMESTAMPTZOID,
												sizeof(TimestampTz), true, TYPALIGN_DOUBLE));

	n = plinth_limits_meter_pending(meter->id, &whole, pending, lengthof(pending), &bases->version);
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < Min(n, lengthof(pending)); i++)
	{
		if (pending[i].start == bases->start[pending[i].period] && is_seen(&pending[i]))
			seen[pending[i].period] = pending[i].in_flight;
	}
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&load_plan, values, NULL, true, SPI_OK_SELECT);
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
		read_base(SPI_tuptable->vals[p], SPI_tuptable->tupdesc, meter->scale, seen[p], p, bases);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PopActiveSnapshot();
	bases->loaded = true;
}

static Numeric
add_amount(Numeric sum, int64 amount, int scale)
{
	return DatumGetNumeric(
		DirectFunctionCall2(numeric_add, NumericGetDatum(sum),
							NumericGetDatum(plinth_limits_meter_numeric(amount, scale))));
}

/* The amounts of the table, in the memory context of the caller. */
static PlinthMeterAmount *
read_table(Datum *values, int room, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	PlinthMeterAmount *list;
	PlinthAsOwner owner;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&read_plan, values, NULL, true, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	list = MemoryContextAllocHuge(context, sizeof(*list) * (*n + (Size) room));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		MemoryContext spi;
		bool isnull;

		list[i].start =
			DatumGetTimestampTz(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &isnull));
		spi = MemoryContextSwitchTo(context);
		list[i].amount =
			DatumGetNumericCopy(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull));
		MemoryContextSwitchTo(spi);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return list;
}

/* Adds one amount of memory to the list, which has room for one more. */
static int
add_pending(PlinthMeterAmount *list, int n, const PlinthMeterPending *pending, int scale)
{
	int64 amount = pending->pending + (is_seen(pending) ? 0 : pending->in_flight);
	int i;

	for (i = 0; i < n && list[i].start != pending->start; i++)
		;
	if (i == n)
	{
		list[n].start = pending->start;
		list[n].amount = int64_to_numeric(0);
		n++;
	}
	list[i].amount = add_amount(list[i].amount, amount, scale);
	return n;
}

static int
compare_amounts(const void *a, const void *b)
{
	TimestampTz one = ((const PlinthMeterAmount *) a)->start;
	TimestampTz two = ((const PlinthMeterAmount *) b)->start;

	return one < two ? -1 : one > two;
}

PlinthMeterAmount *
plinth_limits_meter_amounts(const PlinthMeter *meter, const PlinthMeterKey *key,
							PlinthMeterPeriod period, TimestampTz from, TimestampTz to, int *n)
{
	int max = 4 * PLINTH_METER_PERIODS;
	PlinthMeterPending *pending = palloc(sizeof(*pending) * max);
	Datum values[6];

	values[0] = Int64GetDatum(meter->id);
	values[1] = PointerGetDatum(cstring_to_text_with_len(key->key, key->keylen));
	values[2] = plinth_limits_meter_dimension(key);
	values[3] = CStringGetTextDatum(plinth_limits_meter_period_names[period]);
	values[4] = TimestampTzGetDatum(from);
	values[5] = TimestampTzGetDatum(to);
	for (;;)
	{
		uint64 before;
		uint64 after;
		PlinthMeterAmount *list;
		int found;

		CHECK_FOR_INTERRUPTS();
		(void) plinth_limits_meter_pending(meter->id, key, pending, max, &before);
		PushActiveSnapshot(GetLatestSnapshot());
		list = read_table(values, max, n);
		found = plinth_limits_meter_pending(meter->id, key, pending, max, &after);
		for (int i = 0; before == after && i < Min(found, max); i++)
		{
			if (pending[i].period == period && pending[i].start >= from && pending[i].start <= to)
				*n = add_pending(list, *n, &pending[i], meter->scale);
		}
		PopActiveSnapshot();
		if (before == after && found <= max)
		{
			qsort(list, *n, sizeof(*list), compare_amounts);
			return list;
		}
		pfree(list);
		if (found > max)
		{
			max = found * 2;
			pending = repalloc(pending, sizeof(*pending) * max);
		}
	}
}
