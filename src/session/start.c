/*
 * start.c
 *		Begins a session for a user whose identity was verified, however.
 *
 * The row comes first and bans of devices are looked at then, as of now: who
 * bans a device waits for the user's row or for the whole table, so that either
 * the ban finds the session, or the session finds the ban.
 */
#include "postgres.h"

#include "audit/audit.h"
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
		   "expires_at, idle_timeout, aal, impersonator_id, impersonator_session_id, "
		   "impersonation_reason) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $8, $9, "
		   "pg_catalog.make_interval(secs => $10), $11, $12, $13, $14) RETURNING id",
	.nargs = 14,
	.argtypes = {UUIDOID, BYTEAOID, INETOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID,
				 TIMESTAMPTZOID, FLOAT8OID, INT2OID, UUIDOID, UUIDOID, TEXTOID},
};
static PlinthPlan banned_plan = {
	.sql = "SELECT 1 FROM plinth.device_bans WHERE device_fingerprint = $1 "
		   "AND (user_id = $2 OR user_id IS NULL) "
		   "AND (banned_until IS NULL OR banned_until > pg_catalog.clock_timestamp())",
	.nargs = 2,
	.argtypes = {TEXTOID, UUIDOID},
};

/* Those that administrators began are not the user's. */
static PlinthPlan oldest_plan = {
	.sql = "UPDATE plinth.sessions SET revoked_at = pg_catalog.clock_timestamp(), "
		   "revoked_reason = 'too many sessions' WHERE id IN (SELECT id FROM plinth.sessions "
		   "WHERE user_id = $1 AND revoked_at IS NULL AND impersonation_reason IS NULL "
		   "AND expires_at > pg_catalog.clock_timestamp() "
		   "ORDER BY created_at DESC, id DESC OFFSET $2) RETURNING id",
	.nargs = 2,
	.argtypes = {UUIDOID, INT4OID},
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

bool
plinth_session_device_banned(const pg_uuid_t *user_id, const PlinthDevice *device)
{
	Datum values[2] = {PointerGetDatum(device->fingerprint), UUIDPGetDatum(user_id)};
	PlinthAsOwner owner;
	bool banned;

	if (device->fingerprint == NULL)
		return false;
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&banned_plan, values);
	banned = SPI_processed > 0;
	plinth_base_owner_end(&owner);
	SPI_finish();
	return banned;
}

/* Ends the oldest sessions of a user who has more than allowed. */
static void
end_oldest(const PlinthSessionStart *start, const pg_uuid_t *session_id)
{
	Datum values[2] = {UUIDPGetDatum(&start->user_id),
					   Int32GetDatum(plinth_setting_sessions_per_user)};
	MemoryContext caller = CurrentMemoryContext;
	PlinthAsOwner owner;
	pg_uuid_t *ended;
	int n;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&oldest_plan, values, NULL, false, SPI_OK_UPDATE_RETURNING);
	n = (int) SPI_processed;
	ended = MemoryContextAlloc(caller, Max(n, 1) * sizeof(pg_uuid_t));
	for (int i = 0; i < n; i++)
	{
		bool null;

		ended[i] =
			*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &null));
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	for (int i = 0; i < n; i++)
	{
		PlinthAuditEntry entry = {.action = "plinth.session_revoke",
								  .resource = plinth_session_resource(&ended[i]),
								  .result = "success",
								  .metadata = plinth_audit_reason("too many sessions"),
								  .user_id = &start->user_id,
								  .session_id = session_id};

		(void) plinth_audit_write(&entry);
	}
}

static void
put_impersonator(const PlinthSessionStart *start, Datum *values, char *nulls)
{
	values[11] = UUIDPGetDatum(start->impersonator_id);
	nulls[11] = start->impersonator_id != NULL ? ' ' : 'n';
	values[12] = UUIDPGetDatum(start->impersonator_session_id);
	nulls[12] = start->impersonator_session_id != NULL ? ' ' : 'n';
	put(values, nulls, 13, start->impersonation_reason);
}

void
plinth_session_start(const PlinthSessionStart *start, PlinthNewSession *session)
{
	bytea *hash = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	char *address = plinth_base_client_address();
	TimestampTz now = GetCurrentTimestamp();
	Datum values[14];
	char nulls[14];
	PlinthAsOwner owner;
	bool null;

	SET_VARSIZE(hash, VARHDRSZ + PLINTH_HASH_BYTES);
	plinth_session_token_make(session->token, (uint8 *) VARDATA(hash));
	session->expires_at = start->impersonation_reason != NULL
							  ? start->expires_at
							  : now + plinth_setting_session_lifetime * USECS_PER_SEC;

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
	put_impersonator(start, values, nulls);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&insert_plan, values, nulls, false, SPI_OK_INSERT_RETURNING);
	session->id =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();

	if (plinth_session_device_banned(&start->user_id, &start->device))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("device is banned")));
	if (plinth_setting_sessions_per_user > 0 && start->impersonation_reason == NULL)
		end_oldest(start, &session->id);
}
