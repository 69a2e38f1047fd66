/*
 * functions.c
 *		Documents from values and back, and as Extended JSON.
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "mongo/extjson.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

PGDLLEXPORT Datum plinth_mongo_to_bson(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_mongo_from_bson(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_mongo_bson_to_extjson(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_mongo_extjson_to_bson(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_mongo_to_bson);
PG_FUNCTION_INFO_V1(plinth_mongo_from_bson);
PG_FUNCTION_INFO_V1(plinth_mongo_bson_to_extjson);
PG_FUNCTION_INFO_V1(plinth_mongo_extjson_to_bson);

typedef struct Source
{
	MongoEncoder *encoder;
	Datum value;
} Source;

/* A composite or a JSON object is the document itself; anything else is its "value". */
static void
build_item(bson_t *bson, const void *arg)
{
	const Source *item = arg;
	MongoEncoder *encoder = item->encoder;
	Datum value = item->value;

	if (encoder->encode == plinth_mongo_encode_composite)
	{
		plinth_mongo_append_attributes(encoder, bson, value, 1);
		return;
	}
	if (encoder->type == JSONOID)
		value = DirectFunctionCall1(jsonb_in, CStringGetDatum(TextDatumGetCString(value)));
	if (encoder->type != JSONOID && encoder->type != JSONBOID)
		encoder->encode(encoder, bson, "value", 5, value, 1);
	else if (!plinth_mongo_append_members(bson, value))
		plinth_mongo_encode_jsonb(encoder, bson, "value", 5, value, 1);
}

static MongoEncoder *
make_encoder(FmgrInfo *function)
{
	Oid type = get_fn_expr_argtype(function, 0);
	MemoryContext old;
	MongoEncoder *encoder;

	if (!OidIsValid(type))
		ereport(ERROR, (errcode(ERRCODE_INDETERMINATE_DATATYPE),
						errmsg("could not determine input data type")));
	old = MemoryContextSwitchTo(function->fn_mcxt);
	encoder = plinth_mongo_encoder(type, MONGO_CAST_NONE);
	MemoryContextSwitchTo(old);
	return encoder;
}

/* Takes the document's memory along. */
static bytea *
as_bytea(PlinthBson document)
{
	bytea *result = palloc(VARHDRSZ + document.len);

	SET_VARSIZE(result, VARHDRSZ + document.len);
	memcpy(VARDATA(result), document.data, document.len);
	pfree(document.data);
	return result;
}

Datum
plinth_mongo_to_bson(PG_FUNCTION_ARGS)
{
	Source item;

	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = make_encoder(fcinfo->flinfo);
	item.encoder = fcinfo->flinfo->fn_extra;
	item.value = PG_GETARG_DATUM(0);
	PG_RETURN_BYTEA_P(as_bytea(plinth_mongo_build(build_item, &item, item.encoder->pinned)));
}

Datum
plinth_mongo_from_bson(PG_FUNCTION_ARGS)
{
	bytea *bytes = PG_GETARG_BYTEA_PP(0);
	char *json = plinth_mongo_extjson_write((const uint8 *) VARDATA_ANY(bytes),
											VARSIZE_ANY_EXHDR(bytes), false);

	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

/* Arguments: document, relaxed. */
Datum
plinth_mongo_bson_to_extjson(PG_FUNCTION_ARGS)
{
	bytea *bytes = PG_GETARG_BYTEA_PP(0);

	PG_RETURN_TEXT_P(cstring_to_text(plinth_mongo_extjson_write(
		(const uint8 *) VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), !PG_GETARG_BOOL(1))));
}

static void
build_extjson(bson_t *bson, const void *arg)
{
	plinth_mongo_extjson_append(bson, arg, 1);
}

Datum
plinth_mongo_extjson_to_bson(PG_FUNCTION_ARGS)
{
	char *json = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BYTEA_P(as_bytea(
		plinth_mongo_build(build_extjson, plinth_mongo_extjson_parse(json, strlen(json)), false)));
}

/* Never an ERROR for what the document holds: it goes to messages and views. */
char *
plinth_mongo_to_json(PlinthBson document)
{
	bson_t view;
	char *json;
	char *result;

	if (plinth_mongo_bson_check(document.data, document.len, PLINTH_BSON_MAX_DEPTH) !=
			PLINTH_BSON_SOUND ||
		!bson_init_static(&view, document.data, document.len))
		return pstrdup("(invalid BSON)");
	json = bson_as_relaxed_extended_json(&view, NULL);
	if (json == NULL)
		return pstrdup("(invalid BSON)");
	result = MemoryContextAllocExtended(CurrentMemoryContext, strlen(json) + 1,
										MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
	if (result == NULL)
	{
		bson_free(json);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	strcpy(result, json);
	bson_free(json);
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		for (char *c = result; *c != '\0'; c++)
		{
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
		}
	}
	return result;
}
