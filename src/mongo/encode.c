/*
 * encode.c
 *		Choosing how values of a type become BSON.
 *
 * docs/types.md is the table of what is chosen here.  An _id is encoded by
 * rules of its own: two different keys never get the same _id (timestamps
 * keep their microseconds as text; numerics lose trailing zeros, which do not
 * distinguish keys), and nothing becomes an array, which _id cannot be.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

static const char *const cast_names[] = {[MONGO_CAST_NONE] = "",
										 [MONGO_CAST_STRING] = "string",
										 [MONGO_CAST_INT] = "int",
										 [MONGO_CAST_LONG] = "long",
										 [MONGO_CAST_DOUBLE] = "double",
										 [MONGO_CAST_DECIMAL] = "decimal",
										 [MONGO_CAST_BOOL] = "bool",
										 [MONGO_CAST_DATE] = "date",
										 [MONGO_CAST_OBJECTID] = "objectId",
										 [MONGO_CAST_UUID] = "uuid",
										 [MONGO_CAST_BINARY] = "binary",
										 [MONGO_CAST_JSON] = "json",
										 [MONGO_CAST_MICROS] = "micros"};

MongoCast
plinth_mongo_cast_parse(const char *cast)
{
	if (cast == NULL)
		return MONGO_CAST_NONE;
	for (int i = MONGO_CAST_STRING; i < lengthof(cast_names); i++)
	{
		if (strcmp(cast, cast_names[i]) == 0)
			return (MongoCast) i;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized cast \"%s\"", cast),
			 errhint("Casts are string, int, long, double, decimal, bool, date, objectId, "
					 "uuid, binary, json and micros.")));
}

/* text, varchar, char(n), name, citext: values that are their own text. */
bool
plinth_mongo_is_text_type(Oid type)
{
	char category;
	bool preferred;

	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING;
}

static bool
is_number_type(Oid type)
{
	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
			return true;
		default:
			return false;
	}
}

static bool
cast_fits(Oid type, MongoCast cast)
{
	bool text = plinth_mongo_is_text_type(type);
	bool timestamp = type == TIMESTAMPOID || type == TIMESTAMPTZOID;

	switch (cast)
	{
		case MONGO_CAST_STRING:
			return true;
		case MONGO_CAST_INT:
		case MONGO_CAST_LONG:
		case MONGO_CAST_DOUBLE:
		case MONGO_CAST_DECIMAL:
			return text || is_number_type(type);
		case MONGO_CAST_BOOL:
			return text || type == BOOLOID || type == INT2OID || type == INT4OID || type == INT8OID;
		case MONGO_CAST_DATE:
			return text || timestamp || type == DATEOID;
		case MONGO_CAST_OBJECTID:
			return text || type == BYTEAOID;
		case MONGO_CAST_UUID:
			return text || type == UUIDOID;
		case MONGO_CAST_BINARY:
			return type == BYTEAOID || type == UUIDOID;
		case MONGO_CAST_JSON:
			return text || type == JSONOID || type == JSONBOID;
		case MONGO_CAST_MICROS:
			return timestamp;
		case MONGO_CAST_NONE:
			break;
	}
	return false;
}

static void
check_cast(Oid type, MongoCast cast)
{
	if (!cast_fits(type, cast))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("type %s cannot be cast to \"%s\" in MongoDB", format_type_be(type),
							   cast_names[cast])));
}

/* Where the type's value is what it is, whatever the settings say. */
static MongoEncode
native_encode(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return plinth_mongo_encode_bool;
		case INT2OID:
			return plinth_mongo_encode_int2;
		case INT4OID:
			return plinth_mongo_encode_int4;
		case INT8OID:
			return plinth_mongo_encode_int8;
		case OIDOID:
			return plinth_mongo_encode_oid;
		case FLOAT4OID:
			return plinth_mongo_encode_float4;
		case FLOAT8OID:
			return plinth_mongo_encode_float8;
		case NUMERICOID:
			return plinth_mongo_encode_numeric;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return plinth_mongo_encode_timestamp;
		case DATEOID:
			return plinth_mongo_encode_date;
		case UUIDOID:
			return plinth_mongo_encode_uuid;
		case BYTEAOID:
			return plinth_mongo_encode_bytea;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return plinth_mongo_encode_varlena_text;
		case JSONOID:
			return plinth_mongo_encode_json;
		case JSONBOID:
			return plinth_mongo_encode_jsonb;
		default:
			return NULL;
	}
}

static void
use_output(MongoEncoder *encoder)
{
	Oid function;
	bool varlena;

	getTypeOutputInfo(encoder->type, &function, &varlena);
	fmgr_info(function, &encoder->out);
	encoder->pinned = true;
}

/* An encoder of a type's values, in the current memory context. */
MongoEncoder *
plinth_mongo_encoder(Oid type, MongoCast cast)
{
	MongoEncoder *encoder = palloc0(sizeof(MongoEncoder));
	Oid element;

	encoder->type = type = getBaseType(type);
	encoder->cast = cast;
	get_typlenbyvalalign(type, &encoder->typlen, &encoder->typbyval, &encoder->typalign);

	element = get_element_type(type);
	if (OidIsValid(element))
	{
		if (cast == MONGO_CAST_MICROS)
			check_cast(type, cast);
		encoder->element = plinth_mongo_encoder(element, cast);
		encoder->encode = plinth_mongo_encode_array;
		encoder->pinned = encoder->element->pinned;
		return encoder;
	}

	if (cast != MONGO_CAST_NONE)
	{
		check_cast(type, cast);
		encoder->encode = plinth_mongo_encode_cast;
		use_output(encoder);
		return encoder;
	}

	if (type_is_rowtype(type))
	{
		encoder->encode = plinth_mongo_encode_composite;
		encoder->pinned = true;
		return encoder;
	}

	encoder->encode = native_encode(type);
	if (encoder->encode == plinth_mongo_encode_numeric)
		use_output(encoder);
	else if (encoder->encode == NULL)
	{
		encoder->encode = plinth_mongo_encode_output;
		use_output(encoder);
	}
	return encoder;
}

/* The same for a key column: injective, and never an array. */
MongoEncoder *
plinth_mongo_id_encoder(Oid type, MongoCast cast)
{
	Oid base = getBaseType(type);
	MongoEncode native = native_encode(base);
	MongoEncoder *encoder;

	switch (cast)
	{
		case MONGO_CAST_NONE:
			if (native == NULL || native == plinth_mongo_encode_timestamp ||
				native == plinth_mongo_encode_json || native == plinth_mongo_encode_jsonb)
				cast = MONGO_CAST_STRING;
			break;
		case MONGO_CAST_STRING:
		case MONGO_CAST_OBJECTID:
		case MONGO_CAST_INT:
		case MONGO_CAST_LONG:
		case MONGO_CAST_UUID:
			check_cast(base, cast);
			break;
		default:
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("\"%s\" is not a cast for _id", cast_names[cast]),
							errhint("Casts for _id are string, objectId, int, long and uuid.")));
	}

	/* A cast to text takes the type's own text, that of an array too. */
	encoder = palloc0(sizeof(MongoEncoder));
	encoder->type = base;
	encoder->cast = cast;
	encoder->exact_text = true;
	get_typlenbyvalalign(base, &encoder->typlen, &encoder->typbyval, &encoder->typalign);
	encoder->encode = cast == MONGO_CAST_NONE ? native : plinth_mongo_encode_cast;
	if (cast != MONGO_CAST_NONE || native == plinth_mongo_encode_numeric)
		use_output(encoder);
	return encoder;
}
