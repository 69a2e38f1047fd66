/*
 * contextsql.c
 *		What SQL can ask about the request context; for policies above all.
 *
 * Each reads memory that was parsed when the context was fixed: a policy may
 * call them for every row.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_base_current_user_id(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_current_session_id(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_current_user_key(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_current_aal(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_current_api_key_id(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_current_tier(PG_FUNCTION_ARGS);

static Datum
return_uuid(FunctionCallInfo fcinfo, const pg_uuid_t *uuid)
{
	pg_uuid_t *result = palloc(sizeof(pg_uuid_t));

	*result = *uuid;
	PG_RETURN_UUID_P(result);
}

PG_FUNCTION_INFO_V1(plinth_base_current_user_id);
Datum
plinth_base_current_user_id(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || !context->has_user)
		PG_RETURN_NULL();
	return return_uuid(fcinfo, &context->user_id);
}

PG_FUNCTION_INFO_V1(plinth_base_current_session_id);
Datum
plinth_base_current_session_id(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || !context->has_session)
		PG_RETURN_NULL();
	return return_uuid(fcinfo, &context->session_id);
}

PG_FUNCTION_INFO_V1(plinth_base_current_api_key_id);
Datum
plinth_base_current_api_key_id(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || context->api_key == NULL)
		PG_RETURN_NULL();
	return DirectFunctionCall1(uuid_in, CStringGetDatum(context->api_key));
}

PG_FUNCTION_INFO_V1(plinth_base_current_user_key);
Datum
plinth_base_current_user_key(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || !context->has_user)
		PG_RETURN_NULL();
	if (context->user_key != NULL)
		PG_RETURN_TEXT_P(cstring_to_text(context->user_key));
	PG_RETURN_TEXT_P(cstring_to_text(
		DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&context->user_id)))));
}

PG_FUNCTION_INFO_V1(plinth_base_current_aal);
Datum
plinth_base_current_aal(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	PG_RETURN_INT32(context != NULL ? context->aal : 0);
}

PG_FUNCTION_INFO_V1(plinth_base_current_tier);
Datum
plinth_base_current_tier(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || context->tier == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(context->tier));
}
