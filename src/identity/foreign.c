/*
 * foreign.c
 *		Users as outside issuers name them, and the request context of a user
 *		who has no session here.
 *
 * The issuer's token was verified before.  What is asked here is whom of ours
 * it names, by plinth.identities or by the application's own keys, and whether
 * that user may do anything now.  As with sessions the newest committed state
 * counts, not the transaction's snapshot.
 *
 * When an identity was last used is noted at commit, once an hour, by what can
 * write anyway: base/note.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define NOTE_INTERVAL (USECS_PER_HOUR)

static PlinthPlan identity_plan = {
	.sql =
		"SELECT user_id, last_used_at FROM plinth.identities WHERE provider = $1 AND subject = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID},
};
static PlinthPlan user_key_plan = {
	.sql =
		"SELECT id, NULL::pg_catalog.timestamptz FROM plinth.users WHERE $1 <> '' AND user_key = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID},
};
static PlinthPlan create_plan = {
	.sql = "SELECT plinth._identity_first_seen($1, $2, $3, $4)",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, BOOLOID, JSONBOID},
};
static PlinthPlan used_plan = {
	.sql = "UPDATE plinth.identities SET last_used_at = pg_catalog.clock_timestamp() "
		   "WHERE (provider, subject) = (SELECT i.provider, i.subject FROM plinth.identities i "
		   "WHERE i.provider = $1 AND i.subject = $2 FOR NO KEY UPDATE SKIP LOCKED)",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID},
};
static PlinthPlan user_plan = {
	.sql = "SELECT u.role, u.tier FROM plinth.users u WHERE u.id = $1 AND " PLINTH_USER_ACTIVE(
		"u", "$2"),
	.nargs = 2,
	.argtypes = {UUIDOID, TIMESTAMPTZOID},
};

static bool
find_user(const PlinthForeign *who, pg_uuid_t *user_id)
{
	Datum values[2] = {CStringGetTextDatum(who->provider), CStringGetTextDatum(who->subject)};
	TimestampTz used;
	bool null;

	plinth_base_spi_select_latest(who->by_user_key ? &user_key_plan : &identity_plan, values);
	if (SPI_processed == 0)
		return false;
	*user_id =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	used =
		DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
	if (!who->by_user_key && plinth_base_may_note() &&
		(null || GetCurrentTimestamp() - used > NOTE_INTERVAL))
		plinth_base_note(&used_plan, values, NULL);
	return true;
}

static bool
create_user(const PlinthForeign *who, pg_uuid_t *user_id)
{
	Datum values[4] = {CStringGetTextDatum(who->provider), CStringGetTextDatum(who->subject),
					   BoolGetDatum(who->by_user_key), JsonbPGetDatum(who->claims)};
	Datum id;
	bool null;

	plinth_base_spi_execute(&create_plan, values, NULL, false, SPI_OK_SELECT);
	id = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);
	if (null)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not create a user because of concurrent changes")));
	*user_id = *DatumGetUUIDP(id);
	return true;
}

void
plinth_identity_foreign_user(const PlinthForeign *who, pg_uuid_t *user_id)
{
	PlinthAsOwner owner;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	found = find_user(who, user_id) || (who->create && !XactReadOnly && create_user(who, user_id));
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (!found)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("user is not known here"),
						who->create ? errhint("The first request of a user must be one that may "
											  "write.")
									: 0));
}

bool
plinth_identity_user_context(const pg_uuid_t *user_id, PlinthContext *context)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum values[2] = {UUIDPGetDatum(user_id), TimestampTzGetDatum(GetCurrentTimestamp())};
	PlinthAsOwner owner;
	TimestampTz until;
	char *role = NULL;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&user_plan, values);
	found = SPI_processed > 0;
	if (found)
	{
		role = MemoryContextStrdup(caller,
								   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
		context->tier = MemoryContextStrdup(
			caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (!found)
		return false;

	context->has_user = true;
	context->user_id = *user_id;
	context->aal = 1;
	context->roles = plinth_identity_access(user_id, role, context->tier, &until);
	context->user_key = plinth_identity_user_key(user_id);
	return true;
}
