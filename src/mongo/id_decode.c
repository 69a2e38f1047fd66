/*
 * id_decode.c
 *		From an _id back to the key that it stands for.
 *
 * Any _id may come back from a collection, ours or not.  A candidate text is
 * made from the BSON value alone, read by the key type's input function and
 * encoded again: only what gives an equal _id is a key of ours.  Input
 * functions that can refuse run in a subtransaction, of a transaction of our
 * own where none is open.
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define UNIX_EPOCH_DAYS (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)
#define DAY_MS ((int64) SECS_PER_DAY * 1000)

static char *
decimal_text(const bson_decimal128_t *decimal)
{
	char text[BSON_DECIMAL128_STRING];
	Datum number;

	bson_decimal128_to_string(decimal, text);
	number = DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
								 Int32GetDatum(-1));
	number = DirectFunctionCall1(numeric_trim_scale, number);
	return DatumGetCString(DirectFunctionCall1(numeric_out, number));
}

static char *
double_text(double value)
{
	/* Doubles of integral value may stand for integer keys. */
	if (value >= -9007199254740992.0 && value <= 9007199254740992.0 && value == rint(value))
		return psprintf(INT64_FORMAT, (int64) value);
	return DatumGetCString(DirectFunctionCall1(float8out, Float8GetDatum(value)));
}

static char *
binary_text(bson_iter_t *iter)
{
	bson_subtype_t subtype;
	uint32 len;
	const uint8 *data;
	char *text;

	bson_iter_binary(iter, &subtype, &len, &data);
	if (subtype == BSON_SUBTYPE_UUID && len == 16)
	{
		pg_uuid_t uuid;

		memcpy(uuid.data, data, 16);
		return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&uuid)));
	}
	if (subtype != BSON_SUBTYPE_BINARY)
		return NULL;
	text = palloc(2 + (Size) len * 2 + 1);
	text[0] = '\\';
	text[1] = 'x';
	hex_encode((const char *) data, len, text + 2);
	text[2 + (Size) len * 2] = '\0';
	return text;
}

static char *
date_text(int64 ms)
{
	int64 days = ms / DAY_MS - UNIX_EPOCH_DAYS;

	if (ms % DAY_MS != 0 || days < DATETIME_MIN_JULIAN - POSTGRES_EPOCH_JDATE ||
		days >= DATE_END_JULIAN - POSTGRES_EPOCH_JDATE)
		return NULL;
	return DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum((DateADT) days)));
}

static char *
string_text(const PlinthMongoIdSpec *spec, bson_iter_t *iter)
{
	uint32 len;
	const char *text = bson_iter_utf8(iter, &len);

	if (memchr(text, 0, len) != NULL || !bson_utf8_validate(text, len, false))
		return NULL;
	if (spec->prefix != NULL)
	{
		if (len < spec->prefixlen || memcmp(text, spec->prefix, spec->prefixlen) != 0)
			return NULL;
		text += spec->prefixlen;
		len -= spec->prefixlen;
	}
	return plinth_mongo_from_utf8(text, (int) len);
}

/* What the value would be called in SQL; NULL where no key looks like that. */
static char *
candidate_text(const PlinthMongoIdSpec *spec, int key, bson_iter_t *iter)
{
	bson_decimal128_t decimal;
	char oid[25];

	if (spec->prefix != NULL && bson_iter_type(iter) != BSON_TYPE_UTF8)
		return NULL;
	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_UTF8:
			return string_text(spec, iter);
		case BSON_TYPE_INT32:
			return psprintf("%d", bson_iter_int32(iter));
		case BSON_TYPE_INT64:
			return psprintf(INT64_FORMAT, bson_iter_int64(iter));
		case BSON_TYPE_DOUBLE:
			return double_text(bson_iter_double(iter));
		case BSON_TYPE_DECIMAL128:
			bson_iter_decimal128(iter, &decimal);
			return decimal_text(&decimal);
		case BSON_TYPE_BOOL:
			return pstrdup(bson_iter_bool(iter) ? "t" : "f");
		case BSON_TYPE_DATE_TIME:
			return date_text(bson_iter_date_time(iter));
		case BSON_TYPE_MINKEY:
			return pstrdup("-infinity");
		case BSON_TYPE_MAXKEY:
			return pstrdup("infinity");
		case BSON_TYPE_BINARY:
			return binary_text(iter);
		case BSON_TYPE_OID:
			bson_oid_to_string(bson_iter_oid(iter), oid);
			if (spec->encoders[key]->type == BYTEAOID)
				return psprintf("\\x%s", oid);
			return pstrdup(oid);
		default:
			return NULL;
	}
}

static bool
candidate_texts(const PlinthMongoIdSpec *spec, PlinthBson document, char **texts)
{
	bson_t view;
	bson_iter_t iter;
	bson_iter_t child;

	plinth_mongo_bson_view(document, &view);
	if (!bson_iter_init_find(&iter, &view, "_id"))
		return false;
	if (spec->nkeys == 1)
	{
		texts[0] = candidate_text(spec, 0, &iter);
		return texts[0] != NULL;
	}

	if (bson_iter_type(&iter) != BSON_TYPE_DOCUMENT || !bson_iter_recurse(&iter, &child))
		return false;
	for (int i = 0; i < spec->nkeys; i++)
	{
		if (!bson_iter_next(&child) || strcmp(bson_iter_key(&child), spec->names[i]) != 0)
			return false;
		texts[i] = candidate_text(spec, i, &child);
		if (texts[i] == NULL)
			return false;
	}
	return !bson_iter_next(&child);
}

/* True when the texts are keys whose _id is the document's. */
static bool
encodes_again(const PlinthMongoIdSpec *spec, PlinthBson document, char **texts)
{
	Datum *values = palloc(spec->nkeys * sizeof(Datum));

	for (int i = 0; i < spec->nkeys; i++)
	{
		Oid input;
		Oid ioparam;

		getTypeInputInfo(spec->types[i], &input, &ioparam);
		values[i] = OidInputFunctionCall(input, texts[i], ioparam, spec->typmods[i]);
	}
	return plinth_mongo_id_equal(plinth_mongo_id_encode(spec, values),
								 plinth_mongo_id_of(document));
}

static bool
try_decode(const PlinthMongoIdSpec *spec, PlinthBson document, char **texts)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool result = false;

	BeginInternalSubTransaction(NULL);
	PG_TRY ()
		;
	{
		int nestlevel;

		MemoryContextSwitchTo(context);
		nestlevel = plinth_mongo_settings_pin();
		result = candidate_texts(spec, document, texts) && encodes_again(spec, document, texts);
		plinth_mongo_settings_unpin(nestlevel);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH ()
		;
	{
		int code;

		MemoryContextSwitchTo(context);
		code = geterrcode();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (ERRCODE_TO_CATEGORY(code) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION &&
			ERRCODE_TO_CATEGORY(code) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		FlushErrorState();
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return result;
}

/* The key types that most tables have need no subtransaction. */
static bool
decode_simple(const PlinthMongoIdSpec *spec, PlinthBson document, char **texts, bool *result)
{
	bson_t view;
	bson_iter_t iter;
	bson_subtype_t subtype;
	const uint8 *data;
	uint32 len;
	int64 number;

	if (spec->nkeys != 1 || spec->prefix != NULL || spec->cast != MONGO_CAST_NONE ||
		spec->types[0] != spec->encoders[0]->type)
		return false;
	plinth_mongo_bson_view(document, &view);
	if (!bson_iter_init_find(&iter, &view, "_id"))
		return false;

	switch (spec->types[0])
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			if (bson_iter_type(&iter) != BSON_TYPE_INT32 &&
				bson_iter_type(&iter) != BSON_TYPE_INT64)
				return false;
			number = bson_iter_as_int64(&iter);
			*result = (spec->types[0] == INT8OID ||
					   (spec->types[0] == INT4OID && number == (int32) number) ||
					   (spec->types[0] == INT2OID && number == (int16) number));
			texts[0] = psprintf(INT64_FORMAT, number);
			return true;
		case UUIDOID:
			if (bson_iter_type(&iter) != BSON_TYPE_BINARY)
				return false;
			bson_iter_binary(&iter, &subtype, &len, &data);
			if (subtype != BSON_SUBTYPE_UUID || len != 16)
				return false;
			texts[0] = binary_text(&iter);
			*result = true;
			return true;
		case TEXTOID:
			if (bson_iter_type(&iter) != BSON_TYPE_UTF8 || GetDatabaseEncoding() != PG_UTF8)
				return false;
			texts[0] = string_text(spec, &iter);
			*result = texts[0] != NULL;
			return true;
		default:
			return false;
	}
}

bool
plinth_mongo_id_decode(const PlinthMongoIdSpec *spec, PlinthBson document, char **texts)
{
	MemoryContext context = CurrentMemoryContext;
	bool own_transaction = !IsTransactionState();
	bool result;

	if (decode_simple(spec, document, texts, &result))
		return result;
	if (own_transaction)
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(context);
	}
	result = try_decode(spec, document, texts);
	if (own_transaction)
	{
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	MemoryContextSwitchTo(context);
	return result;
}
