/*
 * revoke.c
 *		Ending sessions.
 *
 * With a request context, a user ends their own sessions only, whatever the
 * database role; without one, a client that is a member of plinth_admin ends
 * anybody's.  To others, a session that is not theirs looks like one that is not there.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "session/internal.h"
#include "utils/builtins.h"

#define REASON_USER "revoked by the user"
#define REASON_ADMIN "revoked by an administrator"

static PlinthPlan revoke_plan = {
	.sql = "UPDATE plinth.sessions SET revoked_at = pg_catalog.clock_timestamp(), "
		   "revoked_reason = $3 WHERE id = $1 AND ($2 IS NULL OR user_id = $2) "
		   "AND revoked_at IS NULL",
	.nargs = 3,
	.argtypes = {UUIDOID, UUIDOID, TEXTOID},
};

/* Waits for who is signing in now, so that the session made there ends as well. */
static PlinthPlan lock_user_plan = {
	.sql = "SELECT 1 FROM plinth.users WHERE id = $1 FOR NO KEY UPDATE",
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan revoke_all_plan = {
	.sql = "UPDATE plinth.sessions SET revoked_at = pg_catalog.clock_timestamp(), "
		   "revoked_reason = $3 WHERE user_id = $1 AND id IS DISTINCT FROM $2 "
		   "AND revoked_at IS NULL",
	.nargs = 3,
	.argtypes = {UUIDOID, UUIDOID, TEXTOID},
};

PGDLLEXPORT Datum plinth_session_revoke_others(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_revoke_others);
PGDLLEXPORT Datum plinth_session_revoke(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_revoke_all(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_revoke);
PG_FUNCTION_INFO_V1(plinth_session_revoke_all);

char *
plinth_session_resource(const pg_uuid_t *id)
{
	return psprintf("session:%s",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))));
}

/* Who asks: the context's user; NULL for an administrator without a context. */
static const PlinthContext *
require_caller(void)
{
	const PlinthContext *context = plinth_base_context();

	if (context != NULL && context->has_user)
		return context;
	return plinth_identity_is_admin() ? NULL : plinth_base_require_user();
}

/* user_id: whose it must be; NULL for anybody's. */
static bool
end_session(const pg_uuid_t *id, const pg_uuid_t *user_id, const char *reason)
{
	Datum values[3] = {UUIDPGetDatum(id), UUIDPGetDatum(user_id), CStringGetTextDatum(reason)};
	char nulls[3] = {' ', user_id ? ' ' : 'n', ' '};
	PlinthAsOwner owner;
	bool ended;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&revoke_plan, values, nulls, false, SPI_OK_UPDATE);
	ended = SPI_processed > 0;
	plinth_base_owner_end(&owner);
	SPI_finish();
	return ended;
}

bool
plinth_session_end(const pg_uuid_t *id, const char *reason)
{
	return end_session(id, NULL, reason);
}

Datum
plinth_session_revoke(PG_FUNCTION_ARGS)
{
	const PlinthContext *caller;
	const pg_uuid_t *id;
	bool revoked;

	PreventCommandIfReadOnly("plinth.session_revoke()");
	caller = require_caller();
	if (!PG_ARGISNULL(0))
		id = PG_GETARG_UUID_P(0);
	else if (caller != NULL && caller->has_session)
		id = &caller->session_id;
	else
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("no current session")));

	/* Who acts as a user ends no session of theirs but this one. */
	if (caller != NULL && (!caller->has_session || memcmp(id, &caller->session_id, UUID_LEN) != 0))
		(void) plinth_identity_require_self();
	revoked =
		end_session(id, caller ? &caller->user_id : NULL, caller ? REASON_USER : REASON_ADMIN);
	if (revoked)
		plinth_audit_record("plinth.session_revoke", plinth_session_resource(id), "success", NULL);
	PG_RETURN_BOOL(revoked);
}

/* Whose sessions are meant; the caller must be allowed to. */
static const pg_uuid_t *
choose_user(const pg_uuid_t *wanted, const PlinthContext *caller)
{
	if (caller == NULL)
		return wanted != NULL ? wanted : &plinth_base_require_user()->user_id;
	if (wanted != NULL && memcmp(wanted, &caller->user_id, sizeof(pg_uuid_t)) != 0)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
						errmsg("sessions of another user cannot be revoked")));
	return &caller->user_id;
}

/* Ends all of a user's sessions; the caller may. */
static int
end_all(const pg_uuid_t *user_id, const PlinthContext *caller, bool keep_current)
{
	Datum values[3];
	char nulls[3] = {' ', 'n', ' '};
	PlinthAsOwner owner;
	int revoked;

	values[0] = UUIDPGetDatum(user_id);
	values[1] = (Datum) 0;
	if (keep_current && caller != NULL && caller->has_session)
	{
		values[1] = UUIDPGetDatum(&caller->session_id);
		nulls[1] = ' ';
	}
	values[2] = CStringGetTextDatum(caller ? REASON_USER : REASON_ADMIN);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&lock_user_plan, values, NULL, false, SPI_OK_SELECT);
	plinth_base_spi_execute(&revoke_all_plan, values, nulls, false, SPI_OK_UPDATE);
	revoked = SPI_processed;
	plinth_base_owner_end(&owner);
	SPI_finish();

	if (revoked > 0)
		plinth_audit_record("plinth.session_revoke_all", plinth_identity_resource(user_id),
							"success", NULL);
	return revoked;
}

Datum
plinth_session_revoke_all(PG_FUNCTION_ARGS)
{
	const PlinthContext *caller;
	const pg_uuid_t *user_id;

	PreventCommandIfReadOnly("plinth.session_revoke_all()");
	caller = require_caller();
	if (caller != NULL)
		(void) plinth_identity_require_self();
	user_id = choose_user(PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), caller);
	PG_RETURN_INT32(end_all(user_id, caller, !PG_ARGISNULL(1) && PG_GETARG_BOOL(1)));
}

Datum
plinth_session_revoke_others(PG_FUNCTION_ARGS)
{
	const PlinthContext *caller;

	PreventCommandIfReadOnly("plinth.session_revoke_others()");
	caller = plinth_identity_require_self();
	PG_RETURN_INT32(end_all(&caller->user_id, caller, true));
}
