/*
 * extjson_write.c
 *		BSON as MongoDB's Extended JSON (version 2), canonical or relaxed.
 *
 * Not by libbson's writer: that prints doubles with 20 digits and gives up
 * below a depth of its own.  The bytes may come from anyone: they are checked
 * whole before anything is written, so that no length here leads astray.
 */
#include "postgres.h"

#include <math.h>

#include "base/compat.h"
#include "common/base64.h"
#include "common/shortest_dec.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "mongo/extjson.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"

typedef struct Writer
{
	StringInfoData out;
	bool canonical;
} Writer;

static void write_document(Writer *writer, const uint8 *data, uint32 len, bool array);

/* text may hold NULs, which no C string does. */
static void
write_string(Writer *writer, const char *text, uint32 len)
{
	StringInfo out = &writer->out;
	uint32 done = 0;

	while (true)
	{
		int part = strnlen(text + done, len - done);
		char *piece = plinth_mongo_from_utf8(text + done, part);
		int start = out->len;

		escape_json(out, piece);
		pfree(piece);
		if (done > 0)
		{
			/* Goes on with the string that is open: without its own quote. */
			memmove(out->data + start, out->data + start + 1, out->len - start);
			out->len--;
		}
		done += part;
		if (done == len)
			return;
		out->data[--out->len] = '\0';
		appendStringInfoString(out, "\\u0000");
		done++;
	}
}

/* {"tag": "text"} */
static void
write_tagged(Writer *writer, const char *tag, const char *text, uint32 len)
{
	appendStringInfo(&writer->out, "{\"%s\": ", tag);
	write_string(writer, text, len);
	appendStringInfoChar(&writer->out, '}');
}

static void
write_integer(Writer *writer, const char *tag, int64 number)
{
	if (writer->canonical)
		appendStringInfo(&writer->out, "{\"%s\": \"" INT64_FORMAT "\"}", tag, number);
	else
		appendStringInfo(&writer->out, INT64_FORMAT, number);
}

static void
write_double(Writer *writer, double number)
{
	char text[DOUBLE_SHORTEST_DECIMAL_LEN + 2];
	bool finite = isfinite(number);

	if (isnan(number))
		strcpy(text, "NaN");
	else if (!finite)
		strcpy(text, number > 0 ? "Infinity" : "-Infinity");
	else
	{
		double_to_shortest_decimal_buf(number, text);
		/* Which tells it from an integer. */
		if (text[strspn(text, "-0123456789")] == '\0')
			strcat(text, ".0");
	}
	if (writer->canonical || !finite)
		write_tagged(writer, "$numberDouble", text, strlen(text));
	else
		appendStringInfoString(&writer->out, text);
}

static void
write_date(Writer *writer, int64 ms)
{
	int year;
	int month;
	int day;
	int64 second = ms / 1000;

	if (writer->canonical || ms < 0 || ms >= INT64CONST(253402300800000))
	{
		appendStringInfo(&writer->out, "{\"$date\": {\"$numberLong\": \"" INT64_FORMAT "\"}}", ms);
		return;
	}
	j2date((int) (second / SECS_PER_DAY) + UNIX_EPOCH_JDATE, &year, &month, &day);
	second %= SECS_PER_DAY;
	appendStringInfo(&writer->out, "{\"$date\": \"%04d-%02d-%02dT%02d:%02d:%02d", year, month, day,
					 (int) (second / 3600), (int) (second / 60 % 60), (int) (second % 60));
	if (ms % 1000 != 0)
		appendStringInfo(&writer->out, ".%03d", (int) (ms % 1000));
	appendStringInfoString(&writer->out, "Z\"}");
}

static void
write_binary(Writer *writer, bson_iter_t *iter)
{
	StringInfo out = &writer->out;
	bson_subtype_t subtype;
	uint32 len;
	const uint8 *data;
	int size;

	bson_iter_binary(iter, &subtype, &len, &data);
	appendStringInfoString(out, "{\"$binary\": {\"base64\": \"");
	enlargeStringInfo(out, pg_b64_enc_len(len) + 1);
	size = pg_b64_encode((const void *) data, len, out->data + out->len, pg_b64_enc_len(len));
	out->len += size;
	out->data[out->len] = '\0';
	appendStringInfo(out, "\", \"subType\": \"%02x\"}}", (unsigned) subtype & 0xff);
}

static void
write_regex(Writer *writer, bson_iter_t *iter)
{
	const char *options;
	const char *pattern = bson_iter_regex(iter, &options);

	appendStringInfoString(&writer->out, "{\"$regularExpression\": {\"pattern\": ");
	write_string(writer, pattern, strlen(pattern));
	appendStringInfoString(&writer->out, ", \"options\": ");
	write_string(writer, options, strlen(options));
	appendStringInfoString(&writer->out, "}}");
}

static void
write_dbpointer(Writer *writer, bson_iter_t *iter)
{
	uint32 len;
	const char *collection;
	const bson_oid_t *oid;
	char hex[25];

	bson_iter_dbpointer(iter, &len, &collection, &oid);
	bson_oid_to_string(oid, hex);
	appendStringInfoString(&writer->out, "{\"$dbPointer\": {\"$ref\": ");
	write_string(writer, collection, len);
	appendStringInfo(&writer->out, ", \"$id\": {\"$oid\": \"%s\"}}}", hex);
}

static void
write_scoped_code(Writer *writer, bson_iter_t *iter)
{
	uint32 len;
	uint32 scopelen;
	const uint8 *scope;
	const char *code = bson_iter_codewscope(iter, &len, &scopelen, &scope);

	appendStringInfoString(&writer->out, "{\"$code\": ");
	/* The scope begins behind the code's terminating zero, which some libbson count. */
	write_string(writer, code, (const char *) scope - code - 1);
	appendStringInfoString(&writer->out, ", \"$scope\": ");
	write_document(writer, scope, scopelen, false);
	appendStringInfoChar(&writer->out, '}');
}

/* Types that BSON has and JSON has not; false for the others. */
static bool
write_special(Writer *writer, bson_iter_t *iter)
{
	StringInfo out = &writer->out;
	bson_decimal128_t decimal;
	char text[BSON_DECIMAL128_STRING];
	const char *symbol;
	uint32 len;
	uint32 increment;

	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_DECIMAL128:
			bson_iter_decimal128(iter, &decimal);
			bson_decimal128_to_string(&decimal, text);
			write_tagged(writer, "$numberDecimal", text, strlen(text));
			return true;
		case BSON_TYPE_OID:
			bson_oid_to_string(bson_iter_oid(iter), text);
			write_tagged(writer, "$oid", text, 24);
			return true;
		case BSON_TYPE_DATE_TIME:
			write_date(writer, bson_iter_date_time(iter));
			return true;
		case BSON_TYPE_BINARY:
			write_binary(writer, iter);
			return true;
		case BSON_TYPE_TIMESTAMP:
			bson_iter_timestamp(iter, &len, &increment);
			appendStringInfo(out, "{\"$timestamp\": {\"t\": %u, \"i\": %u}}", len, increment);
			return true;
		case BSON_TYPE_REGEX:
			write_regex(writer, iter);
			return true;
		case BSON_TYPE_DBPOINTER:
			write_dbpointer(writer, iter);
			return true;
		case BSON_TYPE_CODE:
			symbol = bson_iter_code(iter, &len);
			write_tagged(writer, "$code", symbol, len);
			return true;
		case BSON_TYPE_CODEWSCOPE:
			write_scoped_code(writer, iter);
			return true;
		case BSON_TYPE_SYMBOL:
			symbol = bson_iter_symbol(iter, &len);
			write_tagged(writer, "$symbol", symbol, len);
			return true;
		case BSON_TYPE_UNDEFINED:
			appendStringInfoString(out, "{\"$undefined\": true}");
			return true;
		case BSON_TYPE_MINKEY:
			appendStringInfoString(out, "{\"$minKey\": 1}");
			return true;
		case BSON_TYPE_MAXKEY:
			appendStringInfoString(out, "{\"$maxKey\": 1}");
			return true;
		default:
			return false;
	}
}

static void
write_value(Writer *writer, bson_iter_t *iter)
{
	const uint8 *data;
	const char *text;
	uint32 len;

	if (write_special(writer, iter))
		return;
	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_DOCUMENT:
			bson_iter_document(iter, &len, &data);
			write_document(writer, data, len, false);
			break;
		case BSON_TYPE_ARRAY:
			bson_iter_array(iter, &len, &data);
			write_document(writer, data, len, true);
			break;
		case BSON_TYPE_NULL:
			appendStringInfoString(&writer->out, "null");
			break;
		case BSON_TYPE_BOOL:
			appendStringInfoString(&writer->out, bson_iter_bool(iter) ? "true" : "false");
			break;
		case BSON_TYPE_UTF8:
			text = bson_iter_utf8(iter, &len);
			write_string(writer, text, len);
			break;
		case BSON_TYPE_INT32:
			write_integer(writer, "$numberInt", bson_iter_int32(iter));
			break;
		case BSON_TYPE_INT64:
			write_integer(writer, "$numberLong", bson_iter_int64(iter));
			break;
		case BSON_TYPE_DOUBLE:
			write_double(writer, bson_iter_double(iter));
			break;
		default:
			ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
							errmsg("unknown BSON type %d", (int) bson_iter_type(iter))));
	}
}

static void
write_document(Writer *writer, const uint8 *data, uint32 len, bool array)
{
	bson_iter_t iter;
	bool first = true;

	check_stack_depth();
	if (!bson_iter_init_from_data(&iter, data, len))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("invalid BSON document")));
	appendStringInfoChar(&writer->out, array ? '[' : '{');
	while (bson_iter_next(&iter))
	{
		const char *key = bson_iter_key(&iter);

		CHECK_FOR_INTERRUPTS();
		if (!first)
			appendStringInfoString(&writer->out, ", ");
		first = false;
		if (!array)
		{
			write_string(writer, key, strlen(key));
			appendStringInfoString(&writer->out, ": ");
		}
		write_value(writer, &iter);
	}
	appendStringInfoChar(&writer->out, array ? ']' : '}');
}

char *
plinth_mongo_extjson_write(const uint8 *data, uint32 len, bool canonical)
{
	Writer writer;
	size_t where;

	switch (plinth_mongo_bson_check_at(data, len, PLINTH_BSON_MAX_DEPTH, &where))
	{
		case PLINTH_BSON_SOUND:
			break;
		case PLINTH_BSON_TOO_DEEP:
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("BSON document is nested too deeply"),
							errdetail("The limit is %d levels; byte %zu is in a deeper one.",
									  PLINTH_BSON_MAX_DEPTH, where)));
			break;
		case PLINTH_BSON_CORRUPT:
			ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
							errmsg("invalid BSON document"),
							errdetail("It is not sound at byte %zu.", where)));
	}
	initStringInfo(&writer.out);
	writer.canonical = canonical;
	write_document(&writer, data, len, false);
	return writer.out.data;
}
