/*
 * id_equal.c
 *		Are two _ids the same to MongoDB?
 *
 * Numbers of all four types compare by value (a document with _id 5.0 is the
 * one that a write to _id 5 replaces); everything else by its bytes, a
 * sub-document field by field in order.
 */
#include "postgres.h"

#include <math.h>

#include "mongo/bson_int.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

static bool
is_number(bson_type_t type)
{
	return type == BSON_TYPE_INT32 || type == BSON_TYPE_INT64 || type == BSON_TYPE_DOUBLE ||
		   type == BSON_TYPE_DECIMAL128;
}

/* The exact value: a double has at most 1,074 digits behind the point. */
static Datum
as_numeric(bson_iter_t *iter)
{
	bson_decimal128_t decimal;
	char text[2048];

	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_DOUBLE:
		{
			double value = bson_iter_double(iter);

			if (isnan(value))
				strlcpy(text, "NaN", sizeof(text));
			else if (isinf(value))
				strlcpy(text, value > 0 ? "Infinity" : "-Infinity", sizeof(text));
			else
				snprintf(text, sizeof(text), "%.1074f", value);
			break;
		}
		case BSON_TYPE_DECIMAL128:
			bson_iter_decimal128(iter, &decimal);
			bson_decimal128_to_string(&decimal, text);
			break;
		default:
			snprintf(text, sizeof(text), INT64_FORMAT, bson_iter_as_int64(iter));
	}
	return DirectFunctionCall3(numeric_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid),
							   Int32GetDatum(-1));
}

static bool
numbers_equal(bson_iter_t *a, bson_iter_t *b)
{
	bson_type_t atype = bson_iter_type(a);
	bson_type_t btype = bson_iter_type(b);

	if ((atype == BSON_TYPE_INT32 || atype == BSON_TYPE_INT64) &&
		(btype == BSON_TYPE_INT32 || btype == BSON_TYPE_INT64))
		return bson_iter_as_int64(a) == bson_iter_as_int64(b);
	if (atype == BSON_TYPE_DOUBLE && btype == BSON_TYPE_DOUBLE)
		return bson_iter_double(a) == bson_iter_double(b) ||
			   (isnan(bson_iter_double(a)) && isnan(bson_iter_double(b)));
	return DatumGetBool(DirectFunctionCall2(numeric_eq, as_numeric(a), as_numeric(b)));
}

/* The value's own bytes: what follows the key, up to the next element. */
static bool
bytes_equal(bson_iter_t *a, bson_iter_t *b)
{
	uint32 astart = bson_iter_offset(a) + 1 + bson_iter_key_len(a) + 1;
	uint32 bstart = bson_iter_offset(b) + 1 + bson_iter_key_len(b) + 1;

	return a->next_off - astart == b->next_off - bstart &&
		   memcmp(a->raw + astart, b->raw + bstart, a->next_off - astart) == 0;
}

static bool
values_equal(bson_iter_t *a, bson_iter_t *b, int depth)
{
	bson_iter_t achild;
	bson_iter_t bchild;

	if (is_number(bson_iter_type(a)) && is_number(bson_iter_type(b)))
		return numbers_equal(a, b);
	if (bson_iter_type(a) != bson_iter_type(b))
		return false;

	if (bson_iter_type(a) == BSON_TYPE_DOCUMENT || bson_iter_type(a) == BSON_TYPE_ARRAY)
	{
		plinth_mongo_check_depth(depth);
		if (!bson_iter_recurse(a, &achild) || !bson_iter_recurse(b, &bchild))
			return false;
		while (bson_iter_next(&achild))
		{
			if (!bson_iter_next(&bchild) ||
				strcmp(bson_iter_key(&achild), bson_iter_key(&bchild)) != 0 ||
				!values_equal(&achild, &bchild, depth + 1))
				return false;
		}
		return !bson_iter_next(&bchild);
	}
	return bytes_equal(a, b);
}

bool
plinth_mongo_id_equal(PlinthBson a, PlinthBson b)
{
	bson_t aview;
	bson_t bview;
	bson_iter_t aiter;
	bson_iter_t biter;
	bool afound;
	bool bfound;

	if (a.len == b.len && memcmp(a.data, b.data, a.len) == 0)
		return true;
	plinth_mongo_bson_view(a, &aview);
	plinth_mongo_bson_view(b, &bview);
	afound = bson_iter_init_find(&aiter, &aview, "_id");
	bfound = bson_iter_init_find(&biter, &bview, "_id");
	return afound == bfound && (!afound || values_equal(&aiter, &biter, 1));
}
