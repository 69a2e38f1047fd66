/*
 * context.c
 *		plinth.context_begin: from a token to a request context.
 *
 * The function runs with its caller's rights, since PostgreSQL lets only such
 * a function set the role for the rest of the transaction.  The role decides
 * which tables a request may touch; who is calling is decided by the context
 * alone, which a client can neither set nor reset.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/base.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "limits/limits.h"
#include "miscadmin.h"
#include "session/internal.h"
#include "session/jwt.h"
#include "session/session.h"
#include "session/store.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

PGDLLEXPORT Datum plinth_session_context_begin(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_context_begin);

static char *
uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

static void
take_session(PlinthCaller *caller)
{
	const PlinthSession *session = &caller->session;

	caller->context = (PlinthContext){
		.user_id = session->user_id,
		.session_id = session->id,
		.has_user = true,
		.has_session = true,
		.aal = session->aal,
		.roles = session->roles,
		.tier = session->tier,
		.user_key = plinth_identity_user_key(&session->user_id),
	};
	if (session->has_impersonator)
		caller->context.impersonator = uuid_text(&session->impersonator_id);
}

/* Takes the role of a request with an identity, where the login role may. */
static void
take_role(void)
{
	Oid role = get_role_oid(plinth_setting_role_authenticated, true);

	if (!OidIsValid(role))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("role \"%s\" does not exist", plinth_setting_role_authenticated),
						errhint("Set \"plinth.role_authenticated\" to a role that exists.")));
	if (plinth_compat_can_set_role(GetSessionUserId(), role))
		(void) set_config_option("role", plinth_setting_role_authenticated, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
take_foreign(const PlinthJwt *jwt, PlinthCaller *caller)
{
	PlinthForeign who = {
		.provider = jwt->issuer.provider,
		.subject = plinth_session_jwt_subject(jwt),
		.by_user_key = jwt->issuer.by_user_key,
		.create = jwt->issuer.create_users,
		.claims = jwt->claims,
	};
	pg_uuid_t user_id;

	plinth_identity_foreign_user(&who, &user_id);
	if (!plinth_identity_user_context(&user_id, &caller->context))
		plinth_session_jwt_refuse();
}

static bool
take_api_key(text *credential, PlinthCaller *caller)
{
	PlinthApiKey key;

	if (!plinth_identity_api_key_find(credential, &key) ||
		!plinth_identity_user_context(&key.user_id, &caller->context))
		return false;
	caller->context.api_key = uuid_text(&key.id);
	caller->context.scopes = key.scopes;
	caller->limit_policy = key.limit_policy;
	return true;
}

bool
plinth_session_caller_find_session(text *token, PlinthCaller *caller)
{
	memset(caller, 0, sizeof(*caller));
	if (!plinth_session_find(token, &caller->session))
		return false;
	take_session(caller);
	return true;
}

bool
plinth_session_caller_find(text *credential, PlinthCaller *caller)
{
	PlinthJwt jwt;

	if (plinth_identity_api_key_shaped(credential))
	{
		memset(caller, 0, sizeof(*caller));
		return take_api_key(credential, caller);
	}
	if (!plinth_session_jwt_shaped(credential))
		return plinth_session_caller_find_session(credential, caller);

	memset(caller, 0, sizeof(*caller));
	plinth_session_jwt_verify(credential, &jwt);
	if (!jwt.own)
		take_foreign(&jwt, caller);
	else
	{
		/* What was signed before a step-up is worth what it was worth then. */
		caller->session = jwt.session;
		take_session(caller);
	}
	return true;
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

bool
plinth_session_caller_same(const PlinthCaller *a, const PlinthCaller *b)
{
	return memcmp(&a->context.user_id, &b->context.user_id, sizeof(pg_uuid_t)) == 0 &&
		   memcmp(&a->context.session_id, &b->context.session_id, sizeof(pg_uuid_t)) == 0 &&
		   same_text(a->context.api_key, b->context.api_key);
}

void
plinth_session_caller_begin(const PlinthCaller *caller)
{
	PlinthContext context = caller->context;

	if (caller->limit_policy != NULL)
		plinth_limits_require(caller->limit_policy, psprintf("api_key:%s", context.api_key), 1);
	context.address = plinth_base_client_address();
	plinth_base_context_fix(&context);
	if (context.has_session)
		plinth_session_touch(&caller->session);
	take_role();
}

void
plinth_session_context_check(const char *function)
{
	if (InLocalUserIdChange() || InSecurityRestrictedOperation())
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s cannot run within a security-definer function", function),
						errhint("Call it as the first statement of the transaction.")));
}

Datum
plinth_session_context_begin(PG_FUNCTION_ARGS)
{
	PlinthCaller caller;
	pg_uuid_t *user_id = palloc(sizeof(pg_uuid_t));

	plinth_base_hide_statement();
	plinth_session_context_check("plinth.context_begin()");
	if (PG_ARGISNULL(0) || !plinth_session_caller_find(PG_GETARG_TEXT_PP(0), &caller))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("session is not valid")));
	plinth_session_caller_begin(&caller);

	*user_id = caller.context.user_id;
	PG_RETURN_UUID_P(user_id);
}

void
plinth_session_init(void)
{
	plinth_session_store_init();
	plinth_session_fill_init();
	plinth_session_change_init();
	plinth_session_flush_init();
	plinth_base_secret_function("sign_in");
	plinth_base_secret_function("magic_link_sign_in");
	plinth_base_secret_function("email_code_sign_in");
	plinth_base_secret_function("session_verify");
	plinth_base_secret_function("context_begin");
	plinth_base_secret_function("session_confirm");
	plinth_base_secret_function("session_impersonate");
	plinth_base_secret_function("jwt_issue");
	plinth_base_secret_function("jwt_verify");
	plinth_base_secret_function("jwt_user_key");
	plinth_base_secret_function("identity_link_me");
	plinth_base_secret_function("tokens_issue");
	plinth_base_secret_function("session_refresh");
	plinth_base_secret_function("session_cookie_set");
	plinth_base_secret_function("refresh_session");
	plinth_base_secret_function("link_identity");
	/* Not functions, but where PostgREST puts what clients send. */
	plinth_base_secret_function("request.headers");
	plinth_base_secret_function("request.cookies");
}
