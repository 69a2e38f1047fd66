/*
 * encode_value.c
 *		Appending one scalar to a BSON document.
 *
 * Times are divided with the floor, so that instants before 1970 keep their
 * millisecond; infinite ones are MinKey and MaxKey, which sort as they do.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define UNIX_EPOCH_MS                                                                              \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * INT64CONST(1000))

/* Do not fetch from TOAST what cannot fit anyway. */
static void
check_raw_size(Datum value)
{
	if (toast_raw_datum_size(value) > MONGO_MAX_DOCUMENT)
		plinth_mongo_too_large();
}

void
plinth_mongo_append_text(bson_t *bson, const char *key, int keylen, const char *text, int len)
{
	int utf8len;
	char *utf8 = plinth_mongo_to_utf8(text, len, &utf8len);

	MONGO_APPEND(bson_append_utf8(bson, key, keylen, utf8, utf8len));
	plinth_mongo_check_size(bson);
}

void
plinth_mongo_encode_bool(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	MONGO_APPEND(bson_append_bool(bson, key, keylen, DatumGetBool(value)));
}

void
plinth_mongo_encode_int2(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	MONGO_APPEND(bson_append_int32(bson, key, keylen, DatumGetInt16(value)));
}

void
plinth_mongo_encode_int4(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	MONGO_APPEND(bson_append_int32(bson, key, keylen, DatumGetInt32(value)));
}

void
plinth_mongo_encode_int8(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	MONGO_APPEND(bson_append_int64(bson, key, keylen, DatumGetInt64(value)));
}

void
plinth_mongo_encode_oid(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						Datum value, int depth)
{
	MONGO_APPEND(bson_append_int64(bson, key, keylen, (int64) DatumGetObjectId(value)));
}

void
plinth_mongo_encode_float4(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						   Datum value, int depth)
{
	MONGO_APPEND(bson_append_double(bson, key, keylen, (double) DatumGetFloat4(value)));
}

void
plinth_mongo_encode_float8(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						   Datum value, int depth)
{
	MONGO_APPEND(bson_append_double(bson, key, keylen, DatumGetFloat8(value)));
}

void
plinth_mongo_append_decimal(bson_t *bson, const char *key, int keylen, const char *text)
{
	bson_decimal128_t decimal;

	/* It rounds nothing: what has over 34 digits is refused. */
	if (bson_decimal128_from_string(text, &decimal))
		MONGO_APPEND(bson_append_decimal128(bson, key, keylen, &decimal));
	else
		plinth_mongo_append_text(bson, key, keylen, text, strlen(text));
}

void
plinth_mongo_encode_numeric(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
							Datum value, int depth)
{
	if (encoder->exact_text)
		value = DirectFunctionCall1(numeric_trim_scale, value);
	plinth_mongo_append_decimal(bson, key, keylen,
								DatumGetCString(DirectFunctionCall1(numeric_out, value)));
}

int64
plinth_mongo_milliseconds(int64 stamp)
{
	return stamp / 1000 - (stamp % 1000 < 0 ? 1 : 0) + UNIX_EPOCH_MS;
}

void
plinth_mongo_encode_timestamp(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
							  Datum value, int depth)
{
	Timestamp stamp = DatumGetTimestamp(value);

	if (TIMESTAMP_IS_NOBEGIN(stamp))
		MONGO_APPEND(bson_append_minkey(bson, key, keylen));
	else if (TIMESTAMP_IS_NOEND(stamp))
		MONGO_APPEND(bson_append_maxkey(bson, key, keylen));
	else
		MONGO_APPEND(bson_append_date_time(bson, key, keylen, plinth_mongo_milliseconds(stamp)));
}

void
plinth_mongo_encode_date(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	DateADT date = DatumGetDateADT(value);

	if (DATE_IS_NOBEGIN(date))
		MONGO_APPEND(bson_append_minkey(bson, key, keylen));
	else if (DATE_IS_NOEND(date))
		MONGO_APPEND(bson_append_maxkey(bson, key, keylen));
	else
		MONGO_APPEND(bson_append_date_time(
			bson, key, keylen, (int64) date * SECS_PER_DAY * INT64CONST(1000) + UNIX_EPOCH_MS));
}

void
plinth_mongo_encode_uuid(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						 Datum value, int depth)
{
	MONGO_APPEND(bson_append_binary(bson, key, keylen, BSON_SUBTYPE_UUID,
									DatumGetUUIDP(value)->data, UUID_LEN));
}

void
plinth_mongo_encode_bytea(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						  Datum value, int depth)
{
	bytea *bytes;

	check_raw_size(value);
	bytes = DatumGetByteaPP(value);
	MONGO_APPEND(bson_append_binary(bson, key, keylen, BSON_SUBTYPE_BINARY,
									(const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
	plinth_mongo_check_size(bson);
}

void
plinth_mongo_encode_varlena_text(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
								 Datum value, int depth)
{
	text *string;

	check_raw_size(value);
	string = DatumGetTextPP(value);
	plinth_mongo_append_text(bson, key, keylen, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
}

char *
plinth_mongo_output_text(MongoEncoder *encoder, Datum value)
{
	if (encoder->typlen == -1)
		check_raw_size(value);
	if (encoder->exact_text && encoder->type == NUMERICOID)
		value = DirectFunctionCall1(numeric_trim_scale, value);
	return OutputFunctionCall(&encoder->out, value);
}

void
plinth_mongo_encode_output(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						   Datum value, int depth)
{
	char *string = plinth_mongo_output_text(encoder, value);

	plinth_mongo_append_text(bson, key, keylen, string, strlen(string));
}
