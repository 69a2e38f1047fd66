/*
 * pre_request.c
 *		plinth.pre_request: the context of an HTTP request, for PostgREST's
 *		db-pre-request.
 *
 * Anybody may call it, and may have written the settings that it reads.  So
 * they get by it what they would get by context_begin: to be whom a credential
 * stands for that they hold.
 *
 * The credential is looked for in this order: Authorization (Bearer),
 * plinth.session_header, plinth.api_key_header, plinth.session_cookie.  All
 * that are there must be good and stand for the same session or API key; the
 * first counts.  A cookie is sent by
 * the browser whoever asks it to, so one that stands alone needs an allowed
 * origin to change something.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/json.h"

#define BEARER "bearer "
#define ERRCODE_POSTGREST MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')

typedef enum Source
{
	SOURCE_BEARER,
	SOURCE_HEADER,
	SOURCE_API_KEY,
	SOURCE_COOKIE,
	SOURCE_COUNT
} Source;

PGDLLEXPORT Datum plinth_session_pre_request(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_pre_request);

/* Another scheme than Bearer is between the client and some proxy. */
static char *
bearer(Jsonb *headers)
{
	char *value = plinth_base_request_field(headers, "authorization");

	if (value == NULL || pg_strncasecmp(value, BEARER, strlen(BEARER)) != 0)
		return NULL;
	value += strlen(BEARER);
	return value + strspn(value, " ");
}

/*
 * PT401; takes the cookie away with it, for a page cannot: the browser would
 * send it with every request, so that none would pass until it is gone.
 */
pg_noreturn static void
refuse_cookie(void)
{
	StringInfoData detail;

	if (plinth_base_request_setting("request.method") == NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("session is not valid")));
	initStringInfo(&detail);
	appendStringInfoString(&detail, "{\"status\":401,\"headers\":{\"Set-Cookie\":");
	escape_json(&detail, plinth_session_cookie_none());
	appendStringInfoString(&detail, "}}");
	ereport(ERROR, (errcode(ERRCODE_POSTGREST),
					errmsg_internal("{\"code\":\"PT401\",\"message\":\"session is not valid\","
									"\"details\":null,\"hint\":null}"),
					errdetail_internal("%s", detail.data)));
}

static void
find_caller(Source source, char *credential, PlinthCaller *caller)
{
	text *value = cstring_to_text(credential);

	if (source == SOURCE_COOKIE)
	{
		if (!plinth_session_caller_find_session(value, caller))
			refuse_cookie();
	}
	else if ((source == SOURCE_API_KEY && !plinth_identity_api_key_shaped(value)) ||
			 !plinth_session_caller_find(value, caller))
		ereport(ERROR,
				(errcode(PLINTH_ERRCODE_UNAUTHENTICATED),
				 errmsg("%s is not valid", source == SOURCE_API_KEY ? "API key" : "session")));
}

static void
begin_anonymous(void)
{
	PlinthContext context = {.roles = "", .address = plinth_base_client_address()};

	plinth_base_context_fix(&context);
}

Datum
plinth_session_pre_request(PG_FUNCTION_ARGS)
{
	Jsonb *headers;
	Jsonb *cookies;
	char *credentials[SOURCE_COUNT];
	PlinthCaller caller;
	bool found = false;
	bool only_cookie = true;

	plinth_base_hide_statement();
	plinth_session_context_check("plinth.pre_request()");
	headers = plinth_base_request_object("request.headers");
	cookies = plinth_base_request_object("request.cookies");
	credentials[SOURCE_BEARER] = bearer(headers);
	credentials[SOURCE_HEADER] =
		plinth_base_request_header_value(headers, plinth_setting_session_header);
	credentials[SOURCE_API_KEY] =
		plinth_base_request_header_value(headers, plinth_setting_api_key_header);
	credentials[SOURCE_COOKIE] = plinth_base_request_field(cookies, plinth_setting_session_cookie);

	for (Source source = 0; source < SOURCE_COUNT; source++)
	{
		PlinthCaller other;

		if (credentials[source] == NULL)
			continue;
		only_cookie = only_cookie && source == SOURCE_COOKIE;
		if (source == SOURCE_COOKIE && only_cookie && !plinth_base_request_is_safe() &&
			!plinth_base_origin_allowed(headers))
			ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("origin is not allowed"),
							errhint("A page whose requests carry a cookie must be in "
									"\"plinth.allowed_origins\".")));
		find_caller(source, credentials[source], found ? &other : &caller);
		if (found && !plinth_session_caller_same(&caller, &other))
			ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST),
							errmsg("request has two different credentials")));
		found = true;
	}

	if (found)
		plinth_session_caller_begin(&caller);
	else
		begin_anonymous();
	PG_RETURN_VOID();
}
