/*
 * encode_cast.c
 *		Appending a value as the type that a mapping asks for.
 *
 * A cast never changes what a value says: a fraction does not become an
 * integer, a number outside the range is an error (22003), text that does not
 * spell the type is one (22P02).  The one exception is "double", whose
 * purpose is the nearest double.  For an _id only the canonical spelling is
 * taken, so that two keys cannot meet in one _id.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

static void
bad_text(const char *type, const char *string)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					errmsg("invalid input for MongoDB's type %s: \"%s\"", type,
						   pnstrdup(string, pg_mbcliplen(string, strlen(string), 64)))));
}

static int64
as_int64(MongoEncoder *encoder, Datum value, int64 low, int64 high, const char *name)
{
	char *string;
	Datum number;
	int64 result;

	switch (encoder->type)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			result = DatumGetInt64(value);
			break;
		default:
			string = plinth_mongo_output_text(encoder, value);
			number = DirectFunctionCall3(numeric_in, CStringGetDatum(string),
										 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
			if (numeric_is_nan(DatumGetNumeric(number)) ||
				numeric_is_inf(DatumGetNumeric(number)) ||
				!DatumGetBool(DirectFunctionCall2(
					numeric_eq, number,
					DirectFunctionCall2(numeric_trunc, number, Int32GetDatum(0)))))
				ereport(
					ERROR,
					(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					 errmsg("value is not an integer, but MongoDB's type %s is asked for", name)));
			result = DatumGetInt64(DirectFunctionCall1(numeric_int8, number));
			if (encoder->exact_text && plinth_mongo_is_text_type(encoder->type) &&
				strcmp(string, psprintf(INT64_FORMAT, result)) != 0)
				bad_text(name, string);
	}
	if (result < low || result > high)
		ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
						errmsg("value \"" INT64_FORMAT "\" is out of range for MongoDB's type %s",
							   result, name)));
	return result;
}

static double
as_double(MongoEncoder *encoder, Datum value)
{
	switch (encoder->type)
	{
		case FLOAT4OID:
			return DatumGetFloat4(value);
		case FLOAT8OID:
			return DatumGetFloat8(value);
		default:
			return DatumGetFloat8(DirectFunctionCall1(
				float8in, CStringGetDatum(plinth_mongo_output_text(encoder, value))));
	}
}

static bool
as_bool(MongoEncoder *encoder, Datum value)
{
	switch (encoder->type)
	{
		case BOOLOID:
			return DatumGetBool(value);
		case INT2OID:
			return DatumGetInt16(value) != 0;
		case INT4OID:
			return DatumGetInt32(value) != 0;
		case INT8OID:
			return DatumGetInt64(value) != 0;
		default:
			return DatumGetBool(DirectFunctionCall1(
				boolin, CStringGetDatum(plinth_mongo_output_text(encoder, value))));
	}
}

static void
append_decimal(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value)
{
	char *string = plinth_mongo_output_text(encoder, value);
	Datum number = DirectFunctionCall3(numeric_in, CStringGetDatum(string),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));

	plinth_mongo_append_decimal(bson, key, keylen,
								DatumGetCString(DirectFunctionCall1(numeric_out, number)));
}

static void
append_date(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value)
{
	if (encoder->type == DATEOID)
		plinth_mongo_encode_date(encoder, bson, key, keylen, value, 0);
	else
	{
		if (encoder->type != TIMESTAMPOID && encoder->type != TIMESTAMPTZOID)
			value = DirectFunctionCall3(timestamptz_in,
										CStringGetDatum(plinth_mongo_output_text(encoder, value)),
										ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		plinth_mongo_encode_timestamp(encoder, bson, key, keylen, value, 0);
	}
}

static void
append_objectid(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value)
{
	bson_oid_t oid;

	if (encoder->type == BYTEAOID)
	{
		bytea *bytes = DatumGetByteaPP(value);

		if (VARSIZE_ANY_EXHDR(bytes) != sizeof(oid.bytes))
			ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
							errmsg("an ObjectId has %d bytes, not %d", (int) sizeof(oid.bytes),
								   (int) VARSIZE_ANY_EXHDR(bytes))));
		bson_oid_init_from_data(&oid, (const uint8 *) VARDATA_ANY(bytes));
	}
	else
	{
		char *string = plinth_mongo_output_text(encoder, value);
		char canonical[25];

		if (!bson_oid_is_valid(string, strlen(string)))
			bad_text("ObjectId", string);
		bson_oid_init_from_string(&oid, string);
		bson_oid_to_string(&oid, canonical);
		if (encoder->exact_text && strcmp(string, canonical) != 0)
			bad_text("ObjectId", string);
	}
	MONGO_APPEND(bson_append_oid(bson, key, keylen, &oid));
}

static void
append_uuid(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value)
{
	if (encoder->type != UUIDOID)
	{
		char *string = plinth_mongo_output_text(encoder, value);

		value = DirectFunctionCall1(uuid_in, CStringGetDatum(string));
		if (encoder->exact_text &&
			strcmp(string, DatumGetCString(DirectFunctionCall1(uuid_out, value))) != 0)
			bad_text("uuid", string);
	}
	plinth_mongo_encode_uuid(encoder, bson, key, keylen, value, 0);
}

static void
append_binary(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value)
{
	if (encoder->type == UUIDOID)
		MONGO_APPEND(bson_append_binary(bson, key, keylen, BSON_SUBTYPE_BINARY,
										DatumGetUUIDP(value)->data, UUID_LEN));
	else
		plinth_mongo_encode_bytea(encoder, bson, key, keylen, value, 0);
}

static void
append_json(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen, Datum value,
			int depth)
{
	if (encoder->type == JSONBOID)
		plinth_mongo_encode_jsonb(encoder, bson, key, keylen, value, depth);
	else
	{
		char *string = plinth_mongo_output_text(encoder, value);

		plinth_mongo_encode_jsonb(encoder, bson, key, keylen,
								  DirectFunctionCall1(jsonb_in, CStringGetDatum(string)), depth);
	}
}

void
plinth_mongo_encode_cast(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	switch (encoder->cast)
	{
		case MONGO_CAST_NONE:
		case MONGO_CAST_STRING:
			plinth_mongo_encode_output(encoder, bson, key, keylen, value, depth);
			break;
		case MONGO_CAST_INT:
			MONGO_APPEND(bson_append_int32(
				bson, key, keylen,
				(int32) as_int64(encoder, value, PG_INT32_MIN, PG_INT32_MAX, "int")));
			break;
		case MONGO_CAST_LONG:
			MONGO_APPEND(bson_append_int64(
				bson, key, keylen, as_int64(encoder, value, PG_INT64_MIN, PG_INT64_MAX, "long")));
			break;
		case MONGO_CAST_DOUBLE:
			MONGO_APPEND(bson_append_double(bson, key, keylen, as_double(encoder, value)));
			break;
		case MONGO_CAST_DECIMAL:
			append_decimal(encoder, bson, key, keylen, value);
			break;
		case MONGO_CAST_BOOL:
			MONGO_APPEND(bson_append_bool(bson, key, keylen, as_bool(encoder, value)));
			break;
		case MONGO_CAST_DATE:
		case MONGO_CAST_MICROS:
			append_date(encoder, bson, key, keylen, value);
			break;
		case MONGO_CAST_OBJECTID:
			append_objectid(encoder, bson, key, keylen, value);
			break;
		case MONGO_CAST_UUID:
			append_uuid(encoder, bson, key, keylen, value);
			break;
		case MONGO_CAST_BINARY:
			append_binary(encoder, bson, key, keylen, value);
			break;
		case MONGO_CAST_JSON:
			append_json(encoder, bson, key, keylen, value, depth);
			break;
	}
}
