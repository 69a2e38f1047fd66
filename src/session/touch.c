/*
 * touch.c
 *		Notes that a session is in use where shared memory has no room for it, so
 *		that it does not end by idleness.
 *
 * It is noted just before commit (base/note.c), so that no long transaction
 * holds up who revokes the session; and only when the last note is old.  Uses
 * by what cannot note them are counted.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "session/store.h"
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

void
plinth_session_touch(const PlinthSession *session)
{
	int64 old = Min(OLD_SECONDS, Max(1, plinth_setting_session_idle_timeout / OLD_PART));
	Datum values[2] = {UUIDPGetDatum(&session->id), TimestampTzGetDatum(session->last_active_at)};

	if (session->noted || GetCurrentTimestamp() - session->last_active_at < old * USECS_PER_SEC)
		return;
	if (!plinth_base_may_note())
	{
		if (!RecoveryInProgress())
			pg_atomic_fetch_add_u64(&plinth_session_store->lost, 1);
		return;
	}
	plinth_base_note(&touch_plan, values, &plinth_session_writing);
}
