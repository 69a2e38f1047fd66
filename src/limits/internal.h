/*
 * internal.h
 *		What the files of limits share with each other.
 */
#ifndef PLINTH_LIMITS_INTERNAL_H
#define PLINTH_LIMITS_INTERNAL_H

#include "base/compat.h"
#include "limits/limits.h"

/*
 * Time of the limits, in microseconds since the Unix epoch (clock.c): the wall
 * clock as it was when shared memory was made, plus what a monotonic clock
 * counted since; a stepped wall clock does not move it.  After a restart it
 * goes on at the later of the wall clock and where it was saved.
 */
extern int64 plinth_limits_now(void);

/* In _PG_init; and before any process is forked, for a time that was saved. */
extern void plinth_limits_clock_init(void);
extern void plinth_limits_clock_not_before(int64 time);

/*
 * The key that stands for the caller where none is given: "user:<id>" for a
 * request context with a user (session: for scope session), else
 * "address:<client address, IPv6 by /64>", else "local"; for scope endpoint a
 * space and the request's path behind it; scope address never the user.
 * palloc'd (key.c).
 */
extern char *plinth_limits_caller_key(const char *scope);

/* The key of an address that was given; 22023 for what is none.  palloc'd. */
extern char *plinth_limits_address_key(const char *key);

/*
 * Raises 429 (or 402) for an API: PT429, or under PostgREST (where
 * request.method is set) the PGRST form with Retry-After and the RateLimit and
 * RateLimit-Policy fields of draft-ietf-httpapi-ratelimit-headers (respond.c).
 */
pg_noreturn extern void plinth_limits_raise(int http_status, const char *policy,
											const PlinthLimitDecision *decision);

/* Adds the fields of a decision to response.headers; nothing without PostgREST. */
extern void plinth_limits_respond(const char *policy, const PlinthLimitDecision *decision);

extern void plinth_limits_policy_init(void); /* rate limits: memory, saving, policies */
extern void plinth_limits_lease_init(void);
extern void plinth_limits_meter_init(void);

#endif /* PLINTH_LIMITS_INTERNAL_H */
