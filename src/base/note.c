/*
 * note.c
 *		What a transaction notes about itself as the very last thing before it
 *		commits: that a session or an identity is in use.
 *
 * So the row's lock is held no longer than the commit takes, and no long
 * transaction holds up who wants the row.  What cannot write (READ ONLY
 * transactions, standbys), or could fail by it (REPEATABLE READ and above),
 * notes nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/base.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct Note
{
	PlinthPlan *plan;
	bool *writing;
	Datum values[PLINTH_PLAN_MAX_ARGS];
} Note;

bool
plinth_base_may_note(void)
{
	return !XactReadOnly && !IsolationUsesXactSnapshot();
}

static void
write_note(void *arg)
{
	Note *note = arg;
	PlinthAsOwner owner;

	if (!plinth_base_may_note())
		return;
	/* At commit no statement is running, hence no snapshot is there. */
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_write(note->plan, note->values, SPI_OK_UPDATE, note->writing);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PopActiveSnapshot();
}

static const PlinthXactAction note_action = {
	.name = "note of use",
	.reserve = write_note,
	.publish = NULL,
	.discard = NULL,
	.shared = false,
};

void
plinth_base_note(PlinthPlan *plan, const Datum *values, bool *writing)
{
	static bool nobody_asks;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Note *note = palloc0(sizeof(Note));

	note->plan = plan;
	note->writing = writing ? writing : &nobody_asks;
	for (int i = 0; i < plan->nargs; i++)
	{
		int16 len;
		bool byval;

		get_typlenbyval(plan->argtypes[i], &len, &byval);
		note->values[i] = datumCopy(values[i], byval, len);
	}
	MemoryContextSwitchTo(old);
	plinth_base_xact_add(&note_action, note);
}
