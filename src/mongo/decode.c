/*
 * decode.c
 *		BSON as jsonb, in MongoDB's relaxed Extended JSON (version 2).
 *
 * The bytes may come from anyone: they are checked whole before anything is
 * built.  jsonb keeps the last of duplicate names, sorts names, and cannot
 * hold NUL characters (22P05).
 */
#include "postgres.h"

#include <math.h>

#include "base/compat.h"
#include "common/base64.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

static void push_members(JsonbParseState **state, bson_iter_t *iter, bool array);
static JsonbValue *push_document(JsonbParseState **state, const uint8 *data, uint32 len,
								 bool array);

static void
set_string(JsonbValue *value, const char *text, int len)
{
	value->type = jbvString;
	value->val.string.val = plinth_mongo_from_utf8(text, len);
	value->val.string.len = strlen(value->val.string.val);
}

static void
set_number(JsonbValue *value, char *text)
{
	value->type = jbvNumeric;
	value->val.numeric = DatumGetNumeric(DirectFunctionCall3(
		numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

static void
push_key(JsonbParseState **state, const char *key)
{
	JsonbValue value;

	set_string(&value, key, strlen(key));
	pushJsonbValue(state, WJB_KEY, &value);
}

static void
push_string_member(JsonbParseState **state, const char *key, const char *text, int len)
{
	JsonbValue value;

	push_key(state, key);
	set_string(&value, text, len);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static void
push_number_member(JsonbParseState **state, const char *key, uint32 number)
{
	JsonbValue value;

	push_key(state, key);
	set_number(&value, psprintf("%u", number));
	pushJsonbValue(state, WJB_VALUE, &value);
}

/* {"key": "text"} */
static void
push_tagged(JsonbParseState **state, const char *key, const char *text, int len)
{
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_string_member(state, key, text, len);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_date(JsonbParseState **state, int64 ms)
{
	int year;
	int month;
	int day;
	int64 second = ms / 1000;
	char *text;

	if (ms < 0 || ms >= INT64CONST(253402300800000))
	{
		pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
		push_key(state, "$date");
		text = psprintf(INT64_FORMAT, ms);
		push_tagged(state, "$numberLong", text, strlen(text));
		pushJsonbValue(state, WJB_END_OBJECT, NULL);
		return;
	}
	j2date((int) (second / SECS_PER_DAY) + UNIX_EPOCH_JDATE, &year, &month, &day);
	second %= SECS_PER_DAY;
	text = psprintf("%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, (int) (second / 3600),
					(int) (second / 60 % 60), (int) (second % 60));
	text = ms % 1000 == 0 ? psprintf("%sZ", text) : psprintf("%s.%03dZ", text, (int) (ms % 1000));
	push_tagged(state, "$date", text, strlen(text));
}

static void
push_binary(JsonbParseState **state, bson_iter_t *iter)
{
	bson_subtype_t subtype;
	uint32 len;
	const uint8 *data;
	int size;
	char *text;
	char hex[3];

	bson_iter_binary(iter, &subtype, &len, &data);
	size = pg_b64_enc_len(len);
	text = palloc(size + 1);
	size = pg_b64_encode((const void *) data, len, text, size);
	snprintf(hex, sizeof(hex), "%02x", (unsigned) subtype & 0xff);

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_key(state, "$binary");
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_string_member(state, "base64", text, size);
	push_string_member(state, "subType", hex, 2);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_timestamp(JsonbParseState **state, bson_iter_t *iter)
{
	uint32 seconds;
	uint32 increment;

	bson_iter_timestamp(iter, &seconds, &increment);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_key(state, "$timestamp");
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_number_member(state, "t", seconds);
	push_number_member(state, "i", increment);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_regex(JsonbParseState **state, bson_iter_t *iter)
{
	const char *options;
	const char *pattern = bson_iter_regex(iter, &options);

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_key(state, "$regularExpression");
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_string_member(state, "pattern", pattern, strlen(pattern));
	push_string_member(state, "options", options, strlen(options));
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_dbpointer(JsonbParseState **state, bson_iter_t *iter)
{
	uint32 len;
	const char *collection;
	const bson_oid_t *oid;
	char hex[25];

	bson_iter_dbpointer(iter, &len, &collection, &oid);
	bson_oid_to_string(oid, hex);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_key(state, "$dbPointer");
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	push_string_member(state, "$ref", collection, len);
	push_key(state, "$id");
	push_tagged(state, "$oid", hex, 24);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

static void
push_code(JsonbParseState **state, bson_iter_t *iter)
{
	uint32 len;
	uint32 scopelen;
	const uint8 *scope;
	const char *code;

	if (bson_iter_type(iter) == BSON_TYPE_CODE)
	{
		code = bson_iter_code(iter, &len);
		push_tagged(state, "$code", code, len);
		return;
	}
	code = bson_iter_codewscope(iter, &len, &scopelen, &scope);
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	/* libbson counts the terminating zero of a code with a scope. */
	push_string_member(state, "$code", code, strnlen(code, len));
	push_key(state, "$scope");
	push_document(state, scope, scopelen, false);
	pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* Values that jsonb has itself; false for those that need a tag. */
static bool
set_plain(JsonbValue *value, bson_iter_t *iter)
{
	uint32 len;
	const char *text;
	double number;

	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_NULL:
			value->type = jbvNull;
			return true;
		case BSON_TYPE_BOOL:
			value->type = jbvBool;
			value->val.boolean = bson_iter_bool(iter);
			return true;
		case BSON_TYPE_UTF8:
			text = bson_iter_utf8(iter, &len);
			set_string(value, text, len);
			return true;
		case BSON_TYPE_INT32:
			set_number(value, psprintf("%d", bson_iter_int32(iter)));
			return true;
		case BSON_TYPE_INT64:
			set_number(value, psprintf(INT64_FORMAT, bson_iter_int64(iter)));
			return true;
		case BSON_TYPE_DOUBLE:
			number = bson_iter_double(iter);
			if (isnan(number) || isinf(number))
				return false;
			{
				char shortest[DOUBLE_SHORTEST_DECIMAL_LEN];

				double_to_shortest_decimal_buf(number, shortest);
				set_number(value, shortest);
			}
			return true;
		default:
			return false;
	}
}

static void
push_special(JsonbParseState **state, bson_iter_t *iter)
{
	bson_decimal128_t decimal;
	char text[BSON_DECIMAL128_STRING];
	const char *symbol;
	uint32 len;
	JsonbValue value;

	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_DOUBLE:
			symbol = isnan(bson_iter_double(iter)) ? "NaN"
					 : bson_iter_double(iter) > 0  ? "Infinity"
												   : "-Infinity";
			push_tagged(state, "$numberDouble", symbol, strlen(symbol));
			break;
		case BSON_TYPE_DECIMAL128:
			bson_iter_decimal128(iter, &decimal);
			bson_decimal128_to_string(&decimal, text);
			push_tagged(state, "$numberDecimal", text, strlen(text));
			break;
		case BSON_TYPE_OID:
			bson_oid_to_string(bson_iter_oid(iter), text);
			push_tagged(state, "$oid", text, 24);
			break;
		case BSON_TYPE_DATE_TIME:
			push_date(state, bson_iter_date_time(iter));
			break;
		case BSON_TYPE_BINARY:
			push_binary(state, iter);
			break;
		case BSON_TYPE_TIMESTAMP:
			push_timestamp(state, iter);
			break;
		case BSON_TYPE_REGEX:
			push_regex(state, iter);
			break;
		case BSON_TYPE_DBPOINTER:
			push_dbpointer(state, iter);
			break;
		case BSON_TYPE_CODE:
		case BSON_TYPE_CODEWSCOPE:
			push_code(state, iter);
			break;
		case BSON_TYPE_SYMBOL:
			symbol = bson_iter_symbol(iter, &len);
			push_tagged(state, "$symbol", symbol, len);
			break;
		case BSON_TYPE_UNDEFINED:
			pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
			push_key(state, "$undefined");
			value.type = jbvBool;
			value.val.boolean = true;
			pushJsonbValue(state, WJB_VALUE, &value);
			pushJsonbValue(state, WJB_END_OBJECT, NULL);
			break;
		case BSON_TYPE_MINKEY:
		case BSON_TYPE_MAXKEY:
			pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
			push_number_member(state,
							   bson_iter_type(iter) == BSON_TYPE_MINKEY ? "$minKey" : "$maxKey", 1);
			pushJsonbValue(state, WJB_END_OBJECT, NULL);
			break;
		default:
			ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
							errmsg("unknown BSON type %d", (int) bson_iter_type(iter))));
	}
}

static void
push_members(JsonbParseState **state, bson_iter_t *iter, bool array)
{
	JsonbValue value;
	const uint8 *data;
	uint32 len;

	while (bson_iter_next(iter))
	{
		if (!array)
			push_key(state, bson_iter_key(iter));
		if (set_plain(&value, iter))
			pushJsonbValue(state, array ? WJB_ELEM : WJB_VALUE, &value);
		else if (bson_iter_type(iter) == BSON_TYPE_DOCUMENT)
		{
			bson_iter_document(iter, &len, &data);
			push_document(state, data, len, false);
		}
		else if (bson_iter_type(iter) == BSON_TYPE_ARRAY)
		{
			bson_iter_array(iter, &len, &data);
			push_document(state, data, len, true);
		}
		else
			push_special(state, iter);
	}
}

static JsonbValue *
push_document(JsonbParseState **state, const uint8 *data, uint32 len, bool array)
{
	bson_iter_t iter;

	check_stack_depth();
	if (!bson_iter_init_from_data(&iter, data, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("invalid BSON document")));
	pushJsonbValue(state, array ? WJB_BEGIN_ARRAY : WJB_BEGIN_OBJECT, NULL);
	push_members(state, &iter, array);
	return pushJsonbValue(state, array ? WJB_END_ARRAY : WJB_END_OBJECT, NULL);
}

Datum
plinth_mongo_bson_to_jsonb(const uint8 *data, uint32 len)
{
	JsonbParseState *state = NULL;

	switch (plinth_mongo_bson_check(data, len, PLINTH_BSON_MAX_DEPTH))
	{
		case PLINTH_BSON_SOUND:
			break;
		case PLINTH_BSON_TOO_DEEP:
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("BSON document is nested too deeply"),
							errdetail("The limit is %d levels.", PLINTH_BSON_MAX_DEPTH)));
			break;
		case PLINTH_BSON_CORRUPT:
			ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
							errmsg("invalid BSON document")));
	}
	return JsonbPGetDatum(JsonbValueToJsonb(push_document(&state, data, len, false)));
}
