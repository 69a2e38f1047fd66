/*
 * check.h
 *		Decisions, as the SQL functions ask for them.
 *
 * Private to room limits.
 */
#ifndef PLINTH_LIMITS_CHECK_H
#define PLINTH_LIMITS_CHECK_H

#include "limits/limits.h"

typedef struct PlinthLimitName
{
	const char *name;
	size_t len;
} PlinthLimitName;

/* key NULL: the caller's.  Names and keys need no zero at their end. */
extern PlinthLimitDecision plinth_limits_decide(const char *name, size_t name_len, const char *key,
												size_t key_len, int64 cost);

/* All or nothing; returns the name of the policy whose decision is shown. */
extern const char *plinth_limits_decide_all(const PlinthLimitName *names, int n, const char *key,
											size_t key_len, int64 cost,
											PlinthLimitDecision *decision);

/* By terms that are given with the question; times in microseconds. */
extern PlinthLimitDecision plinth_limits_decide_adhoc(const char *key, size_t key_len, int64 limit,
													  int64 period, int64 burst, int64 cost);

/* For every tier; true when something was used. */
extern bool plinth_limits_reset(const char *name, size_t name_len, const char *key, size_t key_len);

#endif /* PLINTH_LIMITS_CHECK_H */
