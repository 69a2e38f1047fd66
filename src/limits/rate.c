/*
 * rate.c
 *		The arithmetic of rate limits, in plain C: all of a key's state is one
 *		64-bit word, so that one compare-and-swap is a decision.
 *
 * Buckets.  GCRA, which is a token bucket seen from the other end: the word
 * says when the bucket will be full (the theoretical arrival time, TAT).  A cost
 * moves it on by cost emission intervals, and is allowed when it is then no
 * further ahead of now than burst intervals.  An interval is period / limit,
 * which need not be whole microseconds, and rounding it would either let more
 * through than promised or turn away a client that keeps to the rate.  So
 * time is counted in ticks, an exact number of which is one interval: a tick
 * is 1/num of a microsecond, where period / limit = interval / num in lowest
 * terms.  Where num would be above 2^14 (33,333 a second, say) ticks are the
 * 1/interval part of an interval, at most that fine, and a time is rounded up to the next
 * tick.  What follows from it, for t = tick(time) in both cases:
 * - a client that keeps to the rate is never denied, since two times that are
 *   an interval apart are exactly `interval` ticks apart, rounded or not;
 * - admitted <= burst + rate * window, exactly where num fits; otherwise a
 *   unit may be there one tick early, at most 0.13 nanoseconds.
 *
 * Fixed windows begin at multiples of their period since the Unix epoch.
 *
 * Words are ordered by time, whatever the rate: that of a bucket is the
 * microsecond of its TAT in the upper 50 bits (from 2024 on) and the tick
 * within it below; that of a window is its end in the upper 34 bits, in units
 * of 2^16 microseconds, rounded up (windows are longer than that, so each has
 * its own), and below it what was used.  So a word below now << 14 says that the
 * bucket is full, or the window over, without a look at its rate; and a word
 * that is made now is above all that were idle.  table.c stands on that.
 *
 * Bounds: now < 2^50 - 2^45, capacity * interval < 2^45 * 2^14, so sums fit
 * in 64 bits; products with den are taken in 128.
 */
#include "limits/rate.h"

#define FRACTION_BITS 14
#define TICKS_MAX (UINT64_C(1) << FRACTION_BITS)
#define COUNT_BITS 30
#define COUNT_MASK ((UINT64_C(1) << COUNT_BITS) - 1)
#define END_UNIT (UINT64_C(1) << (COUNT_BITS - FRACTION_BITS))

__extension__ typedef unsigned __int128 wide;

static uint64_t
greatest_divisor(uint64_t a, uint64_t b)
{
	while (b != 0)
	{
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Microseconds since 2024. */
static uint64_t
since_start(int64_t now)
{
	if (now < PLINTH_RATE_TIME_MIN)
		return 0;
	if (now > PLINTH_RATE_TIME_MAX)
		return PLINTH_RATE_TIME_MAX - PLINTH_RATE_TIME_MIN;
	return now - PLINTH_RATE_TIME_MIN;
}

/* The first tick at or after a microsecond. */
static uint64_t
tick_of(const PlinthRate *rate, uint64_t us)
{
	if (rate->den == 1)
		return us * rate->num;
	return ((wide) us * rate->num + rate->den - 1) / rate->den;
}

/* The last microsecond at or before a tick. */
static uint64_t
microsecond_of(const PlinthRate *rate, uint64_t tick)
{
	if (rate->num == 1 && rate->den == 1)
		return tick;
	if (rate->den == 1)
		return tick / rate->num;
	return (wide) tick * rate->den / rate->num;
}

/* How long after now the first microsecond is that is not before a tick. */
static int64_t
time_until(const PlinthRate *rate, uint64_t tick, uint64_t now)
{
	uint64_t us;

	if (tick <= tick_of(rate, now))
		return 0;
	us = microsecond_of(rate, tick - 1) + 1;
	return us - now;
}

static bool
in_bounds(int64_t limit, int64_t period, int64_t burst)
{
	return limit >= 1 && limit <= PLINTH_RATE_COUNT_MAX && burst >= 1 &&
		   burst <= PLINTH_RATE_COUNT_MAX && period >= PLINTH_RATE_PERIOD_MIN &&
		   period <= PLINTH_RATE_PERIOD_MAX;
}

bool
plinth_rate_bucket(PlinthRate *rate, int64_t limit, int64_t period, int64_t burst)
{
	uint64_t divisor;
	wide refill;

	if (!in_bounds(limit, period, burst))
		return false;
	refill = ((wide) burst * (uint64_t) period + limit - 1) / limit;
	if (refill > (wide) PLINTH_RATE_PERIOD_MAX)
		return false;

	divisor = greatest_divisor(limit, period);
	rate->window = false;
	rate->capacity = burst;
	rate->period = period;
	rate->refill = refill;
	rate->num = limit / divisor;
	rate->den = 1;
	rate->interval = period / divisor;
	if (rate->num > TICKS_MAX)
	{
		/*
		 * As many ticks an interval as keep those of a microsecond below the
		 * bound: at least one, as no rate is above 10,000 a microsecond.
		 */
		uint64_t ticks = (wide) rate->interval * (TICKS_MAX - 1) / rate->num;

		rate->den = rate->interval;
		rate->num *= ticks;
		rate->interval = ticks;
		divisor = greatest_divisor(rate->num, rate->den);
		rate->num /= divisor;
		rate->den /= divisor;
	}
	return true;
}

bool
plinth_rate_window(PlinthRate *rate, int64_t limit, int64_t period)
{
	if (!in_bounds(limit, period, 1))
		return false;
	rate->window = true;
	rate->capacity = limit;
	rate->period = period;
	rate->num = rate->den = rate->interval = 1;
	rate->refill = period;
	return true;
}

static PlinthRateDecision
decide_bucket(const PlinthRate *rate, uint64_t word, uint64_t now, uint64_t cost)
{
	uint64_t tolerance = rate->capacity * rate->interval;
	uint64_t now_tick = tick_of(rate, now);
	uint64_t tat = tick_of(rate, word >> FRACTION_BITS) + (word & (TICKS_MAX - 1));
	uint64_t after;
	PlinthRateDecision decision = {.word = word};

	if (tat < now_tick)
		tat = now_tick;
	after = tat + (cost > 0 ? cost : 1) * rate->interval;
	decision.allowed = after - now_tick <= tolerance;
	if (!decision.allowed)
		decision.retry_after = time_until(rate, after - tolerance, now);
	else if (cost > 0)
	{
		uint64_t us = microsecond_of(rate, after);

		tat = after;
		decision.word = us << FRACTION_BITS | (tat - tick_of(rate, us));
	}

	/* A burst that was lowered meanwhile may be overdrawn. */
	if (tat - now_tick < tolerance)
		decision.remaining = (tolerance - (tat - now_tick)) / rate->interval;
	decision.reset_after = time_until(rate, tat, now);
	return decision;
}

/* The end of a window as it stands in a word; end is counted from the Unix epoch. */
static uint64_t
end_code(uint64_t end)
{
	return (end - PLINTH_RATE_TIME_MIN + END_UNIT - 1) / END_UNIT;
}

static PlinthRateDecision
decide_window(const PlinthRate *rate, uint64_t word, uint64_t now, uint64_t cost)
{
	uint64_t unix_now = now + PLINTH_RATE_TIME_MIN;
	uint64_t end = unix_now - unix_now % rate->period + rate->period;
	uint64_t code = end_code(end);
	uint64_t used = 0;
	PlinthRateDecision decision = {.word = word};

	/* Who looked at the clock before others did comes into their window. */
	if (word >> COUNT_BITS >= code)
	{
		used = word & COUNT_MASK;
		if (word >> COUNT_BITS > code)
		{
			code = word >> COUNT_BITS;
			end = code * END_UNIT + PLINTH_RATE_TIME_MIN;
			end -= end % rate->period;
		}
	}
	decision.allowed = used + (cost > 0 ? cost : 1) <= rate->capacity;
	if (decision.allowed && cost > 0)
	{
		used += cost;
		decision.word = code << COUNT_BITS | used;
	}
	decision.reset_after = end - unix_now;
	if (!decision.allowed)
		decision.retry_after = decision.reset_after;
	if (used < rate->capacity)
		decision.remaining = rate->capacity - used;
	return decision;
}

PlinthRateDecision
plinth_rate_decide(const PlinthRate *rate, uint64_t word, int64_t now, int64_t cost)
{
	return rate->window ? decide_window(rate, word, since_start(now), cost)
						: decide_bucket(rate, word, since_start(now), cost);
}

uint64_t
plinth_rate_empty(const PlinthRate *rate, int64_t now)
{
	uint64_t unix_now = since_start(now) + PLINTH_RATE_TIME_MIN;

	if (!rate->window)
		return plinth_rate_idle(now);
	return end_code(unix_now - unix_now % rate->period + rate->period) << COUNT_BITS;
}

uint64_t
plinth_rate_idle(int64_t now)
{
	return since_start(now) << FRACTION_BITS;
}

uint32_t
plinth_rate_idle_at(uint64_t word)
{
	return ((word >> FRACTION_BITS) + PLINTH_RATE_TIME_MIN) / 1000000 + 1;
}
