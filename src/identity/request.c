/*
 * request.c
 *		Asking for a mail: to verify an address, to reset a password, to sign
 *		in, to change the address.
 *
 * The answer is the same for an address that a user has and for one that
 * nobody has, and so is the work: both store a token and a message.  What is
 * asked for is limited by the client's address and by the account.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/names.h"
#include "identity/one_time.h"
#include "limits/limits.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define MAX_REDIRECT 2000

static PlinthPlan request_plan = {
	.sql = "SELECT plinth._one_time_request($1, $2, $3, $4, $5, $6, $7, "
		   "pg_catalog.make_interval(secs => $8))",
	.nargs = 8,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, UUIDOID, BYTEAOID, UUIDOID, BYTEAOID, FLOAT8OID},
};
static PlinthPlan email_plan = {
	.sql = "SELECT email FROM plinth.users WHERE id = $1 AND deleted_at IS NULL",
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan change_plan = {
	.sql = "SELECT plinth._email_change_request($1, $2, $3, $4, $5, $6, "
		   "pg_catalog.make_interval(secs => $7))",
	.nargs = 7,
	.argtypes = {UUIDOID, TEXTOID, UUIDARRAYOID, BYTEAARRAYOID, UUIDARRAYOID, BYTEAARRAYOID,
				 FLOAT8OID},
};

PGDLLEXPORT Datum plinth_identity_email_verify_request(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_password_reset_request(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_magic_link_request(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_email_code_request(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_email_change_request(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_email_verify_request);
PG_FUNCTION_INFO_V1(plinth_identity_password_reset_request);
PG_FUNCTION_INFO_V1(plinth_identity_magic_link_request);
PG_FUNCTION_INFO_V1(plinth_identity_email_code_request);
PG_FUNCTION_INFO_V1(plinth_identity_email_change_request);

typedef struct Request
{
	const char *kind; /* and the audit's action */
	int lifetime;     /* s */
	text *email;
	text *redirect; /* or NULL */
	int64 retry_after;
} Request;

/* PT400 for what is no address. */
static text *
take_email(FunctionCallInfo fcinfo, int arg)
{
	text *email = PG_ARGISNULL(arg) ? NULL : PG_GETARG_TEXT_PP(arg);

	if (email != NULL && VARSIZE_ANY_EXHDR(email) <= PLINTH_EMAIL_MAX)
	{
		email = plinth_identity_normalize(email);
		if (plinth_identity_email_valid(VARDATA_ANY(email), VARSIZE_ANY_EXHDR(email)))
			return email;
	}
	ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("email is not valid")));
}

static bool
allowed(Request *request)
{
	char *key = psprintf("%s %s", request->kind, plinth_identity_account_key(request->email));
	PlinthLimitDecision decision;

	if (!plinth_identity_address_allowed("plinth.mail_address", &request->retry_after))
		return false;
	decision = plinth_limits_check("plinth.mail_account", key, 1);
	request->retry_after = decision.retry_after;
	return decision.allowed;
}

/* True, and the user, where the address is somebody's. */
static bool
store(const Request *request, pg_uuid_t *user_id)
{
	PlinthOneTime made;
	Datum values[8];

	plinth_identity_one_time_make(strcmp(request->kind, "email_code") == 0, &made);
	values[0] = CStringGetTextDatum(request->kind);
	values[1] = PointerGetDatum(request->email);
	values[2] = PointerGetDatum(request->redirect ? request->redirect : cstring_to_text(""));
	values[3] = UUIDPGetDatum(&made.token_id);
	values[4] = PointerGetDatum(made.hash);
	values[5] = UUIDPGetDatum(&made.message_id);
	values[6] = PointerGetDatum(made.envelope);
	values[7] = Float8GetDatum(request->lifetime);
	return plinth_identity_one_time_run(&request_plan, values, user_id);
}

static Datum
finish(FunctionCallInfo fcinfo, Request *request)
{
	char *action = psprintf("plinth.%s_request", request->kind);
	pg_uuid_t user_id;
	bool known = false;
	const char *reason = NULL;

	PreventCommandIfReadOnly(psprintf("%s()", action));
	if (allowed(request))
	{
		known = store(request, &user_id);
		reason = known ? NULL : "unknown";
		request->retry_after = 0;
	}
	else
		reason = "rate_limited";
	plinth_identity_audit(action, known ? &user_id : NULL, reason);
	return plinth_identity_status_row(fcinfo,
									  reason && strcmp(reason, "rate_limited") == 0 ? reason : "ok",
									  request->retry_after);
}

/* The address of the context's user; PT401 where there is none. */
static text *
own_email(void)
{
	const PlinthContext *context = plinth_base_require_user();
	MemoryContext caller = CurrentMemoryContext;
	PlinthAsOwner owner;
	Datum value = UUIDPGetDatum(&context->user_id);
	char *email = NULL;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&email_plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		email = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (email != NULL)
		email = MemoryContextStrdup(caller, email);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (email == NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("there is no email address")));
	return cstring_to_text(email);
}

Datum
plinth_identity_email_verify_request(PG_FUNCTION_ARGS)
{
	Request request = {.kind = "email_verify", .lifetime = plinth_setting_email_verify_lifetime};

	request.email = PG_ARGISNULL(0) ? own_email() : take_email(fcinfo, 0);
	PG_RETURN_DATUM(finish(fcinfo, &request));
}

Datum
plinth_identity_password_reset_request(PG_FUNCTION_ARGS)
{
	Request request = {.kind = "password_reset",
					   .lifetime = plinth_setting_password_reset_lifetime};

	request.email = take_email(fcinfo, 0);
	PG_RETURN_DATUM(finish(fcinfo, &request));
}

Datum
plinth_identity_magic_link_request(PG_FUNCTION_ARGS)
{
	Request request = {.kind = "magic_link", .lifetime = plinth_setting_magic_link_lifetime};

	request.email = take_email(fcinfo, 0);
	if (!PG_ARGISNULL(1))
		request.redirect = PG_GETARG_TEXT_PP(1);
	if (request.redirect != NULL && VARSIZE_ANY_EXHDR(request.redirect) > MAX_REDIRECT)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("redirect is too long")));
	PG_RETURN_DATUM(finish(fcinfo, &request));
}

Datum
plinth_identity_email_code_request(PG_FUNCTION_ARGS)
{
	Request request = {.kind = "email_code", .lifetime = plinth_setting_email_code_lifetime};

	request.email = take_email(fcinfo, 0);
	PG_RETURN_DATUM(finish(fcinfo, &request));
}

static Datum
array_of(Datum a, Datum b, Oid type, int len, char align)
{
	Datum values[2] = {a, b};

	return PointerGetDatum(construct_array(values, 2, type, len, false, align));
}

static void
store_change(const pg_uuid_t *user_id, text *email)
{
	PlinthOneTime made[2];
	Datum values[7];
	PlinthAsOwner owner;

	plinth_identity_one_time_make(false, &made[0]);
	plinth_identity_one_time_make(false, &made[1]);
	values[0] = UUIDPGetDatum(user_id);
	values[1] = PointerGetDatum(email);
	values[2] = array_of(UUIDPGetDatum(&made[0].token_id), UUIDPGetDatum(&made[1].token_id),
						 UUIDOID, UUID_LEN, TYPALIGN_CHAR);
	values[3] = array_of(PointerGetDatum(made[0].hash), PointerGetDatum(made[1].hash), BYTEAOID, -1,
						 TYPALIGN_INT);
	values[4] = array_of(UUIDPGetDatum(&made[0].message_id), UUIDPGetDatum(&made[1].message_id),
						 UUIDOID, UUID_LEN, TYPALIGN_CHAR);
	values[5] = array_of(PointerGetDatum(made[0].envelope), PointerGetDatum(made[1].envelope),
						 BYTEAOID, -1, TYPALIGN_INT);
	values[6] = Float8GetDatum(plinth_setting_email_change_lifetime);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&change_plan, values, NULL, false, SPI_OK_SELECT);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

Datum
plinth_identity_email_change_request(PG_FUNCTION_ARGS)
{
	Request request = {.kind = "email_change"};
	pg_uuid_t user_id = plinth_identity_require_self()->user_id;
	text *email = take_email(fcinfo, 0);
	const char *reason = NULL;

	PreventCommandIfReadOnly("plinth.email_change_request()");
	/* By whom it is asked for, whatever the new address. */
	request.email = cstring_to_text(plinth_identity_resource(&user_id));
	if (allowed(&request))
	{
		store_change(&user_id, email);
		request.retry_after = 0;
	}
	else
		reason = "rate_limited";
	plinth_identity_audit("plinth.email_change_request", &user_id, reason);
	PG_RETURN_DATUM(
		plinth_identity_status_row(fcinfo, reason ? reason : "ok", request.retry_after));
}
