/*
 * meter_decide.c
 *		Counting by a meter, in shared memory, and reading what its quotas need.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"

PlinthMeterOutcome
plinth_limits_meter_decide(const char *name, PlinthMeter *meter, const PlinthMeterKey *key,
						   int64 amount, PlinthMeterUse *use)
{
	PlinthMeterBases bases = {.loaded = false};

	/* A standby can write no table. */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("meters do not count during recovery"), errhint("Count on the primary.")));
	for (;;)
	{
		PlinthMeterOutcome outcome;

		if (meter->durable || meter->changed)
			outcome = plinth_limits_meter_decide_durable(meter, key, amount, use);
		else
			outcome = plinth_limits_meter_count(meter, key, amount, use, &bases);
		switch (outcome)
		{
			case PLINTH_METER_NOT_KNOWN:
				/* A flush may come in between: then once more. */
				CHECK_FOR_INTERRUPTS();
				plinth_limits_meter_load(meter, key, &bases);
				break;
			case PLINTH_METER_NOT_NOW:
				plinth_limits_meter_get(name, meter);
				bases.loaded = false;
				break;
			default:
				if (amount != 0)
					plinth_limits_meter_counted(meter->counters, outcome);
				return outcome;
		}
	}
}
