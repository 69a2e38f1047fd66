/*
 * identity_link.c
 *		plinth.identity_link_me: whoever is signed in brings the token of an
 *		outside provider, and may come by it from then on.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "session/jwt.h"
#include "utils/builtins.h"

static PlinthPlan link_plan = {
	.sql = "SELECT plinth._identity_link($1, $2, $3, NULL)",
	.nargs = 3,
	.argtypes = {UUIDOID, TEXTOID, TEXTOID},
};

PGDLLEXPORT Datum plinth_session_identity_link_me(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_identity_link_me);

static const PlinthContext *
require_user(void)
{
	const PlinthContext *context = plinth_base_require_user();

	if (context->api_key != NULL || context->impersonator != NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
						errmsg("an identity needs the user's own sign-in")));
	/* It outlives the session. */
	plinth_identity_require_recent(context);
	return context;
}

Datum
plinth_session_identity_link_me(PG_FUNCTION_ARGS)
{
	const PlinthContext *context;
	PlinthJwt jwt;
	PlinthAsOwner owner;
	Datum values[3];
	bool null;
	bool linked;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.identity_link_me()");
	context = require_user();
	if (PG_ARGISNULL(0))
		plinth_session_jwt_refuse();
	plinth_session_jwt_verify(PG_GETARG_TEXT_PP(0), &jwt);
	if (jwt.own || jwt.issuer.by_user_key)
		plinth_session_jwt_refuse();

	values[0] = UUIDPGetDatum(&context->user_id);
	values[1] = CStringGetTextDatum(jwt.issuer.provider);
	values[2] = CStringGetTextDatum(plinth_session_jwt_subject(&jwt));
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&link_plan, values, NULL, false, SPI_OK_SELECT);
	linked = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
	PG_RETURN_BOOL(linked);
}
