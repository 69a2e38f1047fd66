/* sources: src/limits/rate.c */
/*
 * rate_test.c
 *		Rate limits against models that keep the state in the plain way: a token
 *		bucket as a level that time fills, a window as a number and a count.
 *
 * The seed is fixed, so that a failure comes again; RATE_TEST_SEED gives another.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "limits/rate.h"
#include "tap.h"

#define DECISIONS 1000000
#define START (INT64_C(1790000000) * 1000000)
#define LATEST (PLINTH_RATE_TIME_MAX - 2 * PLINTH_RATE_PERIOD_MAX)

__extension__ typedef __int128 wide;

static uint64_t random_state;

static uint64_t
next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

static int64_t
between(int64_t low, int64_t high)
{
	return low + (int64_t) (next_random() % (uint64_t) (high - low + 1));
}

/* As likely small as great. */
static int64_t
any_size(int64_t low, int64_t high)
{
	int64_t top = high >> between(0, 62);

	return between(low, top < low ? low : top);
}

/* A level in units of 1/period: a token is `period` of them, each microsecond gives `limit`. */
typedef struct Bucket
{
	int64_t limit;
	int64_t period;
	int64_t burst;
	wide level;
	int64_t time;
} Bucket;

static void
bucket_fill(Bucket *bucket, int64_t now)
{
	bucket->level += (wide) (now - bucket->time) * bucket->limit;
	if (bucket->level > (wide) bucket->burst * bucket->period)
		bucket->level = (wide) bucket->burst * bucket->period;
	bucket->time = now;
}

static int64_t
until(wide missing, int64_t limit)
{
	return missing <= 0 ? 0 : (int64_t) ((missing + limit - 1) / limit);
}

static PlinthRateDecision
bucket_decide(Bucket *bucket, int64_t now, int64_t cost)
{
	wide wanted = (wide) (cost > 0 ? cost : 1) * bucket->period;
	PlinthRateDecision decision = {0};

	bucket_fill(bucket, now);
	decision.allowed = bucket->level >= wanted;
	if (!decision.allowed)
		decision.retry_after = until(wanted - bucket->level, bucket->limit);
	else if (cost > 0)
		bucket->level -= wanted;
	decision.remaining = bucket->level / bucket->period;
	decision.reset_after =
		until((wide) bucket->burst * bucket->period - bucket->level, bucket->limit);
	return decision;
}

static bool
same(const PlinthRateDecision *a, const PlinthRateDecision *b)
{
	return a->allowed == b->allowed && a->remaining == b->remaining &&
		   a->retry_after == b->retry_after && a->reset_after == b->reset_after;
}

static bool
exact(int64_t limit, int64_t period)
{
	PlinthRate rate;

	return plinth_rate_bucket(&rate, limit, period, 1) && rate.den == 1;
}

/* A policy at random whose ticks are exact or not. */
static void
random_bucket(PlinthRate *rate, Bucket *bucket, bool wanted_exact)
{
	do
	{
		bucket->limit = any_size(1, PLINTH_RATE_COUNT_MAX);
		bucket->period = any_size(PLINTH_RATE_PERIOD_MIN, PLINTH_RATE_PERIOD_MAX);
		if (between(0, 1) == 0)
			bucket->period -= bucket->period % 1000000;
		bucket->burst = between(0, 2) == 0 ? any_size(1, PLINTH_RATE_COUNT_MAX) : between(1, 20);
	} while (!plinth_rate_bucket(rate, bucket->limit, bucket->period, bucket->burst) ||
			 exact(bucket->limit, bucket->period) != wanted_exact);
	bucket->level = (wide) bucket->burst * bucket->period;
	bucket->time = START;
}

/* Some time that matters: none, about an interval, about the whole bucket, when told to come again. */
static int64_t
random_pause(const Bucket *bucket, int64_t retry_after)
{
	int64_t interval = bucket->period / bucket->limit;

	switch (between(0, 5))
	{
		case 0:
			return 0;
		case 1:
			return between(0, 2 * interval + 1);
		case 2:
			return any_size(0, 2 * bucket->period);
		case 3:
			return retry_after;
		case 4:
			return retry_after > 0 ? retry_after - 1 : interval;
		default:
			return interval + between(0, 1);
	}
}

static int64_t
random_cost(int64_t capacity)
{
	if (between(0, 9) == 0)
		return 0;
	return between(0, 2) == 0 ? any_size(1, capacity) : 1;
}

static void
test_bucket(void)
{
	int decisions = 0;
	int wrong = 0;
	int denied = 0;
	int fractions = 0;

	while (decisions < DECISIONS)
	{
		PlinthRate rate;
		Bucket bucket;
		int64_t now = START;
		int64_t retry = 0;
		uint64_t word = 0;

		random_bucket(&rate, &bucket, true);
		fractions += rate.num > 1;
		for (int i = 0; i < 50 && now < LATEST; i++, decisions++)
		{
			int64_t cost = random_cost(bucket.burst);
			PlinthRateDecision ours;
			PlinthRateDecision model;

			now += random_pause(&bucket, retry);
			ours = plinth_rate_decide(&rate, word, now, cost);
			model = bucket_decide(&bucket, now, cost);
			wrong += !same(&ours, &model);
			wrong += (!ours.allowed || cost == 0) && ours.word != word;
			wrong += ours.allowed && cost > 0 &&
					 (ours.word <= word || ours.word < plinth_rate_idle(now));
			wrong += ours.word < plinth_rate_idle(now) && ours.remaining != bucket.burst;
			word = ours.word;
			retry = ours.retry_after;
			denied += !ours.allowed;
		}
	}
	check(wrong == 0, "a bucket decides as a level that fills does");
	check(denied > DECISIONS / 20 && denied < DECISIONS && fractions > 1000,
		  "both answers and fractions of microseconds came up");
}

/*
 * Where ticks are not exact, the bucket stands between one whose clock is right
 * and one whose clock is a nanosecond ahead.
 */
static void
test_fine_bucket(void)
{
	int decisions = 0;
	int wrong = 0;
	int denied = 0;

	while (decisions < DECISIONS)
	{
		PlinthRate rate;
		Bucket bucket;
		int64_t first = START + between(0, 1000000000);
		int64_t now = first;
		int64_t retry = 0;
		uint64_t word = 0;
		wide admitted = 0;

		random_bucket(&rate, &bucket, false);
		bucket.time = first;
		for (int i = 0; i < 50 && now < LATEST; i++, decisions++)
		{
			int64_t cost = random_cost(bucket.burst);
			PlinthRateDecision ours;
			wide promised;

			now += random_pause(&bucket, retry);
			bucket_fill(&bucket, now);
			ours = plinth_rate_decide(&rate, word, now, cost);
			if (!ours.allowed)
				wrong += bucket.level >= (wide) (cost > 0 ? cost : 1) * bucket.period;
			else if (cost > 0)
			{
				bucket.level -= (wide) cost * bucket.period;
				admitted += cost;
			}

			/* 1000 * (burst + rate * (window + 1 ns)), times the period. */
			promised =
				((wide) bucket.burst * bucket.period + (wide) (now - first) * bucket.limit) * 1000 +
				bucket.limit;
			wrong += admitted * bucket.period * 1000 > promised;
			wrong += ours.word < plinth_rate_idle(now) && ours.remaining != bucket.burst;
			if (ours.retry_after > 0)
				wrong +=
					!plinth_rate_decide(&rate, ours.word, now + ours.retry_after, cost).allowed ||
					plinth_rate_decide(&rate, ours.word, now + ours.retry_after - 1, cost).allowed;
			word = ours.word;
			retry = ours.retry_after;
			denied += !ours.allowed;
		}
	}
	check(wrong == 0, "a rate of very fine ticks holds to within a nanosecond");
	check(denied > DECISIONS / 100 && denied < DECISIONS, "both answers came up");
}

static void
test_window(void)
{
	int decisions = 0;
	int wrong = 0;
	int denied = 0;

	while (decisions < DECISIONS)
	{
		int64_t limit = between(0, 1) == 0 ? between(1, 20) : any_size(1, PLINTH_RATE_COUNT_MAX);
		int64_t period = any_size(PLINTH_RATE_PERIOD_MIN, PLINTH_RATE_PERIOD_MAX);
		int64_t now = START + between(0, 1000000000);
		int64_t number = 0;
		int64_t used = 0;
		uint64_t word = 0;
		PlinthRate rate;

		wrong += !plinth_rate_window(&rate, limit, period);
		for (int i = 0; i < 50 && now < LATEST; i++, decisions++)
		{
			int64_t cost = random_cost(limit);
			int64_t left = period - now % period;
			PlinthRateDecision ours;
			PlinthRateDecision model = {0};

			now += between(0, 4) == 0 ? left - between(0, 1) : any_size(0, period / 4);
			if (now / period != number)
				used = 0;
			number = now / period;
			model.allowed = used + (cost > 0 ? cost : 1) <= limit;
			used += model.allowed ? cost : 0;
			model.remaining = limit - used;
			model.reset_after = (number + 1) * period - now;
			model.retry_after = model.allowed ? 0 : model.reset_after;
			ours = plinth_rate_decide(&rate, word, now, cost);
			wrong += !same(&ours, &model);
			wrong += (!ours.allowed || cost == 0) && ours.word != word;
			wrong += ours.word != word && (ours.word < word || ours.word < plinth_rate_idle(now));
			wrong += ours.word < plinth_rate_idle(now) && used != 0;
			word = ours.word;
			denied += !ours.allowed;
		}
	}
	check(wrong == 0, "a window decides as a number and a count do");
	check(denied > DECISIONS / 20 && denied < DECISIONS, "both answers came up");
}

/*
 * One that asks exactly as often as allowed is never denied, whatever the
 * rate: a whole number of microseconds that is not below an interval apart, or
 * at the multiples of an interval, rounded up, where a burst of 2 makes good
 * for the rounding.  (Of intervals below a microsecond more would be needed.)
 */
static void
test_lone_client(void)
{
	int wrong = 0;

	for (int policy = 0; policy < 2000; policy++)
	{
		PlinthRate steady;
		PlinthRate multiples;
		Bucket bucket;
		int64_t first = START + between(0, 1000000000);
		uint64_t steady_word = 0;
		uint64_t multiples_word = 0;

		do
			random_bucket(&steady, &bucket, policy % 2 == 0);
		while (bucket.limit > bucket.period ||
			   !plinth_rate_bucket(&multiples, bucket.limit, bucket.period, 2));
		plinth_rate_bucket(&steady, bucket.limit, bucket.period, 1);
		for (int64_t i = 0; i < 500; i++)
		{
			wide time = ((wide) i * bucket.period + bucket.limit - 1) / bucket.limit;
			int64_t interval = (bucket.period + bucket.limit - 1) / bucket.limit;
			PlinthRateDecision decision;

			if (first + i * interval > LATEST)
				break;
			decision = plinth_rate_decide(&steady, steady_word, first + i * interval, 1);
			wrong += !decision.allowed;
			steady_word = decision.word;
			decision = plinth_rate_decide(&multiples, multiples_word, first + (int64_t) time, 1);
			wrong += !decision.allowed;
			multiples_word = decision.word;
		}
	}
	check(wrong == 0, "a lone client at the allowed rate is never denied");
}

/* Several backends that read the clock in one order and decide in another. */
static void
test_late(void)
{
	int wrong = 0;

	for (int round = 0; round < 20000; round++)
	{
		int64_t period = any_size(PLINTH_RATE_PERIOD_MIN, INT64_C(100000000));
		int64_t limit = between(1, 50);
		int64_t burst = between(1, 50);
		int64_t first = START + between(0, 1000000000);
		int64_t last = first;
		uint64_t word = 0;
		uint64_t window_word = 0;
		int64_t admitted = 0;
		int64_t admitted_windows = 0;
		PlinthRate rate;
		PlinthRate window;

		if (!plinth_rate_bucket(&rate, limit, period, burst) ||
			!plinth_rate_window(&window, limit, period))
			abort();
		for (int i = 0; i < 100; i++)
		{
			int64_t now = last + between(0, period / limit);
			int64_t seen = now - between(0, 3) * between(0, period);
			PlinthRateDecision decision;

			if (seen < first)
				seen = first;
			decision = plinth_rate_decide(&rate, word, seen, 1);
			admitted += decision.allowed;
			wrong += decision.word < word || decision.reset_after < 0 || decision.retry_after < 0;
			word = decision.word;
			decision = plinth_rate_decide(&window, window_word, seen, 1);
			admitted_windows += decision.allowed;
			wrong += decision.word < window_word;
			wrong += decision.reset_after < 0 || decision.retry_after < 0;
			window_word = decision.word;
			last = now;
		}
		wrong += (wide) (admitted - burst) * period > (wide) (last - first) * limit;
		wrong += admitted_windows > (last / period - first / period + 1) * limit;
	}
	check(wrong == 0, "nobody gains by an old reading of the clock");
}

static void
test_edges(void)
{
	PlinthRate rate;
	PlinthRateDecision decision;
	int64_t far = PLINTH_RATE_TIME_MAX;

	check(!plinth_rate_bucket(&rate, 0, 1000000, 1) && !plinth_rate_bucket(&rate, 1, 99999, 1) &&
			  !plinth_rate_bucket(&rate, 1, 1000000, 0) &&
			  !plinth_rate_bucket(&rate, 1, PLINTH_RATE_PERIOD_MAX + 1, 1) &&
			  !plinth_rate_bucket(&rate, PLINTH_RATE_COUNT_MAX + 1, 1000000, 1) &&
			  !plinth_rate_window(&rate, -1, 1000000) && !plinth_rate_window(&rate, 1, 0),
		  "what is out of bounds is refused");
	check(!plinth_rate_bucket(&rate, 1, PLINTH_RATE_PERIOD_MAX, 2),
		  "a bucket that takes more than the longest period to fill is refused");

	check(plinth_rate_bucket(&rate, PLINTH_RATE_COUNT_MAX, PLINTH_RATE_PERIOD_MAX,
							 PLINTH_RATE_COUNT_MAX),
		  "the greatest bucket");
	decision = plinth_rate_decide(&rate, 0, far, PLINTH_RATE_COUNT_MAX);
	check(decision.allowed && decision.remaining == 0 &&
			  decision.reset_after == PLINTH_RATE_PERIOD_MAX && decision.word != PLINTH_RATE_TAKEN,
		  "is emptied at once, as late as can be");
	decision = plinth_rate_decide(&rate, decision.word, far, 1);
	check(!decision.allowed && decision.retry_after == 31623,
		  "and gives the next after an interval, rounded up");
	decision = plinth_rate_decide(&rate, 0, INT64_MIN, 1);
	check(decision.allowed && decision.remaining == PLINTH_RATE_COUNT_MAX - 1, "before the start");
	decision = plinth_rate_decide(&rate, 0, INT64_MAX, 1);
	check(decision.allowed && decision.remaining == PLINTH_RATE_COUNT_MAX - 1, "after the end");

	plinth_rate_bucket(&rate, 10, 1000000, 10);
	decision = plinth_rate_decide(&rate, 0, START, 10);
	plinth_rate_bucket(&rate, 10, 1000000, 4);
	decision = plinth_rate_decide(&rate, decision.word, START, 0);
	check(!decision.allowed && decision.remaining == 0 && decision.retry_after == 700000 &&
			  decision.reset_after == 1000000,
		  "a burst that was lowered keeps what was used");

	plinth_rate_window(&rate, 5, 60000000);
	check(plinth_rate_empty(&rate, START) >= plinth_rate_idle(START) &&
			  plinth_rate_decide(&rate, plinth_rate_empty(&rate, START), START, 5).allowed,
		  "an empty window has all of its limit");
	decision = plinth_rate_decide(&rate, 0, START, 5);
	check((int64_t) plinth_rate_idle_at(decision.word) * 1000000 >= START + decision.reset_after &&
			  plinth_rate_idle((int64_t) plinth_rate_idle_at(decision.word) * 1000000) >
				  decision.word,
		  "a window is idle when it is said to be");
}

int
main(void)
{
	const char *seed = getenv("RATE_TEST_SEED");

	random_state = seed != NULL ? strtoull(seed, NULL, 10) : UINT64_C(88172645463325252);
	test_bucket();
	test_fine_bucket();
	test_window();
	test_lone_client();
	test_late();
	test_edges();
	return tap_done();
}
