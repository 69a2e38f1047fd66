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
PGDLLEXPORT Datum plinth_base_has_role(PG_FUNCTION_ARGS);

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

/* Whether a name stands in a list separated by commas. */
static bool
list_has(const char *list, const char *name, size_t len)
{
	while (*list != '\0')
	{
		size_t item = strcspn(list, ",");

		if (item == len && memcmp(list, name, len) == 0)
			return true;
		list += item;
		if (*list == ',')
			list++;
	}
	return false;
}

PG_FUNCTION_INFO_V1(plinth_base_has_role);
Datum
plinth_base_has_role(PG_FUNCTION_ARGS)
{
	text *role = PG_GETARG_TEXT_PP(0);
	const PlinthContext *context = plinth_base_context();

	PG_RETURN_BOOL(context != NULL && VARSIZE_ANY_EXHDR(role) > 0 &&
				   list_has(context->roles, VARDATA_ANY(role), VARSIZE_ANY_EXHDR(role)));
}
