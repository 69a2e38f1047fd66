/*
 * meter_decide.c
 *		Counting by a meter, in shared memory, and reading what its quotas need.
 *
 * Who finds memory full has it flushed, and where the meter's on_error is deny
 * he waits a moment for that; what is flushed makes room.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/wait_event.h"

/* How often, and ms: a second in all. */
#define ROOM_WAITS 100
#define ROOM_WAIT 10

/* Waits for a flush to make room; false when it is not to be waited for any longer. */
static bool
wait_for_room(const PlinthMeter *meter, int *waits)
{
	plinth_limits_meter_press();
	if (meter->allow_on_error || ++*waits > ROOM_WAITS)
		return false;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ROOM_WAIT,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return true;
}

PlinthMeterOutcome
plinth_limits_meter_decide(const char *name, PlinthMeter *meter, const PlinthMeterKey *key,
						   int64 amount, PlinthMeterUse *use)
{
	PlinthMeterBases bases = {.loaded = false};
	int waits = 0;

	/* A standby can write no table. */
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("meters do not count during recovery"), errhint("Count on the primary.")));
	for (;;)
	{
		PlinthMeterOutcome outcome;

		/* What this transaction changed may be rolled back to a savepoint, and with it the touch. */
		if (meter->changed && !meter->durable && amount != 0)
			plinth_base_generation_touch(PLINTH_GEN_LIMITS);
		if (meter->durable || meter->changed)
			outcome = plinth_limits_meter_decide_durable(meter, key, amount, use);
		else
			outcome = plinth_limits_meter_count(meter, key, amount, use, &bases);
		if (outcome == PLINTH_METER_FULL && wait_for_room(meter, &waits))
			continue;
		switch (outcome)
		{
			case PLINTH_METER_NOT_KNOWN:
				/* A flush may come in between: then once more. */
				CHECK_FOR_INTERRUPTS();
				plinth_limits_meter_load(meter, key, &bases);
				break;
			case PLINTH_METER_NOT_NOW:
				CHECK_FOR_INTERRUPTS();
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
