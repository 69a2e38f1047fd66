/*
 * impersonate.c
 *		plinth.session_impersonate: an administrator acts as a user.
 *
 * The session is the user's, and says whose it really is: the administrator,
 * and the session of theirs that it ends with; where a database role began it,
 * who has neither, a user whose id is zero.  verify.c looks whether the
 * administrator still is one.  Here and in step_up.c is what such a session may
 * not do; in room identity, that it is never an administrator's.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define MAX_REASON 1000

static PlinthPlan lock_plan = {
	.sql = "SELECT 1 FROM plinth.users u WHERE u.id = $1 AND " PLINTH_USER_ACTIVE(
		"u", "$2") " FOR NO KEY UPDATE",
	.nargs = 2,
	.argtypes = {UUIDOID, TIMESTAMPTZOID},
};

PGDLLEXPORT Datum plinth_session_impersonate(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_impersonate);

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
}

static TimestampTz
end_of(const Interval *lifetime)
{
	double usecs = lifetime->time +
				   ((double) lifetime->month * DAYS_PER_MONTH + lifetime->day) * USECS_PER_DAY;

	check(usecs >= USECS_PER_SEC && usecs <= USECS_PER_DAY, "lifetime is 1 second to 1 day");
	return GetCurrentTimestamp() + (int64) usecs;
}

/* Locks the user, as everybody does who begins a session. */
static void
lock_user(const pg_uuid_t *user_id)
{
	Datum values[2] = {UUIDPGetDatum(user_id), TimestampTzGetDatum(GetCurrentTimestamp())};
	PlinthAsOwner owner;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&lock_plan, values, NULL, false, SPI_OK_SELECT);
	found = SPI_processed > 0;
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (!found)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_NOT_FOUND), errmsg("user not found")));
}

/* Who it is, for the session; also that it ends no later than theirs. */
static void
take_administrator(PlinthSessionStart *start)
{
	const PlinthContext *context = plinth_base_context();
	PlinthSession own;

	if (context != NULL && context->has_user)
	{
		context = plinth_identity_require_self();
		if (!context->has_session || !plinth_session_find_by_id(&context->session_id, &own))
			ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
							errmsg("a session of one's own is needed")));
		check(memcmp(&start->user_id, &context->user_id, UUID_LEN) != 0,
			  "nobody impersonates themselves");
		start->impersonator_id = &context->user_id;
		start->impersonator_session_id = &context->session_id;
		start->expires_at = Min(start->expires_at, own.expires_at);
	}
	plinth_identity_require_admin();
}

Datum
plinth_session_impersonate(PG_FUNCTION_ARGS)
{
	static PlinthRow row;
	PlinthSessionStart start = {.aal = 1};
	PlinthNewSession session;
	Datum values[3];
	bool nulls[3] = {false};

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.session_impersonate()");
	check(!PG_ARGISNULL(0), "user_id is missing");
	check(!PG_ARGISNULL(1), "reason is missing");
	check(!PG_ARGISNULL(2), "lifetime is missing");
	start.user_id = *PG_GETARG_UUID_P(0);
	start.impersonation_reason = PG_GETARG_TEXT_PP(1);
	check(VARSIZE_ANY_EXHDR(start.impersonation_reason) > 0 &&
			  VARSIZE_ANY_EXHDR(start.impersonation_reason) <= MAX_REASON,
		  "reason has 1 to 1000 bytes");
	start.expires_at = end_of(PG_GETARG_INTERVAL_P(2));
	take_administrator(&start);

	lock_user(&start.user_id);
	plinth_session_start(&start, &session);
	plinth_audit_record("plinth.session_impersonate", plinth_identity_resource(&start.user_id),
						"success",
						plinth_audit_reason(text_to_cstring(start.impersonation_reason)));
	values[0] = UUIDPGetDatum(&session.id);
	values[1] = CStringGetTextDatum(session.token);
	values[2] = TimestampTzGetDatum(session.expires_at);
	plinth_crypto_wipe(session.token, sizeof(session.token));
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &row), values, nulls)));
}
