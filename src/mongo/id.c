/*
 * id.c
 *		A row's key as _id.
 *
 * One column becomes a value, several a sub-document in the key's order.
 * Injective: two keys that differ never share an _id, by encode.c's rules for
 * _id; a prefix turns every key into text.
 */
#include "postgres.h"

#include "mongo/bson_int.h"
#include "utils/lsyscache.h"

PlinthMongoIdSpec *
plinth_mongo_id_spec(int nkeys, const char *const *names, const Oid *types, const int32 *typmods,
					 const char *cast, const char *prefix)
{
	PlinthMongoIdSpec *spec = palloc0(sizeof(PlinthMongoIdSpec));
	MongoCast kind = plinth_mongo_cast_parse(cast);

	if (prefix != NULL && nkeys != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a prefix needs a key of one column, not %d", nkeys)));
	if (prefix != NULL && kind != MONGO_CAST_NONE && kind != MONGO_CAST_STRING)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("an _id with a prefix is text and takes no cast \"%s\"", cast)));
	if (prefix != NULL)
	{
		char *copy = pstrdup(prefix);

		spec->prefix = plinth_mongo_to_utf8(copy, strlen(copy), &spec->prefixlen);
		kind = MONGO_CAST_STRING;
	}

	spec->nkeys = nkeys;
	spec->cast = kind;
	spec->names = palloc(nkeys * sizeof(char *));
	spec->namelens = palloc(nkeys * sizeof(int));
	spec->types = palloc(nkeys * sizeof(Oid));
	spec->typmods = palloc(nkeys * sizeof(int32));
	spec->encoders = palloc(nkeys * sizeof(MongoEncoder *));
	for (int i = 0; i < nkeys; i++)
	{
		char *name = pstrdup(names[i]);

		spec->names[i] = plinth_mongo_to_utf8(name, strlen(name), &spec->namelens[i]);
		spec->types[i] = types[i];
		spec->typmods[i] = typmods[i];
		spec->encoders[i] = plinth_mongo_id_encoder(types[i], kind);
		spec->pinned |= spec->encoders[i]->pinned;
	}
	return spec;
}

static void
append_prefixed(const PlinthMongoIdSpec *spec, bson_t *bson, Datum value)
{
	char *text = plinth_mongo_output_text(spec->encoders[0], value);
	int len;
	char *utf8 = plinth_mongo_to_utf8(text, strlen(text), &len);
	char *whole = palloc(spec->prefixlen + len);

	memcpy(whole, spec->prefix, spec->prefixlen);
	memcpy(whole + spec->prefixlen, utf8, len);
	MONGO_APPEND(bson_append_utf8(bson, "_id", 3, whole, spec->prefixlen + len));
}

void
plinth_mongo_append_id(const PlinthMongoIdSpec *spec, bson_t *bson, const Datum *values)
{
	bson_t child;

	if (spec->prefix != NULL)
		append_prefixed(spec, bson, values[0]);
	else if (spec->nkeys == 1)
		spec->encoders[0]->encode(spec->encoders[0], bson, "_id", 3, values[0], 1);
	else
	{
		MONGO_APPEND(bson_append_document_begin(bson, "_id", 3, &child));
		for (int i = 0; i < spec->nkeys; i++)
			spec->encoders[i]->encode(spec->encoders[i], &child, spec->names[i], spec->namelens[i],
									  values[i], 2);
		MONGO_APPEND(bson_append_document_end(bson, &child));
	}
	plinth_mongo_check_size(bson);
}

typedef struct Key
{
	const PlinthMongoIdSpec *spec;
	const Datum *values;
} Key;

static void
build_id(bson_t *bson, const void *arg)
{
	const Key *key = arg;

	plinth_mongo_append_id(key->spec, bson, key->values);
}

PlinthBson
plinth_mongo_id_encode(const PlinthMongoIdSpec *spec, const Datum *values)
{
	Key key = {spec, values};

	return plinth_mongo_build(build_id, &key, spec->pinned);
}

static void
build_id_of(bson_t *bson, const void *arg)
{
	bson_iter_t iter;

	if (bson_iter_init_find(&iter, arg, "_id"))
		MONGO_APPEND(bson_append_iter(bson, "_id", 3, &iter));
}

/* {"_id": value} of any document; one without _id gives {}. */
PlinthBson
plinth_mongo_id_of(PlinthBson document)
{
	bson_t view;

	plinth_mongo_bson_view(document, &view);
	return plinth_mongo_build(build_id_of, &view, false);
}
