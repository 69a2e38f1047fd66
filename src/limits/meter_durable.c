/*
 * meter_durable.c
 *		Writing usage to its table: for a flush, and for meters that count in the
 *		transaction.
 *
 * A durable meter decides by the table: it locks the key's rows first, then
 * reads them and the quotas, so that two transactions cannot both take what
 * is left.  Who comes second waits for the first one's end.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/* Rows in the order of the key, or two who write would wait for each other. */
static PlinthPlan write_plan = {
	.sql = "INSERT INTO plinth.meter_usage AS u (meter_id, key, dimension, period, period_start, "
		   "amount) SELECT d.meter_id, d.key, d.dimension, d.period, d.period_start, d.amount FROM "
		   "ROWS FROM (unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6)) "
		   "AS d (meter_id, key, dimension, period, period_start, amount) WHERE NOT $7 OR EXISTS ("
		   "SELECT FROM plinth.meters m WHERE m.id = d.meter_id) ORDER BY 1, 2, 3, 4, 5 "
		   "ON CONFLICT (meter_id, key, dimension, period, period_start) DO UPDATE "
		   "SET amount = u.amount + excluded.amount, updated_at = clock_timestamp()",
	.nargs = 7,
	.argtypes = {INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
				 NUMERICARRAYOID, BOOLOID},
};

Datum
plinth_limits_meter_dimension(const PlinthMeterKey *key)
{
	return PointerGetDatum(key->dimension == NULL
							   ? cstring_to_text("")
							   : cstring_to_text_with_len(key->dimension, key->dimlen));
}

void
plinth_limits_meter_rows_init(PlinthMeterRows *rows, int max)
{
	rows->n = 0;
	for (int c = 0; c < PLINTH_METER_COLUMNS; c++)
		rows->column[c] = palloc(sizeof(Datum) * max);
}

void
plinth_limits_meter_rows_add(PlinthMeterRows *rows, int64 meter, const PlinthMeterKey *key,
							 PlinthMeterPeriod period, TimestampTz start, Numeric amount)
{
	int n = rows->n++;

	rows->column[0][n] = Int64GetDatum(meter);
	rows->column[1][n] = PointerGetDatum(cstring_to_text_with_len(key->key, key->keylen));
	rows->column[2][n] = plinth_limits_meter_dimension(key);
	rows->column[3][n] = CStringGetTextDatum(plinth_limits_meter_period_names[period]);
	rows->column[4][n] = TimestampTzGetDatum(start);
	rows->column[5][n] = NumericGetDatum(amount);
}

void
plinth_limits_meter_rows_write(const PlinthMeterRows *rows, bool skip_dropped)
{
	static const Oid types[PLINTH_METER_COLUMNS] = {INT8OID, TEXTOID,        TEXTOID,
													TEXTOID, TIMESTAMPTZOID, NUMERICOID};
	Datum values[PLINTH_METER_COLUMNS + 1];
	PlinthAsOwner owner;

	for (int c = 0; c < PLINTH_METER_COLUMNS; c++)
	{
		int16 len;
		bool byval;
		char align;

		get_typlenbyvalalign(types[c], &len, &byval, &align);
		values[c] =
			PointerGetDatum(construct_array(rows->column[c], rows->n, types[c], len, byval, align));
	}
	values[PLINTH_METER_COLUMNS] = BoolGetDatum(skip_dropped);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_write(&write_plan, values, SPI_OK_INSERT, &plinth_limits_meter_writing);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

/* Adds an amount to the rows of the current periods; of the key only, or of its dimension too. */
static void
add_to_rows(const PlinthMeter *meter, const PlinthMeterKey *key, int64 amount, bool dimension)
{
	Numeric number = plinth_limits_meter_numeric(amount, meter->scale);
	PlinthMeterKey whole = {.key = key->key, .keylen = key->keylen};
	PlinthMeterRows rows;

	plinth_limits_meter_rows_init(&rows, 2 * PLINTH_METER_PERIODS);
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		PlinthMeterPeriod period = (PlinthMeterPeriod) p;

		if (!meter->has[p])
			continue;
		plinth_limits_meter_rows_add(&rows, meter->id, &whole, period, meter->bounds.start[p],
									 number);
		if (dimension && key->dimension != NULL)
			plinth_limits_meter_rows_add(&rows, meter->id, key, period, meter->bounds.start[p],
										 number);
	}
	plinth_limits_meter_rows_write(&rows, false);
}

/* What is used by the table; others may have something in memory where this transaction changed the meter. */
static void
read_use(const PlinthMeter *meter, const PlinthMeterKey *key, PlinthMeterUse *use)
{
	PlinthMeterBases bases;
	PlinthMeterKey whole = {.key = key->key, .keylen = key->keylen};
	PlinthMeterPending pending[2 * PLINTH_METER_PERIODS];
	uint64 version;
	int n;

	plinth_limits_meter_load(meter, key, &bases);
	n = plinth_limits_meter_pending(meter->id, &whole, pending, lengthof(pending), &version);
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		use->used[p] = bases.base[p];
		use->soft[p] = bases.soft[p];
		use->hard[p] = bases.hard[p];
		for (int i = 0; i < Min(n, lengthof(pending)); i++)
		{
			if (pending[i].period == p && pending[i].start == bases.start[p] &&
				pg_add_s64_overflow(use->used[p], pending[i].pending + pending[i].in_flight,
									&use->used[p]))
				use->used[p] = PG_INT64_MAX;
		}
	}
}

PlinthMeterOutcome
plinth_limits_meter_decide_durable(const PlinthMeter *meter, const PlinthMeterKey *key,
								   int64 amount, PlinthMeterUse *use)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now < meter->bounds.valid_from || now >= meter->bounds.valid_until)
		return PLINTH_METER_NOT_NOW;
	if (use != NULL)
	{
		/* Peeking locks nothing, and writes nothing. */
		if (meter->any_quota && amount != 0)
			add_to_rows(meter, key, 0, false);
		read_use(meter, key, use);
		for (int p = 0; p < PLINTH_METER_PERIODS; p++)
		{
			if (meter->has_quota[p] &&
				plinth_limits_meter_exceeds(use->used[p], amount, use->hard[p]))
				return PLINTH_METER_EXCEEDED;
		}
	}
	if (amount != 0)
		add_to_rows(meter, key, amount, true);
	return PLINTH_METER_COUNTED;
}
