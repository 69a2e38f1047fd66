/*
 * field.c
 *		A row as a document: its _id, then its fields in the mapping's order.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

struct PlinthMongoField
{
	char *name; /* UTF-8; NULL: its members are fields of the document */
	int namelen;
	char *micros_name; /* of the sibling; NULL for none */
	int micros_namelen;
	MongoEncoder *encoder;
};

PlinthMongoField *
plinth_mongo_field(const char *name, Oid type, int32 typmod, const char *cast)
{
	PlinthMongoField *field = palloc0(sizeof(PlinthMongoField));
	MongoCast kind = plinth_mongo_cast_parse(cast);
	char *copy = pstrdup(name);

	if (strcmp(name, "_id") == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a field cannot be named \"_id\""),
						errhint("The key of the row becomes _id by itself.")));
	field->name = plinth_mongo_to_utf8(copy, strlen(copy), &field->namelen);
	field->encoder = plinth_mongo_encoder(type, kind);
	if (kind == MONGO_CAST_MICROS)
	{
		field->micros_name = psprintf("%.*sMicros", field->namelen, field->name);
		field->micros_namelen = strlen(field->micros_name);
	}
	return field;
}

PlinthMongoField *
plinth_mongo_field_spread(Oid type)
{
	PlinthMongoField *field = palloc0(sizeof(PlinthMongoField));
	Oid base = getBaseType(type);

	if (base != JSONBOID && base != RECORDOID && get_typtype(base) != TYPTYPE_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a document cannot be made of type %s", format_type_be(type)),
						errhint("Use jsonb or a composite type.")));
	field->encoder = plinth_mongo_encoder(type, MONGO_CAST_NONE);
	return field;
}

/* Members of one value as fields of the document, which has its _id. */
static void
append_spread(const PlinthMongoField *field, bson_t *bson, Datum value, bool isnull)
{
	bson_iter_t iter;

	if (isnull)
		return;
	if (field->encoder->type != JSONBOID)
		plinth_mongo_append_attributes(field->encoder, bson, value, 1);
	else if (!plinth_mongo_append_members(bson, value))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the document is not a JSON object"),
						errhint("Make it with jsonb_build_object().")));
	plinth_mongo_check_size(bson);
	/* The first is ours. */
	if (bson_iter_init(&iter, bson) && bson_iter_next(&iter) && bson_iter_find(&iter, "_id"))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a field cannot be named \"_id\""),
						errhint("The key of the row becomes _id by itself.")));
}

static void
append_micros(const PlinthMongoField *field, bson_t *bson, Datum value)
{
	Timestamp stamp = DatumGetTimestamp(value);
	int32 micros = 0;

	if (!TIMESTAMP_NOT_FINITE(stamp))
	{
		micros = (int32) (stamp % 1000);
		if (micros < 0)
			micros += 1000;
	}
	MONGO_APPEND(bson_append_int32(bson, field->micros_name, field->micros_namelen, micros));
}

static void
append_field(const PlinthMongoField *field, bson_t *bson, Datum value, bool isnull)
{
	if (field->name == NULL)
		append_spread(field, bson, value, isnull);
	else if (isnull)
	{
		MONGO_APPEND(bson_append_null(bson, field->name, field->namelen));
		if (field->micros_name != NULL)
			MONGO_APPEND(bson_append_null(bson, field->micros_name, field->micros_namelen));
	}
	else
	{
		field->encoder->encode(field->encoder, bson, field->name, field->namelen, value, 1);
		if (field->micros_name != NULL)
			append_micros(field, bson, value);
	}
	plinth_mongo_check_size(bson);
}

typedef struct Row
{
	const PlinthMongoIdSpec *spec;
	const Datum *keyvalues;
	PlinthMongoField *const *fields;
	int nfields;
	const Datum *values;
	const bool *nulls;
} Row;

static void
build_row(bson_t *bson, const void *arg)
{
	const Row *row = arg;

	plinth_mongo_append_id(row->spec, bson, row->keyvalues);
	for (int i = 0; i < row->nfields; i++)
		append_field(row->fields[i], bson, row->values[i], row->nulls[i]);
}

PlinthBson
plinth_mongo_document(const PlinthMongoIdSpec *spec, const Datum *keyvalues,
					  PlinthMongoField *const *fields, int nfields, const Datum *values,
					  const bool *nulls)
{
	Row row = {spec, keyvalues, fields, nfields, values, nulls};
	bool pinned = spec->pinned;

	for (int i = 0; i < nfields && !pinned; i++)
		pinned = fields[i]->encoder->pinned;
	return plinth_mongo_build(build_row, &row, pinned);
}
