/*
 * clock.c
 *		The time that limits go by.
 *
 * It is a monotonic clock plus an offset that the postmaster fixes once, so
 * that a wall clock that is stepped, forth or back, changes no decision.  The
 * offset makes it the wall clock's time as the server started, or the time
 * that was saved with the limits where that is later: it never goes back, over
 * a restart neither.  Every process has the offset by fork; a crash of a
 * backend does not restart the postmaster, so the clock just goes on.
 *
 * CLOCK_BOOTTIME counts the time that a machine slept, CLOCK_MONOTONIC does
 * not: a laptop's limits should not last for the time that it was closed.
 */
#include "postgres.h"

#include <time.h>

#include "limits/internal.h"
#include "datatype/timestamp.h"

#ifdef CLOCK_BOOTTIME
#define STEADY_CLOCK CLOCK_BOOTTIME
#else
#define STEADY_CLOCK CLOCK_MONOTONIC
#endif

static int64 offset = 0;

static int64
read_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64) ts.tv_sec * USECS_PER_SEC + ts.tv_nsec / 1000;
}

int64
plinth_limits_now(void)
{
	return read_clock(STEADY_CLOCK) + offset;
}

void
plinth_limits_clock_init(void)
{
	offset = read_clock(CLOCK_REALTIME) - read_clock(STEADY_CLOCK);
}

void
plinth_limits_clock_not_before(int64 time)
{
	int64 now = plinth_limits_now();

	if (time > now)
		offset += time - now;
}
