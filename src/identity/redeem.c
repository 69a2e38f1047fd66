/*
 * redeem.c
 *		What a mailed token or code is good for.
 *
 * A token is taken by deleting its row, with the user's row locked before: of
 * two who bring it at the same time one finds it.  Tries at a code are counted
 * in shared memory before it is looked at, five to a code, whoever makes them
 * and whether they commit or not.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/one_time.h"
#include "limits/limits.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define CODE_TRIES 5

static PlinthPlan email_verify_plan = {
	.sql = "SELECT plinth._email_verify($1)",
	.nargs = 1,
	.argtypes = {BYTEAOID},
};
static PlinthPlan email_change_plan = {
	.sql = "SELECT status, user_id FROM plinth._email_change_confirm($1)",
	.nargs = 1,
	.argtypes = {BYTEAOID},
};
static PlinthPlan take_plan = {
	.sql = "SELECT plinth._one_time_sign_in($1, $2)",
	.nargs = 2,
	.argtypes = {TEXTOID, BYTEAOID},
};
static PlinthPlan seen_plan = {
	.sql = "UPDATE plinth.users u SET last_login_at = pg_catalog.now() WHERE u.id = $1 "
		   "AND " PLINTH_USER_ACTIVE("u", "pg_catalog.clock_timestamp()"),
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan find_code_plan = {
	.sql = "SELECT id FROM plinth.one_time_tokens WHERE kind = 'email_code' "
		   "AND pg_catalog.lower(email) = pg_catalog.lower($1)",
	.nargs = 1,
	.argtypes = {TEXTOID},
};

PGDLLEXPORT Datum plinth_identity_email_verify(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_email_change_confirm(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_email_verify);
PG_FUNCTION_INFO_V1(plinth_identity_email_change_confirm);

/* What somebody brings; false when it has not the form of a token. */
static bool
take_token(FunctionCallInfo fcinfo, const char *function, Datum *hash)
{
	plinth_base_hide_statement();
	PreventCommandIfReadOnly(function);
	return !PG_ARGISNULL(0) && plinth_identity_one_time_hash(PG_GETARG_TEXT_PP(0), hash);
}

Datum
plinth_identity_email_verify(PG_FUNCTION_ARGS)
{
	Datum hash;
	pg_uuid_t user_id;
	bool good = take_token(fcinfo, "plinth.email_verify()", &hash) &&
				plinth_identity_one_time_run(&email_verify_plan, &hash, &user_id);

	plinth_identity_audit("plinth.email_verify", good ? &user_id : NULL,
						  good ? NULL : "invalid_token");
	PG_RETURN_TEXT_P(cstring_to_text(good ? "ok" : "invalid_token"));
}

Datum
plinth_identity_email_change_confirm(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum hash;
	PlinthAsOwner owner;
	pg_uuid_t user_id;
	char *status = "invalid_token";
	bool unknown = true;

	if (take_token(fcinfo, "plinth.email_change_confirm()", &hash))
	{
		Datum value;

		SPI_connect();
		plinth_base_owner_begin(&owner);
		plinth_base_spi_execute(&email_change_plan, &hash, NULL, false, SPI_OK_SELECT);
		status = MemoryContextStrdup(caller,
									 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &unknown);
		if (!unknown)
			user_id = *DatumGetUUIDP(value);
		plinth_base_owner_end(&owner);
		SPI_finish();
	}
	plinth_identity_audit("plinth.email_change_confirm", unknown ? NULL : &user_id,
						  strcmp(status, "ok") == 0 || strcmp(status, "pending") == 0 ? NULL
																					  : status);
	PG_RETURN_TEXT_P(cstring_to_text(status));
}

/* Takes what has this hash; whether its user may have a session. */
static void
take(const char *kind, Datum hash, PlinthAuth *auth)
{
	Datum values[2] = {CStringGetTextDatum(kind), hash};
	PlinthAsOwner owner;

	auth->has_user = plinth_identity_one_time_run(&take_plan, values, &auth->user_id);
	if (!auth->has_user)
		return;
	values[0] = UUIDPGetDatum(&auth->user_id);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&seen_plan, values, NULL, false, SPI_OK_UPDATE);
	auth->status = SPI_processed > 0 ? PLINTH_AUTH_OK : PLINTH_AUTH_LOCKED;
	plinth_base_owner_end(&owner);
	SPI_finish();
}

PlinthAuth
plinth_identity_magic_link_take(text *token)
{
	PlinthAuth auth = {.status = PLINTH_AUTH_INVALID};
	Datum hash;

	if (plinth_identity_one_time_hash(token, &hash))
		take("magic_link", hash, &auth);
	return auth;
}

/* The code that was mailed to an address, if it may still be tried. */
static bool
find_code(text *email, pg_uuid_t *id)
{
	Datum value = PointerGetDatum(plinth_identity_normalize(email));
	char *key;

	if (!plinth_identity_one_time_run(&find_code_plan, &value, id))
		return false;
	key = psprintf("plinth.email_code %s",
				   DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id))));
	return plinth_limits_check_fixed(key, CODE_TRIES, USECS_PER_DAY, 1).allowed;
}

PlinthAuth
plinth_identity_email_code_take(text *email, text *code)
{
	PlinthAuth auth = {.status = PLINTH_AUTH_INVALID};
	PlinthAttempt attempt;
	pg_uuid_t id;

	auth.status = plinth_identity_attempt_begin(plinth_identity_account_key(email), &attempt);
	if (auth.status != PLINTH_AUTH_OK)
	{
		auth.retry_after = attempt.retry_after;
		return auth;
	}
	auth.status = PLINTH_AUTH_INVALID;
	if (VARSIZE_ANY_EXHDR(code) == PLINTH_CODE_DIGITS && find_code(email, &id))
		take("email_code", PointerGetDatum(plinth_identity_code_hash(&id, VARDATA_ANY(code))),
			 &auth);
	if (auth.status != PLINTH_AUTH_INVALID)
		plinth_identity_attempt_good(&attempt);
	return auth;
}
