/*
 * respond.c
 *		What a limit says to an HTTP client.
 *
 * Under PostgREST (request.method is set) as response headers: Retry-After,
 * and RateLimit and RateLimit-Policy as draft-ietf-httpapi-ratelimit-headers
 * has them, lists of RFC 8941: a quoted name with parameters (q: quota, w:
 * seconds in which it comes back, r: remaining, t: seconds until it is whole).
 * A refusal is an ERROR in PostgREST's PGRST form, whose MESSAGE and DETAIL are
 * JSON; for any other client it is PT429 or PT402.  An allowed call adds its
 * fields to response.headers, beside what the application put there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/base.h"
#include "lib/stringinfo.h"
#include "limits/internal.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#define HEADERS_SETTING "response.headers"
#define ERRCODE_POSTGREST MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')
#define ERRCODE_PAYMENT_REQUIRED MAKE_SQLSTATE('P', 'T', '4', '0', '2')

static bool
under_postgrest(void)
{
	return plinth_base_request_setting("request.method") != NULL;
}

static int64
seconds(int64 microseconds)
{
	return microseconds / USECS_PER_SEC + (microseconds % USECS_PER_SEC > 0);
}

/* A string of RFC 8941: printable ASCII in quotes. */
static void
append_name(StringInfo out, const char *name)
{
	appendStringInfoChar(out, '"');
	for (const char *p = name; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfoChar(out, '\\');
		appendStringInfoChar(out, *p >= ' ' && *p <= '~' ? *p : '?');
	}
	appendStringInfoChar(out, '"');
}

static char *
state_field(const char *policy, const PlinthLimitDecision *decision)
{
	StringInfoData out;

	initStringInfo(&out);
	append_name(&out, policy);
	appendStringInfo(&out, ";r=" INT64_FORMAT ";t=" INT64_FORMAT, Max(decision->remaining, 0),
					 seconds(Max(decision->reset_after, 0)));
	return out.data;
}

static char *
policy_field(const char *policy, const PlinthLimitDecision *decision)
{
	StringInfoData out;

	initStringInfo(&out);
	append_name(&out, policy);
	appendStringInfo(&out, ";q=" INT64_FORMAT, decision->limit_count);
	if (decision->window > 0)
		appendStringInfo(&out, ";w=" INT64_FORMAT, seconds(decision->window));
	return out.data;
}

void
plinth_limits_raise(int http_status, const char *policy, const PlinthLimitDecision *decision)
{
	const char *message = http_status == 402 ? "Quota exceeded" : "Too many requests";
	bool wait = decision->retry_after >= 0;
	int64 retry = seconds(Max(decision->retry_after, 0));
	char *details = wait ? psprintf("Limit \"%s\" allows this again in " INT64_FORMAT " s.", policy,
									Max(retry, 1))
						 : psprintf("Limit \"%s\" never allows this.", policy);
	StringInfoData body;
	StringInfoData response;

	if (!under_postgrest())
		ereport(ERROR, (errcode(http_status == 402 ? ERRCODE_PAYMENT_REQUIRED
												   : PLINTH_ERRCODE_TOO_MANY_REQUESTS),
						errmsg("%s", message), errdetail("%s", details)));

	initStringInfo(&body);
	appendStringInfo(&body, "{\"code\":\"PT%d\",\"message\":", http_status);
	escape_json(&body, message);
	appendStringInfoString(&body, ",\"details\":");
	escape_json(&body, details);
	appendStringInfoString(&body, ",\"hint\":null}");

	initStringInfo(&response);
	appendStringInfo(&response, "{\"status\":%d,\"headers\":{\"RateLimit-Policy\":", http_status);
	escape_json(&response, policy_field(policy, decision));
	appendStringInfoString(&response, ",\"RateLimit\":");
	escape_json(&response, state_field(policy, decision));
	if (wait)
		appendStringInfo(&response, ",\"Retry-After\":\"" INT64_FORMAT "\"", Max(retry, 1));
	appendStringInfoString(&response, "}}");
	ereport(ERROR, (errcode(ERRCODE_POSTGREST), errmsg_internal("%s", body.data),
					errdetail_internal("%s", response.data)));
}

/* The value of a header among those of response.headers, or NULL. */
static char *
take_header(JsonbContainer *element, const char *name)
{
	JsonbValue value;

	if (!JsonContainerIsObject(element) ||
		getKeyJsonValueFromContainer(element, name, strlen(name), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* Keeps the elements that are not ours, and what ours held before. */
static bool
read_headers(const char *setting, StringInfo others, char **policies, char **states)
{
	Jsonb *jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(setting)));
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_ARRAY(jsonb) || JB_ROOT_IS_SCALAR(jsonb))
		return false;
	it = JsonbIteratorInit(&jsonb->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		char *field;

		if (token != WJB_ELEM)
			continue;
		if (value.type != jbvBinary)
			return false;
		if ((field = take_header(value.val.binary.data, "RateLimit-Policy")) != NULL)
			*policies = field;
		else if ((field = take_header(value.val.binary.data, "RateLimit")) != NULL)
			*states = field;
		else
		{
			appendStringInfoString(
				others, JsonbToCString(NULL, value.val.binary.data, value.val.binary.len));
			appendStringInfoChar(others, ',');
		}
	}
	return true;
}

/* A list of RFC 8941 with a member, in place of one that has the same name. */
static char *
put_member(const char *list, const char *name, const char *member)
{
	StringInfoData quoted;
	StringInfoData out;

	initStringInfo(&quoted);
	append_name(&quoted, name);
	appendStringInfoChar(&quoted, ';');
	initStringInfo(&out);
	while (list != NULL && *list != '\0')
	{
		const char *end = strstr(list, ", ");
		size_t len = end != NULL ? end - list : strlen(list);

		if (strncmp(list, quoted.data, quoted.len) != 0)
		{
			appendBinaryStringInfo(&out, list, len);
			appendStringInfoString(&out, ", ");
		}
		list += end != NULL ? len + 2 : len;
	}
	appendStringInfoString(&out, member);
	return out.data;
}

void
plinth_limits_respond(const char *policy, const PlinthLimitDecision *decision)
{
	const char *setting;
	char *policies = NULL;
	char *states = NULL;
	StringInfoData headers;

	/* No setting can be changed in a parallel operation. */
	if (!under_postgrest() || IsInParallelMode())
		return;
	initStringInfo(&headers);
	appendStringInfoChar(&headers, '[');
	setting = GetConfigOption(HEADERS_SETTING, true, false);
	if (setting != NULL && setting[0] != '\0' &&
		!read_headers(setting, &headers, &policies, &states))
		return;
	appendStringInfoString(&headers, "{\"RateLimit-Policy\":");
	escape_json(&headers, put_member(policies, policy, policy_field(policy, decision)));
	appendStringInfoString(&headers, "},{\"RateLimit\":");
	escape_json(&headers, put_member(states, policy, state_field(policy, decision)));
	appendStringInfoString(&headers, "}]");
	(void) set_config_option(HEADERS_SETTING, headers.data, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, ERROR, false);
}
