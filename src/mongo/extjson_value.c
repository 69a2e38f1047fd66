/*
 * extjson_value.c
 *		What the wrappers of Extended JSON stand for: {"$oid": …} and the rest.
 *
 * An object with a wrapper's name among its members is that wrapper or an
 * error: it has no other members, and their types are those of the
 * specification.  libbson's functions for code and DBPointers take C strings,
 * which end at a NUL: these are appended as a symbol of the same length, whose
 * type and bytes are then set.
 */
#include "postgres.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

#include "common/base64.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "mongo/extjson.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

typedef struct Target
{
	bson_t *bson;
	const char *key;
	int keylen;
	int depth;
} Target;

typedef void (*AppendWrapper)(const Target *target, const ExtJson *value, const ExtJson *object);

static const ExtJson *
member(const ExtJson *object, const char *name)
{
	for (const ExtJson *node = object->first; node != NULL; node = node->next)
	{
		if (strcmp(node->name, name) == 0 && node->namelen == strlen(name))
			return node;
	}
	return NULL;
}

/* The member of an object that has just so many. */
static const ExtJson *
member_of(const ExtJson *object, const char *name, ExtJsonKind kind, int count)
{
	const ExtJson *node = object->kind == EXTJSON_OBJECT ? member(object, name) : NULL;

	if (node == NULL || object->count != count)
		plinth_mongo_extjson_refuse(
			object,
			psprintf(count == 1 ? "nothing but \"%s\"" : "\"%s\" and one more member", name));
	if (node->kind != kind)
		plinth_mongo_extjson_refuse(node, kind == EXTJSON_STRING   ? "a string"
										  : kind == EXTJSON_NUMBER ? "a number"
																   : "an object");
	return node;
}

static bool
is_hex(const char *text, int len)
{
	return strspn(text, "0123456789abcdefABCDEF") >= (size_t) len;
}

/* An integer, written as one, within bounds. */
static int64
integer(const ExtJson *node, int64 least, int64 greatest, const char *expected)
{
	const char *digits = node->text + (*node->text == '-' ? 1 : 0);
	int64 value;

	errno = 0;
	value = strtoll(node->text, NULL, 10);
	if (*digits == '\0' || digits + strspn(digits, "0123456789") != node->text + node->len ||
		errno != 0 || value < least || value > greatest)
		plinth_mongo_extjson_refuse(node, expected);
	return value;
}

static double
decimal_number(const ExtJson *node)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(node->text, &end);
	if (node->len == 0 || strspn(node->text, "0123456789+-.eE") != node->len ||
		end != node->text + node->len || isinf(value))
		plinth_mongo_extjson_refuse(node, "a number that a Double can hold");
	return value;
}

void
plinth_mongo_extjson_number(bson_t *bson, const char *key, int keylen, const ExtJson *node)
{
	int64 value;

	errno = 0;
	value = strtoll(node->text, NULL, 10);
	if (strspn(node->text, "-0123456789") != node->len || errno != 0)
		MONGO_APPEND(bson_append_double(bson, key, keylen, decimal_number(node)));
	else if (value >= PG_INT32_MIN && value <= PG_INT32_MAX)
		MONGO_APPEND(bson_append_int32(bson, key, keylen, (int32) value));
	else
		MONGO_APPEND(bson_append_int64(bson, key, keylen, value));
}

/* A value that libbson has no function for: its type, and its bytes (5 or more) as they are. */
static void
append_bytes(const Target *target, bson_type_t type, const StringInfoData *bytes)
{
	uint32 start = target->bson->len - 1; /* of the element: where the document ended */
	uint8 *element;

	MONGO_APPEND(
		bson_append_symbol(target->bson, target->key, target->keylen, bytes->data, bytes->len - 5));
	element = unconstify(uint8 *, bson_get_data(target->bson)) + start;
	element[0] = (uint8) type;
	memcpy(element + 1 + target->keylen + 1, bytes->data, bytes->len);
}

/* A length as BSON has it: 32 bits, little endian. */
static void
put_length(StringInfo bytes, uint32 len)
{
	uint32 little = BSON_UINT32_TO_LE(len);

	appendBinaryStringInfo(bytes, (char *) &little, sizeof(little));
}

static void
append_oid(const Target *target, const ExtJson *value, const ExtJson *object)
{
	bson_oid_t oid;

	if (value->len != 24 || !is_hex(value->text, 24))
		plinth_mongo_extjson_refuse(value, "24 hexadecimal digits");
	bson_oid_init_from_string(&oid, value->text);
	MONGO_APPEND(bson_append_oid(target->bson, target->key, target->keylen, &oid));
}

static void
append_symbol(const Target *target, const ExtJson *value, const ExtJson *object)
{
	MONGO_APPEND(
		bson_append_symbol(target->bson, target->key, target->keylen, value->text, value->len));
}

static void
append_int(const Target *target, const ExtJson *value, const ExtJson *object)
{
	MONGO_APPEND(bson_append_int32(
		target->bson, target->key, target->keylen,
		(int32) integer(value, PG_INT32_MIN, PG_INT32_MAX, "an integer of 32 bits")));
}

static void
append_long(const Target *target, const ExtJson *value, const ExtJson *object)
{
	MONGO_APPEND(
		bson_append_int64(target->bson, target->key, target->keylen,
						  integer(value, PG_INT64_MIN, PG_INT64_MAX, "an integer of 64 bits")));
}

static void
append_double(const Target *target, const ExtJson *value, const ExtJson *object)
{
	double number;

	if (strcmp(value->text, "NaN") == 0)
		number = NAN;
	else if (strcmp(value->text, "Infinity") == 0)
		number = INFINITY;
	else if (strcmp(value->text, "-Infinity") == 0)
		number = -INFINITY;
	else
		number = decimal_number(value);
	MONGO_APPEND(bson_append_double(target->bson, target->key, target->keylen, number));
}

static void
append_decimal(const Target *target, const ExtJson *value, const ExtJson *object)
{
	bson_decimal128_t decimal;

	if (strlen(value->text) != value->len || strpbrk(value->text, " \t\n\v\f\r") != NULL ||
		!bson_decimal128_from_string(value->text, &decimal))
		plinth_mongo_extjson_refuse(value, "a number that Decimal128 holds exactly");
	MONGO_APPEND(bson_append_decimal128(target->bson, target->key, target->keylen, &decimal));
}

static void
append_binary(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const ExtJson *base64 = member_of(value, "base64", EXTJSON_STRING, 2);
	const ExtJson *subtype = member_of(value, "subType", EXTJSON_STRING, 2);
	uint8 *bytes = palloc(pg_b64_dec_len(base64->len) + 1);
	int len = pg_b64_decode(base64->text, base64->len, (void *) bytes, pg_b64_dec_len(base64->len));

	if (len < 0)
		plinth_mongo_extjson_refuse(base64, "base64");
	if (subtype->len < 1 || subtype->len > 2 || !is_hex(subtype->text, subtype->len))
		plinth_mongo_extjson_refuse(subtype, "one or two hexadecimal digits");
	MONGO_APPEND(bson_append_binary(target->bson, target->key, target->keylen,
									(bson_subtype_t) strtol(subtype->text, NULL, 16), bytes, len));
}

static void
append_uuid(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const char *text = value->text;
	pg_uuid_t *uuid;

	if (value->len != 36 || strspn(text, "0123456789abcdefABCDEF-") != 36 || text[8] != '-' ||
		text[13] != '-' || text[18] != '-' || text[23] != '-')
		plinth_mongo_extjson_refuse(value, "a UUID");
	uuid = DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
	MONGO_APPEND(bson_append_binary(target->bson, target->key, target->keylen, BSON_SUBTYPE_UUID,
									uuid->data, UUID_LEN));
}

static void
append_scope(bson_t *bson, const void *arg)
{
	const Target *target = arg;

	plinth_mongo_extjson_append(bson, (const ExtJson *) target->key, target->depth + 1);
}

static void
append_code(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const ExtJson *scope =
		object->count == 2 ? member_of(object, "$scope", EXTJSON_OBJECT, 2) : NULL;
	StringInfoData bytes;

	initStringInfo(&bytes);
	put_length(&bytes, value->len + 1);
	appendBinaryStringInfo(&bytes, value->text, value->len + 1);
	if (scope != NULL)
	{
		Target inner = {.key = (const char *) scope, .depth = target->depth};
		PlinthBson document = plinth_mongo_build(append_scope, &inner, false);
		StringInfoData whole;

		initStringInfo(&whole);
		put_length(&whole, sizeof(uint32) + bytes.len + document.len);
		appendBinaryStringInfo(&whole, bytes.data, bytes.len);
		appendBinaryStringInfo(&whole, (char *) document.data, document.len);
		bytes = whole;
	}
	append_bytes(target, scope == NULL ? BSON_TYPE_CODE : BSON_TYPE_CODEWSCOPE, &bytes);
}

static void
append_timestamp(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const ExtJson *seconds = member_of(value, "t", EXTJSON_NUMBER, 2);
	const ExtJson *increment = member_of(value, "i", EXTJSON_NUMBER, 2);
	const char *expected = "an integer of 32 bits without a sign";

	MONGO_APPEND(bson_append_timestamp(target->bson, target->key, target->keylen,
									   (uint32) integer(seconds, 0, PG_UINT32_MAX, expected),
									   (uint32) integer(increment, 0, PG_UINT32_MAX, expected)));
}

static void
append_regex(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const ExtJson *pattern = member_of(value, "pattern", EXTJSON_STRING, 2);
	const ExtJson *options = member_of(value, "options", EXTJSON_STRING, 2);

	if (strlen(pattern->text) != pattern->len)
		plinth_mongo_extjson_refuse(pattern, "a pattern without NUL");
	/* libbson puts them in order, and would leave others out. */
	if (strspn(options->text, "ilmsux") != options->len)
		plinth_mongo_extjson_refuse(options,
									"options of a regular expression, of i, l, m, s, u and x");
	MONGO_APPEND(
		bson_append_regex(target->bson, target->key, target->keylen, pattern->text, options->text));
}

static void
append_dbpointer(const Target *target, const ExtJson *value, const ExtJson *object)
{
	const ExtJson *collection = member_of(value, "$ref", EXTJSON_STRING, 2);
	const ExtJson *id =
		member_of(member_of(value, "$id", EXTJSON_OBJECT, 2), "$oid", EXTJSON_STRING, 1);
	StringInfoData bytes;
	bson_oid_t oid;

	if (id->len != 24 || !is_hex(id->text, 24))
		plinth_mongo_extjson_refuse(id, "24 hexadecimal digits");
	bson_oid_init_from_string(&oid, id->text);
	initStringInfo(&bytes);
	put_length(&bytes, collection->len + 1);
	appendBinaryStringInfo(&bytes, collection->text, collection->len + 1);
	appendBinaryStringInfo(&bytes, (char *) oid.bytes, sizeof(oid.bytes));
	append_bytes(target, BSON_TYPE_DBPOINTER, &bytes);
}

/* Of RFC 3339, which is what the specification allows; the days of a month are asked of PostgreSQL. */
static bool
is_iso_time(const char *text, int len)
{
	static const char shape[] = "0000-00-00T00:00:00";
	const char *rest = text + sizeof(shape) - 1;

	if (len < (int) sizeof(shape) || strlen(text) != len)
		return false;
	for (int i = 0; shape[i] != '\0'; i++)
	{
		if (shape[i] == '0' ? !isdigit((unsigned char) text[i]) : text[i] != shape[i])
			return false;
	}
	if (*rest == '.')
	{
		size_t digits = strspn(++rest, "0123456789");

		if (digits < 1 || digits > 6)
			return false;
		rest += digits;
	}
	if (strcmp(rest, "Z") == 0)
		return true;
	return (*rest == '+' || *rest == '-') && strspn(rest + 1, "0123456789:") == strlen(rest + 1) &&
		   (strlen(rest) == 5 || (strlen(rest) == 6 && rest[3] == ':'));
}

static void
append_date(const Target *target, const ExtJson *value, const ExtJson *object)
{
	int64 ms;

	if (value->kind == EXTJSON_OBJECT)
		ms = integer(member_of(value, "$numberLong", EXTJSON_STRING, 1), PG_INT64_MIN, PG_INT64_MAX,
					 "an integer of 64 bits");
	else if (value->kind == EXTJSON_STRING && is_iso_time(value->text, value->len))
	{
		Timestamp stamp = DatumGetTimestampTz(
			DirectFunctionCall3(timestamptz_in, CStringGetDatum(value->text),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));

		ms = plinth_mongo_milliseconds(stamp);
	}
	else
	{
		plinth_mongo_extjson_refuse(
			value, "a time such as \"2024-02-29T12:00:00Z\" or {\"$numberLong\": \"…\"}");
	}
	MONGO_APPEND(bson_append_date_time(target->bson, target->key, target->keylen, ms));
}

static void
append_constant(const Target *target, const ExtJson *value, const ExtJson *object)
{
	if (strcmp(value->name, "$undefined") == 0)
	{
		MONGO_APPEND(bson_append_undefined(target->bson, target->key, target->keylen));
		return;
	}
	if (strcmp(value->text, "1") != 0)
		plinth_mongo_extjson_refuse(value, "1");
	if (strcmp(value->name, "$minKey") == 0)
		MONGO_APPEND(bson_append_minkey(target->bson, target->key, target->keylen));
	else
		MONGO_APPEND(bson_append_maxkey(target->bson, target->key, target->keylen));
}

static const struct Wrapper
{
	const char *name;
	int kind; /* of the value; -1: append looks */
	const char *expected;
	AppendWrapper append;
} wrappers[] = {
	{"$oid", EXTJSON_STRING, "a string", append_oid},
	{"$symbol", EXTJSON_STRING, "a string", append_symbol},
	{"$numberInt", EXTJSON_STRING, "a string", append_int},
	{"$numberLong", EXTJSON_STRING, "a string", append_long},
	{"$numberDouble", EXTJSON_STRING, "a string", append_double},
	{"$numberDecimal", EXTJSON_STRING, "a string", append_decimal},
	{"$binary", EXTJSON_OBJECT, "an object", append_binary},
	{"$uuid", EXTJSON_STRING, "a string", append_uuid},
	{"$code", EXTJSON_STRING, "a string", append_code},
	{"$timestamp", EXTJSON_OBJECT, "an object", append_timestamp},
	{"$regularExpression", EXTJSON_OBJECT, "an object", append_regex},
	{"$dbPointer", EXTJSON_OBJECT, "an object", append_dbpointer},
	{"$date", -1, NULL, append_date},
	{"$minKey", EXTJSON_NUMBER, "1", append_constant},
	{"$maxKey", EXTJSON_NUMBER, "1", append_constant},
	{"$undefined", EXTJSON_TRUE, "true", append_constant},
};

bool
plinth_mongo_extjson_wrapper(bson_t *bson, const char *key, int keylen, const ExtJson *object,
							 int depth)
{
	Target target = {bson, key, keylen, depth};

	for (const ExtJson *node = object->first; node != NULL; node = node->next)
	{
		if (node->name[0] != '$')
			continue;
		for (int i = 0; i < lengthof(wrappers); i++)
		{
			const struct Wrapper *wrapper = &wrappers[i];

			if (strcmp(node->name, wrapper->name) != 0 || node->namelen != strlen(wrapper->name))
				continue;
			/* Only code may have company: its scope. */
			if (object->count > (wrapper->append == append_code ? 2 : 1))
				plinth_mongo_extjson_refuse(object,
											psprintf("nothing beside \"%s\"", wrapper->name));
			if (wrapper->kind >= 0 && node->kind != (ExtJsonKind) wrapper->kind)
				plinth_mongo_extjson_refuse(node, wrapper->expected);
			wrapper->append(&target, node, object);
			return true;
		}
	}
	return false;
}
