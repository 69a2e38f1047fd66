/*
 * encode_nested.c
 *		Arrays and composites.
 *
 * A composite's attributes are looked up by the type that the value itself
 * carries, and again when that type was altered; anonymous records work the
 * same way.  Array elements keep their NULLs; lower bounds are not told.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "mongo/bson_int.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

struct MongoRow
{
	MemoryContext context; /* of all below */
	uint64 identifier;     /* typcache's, of the tuple descriptor */
	int natts;
	MongoEncoder **encoders; /* NULL for a dropped attribute */
	char **names;            /* UTF-8 */
	int *namelens;
};

typedef struct ArrayWalk
{
	MongoEncoder *element;
	int ndim;
	int *dims;
	Datum *values;
	bool *nulls;
	int position;
} ArrayWalk;

static void
append_dimension(ArrayWalk *walk, bson_t *bson, int dimension, int depth)
{
	plinth_mongo_check_depth(depth);
	for (int i = 0; i < walk->dims[dimension]; i++)
	{
		char buffer[16];
		const char *key;
		int keylen = (int) bson_uint32_to_string(i, &key, buffer, sizeof(buffer));

		if (dimension + 1 < walk->ndim)
		{
			bson_t child;

			MONGO_APPEND(bson_append_array_unsafe_begin(bson, key, keylen, &child));
			append_dimension(walk, &child, dimension + 1, depth + 1);
			MONGO_APPEND(bson_append_array_end(bson, &child));
		}
		else if (walk->nulls[walk->position])
		{
			MONGO_APPEND(bson_append_null(bson, key, keylen));
			walk->position++;
		}
		else
		{
			walk->element->encode(walk->element, bson, key, keylen, walk->values[walk->position],
								  depth);
			walk->position++;
		}
		plinth_mongo_check_size(bson);
	}
}

void
plinth_mongo_encode_array(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
						  Datum value, int depth)
{
	ArrayType *array = DatumGetArrayTypeP(value);
	ArrayWalk walk;
	bson_t child;
	int count;

	walk.element = encoder->element;
	walk.ndim = ARR_NDIM(array);
	walk.dims = ARR_DIMS(array);
	walk.position = 0;

	MONGO_APPEND(bson_append_array_unsafe_begin(bson, key, keylen, &child));
	if (walk.ndim > 0)
	{
		/* A domain over the element type was looked through: layout is the same. */
		deconstruct_array(array, ARR_ELEMTYPE(array), walk.element->typlen, walk.element->typbyval,
						  walk.element->typalign, &walk.values, &walk.nulls, &count);
		append_dimension(&walk, &child, 0, depth + 1);
	}
	MONGO_APPEND(bson_append_array_end(bson, &child));
	plinth_mongo_check_size(bson);
}

static void
build_row(MongoRow *row, TupleDesc desc)
{
	MemoryContext old;

	MemoryContextReset(row->context);
	row->identifier = 0;
	old = MemoryContextSwitchTo(row->context);
	row->natts = desc->natts;
	row->encoders = palloc0(desc->natts * sizeof(MongoEncoder *));
	row->names = palloc0(desc->natts * sizeof(char *));
	row->namelens = palloc0(desc->natts * sizeof(int));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		char *name;

		if (att->attisdropped)
			continue;
		row->encoders[i] = plinth_mongo_encoder(att->atttypid, MONGO_CAST_NONE);
		name = pstrdup(NameStr(att->attname));
		row->names[i] = plinth_mongo_to_utf8(name, strlen(name), &row->namelens[i]);
	}
	MemoryContextSwitchTo(old);
}

static MongoRow *
get_row(MongoEncoder *encoder, TupleDesc desc)
{
	uint64 identifier = assign_record_type_identifier(desc->tdtypeid, desc->tdtypmod);

	if (encoder->row == NULL)
	{
		MemoryContext parent = GetMemoryChunkContext(encoder);
		MongoRow *row = MemoryContextAllocZero(parent, sizeof(MongoRow));

		row->context = AllocSetContextCreate(parent, "plinth composite", ALLOCSET_SMALL_SIZES);
		encoder->row = row;
	}
	if (encoder->row->identifier != identifier)
	{
		build_row(encoder->row, desc);
		encoder->row->identifier = identifier;
	}
	return encoder->row;
}

void
plinth_mongo_append_attributes(MongoEncoder *encoder, bson_t *bson, Datum value, int depth)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(value);
	TupleDesc desc =
		lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header), HeapTupleHeaderGetTypMod(header));
	MongoRow *row = get_row(encoder, desc);
	HeapTupleData tuple;
	Datum *values = palloc(desc->natts * sizeof(Datum));
	bool *nulls = palloc(desc->natts * sizeof(bool));

	plinth_mongo_check_depth(depth);
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	heap_deform_tuple(&tuple, desc, values, nulls);
	ReleaseTupleDesc(desc);

	for (int i = 0; i < row->natts; i++)
	{
		MongoEncoder *attribute = row->encoders[i];

		if (attribute == NULL)
			continue;
		if (nulls[i])
			MONGO_APPEND(bson_append_null(bson, row->names[i], row->namelens[i]));
		else
			attribute->encode(attribute, bson, row->names[i], row->namelens[i], values[i], depth);
		plinth_mongo_check_size(bson);
	}
}

void
plinth_mongo_encode_composite(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
							  Datum value, int depth)
{
	bson_t child;

	MONGO_APPEND(bson_append_document_begin(bson, key, keylen, &child));
	plinth_mongo_append_attributes(encoder, &child, value, depth + 1);
	MONGO_APPEND(bson_append_document_end(bson, &child));
	plinth_mongo_check_size(bson);
}
