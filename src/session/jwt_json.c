/*
 * jwt_json.c
 *		JSON of strangers, by PostgreSQL's own parser, and more strictly.
 *
 * A token is parsed twice.  First for what must be refused: members named
 * twice (escapes undone, at every depth), deep nesting, numbers that mean
 * nothing.  Then into jsonb, which would have let these pass.  Whatever is
 * wrong, the error is the same.
 */
#include "postgres.h"

#include <math.h>

#include "base/base.h"
#include "catalog/namespace.h"
#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "session/jwt.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#define MAX_DEPTH 8
#define MAX_MEMBERS 100
#define MAX_NUMBER_LENGTH 40

typedef struct Strict
{
	int depth;
	List *names[MAX_DEPTH]; /* of the object that is open at each depth */
} Strict;

void
plinth_session_jwt_refuse(void)
{
	ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("token is not valid")));
}

static PlinthJsonAction
begin_nested(void *arg)
{
	Strict *strict = arg;

	if (strict->depth >= MAX_DEPTH)
		plinth_session_jwt_refuse();
	strict->names[strict->depth++] = NIL;
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
end_nested(void *arg)
{
	((Strict *) arg)->depth--;
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
begin_member(void *arg, char *name, bool isnull)
{
	Strict *strict = arg;
	List **names = &strict->names[strict->depth - 1];
	ListCell *cell;

	foreach (cell, *names)
	{
		if (strcmp(lfirst(cell), name) == 0)
			plinth_session_jwt_refuse();
	}
	if (list_length(*names) >= MAX_MEMBERS)
		plinth_session_jwt_refuse();
	*names = lappend(*names, pstrdup(name));
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
check_scalar(void *arg, char *token, JsonTokenType type)
{
	if (type == JSON_TOKEN_NUMBER &&
		(strlen(token) > MAX_NUMBER_LENGTH || !isfinite(strtod(token, NULL))))
		plinth_session_jwt_refuse();
	PLINTH_JSON_NEXT;
}

static void
check_strictly(const char *json, size_t len)
{
	Strict strict = {0};
	JsonSemAction actions = {
		.semstate = &strict,
		.object_start = begin_nested,
		.object_end = end_nested,
		.array_start = begin_nested,
		.array_end = end_nested,
		.object_field_start = begin_member,
		.scalar = check_scalar,
	};
	JsonLexContext *lexer = plinth_compat_json_lexer(json, len, GetDatabaseEncoding(), true);

	JsonParseErrorType outcome = JSON_SUCCESS;

	PG_TRY ()
		;
	{
		outcome = pg_parse_json(lexer, &actions);
	}
	PG_CATCH ()
		;
	{
		/* 15 raises what later versions return: an escape that the encoding has no place for. */
		if (geterrcode() != ERRCODE_UNTRANSLATABLE_CHARACTER)
			PG_RE_THROW();
		FlushErrorState();
		plinth_session_jwt_refuse();
	}
	PG_END_TRY();
	if (outcome != JSON_SUCCESS)
		plinth_session_jwt_refuse();
}

/* UTF-8 in the database's encoding, palloc'd; refuses what has no place in it. */
static char *
to_server(const char *json, int len)
{
	int encoding = GetDatabaseEncoding();
	Oid conversion;
	char *result;
	int size = len * MAX_CONVERSION_GROWTH + 1;

	if (!pg_verify_mbstr(PG_UTF8, json, len, true))
		plinth_session_jwt_refuse();
	if (encoding == PG_UTF8 || encoding == PG_SQL_ASCII)
		return pnstrdup(json, len);
	conversion = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(conversion))
		plinth_session_jwt_refuse();
	result = palloc0(size);
	if (pg_do_encoding_conversion_buf(conversion, PG_UTF8, encoding,
									  (unsigned char *) unconstify(char *, json), len,
									  (unsigned char *) result, size, true) != len)
		plinth_session_jwt_refuse();
	return result;
}

Jsonb *
plinth_session_json_parse(const char *encoded, size_t len)
{
	char *bytes = palloc(len + 1);
	long nbytes = plinth_base64url_decode(encoded, len, (uint8 *) bytes);
	char *json;
	Jsonb *object;

	if (nbytes <= 0)
		plinth_session_jwt_refuse();
	json = to_server(bytes, nbytes);
	check_strictly(json, strlen(json));
	object = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	if (!JB_ROOT_IS_OBJECT(object))
		plinth_session_jwt_refuse();
	return object;
}

JsonbValue *
plinth_session_json_member(Jsonb *object, const char *name)
{
	return getKeyJsonValueFromContainer(&object->root, name, strlen(name), NULL);
}

char *
plinth_session_json_string(Jsonb *object, const char *name)
{
	JsonbValue *value = plinth_session_json_member(object, name);

	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		plinth_session_jwt_refuse();
	return pnstrdup(value->val.string.val, value->val.string.len);
}

bool
plinth_session_json_number(Jsonb *object, const char *name, double *number)
{
	JsonbValue *value = plinth_session_json_member(object, name);

	if (value == NULL)
		return false;
	if (value->type != jbvNumeric)
		plinth_session_jwt_refuse();
	*number =
		DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(value->val.numeric)));
	return true;
}

bool
plinth_session_json_has(Jsonb *object, const char *name, const char *wanted)
{
	JsonbValue *value = plinth_session_json_member(object, name);
	JsonbValue element;
	JsonbIterator *it;
	JsonbIteratorToken token;
	bool found = false;

	if (value == NULL)
		return false;
	if (value->type == jbvString)
		return value->val.string.len == strlen(wanted) &&
			   memcmp(value->val.string.val, wanted, value->val.string.len) == 0;
	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		plinth_session_jwt_refuse();
	it = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (element.type != jbvString)
			plinth_session_jwt_refuse();
		found = found || (element.val.string.len == strlen(wanted) &&
						  memcmp(element.val.string.val, wanted, element.val.string.len) == 0);
	}
	return found;
}

void
plinth_session_json_begin(PlinthJsonBuilder *builder)
{
	builder->state = NULL;
	pushJsonbValue(&builder->state, WJB_BEGIN_OBJECT, NULL);
}

static void
push_string(PlinthJsonBuilder *builder, JsonbIteratorToken token, const char *string)
{
	JsonbValue value = {.type = jbvString};

	value.val.string.val = unconstify(char *, string);
	value.val.string.len = strlen(string);
	pushJsonbValue(&builder->state, token, &value);
}

void
plinth_session_json_put_string(PlinthJsonBuilder *builder, const char *name, const char *value)
{
	push_string(builder, WJB_KEY, name);
	push_string(builder, WJB_VALUE, value);
}

void
plinth_session_json_put_strings(PlinthJsonBuilder *builder, const char *name, char **values,
								int count)
{
	push_string(builder, WJB_KEY, name);
	pushJsonbValue(&builder->state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < count; i++)
		push_string(builder, WJB_ELEM, values[i]);
	pushJsonbValue(&builder->state, WJB_END_ARRAY, NULL);
}

void
plinth_session_json_put_number(PlinthJsonBuilder *builder, const char *name, int64 number)
{
	JsonbValue value = {.type = jbvNumeric};

	push_string(builder, WJB_KEY, name);
	value.val.numeric = int64_to_numeric(number);
	pushJsonbValue(&builder->state, WJB_VALUE, &value);
}

void
plinth_session_json_put(PlinthJsonBuilder *builder, const char *name, Jsonb *object)
{
	JsonbValue value;

	push_string(builder, WJB_KEY, name);
	JsonbToJsonbValue(object, &value);
	pushJsonbValue(&builder->state, WJB_VALUE, &value);
}

Jsonb *
plinth_session_json_end(PlinthJsonBuilder *builder)
{
	return JsonbValueToJsonb(pushJsonbValue(&builder->state, WJB_END_OBJECT, NULL));
}

char *
plinth_session_json_encode(Jsonb *object)
{
	char *json = JsonbToCString(NULL, &object->root, VARSIZE(object));
	char *utf8 = pg_server_to_any(json, strlen(json), PG_UTF8);
	size_t len = strlen(utf8);
	char *encoded = palloc(PLINTH_BASE64URL_LENGTH(len) + 1);

	plinth_base64url_encode((uint8 *) utf8, len, encoded);
	return encoded;
}
