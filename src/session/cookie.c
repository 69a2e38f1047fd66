/*
 * cookie.c
 *		The session's token as a cookie of the browser.
 *
 * HttpOnly, so that no script reads it; Secure; and for this host alone when
 * its name begins with __Host- (RFC 6265bis, 4.1.3), as it does by default.
 * A page of another origin must not be able to sign its visitor in as
 * somebody else: who sets a cookie shows an allowed origin too.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "session/internal.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define ATTRIBUTES "Path=/; Secure; HttpOnly"
#define SET_COOKIE "Set-Cookie"

PGDLLEXPORT Datum plinth_session_cookie_set(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_cookie_clear(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_cookie_set);
PG_FUNCTION_INFO_V1(plinth_session_cookie_clear);

char *
plinth_session_cookie_none(void)
{
	return psprintf("%s=; " ATTRIBUTES "; Max-Age=0", plinth_setting_session_cookie);
}

static const char *
same_site(text *value)
{
	char *given = text_to_cstring(value);

	if (pg_strcasecmp(given, "Lax") == 0)
		return "Lax";
	if (pg_strcasecmp(given, "Strict") == 0)
		return "Strict";
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("same_site must be \"Lax\" or \"Strict\"")));
}

Datum
plinth_session_cookie_set(PG_FUNCTION_ARGS)
{
	text *token = PG_GETARG_TEXT_PP(0);
	TimestampTz expires_at = PG_GETARG_TIMESTAMPTZ(1);
	const char *site = same_site(PG_GETARG_TEXT_PP(2));
	uint8 hash[PLINTH_HASH_BYTES];
	int64 seconds;

	plinth_base_hide_statement();
	if (!plinth_session_token_hash(VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token), hash))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("that is no token of a session")));
	if (!plinth_base_origin_allowed(plinth_base_request_object("request.headers")))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("origin is not allowed"),
						errhint("A page that gets a cookie must be in "
								"\"plinth.allowed_origins\".")));
	seconds = Max((expires_at - GetCurrentTimestamp()) / USECS_PER_SEC, 0);
	plinth_base_response_add(
		SET_COOKIE, psprintf("%s=%s; " ATTRIBUTES "; SameSite=%s; Max-Age=" INT64_FORMAT,
							 plinth_setting_session_cookie, text_to_cstring(token), site, seconds));
	PG_RETURN_VOID();
}

Datum
plinth_session_cookie_clear(PG_FUNCTION_ARGS)
{
	if (plinth_base_request_field(plinth_base_request_object("request.cookies"),
								  plinth_setting_session_cookie) != NULL)
		plinth_base_response_add(SET_COOKIE, plinth_session_cookie_none());
	PG_RETURN_VOID();
}
