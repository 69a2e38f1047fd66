/*
 * ask.c
 *		What rooms below ask of limits, beside plinth_limits_check.
 */
#include "postgres.h"

#include "limits/check.h"
#include "limits/internal.h"
#include "limits/table.h"
#include "utils/timestamp.h"

PlinthLimitDecision
plinth_limits_check_all(const char *const *policies, int n, const char *key, int64 cost)
{
	PlinthLimitName names[PLINTH_LIMITS_MAX_TOGETHER];
	PlinthLimitDecision decision;

	Assert(n <= PLINTH_LIMITS_MAX_TOGETHER);
	for (int i = 0; i < n; i++)
	{
		names[i].name = policies[i];
		names[i].len = strlen(policies[i]);
	}
	(void) plinth_limits_decide_all(names, n, key, strlen(key), cost, &decision);
	return decision;
}

PlinthLimitDecision
plinth_limits_check_fixed(const char *key, int64 count, int64 period, int64 cost)
{
	return plinth_limits_decide_adhoc(key, strlen(key), count, period, count, cost);
}

void
plinth_limits_forget(const char *policy, const char *key)
{
	(void) plinth_limits_reset(policy, strlen(policy), key, strlen(key));
}

char *
plinth_limits_caller_address(void)
{
	return plinth_limits_caller_key("address");
}

Datum
plinth_limits_wait(int64 microseconds, bool *null)
{
	Interval *interval = palloc0(sizeof(Interval));

	interval->time = microseconds;
	*null = microseconds <= 0;
	return IntervalPGetDatum(interval);
}

void
plinth_limits_require(const char *policy, const char *key, int64 cost)
{
	PlinthLimitDecision decision = plinth_limits_check(policy, key, cost);

	if (!decision.allowed)
		plinth_limits_raise(429, policy, &decision);
	plinth_limits_respond(policy, &decision);
}
