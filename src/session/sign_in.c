/*
 * sign_in.c
 *		plinth.sign_in: from a password to a session.
 *
 * A refused attempt is a status, not an error, so that its audit entry
 * commits.  The entry names the user when the identifier is one's, and never
 * holds what was typed: people type passwords into the wrong field.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/timestamp.h"

#define ACTION "plinth.sign_in"
#define MAX_IDENTIFIER 1024
#define MAX_USER_AGENT 1000

static PlinthPlan insert_plan = {
	.sql = "INSERT INTO plinth.sessions (user_id, token_hash, address, device_fingerprint, "
		   "device_type, user_agent, label, created_at, authenticated_at, last_active_at, "
		   "expires_at, idle_timeout) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, "
		   "pg_catalog.make_interval(secs => $10)) RETURNING id",
	.nargs = 10,
	.argtypes = {UUIDOID, BYTEAOID, INETOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
				 TIMESTAMPTZOID, FLOAT8OID},
};

typedef struct Device
{
	Datum values[4]; /* fingerprint, type, user agent, label */
	char nulls[4];
} Device;

typedef struct NewSession
{
	pg_uuid_t id;
	char token[PLINTH_TOKEN_SIZE];
	TimestampTz expires_at;
} NewSession;

PGDLLEXPORT Datum plinth_session_sign_in(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_sign_in);

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
}

static void
take_device(FunctionCallInfo fcinfo, Device *device)
{
	static const struct
	{
		int max;
		const char *message;
	} bounds[4] = {{200, "device_fingerprint is too long"},
				   {50, "device_type is too long"},
				   {0, NULL},
				   {200, "label is too long"}};

	for (int i = 0; i < 4; i++)
	{
		text *value;

		device->nulls[i] = PG_ARGISNULL(i + 2) ? 'n' : ' ';
		if (PG_ARGISNULL(i + 2))
			continue;
		value = PG_GETARG_TEXT_PP(i + 2);
		if (bounds[i].message != NULL)
			check(VARSIZE_ANY_EXHDR(value) <= bounds[i].max, bounds[i].message);
		else
		{
			/* Browsers, not people, choose its length. */
			int len = pg_mbcliplen(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), MAX_USER_AGENT);

			value = cstring_to_text_with_len(VARDATA_ANY(value), len);
		}
		device->values[i] = PointerGetDatum(value);
	}
}

static void
begin_session(const pg_uuid_t *user_id, const Device *device, NewSession *session)
{
	bytea *hash = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	char *address = plinth_base_client_address();
	TimestampTz now = GetCurrentTimestamp();
	Datum values[10];
	char nulls[10];
	PlinthAsOwner owner;
	bool null;

	SET_VARSIZE(hash, VARHDRSZ + PLINTH_HASH_BYTES);
	plinth_session_token_make(session->token, (uint8 *) VARDATA(hash));
	session->expires_at = now + plinth_setting_session_lifetime * USECS_PER_SEC;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = UUIDPGetDatum(user_id);
	values[1] = PointerGetDatum(hash);
	nulls[2] = address ? ' ' : 'n';
	values[2] = address ? DirectFunctionCall1(inet_in, CStringGetDatum(address)) : (Datum) 0;
	memcpy(&values[3], device->values, sizeof(device->values));
	memcpy(&nulls[3], device->nulls, sizeof(device->nulls));
	values[7] = TimestampTzGetDatum(now);
	values[8] = TimestampTzGetDatum(session->expires_at);
	values[9] = Float8GetDatum(plinth_setting_session_idle_timeout);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&insert_plan, values, nulls, false, SPI_OK_INSERT_RETURNING);
	session->id =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
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

static const char *
status_name(PlinthAuthStatus status)
{
	switch (status)
	{
		case PLINTH_AUTH_OK:
			return "ok";
		case PLINTH_AUTH_LOCKED:
			return "locked";
		case PLINTH_AUTH_INVALID:
			break;
	}
	return "invalid_credentials";
}

static void
record(const PlinthAuth *auth, const NewSession *session, const Device *device)
{
	PlinthAuditEntry entry = {.action = ACTION, .result = "success"};

	if (auth->has_user)
		entry.resource = plinth_identity_resource(&auth->user_id);
	if (device->nulls[2] == ' ')
		entry.user_agent = TextDatumGetCString(device->values[2]);
	if (auth->status == PLINTH_AUTH_OK)
	{
		entry.user_id = &auth->user_id;
		entry.session_id = &session->id;
	}
	else
	{
		entry.result = auth->status == PLINTH_AUTH_LOCKED ? "denied" : "failure";
		entry.metadata = plinth_audit_reason(status_name(auth->status));
	}
	(void) plinth_audit_write(&entry);
}

Datum
plinth_session_sign_in(PG_FUNCTION_ARGS)
{
	PlinthAuth auth;
	Device device = {0};
	NewSession session;
	TupleDesc desc;
	Datum values[5] = {0};
	bool nulls[5] = {false, true, true, true, true};

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.sign_in()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	check(!PG_ARGISNULL(0), "identifier is missing");
	check(!PG_ARGISNULL(1), "password is missing");
	check(VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(0)) <= MAX_IDENTIFIER, "identifier is too long");
	take_device(fcinfo, &device);

	auth = authenticate(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1));
	values[0] = CStringGetTextDatum(status_name(auth.status));
	if (auth.status == PLINTH_AUTH_OK)
	{
		begin_session(&auth.user_id, &device, &session);
		memset(nulls, false, sizeof(nulls));
		values[1] = UUIDPGetDatum(&auth.user_id);
		values[2] = UUIDPGetDatum(&session.id);
		values[3] = CStringGetTextDatum(session.token);
		values[4] = TimestampTzGetDatum(session.expires_at);
		plinth_crypto_wipe(session.token, sizeof(session.token));
	}
	record(&auth, &session, &device);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
