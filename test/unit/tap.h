/*
 * tap.h
 *		What a unit test says: TAP, on standard output.
 */
#ifndef PLINTH_TAP_H
#define PLINTH_TAP_H

#include <stdbool.h>
#include <stdio.h>

static int tap_count = 0;
static int tap_failures = 0;

static void
check(bool ok, const char *what)
{
	tap_count++;
	if (!ok)
		tap_failures++;
	printf("%sok %d - %s\n", ok ? "" : "not ", tap_count, what);
}

/* The plan; returns what main returns. */
static int
tap_done(void)
{
	printf("1..%d\n", tap_count);
	return tap_failures != 0;
}

#endif /* PLINTH_TAP_H */
