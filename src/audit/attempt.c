/*
 * attempt.c
 *		The entry of an attempt: it is there, whatever becomes of the transaction.
 *
 * Who may run SQL can try a password and roll back.  So the entry is a row of
 * the transaction, as any other; and where that, or a savepoint around it, is
 * rolled back, the same entry goes into the WAL as an event, under the same id,
 * and says that it was rolled back.  This needs events to be enabled; without
 * them an attempt that is rolled back leaves no entry.
 *
 * What is sent then was built before, since a transaction that ends badly can
 * look nothing up.  Memory for it is bounded: of very many attempts in one
 * transaction, those beyond a number are sent at once and make no row.
 */
#include "postgres.h"

#include "audit/internal.h"
#include "base/base.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define MAX_KEPT 1000

typedef struct Kept
{
	Size size;
	char *body;
} Kept;

static int nkept = 0;

/* Not left to the transaction's end: a loop may roll back to many a savepoint. */
static void
release(Kept *kept)
{
	pfree(kept->body);
	pfree(kept);
}

static void
forget(void *arg)
{
	nkept--;
	release(arg);
}

static void
send_kept(void *arg)
{
	Kept *kept = arg;

	nkept--;
	plinth_audit_event_send(kept->body, kept->size, true, false);
	release(kept);
}

/* The row is in the prepared transaction, of whose end nobody is told: so it cannot be one. */
static const PlinthXactAction attempt_action = {
	.name = "audit entry of an attempt",
	.reserve = NULL,
	.publish = forget,
	.discard = send_kept,
	.shared = true,
};

/* Keeps the entry as an event, for the case that it is rolled back. */
static void
keep(const PlinthAuditRow *row)
{
	PlinthAuditRow event = *row;
	Datum *metadata = &event.values[PLINTH_AUDIT_NCOLUMNS - 1];
	Datum mark = DirectFunctionCall1(jsonb_in, CStringGetDatum("{\"rolled_back\": true}"));
	MemoryContext caller;
	Kept *kept;

	*metadata = DirectFunctionCall2(jsonb_concat, *metadata, mark);
	caller = MemoryContextSwitchTo(TopTransactionContext);
	kept = palloc(sizeof(Kept));
	kept->body = plinth_audit_event_build(&event, &kept->size);
	MemoryContextSwitchTo(caller);
	plinth_base_xact_add(&attempt_action, kept);
	nkept++;
}

pg_uuid_t
plinth_audit_attempt(const PlinthAuditEntry *entry)
{
	PlinthAuditRow row;

	PreventCommandIfReadOnly("recording an audit entry");
	plinth_audit_row_fill(&row, entry);
	if (plinth_audit_key_find(row.recorded_at) != PLINTH_AUDIT_KEY_READY)
		plinth_audit_row_insert(&row);
	else if (nkept < MAX_KEPT)
	{
		keep(&row);
		plinth_audit_row_insert(&row);
	}
	else
	{
		Size size;
		char *body = plinth_audit_event_build(&row, &size);

		plinth_audit_event_send(body, size, false, false);
	}
	return row.id;
}
