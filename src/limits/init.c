/*
 * init.c
 *		Starts the room: rate limits, leases, meters.
 */
#include "postgres.h"

#include "limits/internal.h"

void
plinth_limits_init(void)
{
	plinth_limits_clock_init();
	plinth_limits_policy_init();
	plinth_limits_lease_init();
	plinth_limits_meter_init();
}
