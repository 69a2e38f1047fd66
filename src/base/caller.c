/*
 * caller.c
 *		What functions ask of whoever, or whatever, calls them.
 */
#include "postgres.h"

#include "base/base.h"
#include "commands/trigger.h"

TriggerData *
plinth_base_trigger_data(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("plinth.%s must be called as a trigger", name)));
	return (TriggerData *) fcinfo->context;
}

const PlinthContext *
plinth_base_require_user(void)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL || !context->has_user)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("not signed in")));
	return context;
}
