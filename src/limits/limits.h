/*
 * limits.h
 *		Rate limits, concurrency leases, and usage meters with quotas.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_LIMITS_H
#define PLINTH_LIMITS_H

/* What a decision says; times in microseconds, rounded up. */
typedef struct PlinthLimitDecision
{
	bool allowed;
	int64 limit_count; /* how much a full bucket, or a window, holds */
	int64 remaining;
	int64 retry_after; /* until the same cost would be allowed; 0 when allowed, -1 for never */
	int64 reset_after; /* until the bucket is full, or the window over */
	int64 window;      /* in which all of limit_count comes back; 0: not said */
} PlinthLimitDecision;

/*
 * Decides on a policy of this database by its name, for a key (NULL: the
 * caller's by the policy's scope), and consumes cost when allowed; 0 peeks.
 * For rooms below: sign-in asks before it hashes.  Neither writes a page nor
 * needs a transaction id.  An unknown policy, a key over 1 kB and a cost out
 * of range are errors (22023, 42704); a table that is full is answered by the
 * policy's on_error.
 */
extern PlinthLimitDecision plinth_limits_check(const char *policy, const char *key, int64 cost);

/*
 * As above on several policies at one instant: consumes in each when all
 * allow, else in none; the decision of the one that makes one wait longest.
 */
extern PlinthLimitDecision plinth_limits_check_all(const char *const *policies, int n,
												   const char *key, int64 cost);

/* As above without a policy: count at once, which come back in a period. */
extern PlinthLimitDecision plinth_limits_check_fixed(const char *key, int64 count, int64 period,
													 int64 cost);

/* Gives a key all of a policy's limit again; at once, and not undone by a rollback. */
extern void plinth_limits_forget(const char *policy, const char *key);

/* The key of the client's address: "address:…", IPv6 by /64; "local" where it has none.  palloc'd. */
extern char *plinth_limits_caller_address(void);

/* A retry_after as an interval; null where it is not said. */
extern Datum plinth_limits_wait(int64 microseconds, bool *null);

/* As above, and raises what rate_limit_require raises when it is not allowed. */
extern void plinth_limits_require(const char *policy, const char *key, int64 cost);

extern void plinth_limits_init(void);

#endif /* PLINTH_LIMITS_H */
