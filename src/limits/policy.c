/*
 * policy.c
 *		Policies of rate limits, as each backend keeps them.
 */
#include "postgres.h"

#include "limits/internal.h"

void
plinth_limits_policy_init(void)
{
}
