/*
 * password_change.c
 *		Another password: by the user, by an administrator, by a mailed token.
 *
 * Hashes are verified and made without any lock, since that takes long; the
 * functions in SQL that store them lock the user first, and look again.  A
 * wrong present password is a status, so that its audit entry commits, and is
 * counted as signing in with a wrong one is.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/one_time.h"
#include "limits/limits.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static PlinthPlan find_plan = {
	.sql = "SELECT phc FROM plinth.passwords WHERE user_id = $1",
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan recent_plan = {
	.sql = "SELECT 1 FROM plinth.sessions WHERE id = $1 AND authenticated_at > $2",
	.nargs = 2,
	.argtypes = {UUIDOID, TIMESTAMPTZOID},
};
static PlinthPlan change_plan = {
	.sql = "SELECT plinth._password_change($1, $2, $3, $4)",
	.nargs = 4,
	.argtypes = {UUIDOID, UUIDOID, TEXTOID, TEXTOID},
};
static PlinthPlan set_plan = {
	.sql = "SELECT plinth._password_set($1, $2)",
	.nargs = 2,
	.argtypes = {UUIDOID, TEXTOID},
};
static PlinthPlan known_plan = {
	.sql = "SELECT 1 FROM plinth.one_time_tokens WHERE token_hash = $1 "
		   "AND kind = 'password_reset' AND user_id IS NOT NULL "
		   "AND expires_at > pg_catalog.clock_timestamp()",
	.nargs = 1,
	.argtypes = {BYTEAOID},
};
static PlinthPlan reset_plan = {
	.sql = "SELECT plinth._password_reset($1, $2)",
	.nargs = 2,
	.argtypes = {BYTEAOID, TEXTOID},
};

PGDLLEXPORT Datum plinth_identity_password_change(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_password_set(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_password_reset(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_password_change);
PG_FUNCTION_INFO_V1(plinth_identity_password_set);
PG_FUNCTION_INFO_V1(plinth_identity_password_reset);

/* Runs a plan as plinth_owner; its one value, of a type passed by value. */
static bool
ask(PlinthPlan *plan, Datum *values, const char *nulls, Datum *result)
{
	PlinthAsOwner owner;
	bool null = true;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(plan, values, nulls, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		*result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
	plinth_base_owner_end(&owner);
	SPI_finish();
	return !null;
}

static char *
find_hash(const pg_uuid_t *user_id)
{
	Datum value = UUIDPGetDatum(user_id);
	MemoryContext caller = CurrentMemoryContext;
	PlinthAsOwner owner;
	char *phc = NULL;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&find_plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		phc = MemoryContextStrdup(caller,
								  SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return phc;
}

bool
plinth_identity_is_recent(const PlinthContext *context)
{
	Datum values[2] = {
		UUIDPGetDatum(&context->session_id),
		TimestampTzGetDatum(GetCurrentTimestamp() - plinth_setting_recent_sign_in * USECS_PER_SEC)};
	Datum found;

	return context->has_session && ask(&recent_plan, values, NULL, &found);
}

/* Is this the user's present password? */
static bool
verify_present(const char *phc, Datum password)
{
	text *secret = plinth_identity_secret(password);
	size_t len = VARSIZE_ANY_EXHDR(secret);
	bool volatile fits = false;

	PG_TRY ()
		;
	{
		if (len <= PLINTH_PASSWORD_MAX)
			fits = plinth_crypto_password_verify(phc, VARDATA_ANY(secret), len);
	}
	PG_FINALLY ()
		;
	{
		plinth_identity_secret_wipe(secret, password);
	}
	PG_END_TRY();
	return fits;
}

/* What keeps the user from changing their password, or NULL.  phc: the present one, or NULL. */
static const char *
refuse(FunctionCallInfo fcinfo, const PlinthContext *self, const char *phc, int64 *retry_after)
{
	PlinthAttempt attempt;
	PlinthAuthStatus status;

	if (phc == NULL)
		return plinth_identity_is_recent(self) ? NULL : "recent_sign_in_required";
	status = plinth_identity_attempt_begin(plinth_identity_resource(&self->user_id), &attempt);
	*retry_after = attempt.retry_after;
	if (status == PLINTH_AUTH_OK && (PG_ARGISNULL(0) || !verify_present(phc, PG_GETARG_DATUM(0))))
		status = PLINTH_AUTH_INVALID;
	if (status != PLINTH_AUTH_OK)
		return plinth_identity_status_name(status);
	plinth_identity_attempt_good(&attempt);
	return NULL;
}

static bool
store_change(const PlinthContext *self, const char *old_phc, const char *new_phc)
{
	Datum values[4] = {UUIDPGetDatum(&self->user_id), UUIDPGetDatum(&self->session_id),
					   old_phc ? CStringGetTextDatum(old_phc) : (Datum) 0,
					   CStringGetTextDatum(new_phc)};
	char nulls[4] = {' ', self->has_session ? ' ' : 'n', old_phc ? ' ' : 'n', ' '};
	Datum done;

	return ask(&change_plan, values, nulls, &done) && DatumGetBool(done);
}

Datum
plinth_identity_password_change(PG_FUNCTION_ARGS)
{
	PlinthContext self;
	const char *reason;
	const char *new_phc;
	char *phc;
	int64 retry_after = 0;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.password_change()");
	self = *plinth_identity_require_self();
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("new_password is missing")));

	phc = find_hash(&self.user_id);
	reason = refuse(fcinfo, &self, phc, &retry_after);
	if (reason == NULL)
	{
		new_phc = plinth_identity_password_hash(PG_GETARG_DATUM(1));
		/* Somebody else was faster: the password that was verified is no longer one. */
		if (!store_change(&self, phc, new_phc))
			reason = plinth_identity_status_name(PLINTH_AUTH_INVALID);
		retry_after = 0;
	}
	plinth_identity_audit("plinth.password_change", &self.user_id, reason);
	PG_RETURN_DATUM(plinth_identity_status_row(fcinfo, reason ? reason : "ok", retry_after));
}

Datum
plinth_identity_password_set(PG_FUNCTION_ARGS)
{
	Datum values[2] = {0};
	char nulls[2] = {' ', 'n'};
	Datum none;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.password_set()");
	plinth_identity_require_admin();
	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("user_id is missing")));
	values[0] = PG_GETARG_DATUM(0);
	if (!PG_ARGISNULL(1))
	{
		values[1] = CStringGetTextDatum(plinth_identity_password_hash(PG_GETARG_DATUM(1)));
		nulls[1] = ' ';
	}
	(void) ask(&set_plan, values, nulls, &none);
	PG_RETURN_VOID();
}

Datum
plinth_identity_password_reset(PG_FUNCTION_ARGS)
{
	Datum values[2] = {0};
	Datum found;
	pg_uuid_t user_id;
	bool good;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.password_reset()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST),
						errmsg("%s is missing", PG_ARGISNULL(0) ? "token" : "new_password")));
	good = plinth_identity_one_time_hash(PG_GETARG_TEXT_PP(0), &values[0]) &&
		   ask(&known_plan, values, NULL, &found);
	if (good)
	{
		values[1] = CStringGetTextDatum(plinth_identity_password_hash(PG_GETARG_DATUM(1)));
		good = plinth_identity_one_time_run(&reset_plan, values, &user_id);
	}
	plinth_identity_audit("plinth.password_reset", good ? &user_id : NULL,
						  good ? NULL : "invalid_token");
	PG_RETURN_TEXT_P(cstring_to_text(good ? "ok" : "invalid_token"));
}
