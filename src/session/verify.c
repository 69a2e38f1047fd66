/*
 * verify.c
 *		Is this the token of a session that is good?
 *
 * The answer is of this moment, not of the transaction's snapshot: a session
 * that was revoked after a REPEATABLE READ transaction began is revoked for it
 * too.  It comes from shared memory (store.c), which is true as of now, or from
 * the tables: for a session that is not there, for a transaction that changed
 * something that sessions depend on, and on a standby.  Only in a parallel
 * operation, where no newer snapshot may be taken, the running query's counts
 * for what is read.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "session/store.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/*
 * The user must be there and active now.  What ends by time is compared with
 * the clock, not with the start of the transaction; whether it is idle is
 * decided here, since shared memory may know of later use than the table.
 */
#define FIND                                                                                       \
	"SELECT s.id, s.user_id, s.expires_at, s.last_active_at, s.aal::pg_catalog.int4, u.role, "     \
	"s.impersonator_id, s.token_hash, u.tier, s.idle_timeout, s.authenticated_at, "                \
	"s.impersonation_reason IS NOT NULL, a.role, a.tier, p.expires_at, p.id, p.last_active_at, "   \
	"p.idle_timeout "                                                                              \
	"FROM plinth.sessions s JOIN plinth.users u ON u.id = s.user_id "                              \
	"LEFT JOIN plinth.users a ON a.id = s.impersonator_id "                                        \
	"LEFT JOIN plinth.sessions p ON p.id = s.impersonator_session_id "                             \
	"WHERE s.revoked_at IS NULL AND s.expires_at > $2 "                                            \
	"AND " PLINTH_USER_ACTIVE("u", "$2") " AND (a.id IS NULL OR " PLINTH_USER_ACTIVE(              \
		"a", "$2") ") "                                                                            \
				   "AND (p.id IS NULL OR p.revoked_at IS NULL AND p.expires_at > $2) AND "

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

static void
read_text(int number, char *value, Size size)
{
	bool null;
	char *found = TextDatumGetCString(column(number, &null));

	strlcpy(value, found, size);
}

/* hash: of the token that was looked up; NULL when it was none. */
static bool
read_session(const uint8 *hash, PlinthSession *session)
{
	bytea *stored;
	bool null;
	Datum value;

	if (SPI_processed != 1)
		return false;
	stored = DatumGetByteaPP(column(8, &null));
	if (VARSIZE_ANY_EXHDR(stored) != PLINTH_HASH_BYTES ||
		(hash != NULL && !plinth_crypto_equal(VARDATA_ANY(stored), hash, PLINTH_HASH_BYTES)))
		return false;
	memcpy(session->token_hash, VARDATA_ANY(stored), PLINTH_HASH_BYTES);

	session->id = *DatumGetUUIDP(column(1, &null));
	session->user_id = *DatumGetUUIDP(column(2, &null));
	session->expires_at = DatumGetTimestampTz(column(3, &null));
	session->last_active_at = DatumGetTimestampTz(column(4, &null));
	session->aal = DatumGetInt32(column(5, &null));
	read_text(6, session->role, sizeof(session->role));
	read_text(9, session->tier, sizeof(session->tier));
	session->has_impersonator = DatumGetBool(column(12, &null));
	value = column(7, &null);
	if (!null)
		session->impersonator_id = *DatumGetUUIDP(value);
	value = column(10, &null);
	if (!null)
		session->idle_timeout = *DatumGetIntervalP(value);
	session->authenticated_at = DatumGetTimestampTz(column(11, &null));
	return true;
}

/* The administrator who acts as the user, as the tables say. */
typedef struct Impersonator
{
	bool known; /* has an account */
	char role[64];
	char tier[64];
	TimestampTz until; /* their own session's end, unless they use it */
} Impersonator;

/* When a session ends if it is not used again; DT_NOEND for never. */
static TimestampTz
idle_until(TimestampTz last_active, const Interval *idle)
{
	if (idle->time == 0 && idle->day == 0 && idle->month == 0)
		return DT_NOEND;
	return DatumGetTimestampTz(DirectFunctionCall2(
		timestamptz_pl_interval, TimestampTzGetDatum(last_active), IntervalPGetDatum(idle)));
}

/* Their own session's end; DT_NOEND where they had none. */
static TimestampTz
read_own_session(void)
{
	TimestampTz until;
	TimestampTz last_active;
	Datum value;
	bool null;

	value = column(15, &null);
	if (null)
		return DT_NOEND;
	until = DatumGetTimestampTz(value);
	last_active = plinth_session_store_last_active(DatumGetUUIDP(column(16, &null)),
												   DatumGetTimestampTz(column(17, &null)));
	value = column(18, &null);
	return null ? until : Min(until, idle_until(last_active, DatumGetIntervalP(value)));
}

static void
read_impersonator(Impersonator *impersonator)
{
	bool null;

	(void) column(13, &null);
	impersonator->known = !null;
	if (impersonator->known)
	{
		read_text(13, impersonator->role, sizeof(impersonator->role));
		read_text(14, impersonator->tier, sizeof(impersonator->tier));
	}
	impersonator->until = read_own_session();
}

/* Whether they still may; their session is that long good. */
static bool
may_impersonate(const Impersonator *impersonator, TimestampTz now, PlinthSession *session)
{
	TimestampTz until;
	char *access;

	if (impersonator->until <= now)
		return false;
	session->good_until = Min(session->good_until, impersonator->until);
	if (!impersonator->known)
		return true;
	access = plinth_identity_access(&session->impersonator_id, impersonator->role,
									impersonator->tier, &until);
	session->good_until = Min(session->good_until, until);
	return plinth_identity_access_permits(access, PLINTH_PERMISSION_ADMIN);
}

/* Reads the tables; all but whether it is idle. */
static bool
read_tables(const uint8 *hash, const pg_uuid_t *id, TimestampTz now, PlinthSession *session)
{
	PlinthPlan *plan = hash != NULL ? &find_plan : &find_by_id_plan;
	Datum values[2] = {UUIDPGetDatum(id), TimestampTzGetDatum(now)};
	Impersonator impersonator;
	PlinthAsOwner owner;
	bool found;

	if (hash != NULL)
	{
		bytea *key = palloc(VARHDRSZ + PLINTH_HASH_BYTES);

		SET_VARSIZE(key, VARHDRSZ + PLINTH_HASH_BYTES);
		memcpy(VARDATA(key), hash, PLINTH_HASH_BYTES);
		values[0] = PointerGetDatum(key);
	}
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(plan, values);
	found = read_session(hash, session);
	if (found)
		read_impersonator(&impersonator);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (!found)
		return false;
	session->roles = plinth_identity_access(&session->user_id, session->role, session->tier,
											&session->good_until);
	return !session->has_impersonator || may_impersonate(&impersonator, now, session);
}

static bool
is_idle(const PlinthSession *session, TimestampTz now)
{
	return idle_until(session->last_active_at, &session->idle_timeout) <= now;
}

static bool
find(const uint8 *hash, const pg_uuid_t *id, PlinthSession *session)
{
	TimestampTz now = GetCurrentTimestamp();
	bool by_memory = plinth_session_store_usable() && !plinth_session_changed_here() &&
					 !plinth_identity_roles_changed_here();
	PlinthSessionTicket ticket;

	memset(session, 0, sizeof(*session));
	if (by_memory)
	{
		PlinthSessionFound found = plinth_session_store_find(hash, id, now, true, session);

		session->noted = true;
		if (found != PLINTH_SESSION_UNKNOWN)
			return found == PLINTH_SESSION_GOOD;
		ticket = plinth_session_store_ticket();
	}
	if (!read_tables(hash, id, now, session))
		return false;
	session->noted = by_memory && plinth_session_store_put(&ticket, session);
	if (is_idle(session, now))
		return false;
	if (session->noted)
		session->noted = plinth_session_store_touch(session->token_hash, now);
	return true;
}

bool
plinth_session_find(text *token, PlinthSession *session)
{
	uint8 hash[PLINTH_HASH_BYTES];

	return plinth_session_token_hash(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token), hash) &&
		   find(hash, NULL, session);
}

bool
plinth_session_find_by_id(const pg_uuid_t *id, PlinthSession *session)
{
	return find(NULL, id, session);
}

Datum
plinth_session_verify(PG_FUNCTION_ARGS)
{
	PlinthSession session;
	static PlinthRow kept;
	Datum values[6] = {0};
	bool nulls[6] = {true, true, true, true, true, true};

	plinth_base_hide_statement();
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
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &kept), values, nulls)));
}
