/*
 * meter.c
 *		Usage meters and quotas.
 */
#include "postgres.h"

#include "limits/internal.h"

void
plinth_limits_meter_init(void)
{
}
