/*
 * sign_in.c
 *		From a password, a mailed token or a mailed code to a session.
 *
 * A refused attempt is a status, not an error, so that its audit entry
 * commits.  The entry names the user when the identifier is one's, and never
 * holds what was typed: people type passwords into the wrong field.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "limits/limits.h"
#include "miscadmin.h"
#include "session/internal.h"
#include "utils/builtins.h"

#define MAX_IDENTIFIER 1024

PGDLLEXPORT Datum plinth_session_sign_in(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_magic_link_sign_in(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_email_code_sign_in(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_sign_in);
PG_FUNCTION_INFO_V1(plinth_session_magic_link_sign_in);
PG_FUNCTION_INFO_V1(plinth_session_email_code_sign_in);

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
}

static PlinthAuth
authenticate(Datum identifier, Datum password)
{
	text *secret = plinth_identity_secret(password);
	PlinthAuth auth;

	PG_TRY ()
		;
	{
		auth = plinth_identity_authenticate(DatumGetTextPP(identifier), secret);
	}
	PG_FINALLY ()
		;
	{
		plinth_identity_secret_wipe(secret, password);
	}
	PG_END_TRY();
	return auth;
}

static void
record(const char *action, const PlinthAuth *auth, const PlinthNewSession *session,
	   const PlinthDevice *device)
{
	PlinthAuditEntry entry = {.action = action, .result = "success"};

	if (auth->has_user)
		entry.resource = plinth_identity_resource(&auth->user_id);
	if (device->user_agent != NULL)
		entry.user_agent = text_to_cstring(device->user_agent);
	if (auth->status == PLINTH_AUTH_OK)
	{
		entry.user_id = &auth->user_id;
		entry.session_id = &session->id;
	}
	else
	{
		entry.result = auth->status == PLINTH_AUTH_INVALID ? "failure" : "denied";
		entry.metadata = plinth_audit_reason(plinth_identity_status_name(auth->status));
	}
	(void) plinth_audit_attempt(&entry);
}

/* The session of whoever was let in, the audit entry of all, and the answer. */
static Datum
answer(FunctionCallInfo fcinfo, const char *action, PlinthAuth *auth, const PlinthDevice *device)
{
	static PlinthRow row;
	PlinthSessionStart start = {.aal = 1, .user_id = auth->user_id, .device = *device};
	PlinthNewSession session;
	Datum values[6] = {0};
	bool nulls[6] = {false, true, true, true, true, true};

	if (auth->status == PLINTH_AUTH_OK && plinth_session_device_banned(&auth->user_id, device))
		auth->status = PLINTH_AUTH_LOCKED;
	values[0] = CStringGetTextDatum(plinth_identity_status_name(auth->status));
	values[5] = plinth_limits_wait(auth->retry_after, &nulls[5]);
	if (auth->status == PLINTH_AUTH_OK)
	{
		plinth_session_start(&start, &session);
		memset(nulls, false, 5 * sizeof(bool));
		values[1] = UUIDPGetDatum(&auth->user_id);
		values[2] = UUIDPGetDatum(&session.id);
		values[3] = CStringGetTextDatum(session.token);
		values[4] = TimestampTzGetDatum(session.expires_at);
		plinth_crypto_wipe(session.token, sizeof(session.token));
	}
	record(action, auth, &session, device);
	return HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &row), values, nulls));
}

Datum
plinth_session_sign_in(PG_FUNCTION_ARGS)
{
	PlinthAuth auth;
	PlinthDevice device;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.sign_in()");
	check(!PG_ARGISNULL(0), "identifier is missing");
	check(!PG_ARGISNULL(1), "password is missing");
	check(VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) <= MAX_IDENTIFIER, "identifier is too long");
	plinth_session_device(fcinfo, 2, &device);

	auth = authenticate(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1));
	PG_RETURN_DATUM(answer(fcinfo, "plinth.sign_in", &auth, &device));
}

Datum
plinth_session_magic_link_sign_in(PG_FUNCTION_ARGS)
{
	PlinthAuth auth;
	PlinthDevice device;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.magic_link_sign_in()");
	check(!PG_ARGISNULL(0), "token is missing");
	plinth_session_device(fcinfo, 1, &device);

	auth = plinth_identity_magic_link_take(PG_GETARG_TEXT_PP(0));
	PG_RETURN_DATUM(answer(fcinfo, "plinth.magic_link_sign_in", &auth, &device));
}

Datum
plinth_session_email_code_sign_in(PG_FUNCTION_ARGS)
{
	PlinthAuth auth;
	PlinthDevice device;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.email_code_sign_in()");
	check(!PG_ARGISNULL(0), "email is missing");
	check(!PG_ARGISNULL(1), "code is missing");
	check(VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) <= MAX_IDENTIFIER, "email is too long");
	plinth_session_device(fcinfo, 2, &device);

	auth = plinth_identity_email_code_take(PG_GETARG_TEXT_PP(0), PG_GETARG_TEXT_PP(1));
	PG_RETURN_DATUM(answer(fcinfo, "plinth.email_code_sign_in", &auth, &device));
}
