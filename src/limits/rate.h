/*
 * rate.h
 *		The arithmetic of rate limits, in plain C.
 *
 * Private to room limits; nothing here needs PostgreSQL.
 */
#ifndef PLINTH_LIMITS_RATE_H
#define PLINTH_LIMITS_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* Bounds within which no product below overflows; times in microseconds. */
#define PLINTH_RATE_COUNT_MAX INT64_C(1000000000)
#define PLINTH_RATE_PERIOD_MIN INT64_C(100000)
#define PLINTH_RATE_PERIOD_MAX (INT64_C(366) * 86400 * 1000000)

/* Times outside of these are taken as these: 2024-01-01 and 2056-01-01. */
#define PLINTH_RATE_TIME_MIN (INT64_C(1704067200) * 1000000)
#define PLINTH_RATE_TIME_MAX (INT64_C(2713910400) * 1000000)

/* No word of a bucket or window: one that somebody has taken away for a moment. */
#define PLINTH_RATE_TAKEN UINT64_MAX

typedef struct PlinthRate
{
	bool window;       /* fixed window; else a bucket */
	uint64_t capacity; /* what a full bucket, or a window, holds */
	uint64_t period;   /* of a window */
	uint64_t num;      /* ticks per microsecond are num / den */
	uint64_t den;
	uint64_t interval; /* ticks per unit of cost */
	uint64_t refill;   /* microseconds in which all of capacity comes back, rounded up */
} PlinthRate;

typedef struct PlinthRateDecision
{
	bool allowed;
	uint64_t word; /* what the state is afterwards */
	int64_t remaining;
	int64_t retry_after;
	int64_t reset_after;
} PlinthRateDecision;

/* False for what is out of bounds. */
extern bool plinth_rate_bucket(PlinthRate *rate, int64_t limit, int64_t period, int64_t burst);
extern bool plinth_rate_window(PlinthRate *rate, int64_t limit, int64_t period);

/*
 * Decides at a time, in microseconds since the Unix epoch.  cost 0 consumes
 * nothing and tells whether 1 would be allowed; it must not be above capacity.
 */
extern PlinthRateDecision plinth_rate_decide(const PlinthRate *rate, uint64_t word, int64_t now,
											 int64_t cost);

/* The word of a full bucket, or of the present window without any use; not below idle's. */
extern uint64_t plinth_rate_empty(const PlinthRate *rate, int64_t now);

/*
 * The word of a bucket that is full, and of a window in which nothing was
 * used, as of a time.  A word below this is such a one, whatever its rate; and
 * no decision at that time or later makes a word below it.
 */
extern uint64_t plinth_rate_idle(int64_t now);

/* A time, in seconds since the Unix epoch, at which this word is idle. */
extern uint32_t plinth_rate_idle_at(uint64_t word);

#endif /* PLINTH_LIMITS_RATE_H */
