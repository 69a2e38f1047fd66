/*
 * call.c
 *		Verbs whose bodies are PL/pgSQL, behind a check that no caller passes by.
 *
 * The public function plinth.NAME is one of the C functions here: it asks who
 * calls, with the caller's own rights, and then runs plinth._NAME, of the same
 * arguments, as plinth_owner.  Only plinth_owner may run that one.  So a verb
 * needs no SECURITY DEFINER, in which one could no longer tell who called.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* user_create's argument that is a password; _user_create takes its hash. */
#define USER_CREATE_PASSWORD 5

PGDLLEXPORT Datum plinth_identity_admin_call(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_reader_call(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_user_call(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_users_import(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_user_create(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_admin_call);
PG_FUNCTION_INFO_V1(plinth_identity_reader_call);
PG_FUNCTION_INFO_V1(plinth_identity_user_call);
PG_FUNCTION_INFO_V1(plinth_identity_users_import);
PG_FUNCTION_INFO_V1(plinth_identity_user_create);

/* plinth._NAME for the function that runs, looked up once a query. */
static FmgrInfo *
find_body(FmgrInfo *flinfo)
{
	HeapTuple tuple;
	Form_pg_proc form;
	char *name;
	Oid body;

	if (flinfo->fn_extra != NULL)
		return flinfo->fn_extra;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	form = (Form_pg_proc) GETSTRUCT(tuple);
	name = psprintf("_%s", NameStr(form->proname));
	body = LookupFuncName(
		list_make2(makeString(get_namespace_name(form->pronamespace)), makeString(name)),
		form->pronargs, form->proargtypes.values, false);
	ReleaseSysCache(tuple);

	flinfo->fn_extra = MemoryContextAlloc(flinfo->fn_mcxt, sizeof(FmgrInfo));
	fmgr_info_cxt(body, flinfo->fn_extra, flinfo->fn_mcxt);
	return flinfo->fn_extra;
}

static Datum
call_body(FunctionCallInfo fcinfo)
{
	LOCAL_FCINFO(call, FUNC_MAX_ARGS);
	PlinthAsOwner owner;
	Datum result;

	InitFunctionCallInfoData(*call, find_body(fcinfo->flinfo), fcinfo->nargs, fcinfo->fncollation,
							 NULL, fcinfo->resultinfo);
	memcpy(call->args, fcinfo->args, fcinfo->nargs * sizeof(NullableDatum));
	plinth_base_owner_begin(&owner);
	result = FunctionCallInvoke(call);
	plinth_base_owner_end(&owner);
	fcinfo->isnull = call->isnull;
	return result;
}

/* For administrators. */
Datum
plinth_identity_admin_call(PG_FUNCTION_ARGS)
{
	plinth_identity_require_admin();
	return call_body(fcinfo);
}

/* For the user of the request context, to read about themselves. */
Datum
plinth_identity_reader_call(PG_FUNCTION_ARGS)
{
	(void) plinth_base_require_user();
	return call_body(fcinfo);
}

/* For the user of the request context, to manage their account: no program's work. */
Datum
plinth_identity_user_call(PG_FUNCTION_ARGS)
{
	if (plinth_base_require_user()->api_key != NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("not with an API key")));
	return call_body(fcinfo);
}

/* For administrators; password hashes are nobody else's to see. */
Datum
plinth_identity_users_import(PG_FUNCTION_ARGS)
{
	plinth_base_hide_statement();
	return plinth_identity_admin_call(fcinfo);
}

/* For administrators; the password goes no further than this. */
Datum
plinth_identity_user_create(PG_FUNCTION_ARGS)
{
	NullableDatum *password = &fcinfo->args[USER_CREATE_PASSWORD];

	plinth_base_hide_statement();
	plinth_identity_require_admin();
	if (!password->isnull)
		password->value = CStringGetTextDatum(plinth_identity_password_hash(password->value));
	return call_body(fcinfo);
}
