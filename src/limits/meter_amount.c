/*
 * meter_amount.c
 *		Amounts: numeric for those who use a meter and in tables, integers of
 *		10^-scale in shared memory.  Nothing is rounded on the way.
 *
 * Most of what meter_add costs is here, so numbers that are always the same are
 * made once: they stay for the backend's life.
 */
#include "postgres.h"

#include "limits/meter.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

static Datum
constant(Numeric *kept, int64 value)
{
	if (*kept == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		*kept = int64_to_numeric(value);
		MemoryContextSwitchTo(old);
	}
	return NumericGetDatum(*kept);
}

/* The amount times 10^scale. */
static Datum
scaled(Numeric amount, int scale)
{
	static Numeric powers[PLINTH_METER_MAX_SCALE + 1];
	int64 power = 1;

	if (scale == 0)
		return NumericGetDatum(amount);
	for (int i = 0; i < scale; i++)
		power *= 10;
	return DirectFunctionCall2(numeric_mul, NumericGetDatum(amount),
							   constant(&powers[scale], power));
}

static bool
fits(Datum value)
{
	static Numeric most;
	static Numeric least;

	return DatumGetBool(DirectFunctionCall2(numeric_le, value, constant(&most, PG_INT64_MAX))) &&
		   DatumGetBool(DirectFunctionCall2(numeric_ge, value, constant(&least, PG_INT64_MIN)));
}

int64
plinth_limits_meter_amount(Numeric amount, int scale)
{
	Datum value;

	if (numeric_is_nan(amount) || numeric_is_inf(amount))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("an amount of a meter must be a number")));
	value = scaled(amount, scale);
	if (!DatumGetBool(DirectFunctionCall2(
			numeric_eq, value, DirectFunctionCall2(numeric_trunc, value, Int32GetDatum(0)))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an amount of this meter must have at most %d decimal digits", scale),
				 errhint("Use round(amount, %d), or a meter with a larger scale.", scale)));
	if (!fits(value))
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("an amount of this meter is out of range"),
						errhint("A meter with a smaller scale takes larger ones.")));
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, value));
}

int64
plinth_limits_meter_amount_clamped(Numeric amount, int scale)
{
	Datum value = DirectFunctionCall2(numeric_trunc, scaled(amount, scale), Int32GetDatum(0));

	if (fits(value))
		return DatumGetInt64(DirectFunctionCall1(numeric_int8, value));
	return DatumGetBool(
			   DirectFunctionCall2(numeric_gt, value, NumericGetDatum(int64_to_numeric(0))))
			   ? PG_INT64_MAX
			   : PG_INT64_MIN;
}

Numeric
plinth_limits_meter_numeric(int64 amount, int scale)
{
	return DatumGetNumeric(DirectFunctionCall1(
		numeric_trim_scale, NumericGetDatum(int64_div_fast_to_numeric(amount, scale))));
}
