/*
 * lease.c
 *		Concurrency leases.
 */
#include "postgres.h"

#include "limits/internal.h"

void
plinth_limits_lease_init(void)
{
}
