/*
 * request.c
 *		The HTTP request that runs, as PostgREST says it by settings.
 *
 * request.method, request.headers and request.cookies can be written by
 * whoever runs SQL.  So nothing here says who is calling: a credential in a
 * header counts because it verifies, and a forwarded address because of who
 * logged in from where (address.c).
 *
 * What goes back is in response.headers and response.status, which are as
 * free: an array of objects with one member each, to which others add too.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"

#define RESPONSE_HEADERS "response.headers"

PGDLLEXPORT Datum plinth_base_request_header(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_response_header(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_base_request_header);
PG_FUNCTION_INFO_V1(plinth_base_response_header);

const char *
plinth_base_request_setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

/*
 * NULL for what is no JSON: the parser's own messages would quote it.  Nor is
 * what has a \\u escape of a character that this database's encoding has not.
 */
static Jsonb *
parse_json(const char *text)
{
	MemoryContext memory = CurrentMemoryContext;
	Jsonb *volatile jsonb = NULL;

	PG_TRY ()
		;
	{
		jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	}
	PG_CATCH ()
		;
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION &&
			geterrcode() != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		/* The caller raises an error in its place, so there is nothing to undo. */
		MemoryContextSwitchTo(memory);
		FlushErrorState();
	}
	PG_END_TRY();
	return jsonb;
}

Jsonb *
plinth_base_request_object(const char *name)
{
	const char *setting = plinth_base_request_setting(name);
	Jsonb *jsonb;

	if (setting == NULL)
		return NULL;
	jsonb = parse_json(setting);
	if (jsonb == NULL || !JB_ROOT_IS_OBJECT(jsonb))
		ereport(ERROR,
				(errcode(PLINTH_ERRCODE_BAD_REQUEST),
				 errmsg("setting \"%s\" is not a JSON object", name),
				 GetDatabaseEncoding() == PG_UTF8
					 ? 0
					 : errdetail("Or it has characters that the database's encoding has not.")));
	return jsonb;
}

char *
plinth_base_request_field(Jsonb *object, const char *name)
{
	JsonbValue value;

	if (object == NULL ||
		getKeyJsonValueFromContainer(&object->root, name, strlen(name), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

char *
plinth_base_request_header_value(Jsonb *headers, const char *name)
{
	char *lower = pstrdup(name);

	for (char *c = lower; *c != '\0'; c++)
		*c = pg_ascii_tolower(*c);
	return plinth_base_request_field(headers, lower);
}

bool
plinth_base_request_is_safe(void)
{
	const char *method = plinth_base_request_setting("request.method");

	return method != NULL && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 ||
							  strcmp(method, "OPTIONS") == 0);
}

void
plinth_base_response_add(const char *name, const char *value)
{
	const char *setting = plinth_base_request_setting(RESPONSE_HEADERS);
	StringInfoData headers;

	initStringInfo(&headers);
	appendStringInfoChar(&headers, '[');
	if (setting != NULL)
	{
		Jsonb *others = parse_json(setting);
		char *text;

		if (others == NULL || !JB_ROOT_IS_ARRAY(others) || JB_ROOT_IS_SCALAR(others))
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("setting \"%s\" is not a JSON array", RESPONSE_HEADERS)));
		text = JsonbToCString(NULL, &others->root, VARSIZE(others));
		if (JB_ROOT_COUNT(others) > 0)
		{
			/* Without the brackets. */
			appendBinaryStringInfo(&headers, text + 1, strlen(text) - 2);
			appendStringInfoChar(&headers, ',');
		}
	}
	appendStringInfoChar(&headers, '{');
	escape_json(&headers, name);
	appendStringInfoChar(&headers, ':');
	escape_json(&headers, value);
	appendStringInfoString(&headers, "}]");
	(void) set_config_option(RESPONSE_HEADERS, headers.data, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

bool
plinth_base_is_header_name(const char *name)
{
	static const char symbols[] = "!#$%&'*+-.^_`|~";
	size_t len = strlen(name);

	if (len == 0 || len > 100)
		return false;
	for (const char *p = name; *p != '\0'; p++)
	{
		if (!isalnum((unsigned char) *p) && strchr(symbols, *p) == NULL)
			return false;
	}
	return true;
}

Datum
plinth_base_response_header(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *value = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (!plinth_base_is_header_name(name))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a header's name consists of 1 to 100 letters, digits and signs")));
	for (const char *p = value; *p != '\0'; p++)
	{
		if ((*p >= 0 && *p < ' ' && *p != '\t') || *p == '\x7f')
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("a header's value cannot contain control characters")));
	}
	plinth_base_response_add(name, value);
	PG_RETURN_VOID();
}

Datum
plinth_base_request_header(PG_FUNCTION_ARGS)
{
	char *value = plinth_base_request_header_value(plinth_base_request_object("request.headers"),
												   text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(value));
}
