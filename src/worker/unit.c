/*
 * unit.c
 *		What a coordinator keeps alive: units, each a set of instances that
 *		start and stop together.
 *
 * A unit is all instances of all services of one group, or one instance of a
 * service without a group.  It is idle (nothing runs), running (all of it
 * runs) or stopping; it stops as soon as one instance has ended, fewer
 * instances are wanted, or a restart is asked for, and starts when it is idle,
 * wanted and its delay is over.  An instance that ended by itself counts as a
 * failure, whatever its exit code: the delay doubles with each, until the unit
 * has run for a minute.
 *
 * Where more instances are wanted of a unit that runs, they join it and the
 * others go on; one that finds no worker slot is newcomer until it does.
 *
 * Local to a coordinator; the entries that it makes in the registry stay while
 * the unit is wanted, so that stat_workers shows what waits to start again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/memutils.h"
#include "worker/child.h"
#include "worker/unit.h"

/* A unit that ran for so long did not fail at its start. */
#define STABLE_MS 60000
/* How often one that is stopping is looked at. */
#define STOP_POLL_MS 100
/* When an instance that found no worker slot tries again. */
#define JOIN_AGAIN_MS 2000

typedef struct Unit
{
	const char *group; /* NULL: one instance of lone */
	int lone;
	int instance;
	PlinthWorkerCounts want;
	PlinthWorkerCounts have; /* what children are for */
	List *children;          /* PlinthWorkerChild * */
	List *newcomers;         /* those that could not join yet */
	bool running;            /* started and not yet stopping */
	int failures;
	TimestampTz started;
	TimestampTz next_start;
	TimestampTz next_join;
} Unit;

static List *units = NIL;

static Unit *
find_unit(const char *group, int lone, int instance)
{
	ListCell *lc;
	Unit *unit;
	MemoryContext oldcontext;

	foreach (lc, units)
	{
		unit = lfirst(lc);
		if (group != NULL
				? (unit->group != NULL && strcmp(unit->group, group) == 0)
				: (unit->group == NULL && unit->lone == lone && unit->instance == instance))
			return unit;
	}
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	unit = palloc0(sizeof(Unit));
	unit->group = group;
	unit->lone = lone;
	unit->instance = instance;
	units = lappend(units, unit);
	MemoryContextSwitchTo(oldcontext);
	return unit;
}

void
plinth_worker_units_want(const PlinthWorkerCounts *counts)
{
	ListCell *lc;

	foreach (lc, units)
		memset(&((Unit *) lfirst(lc))->want, 0, sizeof(PlinthWorkerCounts));
	for (int s = 0; s < plinth_worker_service_count(); s++)
	{
		const char *group = plinth_worker_service_get(s)->group;

		if (group != NULL)
			find_unit(group, 0, 0)->want.n[s] = counts->n[s];
		for (int i = 0; group == NULL && i < counts->n[s]; i++)
			find_unit(NULL, s, i)->want.n[s] = 1;
	}
}

static bool
is_wanted(const Unit *unit)
{
	for (int s = 0; s < PLINTH_MAX_SERVICES; s++)
	{
		if (unit->want.n[s] > 0)
			return true;
	}
	return false;
}

static bool
has_living(Unit *unit)
{
	ListCell *lc;
	bool any = false;

	foreach (lc, unit->children)
		any |= plinth_worker_child_alive(lfirst(lc));
	return any;
}

static bool
has_ended(Unit *unit)
{
	ListCell *lc;

	foreach (lc, unit->children)
	{
		if (!plinth_worker_child_alive(lfirst(lc)))
			return true;
	}
	return false;
}

static void
stop_unit(Unit *unit)
{
	ListCell *lc;

	unit->running = false;
	foreach (lc, unit->children)
	{
		if (plinth_worker_child_alive(lfirst(lc)))
			plinth_worker_child_stop(lfirst(lc));
	}
}

static List *
forget_children(List *children)
{
	ListCell *lc;

	foreach (lc, children)
		plinth_worker_child_forget(lfirst(lc));
	list_free_deep(children);
	return NIL;
}

/* Adds what is wanted beyond what there is to a list of children. */
static List *
add_children(Unit *unit, List *children)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);

	for (int s = 0; s < plinth_worker_service_count(); s++)
	{
		for (int i = unit->have.n[s]; i < unit->want.n[s]; i++)
		{
			PlinthWorkerChild *child = palloc(sizeof(PlinthWorkerChild));

			plinth_worker_child_init(child, MyDatabaseId, s,
									 unit->group != NULL ? i : unit->instance);
			children = lappend(children, child);
		}
	}
	MemoryContextSwitchTo(oldcontext);
	unit->have = unit->want;
	return children;
}

/* Makes the children that are wanted; the unit is idle. */
static void
make_children(Unit *unit)
{
	if (unit->children != NIL && unit->newcomers == NIL &&
		memcmp(&unit->have, &unit->want, sizeof(unit->have)) == 0)
		return;
	unit->newcomers = forget_children(unit->newcomers);
	unit->children = forget_children(unit->children);
	memset(&unit->have, 0, sizeof(unit->have));
	unit->children = add_children(unit, unit->children);
}

/* Is more wanted of what runs, and nothing less? */
static bool
may_grow(const Unit *unit)
{
	for (int s = 0; s < PLINTH_MAX_SERVICES; s++)
	{
		if (unit->want.n[s] < unit->have.n[s])
			return false;
	}
	return unit->running;
}

/* Lets newcomers join; returns for how long none is due. */
static long
join_newcomers(Unit *unit, TimestampTz now)
{
	ListCell *lc;

	if (unit->newcomers == NIL)
		return LONG_MAX;
	if (now < unit->next_join)
		return TimestampDifferenceMilliseconds(now, unit->next_join);
	foreach (lc, unit->newcomers)
	{
		MemoryContext oldcontext;

		if (!plinth_worker_child_start(lfirst(lc)))
			continue;
		oldcontext = MemoryContextSwitchTo(TopMemoryContext);
		unit->children = lappend(unit->children, lfirst(lc));
		MemoryContextSwitchTo(oldcontext);
		unit->newcomers = foreach_delete_current (unit->newcomers, lc);
	}
	unit->next_join = TimestampTzPlusMilliseconds(now, JOIN_AGAIN_MS);
	return unit->newcomers == NIL ? LONG_MAX : JOIN_AGAIN_MS;
}

static void
delay_unit(Unit *unit, TimestampTz now)
{
	unit->failures++;
	unit->next_start = TimestampTzPlusMilliseconds(now, plinth_worker_delay(unit->failures));
}

static void
start_unit(Unit *unit, TimestampTz now)
{
	ListCell *lc;

	unit->started = now;
	unit->running = true;
	foreach (lc, unit->children)
	{
		if (!plinth_worker_child_start(lfirst(lc)))
		{
			stop_unit(unit);
			delay_unit(unit, now);
			return;
		}
	}
}

/* Returns for how long nothing is due. */
static long
step_unit(Unit *unit, TimestampTz now)
{
	if (unit->running && has_ended(unit))
	{
		if (TimestampDifferenceExceeds(unit->started, now, STABLE_MS))
			unit->failures = 0;
		stop_unit(unit);
		delay_unit(unit, now);
	}
	if (unit->running && memcmp(&unit->have, &unit->want, sizeof(unit->have)) != 0)
	{
		if (may_grow(unit))
		{
			unit->newcomers = add_children(unit, unit->newcomers);
			unit->next_join = now;
		}
		else
		{
			stop_unit(unit);
			unit->failures = 0;
			unit->next_start = now;
		}
	}
	if (unit->running)
		return join_newcomers(unit, now);
	if (has_living(unit))
		return STOP_POLL_MS;

	make_children(unit);
	if (!is_wanted(unit))
		return LONG_MAX;
	if (now < unit->next_start)
		return TimestampDifferenceMilliseconds(now, unit->next_start);
	start_unit(unit, now);
	return unit->running ? LONG_MAX : STOP_POLL_MS;
}

long
plinth_worker_units_step(void)
{
	TimestampTz now = GetCurrentTimestamp();
	long least = LONG_MAX;
	ListCell *lc;

	foreach (lc, units)
	{
		Unit *unit = lfirst(lc);
		long next = step_unit(unit, now);

		least = Min(least, next);
		if (!is_wanted(unit) && unit->children == NIL)
		{
			units = foreach_delete_current (units, lc);
			pfree(unit);
		}
	}
	return least;
}

void
plinth_worker_units_restart(void)
{
	ListCell *lc;

	foreach (lc, units)
	{
		Unit *unit = lfirst(lc);

		if (unit->running)
			stop_unit(unit);
		unit->failures = 0;
		unit->next_start = 0;
	}
}

bool
plinth_worker_units_idle(void)
{
	ListCell *lc;

	foreach (lc, units)
	{
		if (has_living(lfirst(lc)))
			return false;
	}
	return true;
}
