/*
 * result.c
 *		What functions about credentials ask and answer alike.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "limits/limits.h"
#include "utils/builtins.h"

const PlinthContext *
plinth_identity_require_self(void)
{
	const PlinthContext *context = plinth_base_require_user();

	if (context->impersonator != NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("not while impersonating")));
	if (context->api_key != NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("not with an API key")));
	return context;
}

void
plinth_identity_refuse_old(void)
{
	ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("recent sign-in required"),
					errhint("Confirm the password by plinth.session_confirm, or sign in again.")));
}

void
plinth_identity_require_recent(const PlinthContext *context)
{
	if (!plinth_identity_is_recent(context))
		plinth_identity_refuse_old();
}

Datum
plinth_identity_status_row(FunctionCallInfo fcinfo, const char *status, int64 retry_after)
{
	static PlinthRow row;
	Datum values[2] = {CStringGetTextDatum(status)};
	bool nulls[2] = {false, false};

	values[1] = plinth_limits_wait(retry_after, &nulls[1]);
	return HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &row), values, nulls));
}

void
plinth_identity_audit(const char *action, const pg_uuid_t *user_id, const char *reason)
{
	PlinthAuditEntry entry = {.action = action, .result = reason ? "failure" : "success"};

	if (user_id != NULL)
		entry.resource = plinth_identity_resource(user_id);
	if (reason == NULL)
		entry.user_id = user_id;
	else
		entry.metadata = plinth_audit_reason(reason);
	(void) plinth_audit_attempt(&entry);
}
