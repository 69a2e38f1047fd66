/*
 * start.c
 *		Begins a session for a user whose identity was verified, however.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/timestamp.h"

#define MAX_USER_AGENT 1000

static PlinthPlan insert_plan = {
	.sql = "INSERT INTO plinth.sessions (user_id, token_hash, address, device_fingerprint, "
		   "device_type, user_agent, label, created_at, authenticated_at, last_active_at, "
		   "expires_at, idle_timeout, aal) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, "
		   "pg_catalog.make_interval(secs => $10), $11) RETURNING id",
	.nargs = 11,
	.argtypes = {UUIDOID, BYTEAOID, INETOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
				 TIMESTAMPTZOID, FLOAT8OID, INT2OID},
};

static text *
take_text(FunctionCallInfo fcinfo, int arg, int max, const char *message)
{
	text *value;

	if (PG_ARGISNULL(arg))
		return NULL;
	value = PG_GETARG_TEXT_PP(arg);
	if (VARSIZE_ANY_EXHDR(value) > max)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
	return value;
}

void
plinth_session_device(FunctionCallInfo fcinfo, int first, PlinthDevice *device)
{
	device->fingerprint = take_text(fcinfo, first, 200, "device_fingerprint is too long");
	device->type = take_text(fcinfo, first + 1, 50, "device_type is too long");
	device->user_agent = take_text(fcinfo, first + 2, INT_MAX, "");
	if (device->user_agent != NULL)
	{
		/* Browsers, not people, choose its length. */
		const char *agent = VARDATA_ANY(device->user_agent);
		int len = pg_mbcliplen(agent, VARSIZE_ANY_EXHDR(device->user_agent), MAX_USER_AGENT);

		device->user_agent = cstring_to_text_with_len(agent, len);
	}
	device->label = take_text(fcinfo, first + 3, 200, "label is too long");
}

static void
put(Datum *values, char *nulls, int i, const text *value)
{
	values[i] = PointerGetDatum(value);
	nulls[i] = value != NULL ? ' ' : 'n';
}

void
plinth_session_start(const PlinthSessionStart *start, PlinthNewSession *session)
{
	bytea *hash = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	char *address = plinth_base_client_address();
	TimestampTz now = GetCurrentTimestamp();
	Datum values[11];
	char nulls[11];
	PlinthAsOwner owner;
	bool null;

	SET_VARSIZE(hash, VARHDRSZ + PLINTH_HASH_BYTES);
	plinth_session_token_make(session->token, (uint8 *) VARDATA(hash));
	session->expires_at = now + plinth_setting_session_lifetime * USECS_PER_SEC;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = UUIDPGetDatum(&start->user_id);
	values[1] = PointerGetDatum(hash);
	nulls[2] = address ? ' ' : 'n';
	values[2] = address ? DirectFunctionCall1(inet_in, CStringGetDatum(address)) : (Datum) 0;
	put(values, nulls, 3, start->device.fingerprint);
	put(values, nulls, 4, start->device.type);
	put(values, nulls, 5, start->device.user_agent);
	put(values, nulls, 6, start->device.label);
	values[7] = TimestampTzGetDatum(now);
	values[8] = TimestampTzGetDatum(session->expires_at);
	values[9] = Float8GetDatum(plinth_setting_session_idle_timeout);
	values[10] = Int16GetDatum(start->aal);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&insert_plan, values, nulls, false, SPI_OK_INSERT_RETURNING);
	session->id =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
}
