/*
 * encode_json.c
 *		json and jsonb, by walking jsonb.
 *
 * Not by libbson's JSON reader, which would take {"$date": 5} for a Date:
 * what was an object in PostgreSQL is a document with the same names.  A
 * number is Int32 or Int64 when it is integral and fits, a Double when a
 * double says exactly it, and otherwise what a numeric column becomes.
 */
#include "postgres.h"

#include <math.h>

#include "access/detoast.h"
#include "common/shortest_dec.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

static void append_container(bson_t *bson, JsonbContainer *container, int depth);

static void
append_number(bson_t *bson, const char *key, int keylen, Numeric number)
{
	Datum value = NumericGetDatum(number);
	char *string;
	double shortest;

	string = DatumGetCString(
		DirectFunctionCall1(numeric_out, DirectFunctionCall1(numeric_trim_scale, value)));
	if (strchr(string, '.') == NULL && strlen(string) < 20)
	{
		char *end;
		int64 integer;

		errno = 0;
		integer = strtoi64(string, &end, 10);
		if (errno == 0 && *end == '\0')
		{
			if (integer >= PG_INT32_MIN && integer <= PG_INT32_MAX)
				MONGO_APPEND(bson_append_int32(bson, key, keylen, (int32) integer));
			else
				MONGO_APPEND(bson_append_int64(bson, key, keylen, integer));
			return;
		}
	}

	errno = 0;
	shortest = strtod(string, NULL);
	if (errno == 0 && !isinf(shortest))
	{
		char text[DOUBLE_SHORTEST_DECIMAL_LEN];
		Datum again;

		double_to_shortest_decimal_buf(shortest, text);
		again = DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
									Int32GetDatum(-1));
		if (DatumGetBool(DirectFunctionCall2(numeric_eq, again, value)))
		{
			MONGO_APPEND(bson_append_double(bson, key, keylen, shortest));
			return;
		}
	}
	plinth_mongo_append_decimal(bson, key, keylen, string);
}

static void
append_value(bson_t *bson, const char *key, int keylen, const JsonbValue *value, int depth)
{
	bson_t child;

	switch (value->type)
	{
		case jbvNull:
			MONGO_APPEND(bson_append_null(bson, key, keylen));
			break;
		case jbvBool:
			MONGO_APPEND(bson_append_bool(bson, key, keylen, value->val.boolean));
			break;
		case jbvString:
			plinth_mongo_append_text(bson, key, keylen, value->val.string.val,
									 value->val.string.len);
			break;
		case jbvNumeric:
			append_number(bson, key, keylen, value->val.numeric);
			break;
		case jbvBinary:
			if (JsonContainerIsArray(value->val.binary.data))
			{
				MONGO_APPEND(bson_append_array_unsafe_begin(bson, key, keylen, &child));
				append_container(&child, value->val.binary.data, depth + 1);
				MONGO_APPEND(bson_append_array_end(bson, &child));
			}
			else
			{
				MONGO_APPEND(bson_append_document_begin(bson, key, keylen, &child));
				append_container(&child, value->val.binary.data, depth + 1);
				MONGO_APPEND(bson_append_document_end(bson, &child));
			}
			break;
		default:
			elog(ERROR, "unexpected jsonb value type %d", (int) value->type);
	}
	plinth_mongo_check_size(bson);
}

static void
append_container(bson_t *bson, JsonbContainer *container, int depth)
{
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue value;
	uint32 index = 0;
	char *key = NULL;
	int keylen = 0;

	plinth_mongo_check_depth(depth);
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = plinth_mongo_to_utf8(value.val.string.val, value.val.string.len, &keylen);
		else if (token == WJB_VALUE)
			append_value(bson, key, keylen, &value, depth);
		else if (token == WJB_ELEM)
		{
			char buffer[16];
			const char *number;
			int len = (int) bson_uint32_to_string(index++, &number, buffer, sizeof(buffer));

			append_value(bson, number, len, &value, depth);
		}
	}
}

void
plinth_mongo_encode_jsonb(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						  Datum value, int depth)
{
	Jsonb *jsonb;
	JsonbValue scalar;

	/* jsonb can be larger than its BSON, but not four times. */
	if (toast_raw_datum_size(value) > 4 * (Size) MONGO_MAX_DOCUMENT)
		plinth_mongo_too_large();
	jsonb = DatumGetJsonbP(value);
	if (JsonbExtractScalar(&jsonb->root, &scalar))
		append_value(bson, key, keylen, &scalar, depth);
	else
	{
		scalar.type = jbvBinary;
		scalar.val.binary.data = &jsonb->root;
		scalar.val.binary.len = VARSIZE(jsonb) - VARHDRSZ;
		append_value(bson, key, keylen, &scalar, depth);
	}
}

void
plinth_mongo_encode_json(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	if (toast_raw_datum_size(value) > 4 * (Size) MONGO_MAX_DOCUMENT)
		plinth_mongo_too_large();
	plinth_mongo_encode_jsonb(
		encoder, bson, key, keylen,
		DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(value))), depth);
}

bool
plinth_mongo_append_members(bson_t *bson, Datum value)
{
	Jsonb *jsonb = DatumGetJsonbP(value);

	if (!JB_ROOT_IS_OBJECT(jsonb))
		return false;
	append_container(bson, &jsonb->root, 1);
	return true;
}
