/*
 * step_up.c
 *		Who a session still proves to be there: a password verified once more, and
 *		what asks how long ago that was, by how many factors, and whether it is
 *		the user at all.
 *
 * How long ago is a fact of the session and comes from where sessions are
 * looked up, so that it counts at once and touches no page.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "session/store.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define ACTION "plinth.session_confirm"

static PlinthPlan name_plan = {
	.sql = "SELECT COALESCE(email, username) FROM plinth.users "
		   "WHERE id = $1 AND COALESCE(email, username) IS NOT NULL",
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan confirm_plan = {
	.sql = "UPDATE plinth.sessions SET authenticated_at = pg_catalog.clock_timestamp() "
		   "WHERE id = $1 AND revoked_at IS NULL",
	.nargs = 1,
	.argtypes = {UUIDOID},
};

PGDLLEXPORT Datum plinth_session_is_impersonated(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_require_self_sql(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_require_aal(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_require_recent(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_confirm(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_is_impersonated);
PG_FUNCTION_INFO_V1(plinth_session_require_self_sql);
PG_FUNCTION_INFO_V1(plinth_session_require_aal);
PG_FUNCTION_INFO_V1(plinth_session_require_recent);
PG_FUNCTION_INFO_V1(plinth_session_confirm);

Datum
plinth_session_is_impersonated(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	PG_RETURN_BOOL(context != NULL && context->impersonator != NULL);
}

Datum
plinth_session_require_self_sql(PG_FUNCTION_ARGS)
{
	(void) plinth_identity_require_self();
	PG_RETURN_VOID();
}

Datum
plinth_session_require_aal(PG_FUNCTION_ARGS)
{
	int minimum = PG_ARGISNULL(0) ? 3 : PG_GETARG_INT32(0);

	if (plinth_base_require_user()->aal < minimum)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
						errmsg("assurance level %d required", minimum)));
	PG_RETURN_VOID();
}

Datum
plinth_session_require_recent(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_require_user();
	PlinthSession session;
	Interval *max_age;
	int64 age;

	if (!context->has_session || context->impersonator != NULL || PG_ARGISNULL(0))
		plinth_identity_refuse_old();
	if (!plinth_session_find_by_id(&context->session_id, &session))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("session is not valid")));
	max_age = PG_GETARG_INTERVAL_P(0);
	age = GetCurrentTimestamp() - session.authenticated_at;
	if ((double) age >
		max_age->time + ((double) max_age->month * DAYS_PER_MONTH + max_age->day) * USECS_PER_DAY)
		plinth_identity_refuse_old();
	PG_RETURN_VOID();
}

/* -------------------------------------------------------------------------
 * Confirming
 * -------------------------------------------------------------------------
 */
/* What the user signs in by; NULL for one who cannot by a password. */
static text *
find_name(const pg_uuid_t *user_id)
{
	Datum value = UUIDPGetDatum(user_id);
	MemoryContext caller = CurrentMemoryContext;
	PlinthAsOwner owner;
	char *name = NULL;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&name_plan, &value, NULL, true, SPI_OK_SELECT);
	if (SPI_processed > 0)
		name = MemoryContextStrdup(caller,
								   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return name != NULL ? cstring_to_text(name) : NULL;
}

static PlinthAuthStatus
verify_password(const PlinthContext *context, Datum password)
{
	text *name = find_name(&context->user_id);
	text *secret;
	PlinthAuth auth = {.status = PLINTH_AUTH_INVALID};

	if (name == NULL)
		return auth.status;
	secret = plinth_identity_secret(password);
	PG_TRY ()
		;
	{
		auth = plinth_identity_authenticate(name, secret);
	}
	PG_FINALLY ()
		;
	{
		plinth_identity_secret_wipe(secret, password);
	}
	PG_END_TRY();
	if (auth.status == PLINTH_AUTH_OK && memcmp(&auth.user_id, &context->user_id, UUID_LEN) != 0)
		return PLINTH_AUTH_INVALID;
	return auth.status;
}

static void
note_confirmed(const pg_uuid_t *session_id)
{
	Datum value = UUIDPGetDatum(session_id);
	PlinthAsOwner owner;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&confirm_plan, &value, NULL, false, SPI_OK_UPDATE);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

Datum
plinth_session_confirm(PG_FUNCTION_ARGS)
{
	const PlinthContext *context;
	PlinthAuditEntry entry = {.action = ACTION};
	PlinthAuthStatus status;
	pg_uuid_t session_id;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.session_confirm()");
	context = plinth_identity_require_self();
	if (!context->has_session)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("no current session")));
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("password is missing")));
	session_id = context->session_id;

	status = verify_password(context, PG_GETARG_DATUM(0));
	if (status == PLINTH_AUTH_OK)
		note_confirmed(&session_id);
	else
		entry.metadata = plinth_audit_reason(plinth_identity_status_name(status));
	entry.resource = plinth_session_resource(&session_id);
	entry.result = status == PLINTH_AUTH_OK        ? "success"
				   : status == PLINTH_AUTH_INVALID ? "failure"
												   : "denied";
	(void) plinth_audit_attempt(&entry);
	PG_RETURN_TEXT_P(cstring_to_text(plinth_identity_status_name(status)));
}
