/*
 * index_compare.c
 *		Is an index as the server lists it the one that was declared?
 *
 * A server does not list what it was told: numbers come back as other types,
 * text keys as _fts and _ftsx with their weights, a collation with everything
 * that its locale implies, and versions are added.  So both sides are brought
 * to one form, and only what a declaration can say is compared.
 */
#include "postgres.h"

#include <sys/time.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mongo/client_int.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_mongo_index_compare(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_mongo_index_compare);

#define MAX_DEPTH PLINTH_BSON_MAX_REPLY_DEPTH

typedef struct Side
{
	bson_t view;
	bool text; /* a text index: which fields, is in its weights */
} Side;

/* Options that are compared as they stand; what they are where they are not given. */
static const struct
{
	const char *name;
	const char *absent; /* NULL: no value is the same as none */
} plain[] = {{"unique", "false"},
			 {"sparse", "false"},
			 {"hidden", "false"},
			 {"expireAfterSeconds", NULL},
			 {"partialFilterExpression", NULL},
			 {"wildcardProjection", NULL}};

/* Of what is not declared, these have the same default in nearly every locale. */
static const struct
{
	const char *name;
	int value;
} collation_defaults[] = {{"strength", 3}, {"caseLevel", 0}, {"numericOrdering", 0}};

static bool same_document(bson_iter_t *a, bson_iter_t *b, bool array, int depth);

static bool
same_value(const bson_iter_t *a, const bson_iter_t *b, int depth)
{
	bson_type_t type = bson_iter_type(a);
	bson_iter_t inner_a;
	bson_iter_t inner_b;

	if (BSON_ITER_HOLDS_NUMBER(a) && BSON_ITER_HOLDS_NUMBER(b))
		return bson_iter_as_double(a) == bson_iter_as_double(b);
	if (type != bson_iter_type(b))
		return false;
	if (type == BSON_TYPE_DOCUMENT || type == BSON_TYPE_ARRAY)
		return bson_iter_recurse(a, &inner_a) && bson_iter_recurse(b, &inner_b) &&
			   same_document(&inner_a, &inner_b, type == BSON_TYPE_ARRAY, depth + 1);
	return a->next_off - a->d1 == b->next_off - b->d1 &&
		   memcmp(a->raw + a->d1, b->raw + b->d1, a->next_off - a->d1) == 0;
}

static int
count(bson_iter_t iter)
{
	int n = 0;

	while (bson_iter_next(&iter))
		n++;
	return n;
}

/* The order of names does not matter, that of elements does. */
static bool
same_document(bson_iter_t *a, bson_iter_t *b, bool array, int depth)
{
	if (depth > MAX_DEPTH || count(*a) != count(*b))
		return false;
	while (bson_iter_next(a))
	{
		bson_iter_t other = *b;

		if (!bson_iter_find(&other, bson_iter_key(a)) || !same_value(a, &other, depth))
			return false;
	}
	return true;
}

static char *
value_text(const bson_iter_t *value)
{
	bson_t document = BSON_INITIALIZER;
	char *json;
	char *text;

	if (value == NULL)
		return pstrdup("none");
	bson_append_iter(&document, "v", 1, value);
	json = bson_as_relaxed_extended_json(&document, NULL);
	bson_destroy(&document);
	/* { "v" : … } */
	text = json == NULL ? pstrdup("?") : pnstrdup(json + 8, Max(strlen(json), 10) - 10);
	bson_free(json);
	return text;
}

static void
differ(StringInfo out, const char *name, const char *declared, const char *found)
{
	appendStringInfo(out, "%s%s is declared %s, and is %s", out->len > 0 ? "; " : "", name,
					 declared, found);
}

static bool
find(const bson_t *view, const char *name, bson_iter_t *value)
{
	return bson_iter_init_find(value, view, name);
}

static void
compare_plain(const Side *declared, const Side *found, StringInfo out)
{
	for (int i = 0; i < lengthof(plain); i++)
	{
		bson_iter_t a;
		bson_iter_t b;
		bool has_a = find(&declared->view, plain[i].name, &a);
		bool has_b = find(&found->view, plain[i].name, &b);

		if (plain[i].absent != NULL)
		{
			bool value_a = has_a && bson_iter_as_bool(&a);
			bool value_b = has_b && bson_iter_as_bool(&b);

			if (value_a != value_b)
				differ(out, plain[i].name, value_a ? "true" : "false", value_b ? "true" : "false");
		}
		else if (has_a != has_b || (has_a && !same_value(&a, &b, 0)))
			differ(out, plain[i].name, value_text(has_a ? &a : NULL),
				   value_text(has_b ? &b : NULL));
	}
}

/* "a_1_b_-1"; a run of text keys is one place, whatever it is called. */
static char *
keys_text(Side *side)
{
	StringInfoData text;
	bson_iter_t iter;
	bson_iter_t key;

	initStringInfo(&text);
	if (!find(&side->view, "key", &iter) || !bson_iter_recurse(&iter, &key))
		return text.data;
	while (bson_iter_next(&key))
	{
		const char *name = bson_iter_key(&key);
		bool is_text =
			BSON_ITER_HOLDS_UTF8(&key) && strcmp(bson_iter_utf8(&key, NULL), "text") == 0;

		/* What the server puts beside _fts. */
		if (strcmp(name, "_ftsx") == 0 || (is_text && side->text))
			continue;
		side->text |= is_text;
		if (text.len > 0)
			appendStringInfoChar(&text, '_');
		if (is_text)
			appendStringInfoString(&text, "text");
		else if (BSON_ITER_HOLDS_UTF8(&key))
			appendStringInfo(&text, "%s_%s", name, bson_iter_utf8(&key, NULL));
		else
			appendStringInfo(&text, "%s_%g", name, bson_iter_as_double(&key));
	}
	return text.data;
}

/* The weight of a field, 0 where the text index does not look at it. */
static double
weight_of(const Side *side, const char *field)
{
	bson_iter_t iter;
	bson_iter_t at;

	if (find(&side->view, "weights", &iter) && bson_iter_recurse(&iter, &at) &&
		bson_iter_find(&at, field))
		return bson_iter_as_double(&at);
	/* Named as a key only. */
	if (find(&side->view, "key", &iter) && bson_iter_recurse(&iter, &at) &&
		bson_iter_find(&at, field) && BSON_ITER_HOLDS_UTF8(&at) && strcmp(field, "_fts") != 0)
		return 1;
	return 0;
}

/* Fields of one side's weights or text keys that the other side weighs otherwise. */
static bool
weighs_otherwise(const Side *side, const Side *other, const char *where)
{
	bson_iter_t iter;
	bson_iter_t at;

	if (!find(&side->view, where, &iter) || !bson_iter_recurse(&iter, &at))
		return false;
	while (bson_iter_next(&at))
	{
		const char *field = bson_iter_key(&at);
		bool is_key = strcmp(where, "key") == 0;

		if (is_key && (!BSON_ITER_HOLDS_UTF8(&at) || strcmp(field, "_fts") == 0))
			continue;
		if (weight_of(side, field) != weight_of(other, field))
			return true;
	}
	return false;
}

static const char *
weights_text(const Side *side)
{
	bson_iter_t iter;

	if (find(&side->view, "weights", &iter) || find(&side->view, "key", &iter))
		return value_text(&iter);
	return "none";
}

static void
compare_text(const Side *declared, const Side *found, StringInfo out)
{
	static const char *const languages[][2] = {{"default_language", "english"},
											   {"language_override", "language"}};

	if (weighs_otherwise(declared, found, "weights") || weighs_otherwise(declared, found, "key") ||
		weighs_otherwise(found, declared, "weights") || weighs_otherwise(found, declared, "key"))
		differ(out, "weights", weights_text(declared), weights_text(found));
	for (int i = 0; i < lengthof(languages); i++)
	{
		const char *name = languages[i][0];
		bson_iter_t a;
		bson_iter_t b;
		const char *text_a = find(&declared->view, name, &a) ? bson_iter_utf8(&a, NULL) : NULL;
		const char *text_b = find(&found->view, name, &b) && BSON_ITER_HOLDS_UTF8(&b)
								 ? bson_iter_utf8(&b, NULL)
								 : NULL;

		text_a = text_a == NULL ? languages[i][1] : text_a;
		text_b = text_b == NULL ? languages[i][1] : text_b;
		if (strcmp(text_a, text_b) != 0)
			differ(out, name, text_a, text_b);
	}
}

/* Is a member of a collation what it is where nothing is said? */
static bool
is_default(const bson_iter_t *member)
{
	for (int i = 0; i < lengthof(collation_defaults); i++)
	{
		if (strcmp(bson_iter_key(member), collation_defaults[i].name) == 0)
			return (BSON_ITER_HOLDS_BOOL(member)
						? bson_iter_bool(member)
						: (int) bson_iter_as_double(member)) == collation_defaults[i].value;
	}
	/* Others follow from the locale. */
	return true;
}

static bool
same_collation(const bson_iter_t *declared, const bson_iter_t *found)
{
	bson_iter_t a;
	bson_iter_t b;
	bson_iter_t other;

	if (!bson_iter_recurse(declared, &a) || !bson_iter_recurse(found, &b))
		return false;
	while (bson_iter_next(&a))
	{
		if (!bson_iter_recurse(found, &other) || !bson_iter_find(&other, bson_iter_key(&a)) ||
			!same_value(&a, &other, 0))
			return false;
	}
	while (bson_iter_next(&b))
	{
		if ((!bson_iter_recurse(declared, &other) || !bson_iter_find(&other, bson_iter_key(&b))) &&
			!is_default(&b))
			return false;
	}
	return true;
}

static void
compare_collation(const Side *declared, const Side *found, StringInfo out)
{
	bson_iter_t a;
	bson_iter_t b;
	bool has_a = find(&declared->view, "collation", &a);
	/* A text index is of none, whatever the collection is of. */
	bool has_b = !declared->text && find(&found->view, "collation", &b);

	if (has_a != has_b || (has_a && !same_collation(&a, &b)))
		differ(out, "collation", value_text(has_a ? &a : NULL), value_text(has_b ? &b : NULL));
}

char *
plinth_mongo_index_difference(PlinthBson declared_spec, PlinthBson found_spec)
{
	Side declared = {0};
	Side found = {0};
	StringInfoData out;
	char *keys;
	char *found_keys;

	initStringInfo(&out);
	plinth_mongo_bson_view(declared_spec, &declared.view);
	plinth_mongo_bson_view(found_spec, &found.view);
	keys = keys_text(&declared);
	found_keys = keys_text(&found);
	if (strcmp(keys, found_keys) != 0)
		differ(&out, "key", keys, found_keys);
	compare_plain(&declared, &found, &out);
	if (declared.text && found.text)
		compare_text(&declared, &found, &out);
	compare_collation(&declared, &found, &out);
	return out.len == 0 ? NULL : plinth_mongo_from_utf8(out.data, out.len);
}

char *
plinth_mongo_index_name(PlinthBson index)
{
	bson_t view;
	bson_iter_t iter;
	uint32 len;
	const char *name;

	plinth_mongo_bson_view(index, &view);
	if (!find(&view, "name", &iter) || !BSON_ITER_HOLDS_UTF8(&iter))
		return NULL;
	name = bson_iter_utf8(&iter, &len);
	return plinth_mongo_from_utf8(name, len);
}

int
plinth_mongo_index_find(const PlinthBson *indexes, int n, const char *name)
{
	for (int i = 0; i < n; i++)
	{
		char *other = plinth_mongo_index_name(indexes[i]);

		if (other != NULL && strcmp(name, other) == 0)
			return i;
	}
	return -1;
}

/* The earliest of the dates at a path of a document, in ms; false where there is none. */
static bool
earliest_date(bson_iter_t *at, int64 *date)
{
	bson_iter_t element;
	bool found = false;

	if (BSON_ITER_HOLDS_DATE_TIME(at))
	{
		*date = bson_iter_date_time(at);
		return true;
	}
	if (!BSON_ITER_HOLDS_ARRAY(at) || !bson_iter_recurse(at, &element))
		return false;
	while (bson_iter_next(&element))
	{
		if (!BSON_ITER_HOLDS_DATE_TIME(&element))
			continue;
		*date = found ? Min(*date, bson_iter_date_time(&element)) : bson_iter_date_time(&element);
		found = true;
	}
	return found;
}

bool
plinth_mongo_index_expires(PlinthBson index, PlinthBson document, int64 seconds)
{
	struct timeval now;
	bson_t spec;
	bson_t view;
	bson_iter_t after;
	bson_iter_t keys;
	bson_iter_t key;
	bson_iter_t at;
	bson_iter_t value;
	int64 date;

	plinth_mongo_bson_view(index, &spec);
	plinth_mongo_bson_view(document, &view);
	if (!find(&spec, "expireAfterSeconds", &after) || !find(&spec, "key", &keys) ||
		!bson_iter_recurse(&keys, &key) || !bson_iter_next(&key) || !bson_iter_init(&at, &view) ||
		!bson_iter_find_descendant(&at, bson_iter_key(&key), &value) ||
		!earliest_date(&value, &date))
		return false;
	gettimeofday(&now, NULL);
	return date / 1000 + bson_iter_as_int64(&after) <= now.tv_sec + seconds;
}

static void
build_listed(bson_t *bson, const void *arg)
{
	const char *json = arg;
	bson_error_t reason = {0};

	if (!plinth_mongo_append_extended(bson, json, strlen(json), &reason))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", reason.message)));
}

/* For what no server at hand lists: the difference between a declaration and a listed index. */
Datum
plinth_mongo_index_compare(PG_FUNCTION_ARGS)
{
	int n;
	PlinthMongoIndex **declared =
		plinth_mongo_indexes_parse(text_to_cstring(PG_GETARG_TEXT_PP(0)), &n);
	PlinthBson listed =
		plinth_mongo_build(build_listed, text_to_cstring(PG_GETARG_TEXT_PP(1)), false);
	char *difference = n == 1 ? plinth_mongo_index_difference(declared[0]->spec, listed) : NULL;

	if (difference == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(difference));
}
