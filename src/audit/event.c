/*
 * event.c
 *		plinth.audit_event: an entry that outlives its transaction.
 *
 * The entry goes into the WAL as a message of no transaction; the decoder
 * stores it (event_consumer.c).  So it works in READ ONLY transactions, and
 * ROLLBACK does not take it back.  It is flushed by the WAL writer as a commit
 * under synchronous_commit = off is, or at once when asked to.
 *
 * A backend keeps the key while the generation of sync stands still, and looks
 * at least once a second whether the slot is still there: what is written
 * without one is lost.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "audit/internal.h"
#include "base/base.h"
#include "crypto/crypto.h"
#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define LOOK_AGAIN_MS 1000

PGDLLEXPORT Datum plinth_audit_event_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_audit_event_sql);

static PlinthAuditKey kept_key;
static uint64 kept_generation = 0; /* 0: none is kept */
static TimestampTz kept_at = 0;

static void
complain(PlinthAuditKeyState state)
{
	if (state == PLINTH_AUDIT_KEY_OFF)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("audit events are not enabled in this database"),
						errhint("An administrator enables them: "
								"SELECT plinth.audit_event_enable().")));
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("audit events cannot be recorded now"),
					errdetail("There is no replication slot that would keep them."),
					errhint("The decoder makes one, which waits for running transactions to end; "
							"plinth.stat_workers and plinth.stat_decode show how far it is.")));
}

PlinthAuditKeyState
plinth_audit_key_find(TimestampTz now)
{
	uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	PlinthAuditKeyState state;

	if (kept_generation != 0 && kept_generation == generation && now >= kept_at &&
		!TimestampDifferenceExceeds(kept_at, now, LOOK_AGAIN_MS))
		return PLINTH_AUDIT_KEY_READY;
	kept_generation = 0;
	state = plinth_audit_key_read(&kept_key);
	if (state == PLINTH_AUDIT_KEY_READY)
	{
		kept_generation = generation;
		kept_at = now;
	}
	return state;
}

char *
plinth_audit_event_build(PlinthAuditRow *row, Size *size)
{
	return plinth_audit_message_build(&kept_key, row, size);
}

void
plinth_audit_event_send(char *body, Size size, bool renew, bool flush)
{
	XLogRecPtr lsn;

	if (renew)
		plinth_audit_message_renew(&kept_key, body, size);
	lsn = plinth_compat_log_message("plinth", body, size, false, flush);
	/* A transaction that has no xid, or rolls back, tells the WAL writer nothing. */
	if (!flush)
		XLogSetAsyncXactLSN(lsn);
}

Datum
plinth_audit_event_sql(PG_FUNCTION_ARGS)
{
	PlinthAuditEntry entry;
	PlinthAuditRow row;
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));
	PlinthAuditKeyState state;
	char *body;
	Size size;

	PreventCommandDuringRecovery("plinth.audit_event()");
	plinth_audit_arguments(fcinfo, false, &entry);
	plinth_audit_row_fill(&row, &entry);
	state = plinth_audit_key_find(row.recorded_at);
	if (state != PLINTH_AUDIT_KEY_READY)
		complain(state);
	body = plinth_audit_event_build(&row, &size);
	plinth_audit_event_send(body, size, false, !PG_ARGISNULL(4) && PG_GETARG_BOOL(4));
	*id = row.id;
	PG_RETURN_UUID_P(id);
}
