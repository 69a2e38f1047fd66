/*
 * touch.c
 *		Notes that a session is in use where shared memory has no room for it, so
 *		that it does not end by idleness.
 *
 * It is noted as the very last thing before commit, so that the row's lock is
 * held no longer than the commit takes and no long transaction holds up who
 * revokes the session; and only when the last note is old.  What cannot write
 * (READ ONLY transactions, standbys), or could fail by it (REPEATABLE READ and
 * above), notes nothing; such uses are counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "session/store.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A note is old after this part of the idle timeout, or this many seconds. */
#define OLD_PART 10
#define OLD_SECONDS 60

static PlinthPlan touch_plan = {
	.sql = "UPDATE plinth.sessions SET last_active_at = pg_catalog.clock_timestamp() WHERE id = ("
		   "SELECT id FROM plinth.sessions WHERE id = $1 AND last_active_at = $2 "
		   "FOR NO KEY UPDATE SKIP LOCKED)",
	.nargs = 2,
	.argtypes = {UUIDOID, TIMESTAMPTZOID},
};

static bool
can_touch(void)
{
	return !XactReadOnly && !IsolationUsesXactSnapshot();
}

static void
touch_session(void *arg)
{
	PlinthSession *session = arg;
	Datum values[2] = {UUIDPGetDatum(&session->id), TimestampTzGetDatum(session->last_active_at)};
	PlinthAsOwner owner;

	if (!can_touch())
		return;
	/* At commit no statement is running, hence no snapshot is there. */
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_session_writing = true;
	PG_TRY ()
		;
	{
		plinth_base_spi_execute(&touch_plan, values, NULL, false, SPI_OK_UPDATE);
	}
	PG_FINALLY ()
		;
	{
		plinth_session_writing = false;
	}
	PG_END_TRY();
	plinth_base_owner_end(&owner);
	SPI_finish();
	PopActiveSnapshot();
}

static const PlinthXactAction touch_action = {
	.name = "session in use",
	.reserve = touch_session,
	.publish = NULL,
	.discard = NULL,
	.shared = false,
};

void
plinth_session_touch(const PlinthSession *session)
{
	int64 old = Min(OLD_SECONDS, Max(1, plinth_setting_session_idle_timeout / OLD_PART));
	PlinthSession *copy;

	if (session->noted || GetCurrentTimestamp() - session->last_active_at < old * USECS_PER_SEC)
		return;
	if (!can_touch())
	{
		if (!RecoveryInProgress())
			pg_atomic_fetch_add_u64(&plinth_session_store->lost, 1);
		return;
	}
	copy = MemoryContextAlloc(TopTransactionContext, sizeof(PlinthSession));
	*copy = *session;
	plinth_base_xact_add(&touch_action, copy);
}
