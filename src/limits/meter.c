/*
 * meter.c
 *		Usage meters and quotas, as SQL calls them.
 *
 * A meter counts what a key uses, and what each dimension of it uses, in
 * calendar periods and in total.  Counting is adding to integers in shared
 * memory (meter_store.c), which a service writes to plinth.meter_usage in
 * batches; a durable meter, and one that this transaction has itself changed,
 * adds to the table in the transaction (meter_durable.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PGDLLEXPORT Datum plinth_limits_meter_add(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_check(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_require(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_read(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_history(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_reset(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_limits_meter_flush_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_meter_add);
PG_FUNCTION_INFO_V1(plinth_limits_meter_check);
PG_FUNCTION_INFO_V1(plinth_limits_meter_require);
PG_FUNCTION_INFO_V1(plinth_limits_meter_read);
PG_FUNCTION_INFO_V1(plinth_limits_meter_history);
PG_FUNCTION_INFO_V1(plinth_limits_meter_reset);
PG_FUNCTION_INFO_V1(plinth_limits_meter_flush_sql);

#define RESULT_COLUMNS 8

static char *
required_text(FunctionCallInfo fcinfo, int n, const char *argument)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", argument)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static int
checked_length(const char *text, const char *what, int max)
{
	size_t len = strlen(text);

	if (len == 0 || len > max)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s of a meter must have 1 to %d bytes, not %zu", what, max, len)));
	return (int) len;
}

/* The key (NULL: the caller's) and the dimension (NULL: none) that were passed. */
static void
key_arguments(FunctionCallInfo fcinfo, int n, int dimension, PlinthMeterKey *key)
{
	memset(key, 0, sizeof(*key));
	key->key =
		PG_ARGISNULL(n) ? plinth_limits_caller_key("user") : text_to_cstring(PG_GETARG_TEXT_PP(n));
	key->keylen = checked_length(key->key, "a key", PLINTH_METER_MAX_KEY);
	if (PG_ARGISNULL(dimension))
		return;
	key->dimension = text_to_cstring(PG_GETARG_TEXT_PP(dimension));
	key->dimlen = checked_length(key->dimension, "a dimension", PLINTH_METER_MAX_DIMENSION);
}

static int64
amount_argument(FunctionCallInfo fcinfo, int n, int scale)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("amount must not be null")));
	return plinth_limits_meter_amount(PG_GETARG_NUMERIC(n), scale);
}

/* Errors of ours: what on_error says of full memory, and what nothing can allow. */
static void
refuse_failure(const char *name, const PlinthMeter *meter, PlinthMeterOutcome outcome)
{
	if (outcome == PLINTH_METER_TOO_LARGE)
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("more is pending in meter \"%s\" than it can hold", name),
						errhint("Count in a meter with a smaller scale.")));
	if (outcome == PLINTH_METER_FULL && !meter->allow_on_error)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("no memory is left for meter \"%s\"", name),
						errhint("Raise \"plinth.limits_memory\" and restart the server, or let "
								"the meter have on_error = 'allow'.")));
}

/* meter_add(meter, amount, key, dimension) */
Datum
plinth_limits_meter_add(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "meter");
	PlinthMeter meter;
	PlinthMeterKey key;
	int64 amount;

	plinth_limits_meter_get(name, &meter);
	amount = amount_argument(fcinfo, 1, meter.scale);
	key_arguments(fcinfo, 2, 3, &key);
	if (meter.enabled && amount != 0)
		refuse_failure(name, &meter, plinth_limits_meter_decide(name, &meter, &key, amount, NULL));
	PG_RETURN_VOID();
}

/* -------------------------------------------------------------------------
 * Quotas
 * -------------------------------------------------------------------------
 */
/* What is used after the amount, as far as integers go. */
static int64
used_after(const PlinthMeterUse *use, int p, int64 amount)
{
	int64 sum;

	if (pg_add_s64_overflow(use->used[p], amount, &sum))
		return amount > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return sum;
}

/* How much of a quota is left after the amount; below 0 when it is exceeded. */
static int64
left_of(const PlinthMeterUse *use, int p, int64 amount)
{
	int64 left;

	if (plinth_limits_meter_exceeds(use->used[p], amount, use->hard[p]))
		return -1;
	return pg_sub_s64_overflow(use->hard[p], used_after(use, p, amount), &left) ? PG_INT64_MAX
																				: left;
}

/*
 * The period that a result speaks of: among those that refuse the one that
 * ends last; else the one with the least left, and without hard quotas one
 * whose soft quota is passed.  -1 where no quota says anything.
 */
static int
choose_period(const PlinthMeter *meter, const PlinthMeterUse *use, int64 amount, bool exceeded)
{
	int chosen = -1;

	for (int p = PLINTH_METER_PERIODS - 1; p >= 0; p--)
	{
		if (!meter->has_quota[p] || use->hard[p] == PLINTH_METER_NO_QUOTA)
			continue;
		if (exceeded && left_of(use, p, amount) < 0)
			return p;
		if (!exceeded && (chosen < 0 || left_of(use, p, amount) < left_of(use, chosen, amount)))
			chosen = p;
	}
	for (int p = 0; p < PLINTH_METER_PERIODS && chosen < 0; p++)
	{
		if (meter->has_quota[p] && use->soft[p] != PLINTH_METER_NO_QUOTA)
			chosen = p;
	}
	return chosen;
}

static bool
passes_soft(const PlinthMeter *meter, const PlinthMeterUse *use, int64 amount)
{
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		if (meter->has_quota[p] && plinth_limits_meter_exceeds(use->used[p], amount, use->soft[p]))
			return true;
	}
	return false;
}

pg_noreturn static void raise_exceeded(const char *name, const PlinthMeter *meter,
									   const PlinthMeterUse *use, int p);

static void
raise_exceeded(const char *name, const PlinthMeter *meter, const PlinthMeterUse *use, int p)
{
	PlinthLimitDecision decision;
	int64 one = 1;

	for (int i = 0; i < meter->scale; i++)
		one *= 10;
	memset(&decision, 0, sizeof(decision));
	decision.limit_count = use->hard[p] / one;
	decision.remaining = Max(0, left_of(use, p, 0)) / one;
	if (p == PLINTH_METER_TOTAL)
		decision.retry_after = decision.reset_after = -1;
	else
	{
		decision.reset_after = Max(0, meter->bounds.end[p] - GetCurrentTimestamp());
		decision.retry_after = decision.reset_after;
		decision.window = meter->bounds.end[p] - meter->bounds.start[p];
	}
	plinth_limits_raise(meter->status_code, name, &decision);
}

/* (allowed, status, period, used, soft_quota, hard_quota, remaining, resets_at) */
static Datum
form_result(FunctionCallInfo fcinfo, PlinthRow *kept, const PlinthMeter *meter,
			const PlinthMeterUse *use, int64 amount, bool allowed, const char *status, int p)
{
	Datum values[RESULT_COLUMNS];
	bool nulls[RESULT_COLUMNS] = {false};

	memset(nulls + 2, p < 0, sizeof(nulls) - 2);
	values[0] = BoolGetDatum(allowed);
	values[1] = CStringGetTextDatum(status);
	if (p >= 0)
	{
		int64 counted = allowed ? amount : 0;

		nulls[4] = use->soft[p] == PLINTH_METER_NO_QUOTA;
		nulls[5] = nulls[6] = use->hard[p] == PLINTH_METER_NO_QUOTA;
		nulls[7] = p == PLINTH_METER_TOTAL;
		values[2] = CStringGetTextDatum(plinth_limits_meter_period_names[p]);
		values[3] =
			NumericGetDatum(plinth_limits_meter_numeric(used_after(use, p, counted), meter->scale));
		values[4] = NumericGetDatum(plinth_limits_meter_numeric(use->soft[p], meter->scale));
		values[5] = NumericGetDatum(plinth_limits_meter_numeric(use->hard[p], meter->scale));
		values[6] = NumericGetDatum(
			plinth_limits_meter_numeric(Max(0, left_of(use, p, counted)), meter->scale));
		values[7] = TimestampTzGetDatum(meter->bounds.end[p]);
	}
	return HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, kept), values, nulls));
}

static Datum
check_quota(FunctionCallInfo fcinfo, bool raise)
{
	/* Of meter_check and meter_require. */
	static PlinthRow kept[2];
	char *name = required_text(fcinfo, 0, "meter");
	PlinthMeter meter;
	PlinthMeterKey key;
	PlinthMeterUse use;
	PlinthMeterOutcome outcome;
	int64 amount;
	int period;

	plinth_limits_meter_get(name, &meter);
	amount = amount_argument(fcinfo, 1, meter.scale);
	key_arguments(fcinfo, 2, 3, &key);
	if (amount < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("an amount that a quota decides on must not be negative"),
						errhint("Corrections go by meter_add.")));
	if (!meter.enabled)
		return form_result(fcinfo, &kept[raise], &meter, NULL, 0, true, "disabled", -1);
	outcome = plinth_limits_meter_decide(name, &meter, &key, amount, &use);
	refuse_failure(name, &meter, outcome);
	if (outcome == PLINTH_METER_FULL)
		return form_result(fcinfo, &kept[raise], &meter, NULL, 0, true, "error", -1);
	period = choose_period(&meter, &use, amount, outcome == PLINTH_METER_EXCEEDED);
	if (outcome == PLINTH_METER_EXCEEDED)
	{
		if (raise)
			raise_exceeded(name, &meter, &use, period);
		return form_result(fcinfo, &kept[raise], &meter, &use, amount, false, "hard", period);
	}
	return form_result(fcinfo, &kept[raise], &meter, &use, amount, true,
					   passes_soft(&meter, &use, amount) ? "soft" : "ok", period);
}

/* meter_check(meter, amount, key, dimension) */
Datum
plinth_limits_meter_check(PG_FUNCTION_ARGS)
{
	return check_quota(fcinfo, false);
}

/* meter_require(meter, amount, key, dimension) */
Datum
plinth_limits_meter_require(PG_FUNCTION_ARGS)
{
	return check_quota(fcinfo, true);
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */
/* meter_read(meter, key, period, at, dimension) */
Datum
plinth_limits_meter_read(PG_FUNCTION_ARGS)
{
	char *name = required_text(fcinfo, 0, "meter");
	char *period_name = required_text(fcinfo, 2, "period");
	PlinthMeter meter;
	PlinthMeterKey key;
	PlinthMeterPeriod period;
	PlinthMeterAmount *amounts;
	TimestampTz start;
	int n;

	plinth_limits_meter_get(name, &meter);
	period = plinth_limits_meter_period(&meter, name, period_name);
	key_arguments(fcinfo, 1, 4, &key);
	start = plinth_limits_meter_start(
		period, PG_ARGISNULL(3) ? GetCurrentTimestamp() : PG_GETARG_TIMESTAMPTZ(3), meter.zone);
	amounts = plinth_limits_meter_amounts(&meter, &key, period, start, start, &n);
	if (n == 0)
		PG_RETURN_NUMERIC(int64_to_numeric(0));
	PG_RETURN_DATUM(DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(amounts[0].amount)));
}

/* meter_history(meter, key, period, since, until, dimension) */
Datum
plinth_limits_meter_history(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char *name = required_text(fcinfo, 0, "meter");
	char *period_name = required_text(fcinfo, 2, "period");
	TimestampTz from = PG_ARGISNULL(3) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(3);
	TimestampTz to = PG_ARGISNULL(4) ? DT_NOEND : PG_GETARG_TIMESTAMPTZ(4);
	PlinthMeter meter;
	PlinthMeterKey key;
	PlinthMeterPeriod period;
	PlinthMeterAmount *amounts;
	int n;

	InitMaterializedSRF(fcinfo, 0);
	plinth_limits_meter_get(name, &meter);
	period = plinth_limits_meter_period(&meter, name, period_name);
	key_arguments(fcinfo, 1, 5, &key);
	/* Up to, but without, the end. */
	if (!TIMESTAMP_NOT_FINITE(to))
		to--;
	amounts = plinth_limits_meter_amounts(&meter, &key, period, from, to, &n);
	for (int i = 0; i < n; i++)
	{
		Datum values[2];
		bool nulls[2] = {false};

		nulls[0] = TIMESTAMP_NOT_FINITE(amounts[i].start);
		values[0] = TimestampTzGetDatum(amounts[i].start);
		values[1] = DirectFunctionCall1(numeric_trim_scale, NumericGetDatum(amounts[i].amount));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	PG_RETURN_VOID();
}

/* -------------------------------------------------------------------------
 * Flushing and resetting
 * -------------------------------------------------------------------------
 */
static void
require_own_snapshots(const char *function)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s needs an isolation level of READ COMMITTED", function)));
	PreventCommandIfReadOnly(function);
	PreventCommandIfParallelMode(function);
}

/* meter_flush() */
Datum
plinth_limits_meter_flush_sql(PG_FUNCTION_ARGS)
{
	require_own_snapshots("meter_flush()");
	PG_RETURN_INT64(plinth_limits_meter_flush(true));
}

/* meter_reset(meter, key, period, dimension) */
Datum
plinth_limits_meter_reset(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		.sql = "UPDATE plinth.meter_usage u SET amount = 0, updated_at = clock_timestamp() FROM "
			   "ROWS FROM (unnest($3), unnest($4)) AS p (period, period_start) WHERE u.meter_id = "
			   "$1 AND u.key = $2 AND u.period = p.period AND u.period_start = p.period_start AND "
			   "($5 IS NULL OR u.dimension = $5)",
		.nargs = 5,
		.argtypes = {INT8OID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID},
	};
	char *name = required_text(fcinfo, 0, "meter");
	PlinthMeter meter;
	PlinthMeterKey key;
	Datum names[PLINTH_METER_PERIODS];
	Datum starts[PLINTH_METER_PERIODS];
	Datum values[5];
	PlinthAsOwner owner;
	int only = -1;
	int n = 0;

	require_own_snapshots("meter_reset()");
	plinth_limits_meter_get(name, &meter);
	key_arguments(fcinfo, 1, 3, &key);
	if (!PG_ARGISNULL(2))
		only = plinth_limits_meter_period(&meter, name, text_to_cstring(PG_GETARG_TEXT_PP(2)));
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		if (!meter.has[p] || (only >= 0 && only != p))
			continue;
		names[n] = CStringGetTextDatum(plinth_limits_meter_period_names[p]);
		starts[n++] = TimestampTzGetDatum(meter.bounds.start[p]);
	}
	values[0] = Int64GetDatum(meter.id);
	values[1] = PointerGetDatum(cstring_to_text_with_len(key.key, key.keylen));
	values[2] = PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[3] = PointerGetDatum(
		construct_array(starts, n, TIMESTAMPTZOID, sizeof(TimestampTz), true, TYPALIGN_DOUBLE));
	values[4] = key.dimension == NULL ? (Datum) 0 : CStringGetTextDatum(key.dimension);

	/* With the lock of the flush, all that was counted before is in rows that this sees. */
	(void) plinth_limits_meter_flush(true);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, values, key.dimension == NULL ? "    n" : NULL, false,
							SPI_OK_UPDATE);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PG_RETURN_VOID();
}

void
plinth_limits_meter_init(void)
{
	plinth_limits_meter_store_init();
	plinth_limits_meter_flush_init();
}
