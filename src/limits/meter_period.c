/*
 * meter_period.c
 *		Calendar periods in a meter's time zone.
 *
 * PostgreSQL's own date_trunc says when a period begins, so what it does with
 * days of 23 and 25 hours is what happens here.  The next one begins where
 * date_trunc puts a moment that lies surely within it.
 */
#include "postgres.h"

#include "limits/meter.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

const char *const plinth_limits_meter_period_names[PLINTH_METER_PERIODS] = {"minute", "hour", "day",
																			"month", "total"};

PlinthMeterPeriod
plinth_limits_meter_period(const PlinthMeter *meter, const char *meter_name, const char *period)
{
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		if (strcmp(period, plinth_limits_meter_period_names[p]) == 0 && meter->has[p])
			return (PlinthMeterPeriod) p;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("meter \"%s\" has no period \"%s\"", meter_name, period),
					errhint("SELECT periods FROM plinth.meters; each has \"total\" besides.")));
}

static TimestampTz
truncated(PlinthMeterPeriod period, TimestampTz at, const char *zone)
{
	return DatumGetTimestampTz(DirectFunctionCall3(
		timestamptz_trunc_zone, CStringGetTextDatum(plinth_limits_meter_period_names[period]),
		TimestampTzGetDatum(at), CStringGetTextDatum(zone)));
}

TimestampTz
plinth_limits_meter_start(PlinthMeterPeriod period, TimestampTz at, const char *zone)
{
	TimestampTz start;

	if (period == PLINTH_METER_TOTAL || TIMESTAMP_NOT_FINITE(at))
		return DT_NOBEGIN;
	start = truncated(period, at, zone);
	/* Where clocks are put back over midnight it comes twice, and this is the second. */
	return start <= at ? start : truncated(period, start - 12 * USECS_PER_HOUR, zone);
}

void
plinth_limits_meter_bounds(PlinthMeter *meter, TimestampTz now)
{
	static const int64 steps[PLINTH_METER_PERIODS] = {USECS_PER_MINUTE, USECS_PER_HOUR,
													  36 * USECS_PER_HOUR, 45 * USECS_PER_DAY, 0};
	PlinthMeterBounds *bounds = &meter->bounds;

	bounds->valid_from = DT_NOBEGIN;
	bounds->valid_until = DT_NOEND;
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		PlinthMeterPeriod period = (PlinthMeterPeriod) p;

		bounds->start[p] = DT_NOBEGIN;
		bounds->end[p] = DT_NOEND;
		if (!meter->has[p] || period == PLINTH_METER_TOTAL)
			continue;
		bounds->start[p] = plinth_limits_meter_start(period, now, meter->zone);
		bounds->end[p] = bounds->start[p] + steps[p];
		/* Days and months have no fixed length: a step leads into the next one. */
		if (period == PLINTH_METER_DAY || period == PLINTH_METER_MONTH)
			bounds->end[p] = plinth_limits_meter_start(period, bounds->end[p], meter->zone);
		bounds->valid_from = Max(bounds->valid_from, bounds->start[p]);
		bounds->valid_until = Min(bounds->valid_until, bounds->end[p]);
	}
}
