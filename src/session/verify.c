/*
 * verify.c
 *		Is this the token of a session that is good?
 *
 * The answer is of this moment, not of the transaction's snapshot: a session
 * that was revoked after a REPEATABLE READ transaction began is revoked for it
 * too.  Only in a parallel operation, where no newer snapshot may be taken,
 * the running query's counts.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * The user must be there and active now.  What ends by time is compared with
 * the clock, not with the start of the transaction.
 */
#define FIND                                                                                       \
	"SELECT s.id, s.user_id, s.expires_at, s.last_active_at, s.aal::pg_catalog.int4, u.role, "     \
	"s.impersonator_id, s.token_hash, u.tier "                                                     \
	"FROM plinth.sessions s JOIN plinth.users u ON u.id = s.user_id "                              \
	"WHERE s.revoked_at IS NULL AND s.expires_at > $2 "                                            \
	"AND (s.idle_timeout IS NULL OR s.last_active_at + s.idle_timeout > $2) "                      \
	"AND " PLINTH_USER_ACTIVE("u", "$2") " AND "

static PlinthPlan find_plan = {
	.sql = FIND "s.token_hash = $1",
	.nargs = 2,
	.argtypes = {BYTEAOID, TIMESTAMPTZOID},
};
static PlinthPlan find_by_id_plan = {
	.sql = FIND "s.id = $1",
	.nargs = 2,
	.argtypes = {UUIDOID, TIMESTAMPTZOID},
};

PGDLLEXPORT Datum plinth_session_verify(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_verify);

static Datum
column(int number, bool *null)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, null);
}

/* hash: of the token that was looked up; NULL when it was none. */
static bool
read_session(const uint8 *hash, PlinthSession *session)
{
	bytea *stored;
	char *role;
	char *tier;
	bool null;
	Datum impersonator;

	if (SPI_processed != 1)
		return false;
	stored = DatumGetByteaPP(column(8, &null));
	if (hash != NULL && (VARSIZE_ANY_EXHDR(stored) != PLINTH_HASH_BYTES ||
						 !plinth_crypto_equal(VARDATA_ANY(stored), hash, PLINTH_HASH_BYTES)))
		return false;

	session->id = *DatumGetUUIDP(column(1, &null));
	session->user_id = *DatumGetUUIDP(column(2, &null));
	session->expires_at = DatumGetTimestampTz(column(3, &null));
	session->last_active_at = DatumGetTimestampTz(column(4, &null));
	session->aal = DatumGetInt32(column(5, &null));
	role = TextDatumGetCString(column(6, &null));
	strlcpy(session->role, role, sizeof(session->role));
	tier = TextDatumGetCString(column(9, &null));
	strlcpy(session->tier, tier, sizeof(session->tier));
	impersonator = column(7, &null);
	session->has_impersonator = !null;
	if (!null)
		session->impersonator_id = *DatumGetUUIDP(impersonator);
	return true;
}

static bool
find(PlinthPlan *plan, Datum key, const uint8 *hash, PlinthSession *session)
{
	Datum values[2] = {key, TimestampTzGetDatum(GetCurrentTimestamp())};
	PlinthAsOwner owner;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(plan, values);
	found = read_session(hash, session);
	plinth_base_owner_end(&owner);
	SPI_finish();
	return found;
}

bool
plinth_session_find(text *token, PlinthSession *session)
{
	bytea *key = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	uint8 *hash = (uint8 *) VARDATA(key);

	memset(session, 0, sizeof(*session));
	SET_VARSIZE(key, VARHDRSZ + PLINTH_HASH_BYTES);
	if (!plinth_session_token_hash(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token), hash))
		return false;
	return find(&find_plan, PointerGetDatum(key), hash, session);
}

bool
plinth_session_find_by_id(const pg_uuid_t *id, PlinthSession *session)
{
	memset(session, 0, sizeof(*session));
	return find(&find_by_id_plan, UUIDPGetDatum(id), NULL, session);
}

Datum
plinth_session_verify(PG_FUNCTION_ARGS)
{
	PlinthSession session;
	TupleDesc desc;
	Datum values[6] = {0};
	bool nulls[6] = {true, true, true, true, true, true};

	plinth_base_hide_statement();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (!PG_ARGISNULL(0) && plinth_session_find(PG_GETARG_TEXT_PP(0), &session))
	{
		memset(nulls, false, sizeof(nulls));
		values[0] = UUIDPGetDatum(&session.id);
		values[1] = UUIDPGetDatum(&session.user_id);
		values[2] = TimestampTzGetDatum(session.expires_at);
		values[3] = Int32GetDatum(session.aal);
		values[4] = CStringGetTextDatum(session.role);
		values[5] = UUIDPGetDatum(&session.impersonator_id);
		nulls[5] = !session.has_impersonator;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
