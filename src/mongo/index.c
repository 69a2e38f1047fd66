/*
 * index.c
 *		The declaration of an index: what people write for createIndex, checked.
 *
 * Declarations are JSON text and not jsonb, since the order of an index's keys
 * matters, and are read by libbson, so that dates and the like in a partial
 * filter can be written as extended JSON.  What comes of it is what
 * createIndexes takes, with the options in one order and without those that
 * say what is so anyway.
 */
#include "postgres.h"

#include <math.h>

#include "mongo/bson_int.h"

#define MAX_JSON 100000
#define MAX_INDEXES 63 /* MongoDB takes 64 with that of _id */
#define MAX_KEYS 32
#define MAX_NAME 120

typedef enum OptionKind
{
	OPTION_KEYS,
	OPTION_WHEN,
	OPTION_TEXT,
	OPTION_BOOL,
	OPTION_NUMBER,
	OPTION_WEIGHTS,
	OPTION_DOCUMENT
} OptionKind;

typedef struct Option
{
	const char *name;
	OptionKind kind;
	double least; /* of a number */
	double most;
} Option;

/* In the order in which they are kept. */
static const Option options[] = {{"key", OPTION_KEYS, 0, 0},
								 {"keys", OPTION_KEYS, 0, 0},
								 {"name", OPTION_TEXT, 0, 0},
								 {"when", OPTION_WHEN, 0, 0},
								 {"unique", OPTION_BOOL, 0, 0},
								 {"sparse", OPTION_BOOL, 0, 0},
								 {"hidden", OPTION_BOOL, 0, 0},
								 {"expireAfterSeconds", OPTION_NUMBER, 0, 2147483647},
								 {"partialFilterExpression", OPTION_DOCUMENT, 0, 0},
								 {"collation", OPTION_DOCUMENT, 0, 0},
								 {"weights", OPTION_WEIGHTS, 0, 0},
								 {"default_language", OPTION_TEXT, 0, 0},
								 {"language_override", OPTION_TEXT, 0, 0},
								 {"wildcardProjection", OPTION_DOCUMENT, 0, 0},
								 {"2dsphereIndexVersion", OPTION_NUMBER, 1, 3},
								 {"bits", OPTION_NUMBER, 1, 32},
								 {"min", OPTION_NUMBER, -1e9, 1e9},
								 {"max", OPTION_NUMBER, -1e9, 1e9}};

static const char *const key_kinds[] = {"text", "hashed", "2dsphere", "2d"};

/* One declaration while it is looked at. */
typedef struct Parse
{
	char *label; /* for messages: "index \"a_1\"" or "index 2" */
	struct
	{
		bson_iter_t value;
		bool given;
	} options[lengthof(options)];
	int nkeys;
	int ntext; /* of the keys */
	bool wildcard;
	bool special; /* hashed, 2d, 2dsphere */
	PlinthMongoIndex *index;
} Parse;

pg_noreturn static void
bad(const Parse *parse, const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s: %s", parse->label, what),
					hint == NULL ? 0 : errhint("%s", hint)));
}

static int
option_of(const char *name)
{
	for (int i = 0; i < lengthof(options); i++)
	{
		if (strcmp(options[i].name, name) == 0)
			return i;
	}
	return -1;
}

/* NULL where the option is not given. */
static const bson_iter_t *
given(const Parse *parse, const char *name)
{
	int i = option_of(name);

	return parse->options[i].given ? &parse->options[i].value : NULL;
}

static const char *
text_of(const Parse *parse, const char *name)
{
	const bson_iter_t *iter = given(parse, name);

	return iter == NULL ? NULL : bson_iter_utf8(iter, NULL);
}

static bool
flag_of(const Parse *parse, const char *name)
{
	const bson_iter_t *iter = given(parse, name);

	return iter != NULL && bson_iter_bool(iter);
}

/* Remembers the first part of a path as a field that the index looks at. */
static void
add_field(PlinthMongoIndex *index, const char *path)
{
	int len = (int) strcspn(path, ".");

	for (int i = 0; i < index->nfields; i++)
	{
		if (strlen(index->fields[i]) == len && strncmp(index->fields[i], path, len) == 0)
			return;
	}
	index->fields = index->fields == NULL
						? palloc(sizeof(char *))
						: repalloc(index->fields, sizeof(char *) * (index->nfields + 1));
	index->fields[index->nfields++] = plinth_mongo_from_utf8(path, len);
}

/* A dotted path of names that a document can have. */
static void
check_path(Parse *parse, const char *path)
{
	const char *part = path;

	for (;;)
	{
		size_t len = strcspn(part, ".");

		if (len == 0)
			bad(parse, psprintf("\"%s\" is no path of fields", path),
				"Write the name of a field, or names with dots between them.");
		if (part[0] == '$')
			bad(parse, psprintf("\"%s\" is no path of fields", path),
				"No field's name begins with \"$\"; \"$**\" alone stands for all fields.");
		if (part[len] == '\0')
			break;
		part += len + 1;
	}
	add_field(parse->index, path);
}

/* 1, -1 or a kind; *direction is 0 for a kind. */
static void
check_key(Parse *parse, const bson_iter_t *key, int *direction)
{
	*direction = 0;
	if (BSON_ITER_HOLDS_UTF8(key))
	{
		const char *kind = bson_iter_utf8(key, NULL);

		for (int i = 0; i < lengthof(key_kinds); i++)
		{
			if (strcmp(kind, key_kinds[i]) == 0)
				return;
		}
	}
	else if (BSON_ITER_HOLDS_NUMBER(key))
	{
		double value = bson_iter_as_double(key);

		if (value == 1 || value == -1)
		{
			*direction = (int) value;
			return;
		}
	}
	bad(parse, psprintf("key \"%s\" has no direction", bson_iter_key(key)),
		"It is 1 (ascending), -1 (descending), \"text\", \"hashed\", \"2dsphere\" or \"2d\".");
}

/* The keys of an index, and the name that drivers would give it. */
static void
take_keys(Parse *parse, bson_t *keys, StringInfo name)
{
	const bson_iter_t *value = given(parse, "keys");
	bson_iter_t iter;

	if (value == NULL)
		value = given(parse, "key");
	if (value == NULL || !BSON_ITER_HOLDS_DOCUMENT(value) || !bson_iter_recurse(value, &iter))
		bad(parse, "it has no keys", "Write {\"keys\": {\"field\": 1}, …}.");
	while (bson_iter_next(&iter))
	{
		const char *path = bson_iter_key(&iter);
		size_t len = strlen(path);
		int direction;
		bson_iter_t twin;

		check_key(parse, &iter, &direction);
		if (strcmp(path, "$**") == 0 || (len > 4 && strcmp(path + len - 4, ".$**") == 0))
		{
			parse->wildcard = true;
			if (len > 4)
				add_field(parse->index, path);
		}
		else
			check_path(parse, path);
		if (bson_iter_init_find(&twin, keys, path))
			bad(parse, psprintf("key \"%s\" is named twice", path), NULL);
		appendStringInfo(name, "%s%s_", parse->nkeys > 0 ? "_" : "", path);
		if (direction != 0)
		{
			BSON_APPEND_INT32(keys, path, direction);
			appendStringInfo(name, "%d", direction);
		}
		else
		{
			const char *kind = bson_iter_utf8(&iter, NULL);

			BSON_APPEND_UTF8(keys, path, kind);
			appendStringInfoString(name, kind);
			if (strcmp(kind, "text") == 0)
				parse->ntext++;
			else
				parse->special = true;
		}
		if (++parse->nkeys > MAX_KEYS)
			bad(parse, psprintf("it has more than %d keys", MAX_KEYS), NULL);
	}
	if (parse->nkeys == 0)
		bad(parse, "it has no keys", "Write {\"keys\": {\"field\": 1}, …}.");
}

/* Which fields a filter looks at, and whether it could be one. */
static void
check_filter(Parse *parse, const bson_iter_t *filter)
{
	bson_iter_t iter;
	bson_iter_t inner;
	bool empty = true;

	if (!bson_iter_recurse(filter, &iter))
		return;
	while (bson_iter_next(&iter))
	{
		const char *name = bson_iter_key(&iter);

		empty = false;
		if (name[0] != '$')
			check_path(parse, name);
		else if (!BSON_ITER_HOLDS_ARRAY(&iter) || !bson_iter_recurse(&iter, &inner))
			bad(parse, psprintf("partialFilterExpression: \"%s\" takes an array", name), NULL);
		else
		{
			while (bson_iter_next(&inner))
			{
				if (!BSON_ITER_HOLDS_DOCUMENT(&inner))
					bad(parse, psprintf("partialFilterExpression: \"%s\" takes conditions", name),
						NULL);
				check_filter(parse, &inner);
			}
		}
	}
	if (empty)
		bad(parse, "partialFilterExpression is empty", "Leave it out to index every document.");
}

static void
check_weights(Parse *parse, const bson_iter_t *weights)
{
	bson_iter_t iter;

	if (!bson_iter_recurse(weights, &iter))
		return;
	while (bson_iter_next(&iter))
	{
		double weight = BSON_ITER_HOLDS_NUMBER(&iter) ? bson_iter_as_double(&iter) : 0;

		if (!(weight >= 1 && weight <= 99999) || weight != floor(weight))
			bad(parse,
				psprintf("the weight of \"%s\" is not from 1 to 99999", bson_iter_key(&iter)),
				NULL);
		if (strcmp(bson_iter_key(&iter), "$**") != 0)
			check_path(parse, bson_iter_key(&iter));
	}
}

/* Is the option's value of its kind? */
static void
check_option(Parse *parse, int i)
{
	const Option *option = &options[i];
	const bson_iter_t *value = &parse->options[i].value;
	double number;

	switch (option->kind)
	{
		case OPTION_BOOL:
			if (!BSON_ITER_HOLDS_BOOL(value))
				bad(parse, psprintf("%s must be true or false", option->name), NULL);
			break;
		case OPTION_NUMBER:
			number = BSON_ITER_HOLDS_NUMBER(value) ? bson_iter_as_double(value) : NAN;
			if (!(number >= option->least && number <= option->most))
				bad(parse,
					psprintf("%s must be a number from %.0f to %.0f", option->name, option->least,
							 option->most),
					NULL);
			break;
		case OPTION_TEXT:
		case OPTION_WHEN:
			if (!BSON_ITER_HOLDS_UTF8(value) || bson_iter_utf8(value, NULL)[0] == '\0')
				bad(parse, psprintf("%s must be a string", option->name), NULL);
			break;
		default:
			if (!BSON_ITER_HOLDS_DOCUMENT(value))
				bad(parse, psprintf("%s must be an object", option->name), NULL);
	}
	if (option->kind == OPTION_WHEN)
	{
		const char *when = bson_iter_utf8(value, NULL);

		parse->index->after = strcmp(when, "after") == 0;
		if (!parse->index->after && strcmp(when, "before") != 0)
			bad(parse, "when must be \"before\" or \"after\"",
				"It says whether the index is built before or after the rows that exist are sent.");
	}
	if (strcmp(option->name, "partialFilterExpression") == 0)
		check_filter(parse, value);
	if (option->kind == OPTION_WEIGHTS)
		check_weights(parse, value);
}

/* What options are there, each once. */
static void
take_options(Parse *parse, const bson_iter_t *declaration)
{
	bson_iter_t iter;

	if (!bson_iter_recurse(declaration, &iter))
		return;
	while (bson_iter_next(&iter))
	{
		int i = option_of(bson_iter_key(&iter));

		if (i < 0)
			bad(parse, psprintf("unknown option \"%s\"", bson_iter_key(&iter)),
				"Options are keys, name, when, unique, sparse, hidden, expireAfterSeconds, "
				"partialFilterExpression, collation, weights, default_language, "
				"language_override, wildcardProjection, 2dsphereIndexVersion, bits, min and max.");
		if (parse->options[i].given)
			bad(parse, psprintf("\"%s\" is given twice", options[i].name), NULL);
		parse->options[i].given = true;
		parse->options[i].value = iter;
	}
	if (given(parse, "key") != NULL && given(parse, "keys") != NULL)
		bad(parse, "\"keys\" is given twice", NULL);
}

/* What goes together and what does not, as every server has it. */
static void
check_together(const Parse *parse, const bson_t *keys)
{
	bson_iter_t iter;
	bool only_id = parse->nkeys == 1 && bson_iter_init_find(&iter, keys, "_id");

	if (only_id && !parse->special)
		bad(parse, "_id has an index anyway", "Leave it out.");
	if (given(parse, "expireAfterSeconds") != NULL &&
		(parse->nkeys != 1 || parse->ntext > 0 || parse->special || parse->wildcard))
		bad(parse, "expireAfterSeconds needs one ascending or descending key",
			"The field is a date: a timestamp column, for example.");
	if (flag_of(parse, "sparse") && given(parse, "partialFilterExpression") != NULL)
		bad(parse, "sparse and partialFilterExpression exclude each other",
			"Let the filter say {\"field\": {\"$exists\": true}} instead.");
	if (flag_of(parse, "unique") && (parse->ntext > 0 || parse->special || parse->wildcard))
		bad(parse, "only ascending and descending keys can be unique", NULL);
	if (parse->ntext == 0 &&
		(given(parse, "weights") != NULL || given(parse, "default_language") != NULL ||
		 given(parse, "language_override") != NULL))
		bad(parse, "weights and languages are of text indexes", "Give a key as \"text\".");
	if (!parse->wildcard && given(parse, "wildcardProjection") != NULL)
		bad(parse, "wildcardProjection needs the key \"$**\"", NULL);
	if (parse->ntext > 0 && given(parse, "collation") != NULL)
		bad(parse, "a text index takes no collation", NULL);
}

static void
check_collation(const Parse *parse)
{
	const bson_iter_t *collation = given(parse, "collation");
	bson_iter_t iter;

	if (collation != NULL && (!bson_iter_recurse(collation, &iter) ||
							  !bson_iter_find(&iter, "locale") || !BSON_ITER_HOLDS_UTF8(&iter)))
		bad(parse, "collation has no locale", "Write {\"locale\": \"en\", \"strength\": 2}.");
}

static void
check_name(const Parse *parse, const char *name)
{
	if (strlen(name) > MAX_NAME || strcmp(name, "*") == 0 || strcmp(name, "_id_") == 0)
		bad(parse, psprintf("\"%s\" cannot be an index's name", name),
			psprintf("It has at most %d bytes and is not \"*\" or \"_id_\": give one by the "
					 "option name.",
					 MAX_NAME));
}

/* An option that only says what is so anyway is not kept. */
static bool
says_nothing(const Option *option, const bson_iter_t *value)
{
	bson_iter_t iter;

	if (option->kind == OPTION_BOOL)
		return !bson_iter_bool(value);
	return strcmp(option->name, "collation") == 0 && bson_iter_recurse(value, &iter) &&
		   bson_iter_find(&iter, "locale") && strcmp(bson_iter_utf8(&iter, NULL), "simple") == 0;
}

/* Appends what createIndexes takes to spec. */
static void
build_spec(Parse *parse, bson_t *spec)
{
	StringInfoData name;
	bson_t keys;

	initStringInfo(&name);
	BSON_APPEND_DOCUMENT_BEGIN(spec, "key", &keys);
	take_keys(parse, &keys, &name);
	for (int i = 0; i < lengthof(options); i++)
	{
		if (parse->options[i].given)
			check_option(parse, i);
	}
	check_together(parse, &keys);
	check_collation(parse);
	bson_append_document_end(spec, &keys);
	if (text_of(parse, "name") != NULL)
	{
		resetStringInfo(&name);
		appendStringInfoString(&name, text_of(parse, "name"));
	}
	check_name(parse, name.data);
	parse->index->name = plinth_mongo_from_utf8(name.data, name.len);
	BSON_APPEND_UTF8(spec, "name", name.data);
	for (int i = option_of("when") + 1; i < lengthof(options); i++)
	{
		if (!parse->options[i].given || says_nothing(&options[i], &parse->options[i].value))
			continue;
		if (options[i].kind == OPTION_NUMBER && strcmp(options[i].name, "min") != 0 &&
			strcmp(options[i].name, "max") != 0)
			BSON_APPEND_INT32(spec, options[i].name,
							  (int32) bson_iter_as_double(&parse->options[i].value));
		else
			MONGO_APPEND(bson_append_iter(spec, options[i].name, -1, &parse->options[i].value));
	}
}

static void
build_one(bson_t *spec, const void *arg)
{
	build_spec((Parse *) arg, spec);
}

/* The spec as text, in which it can be kept and read again. */
static char *
spec_text(PlinthBson spec)
{
	bson_t view;
	char *json;
	char *text;

	plinth_mongo_bson_view(spec, &view);
	json = bson_as_relaxed_extended_json(&view, NULL);
	if (json == NULL)
		plinth_mongo_too_large();
	text = plinth_mongo_from_utf8(json, strlen(json));
	bson_free(json);
	return text;
}

static PlinthMongoIndex *
parse_one(const bson_iter_t *declaration, int place)
{
	PlinthMongoIndex *index = palloc0(sizeof(PlinthMongoIndex));
	Parse parse = {.index = index};
	bson_iter_t iter;

	parse.label = psprintf("index %d", place);
	if (!BSON_ITER_HOLDS_DOCUMENT(declaration))
		bad(&parse, "it is no object", "Write {\"keys\": {\"field\": 1}, \"unique\": true}.");
	if (bson_iter_recurse(declaration, &iter) && bson_iter_find(&iter, "name") &&
		BSON_ITER_HOLDS_UTF8(&iter))
		parse.label = psprintf("index \"%s\"", bson_iter_utf8(&iter, NULL));
	take_options(&parse, declaration);
	index->spec = plinth_mongo_build(build_one, &parse, false);
	index->json = spec_text(index->spec);
	return index;
}

typedef struct Source
{
	const char *json;
	int len;
} Source;

/* Nothing between making and freeing libbson's own copy can fail. */
bool
plinth_mongo_append_extended(bson_t *bson, const char *json, int len, bson_error_t *reason)
{
	bson_t *parsed = bson_new_from_json((const uint8_t *) json, len, reason);
	bool good = parsed != NULL && bson_concat(bson, parsed);

	if (parsed != NULL)
		bson_destroy(parsed);
	return good;
}

/* {"i": …} */
static void
read_json(bson_t *bson, const void *arg)
{
	const Source *source = arg;
	bson_error_t reason = {0};

	if (!plinth_mongo_append_extended(bson, source->json, source->len, &reason))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid indexes"),
						errdetail("As extended JSON it cannot be read: %s", reason.message),
						errhint("Write an array of objects such as "
								"[{\"keys\": {\"field\": 1}, \"unique\": true}].")));
}

PlinthMongoIndex **
plinth_mongo_indexes_parse(const char *json, int *n)
{
	PlinthMongoIndex **indexes = palloc(sizeof(PlinthMongoIndex *) * MAX_INDEXES);
	Source source;
	PlinthBson declarations;
	bson_t view;
	bson_iter_t root;
	bson_iter_t item;
	bool array;

	if (strlen(json) > MAX_JSON)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("declarations of indexes are longer than %d bytes", MAX_JSON)));
	source.json = psprintf("{\"i\": %s}", json);
	source.json = plinth_mongo_to_utf8(source.json, strlen(source.json), &source.len);
	declarations = plinth_mongo_build(read_json, &source, false);
	if (plinth_mongo_bson_check(declarations.data, declarations.len, PLINTH_BSON_MAX_DEPTH) !=
		PLINTH_BSON_SOUND)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid indexes"),
						errdetail("A name has a NUL character, or they are nested too deeply.")));
	plinth_mongo_bson_view(declarations, &view);
	*n = 0;
	array = bson_iter_init_find(&root, &view, "i") && BSON_ITER_HOLDS_ARRAY(&root) &&
			bson_iter_recurse(&root, &item);
	if (!array)
	{
		indexes[(*n)++] = parse_one(&root, 1);
		return indexes;
	}
	while (bson_iter_next(&item))
	{
		if (*n == MAX_INDEXES)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("more than %d indexes of one collection", MAX_INDEXES)));
		indexes[*n] = parse_one(&item, *n + 1);
		for (int i = 0; i < *n; i++)
		{
			if (strcmp(indexes[i]->name, indexes[*n]->name) == 0)
				ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
								errmsg("index \"%s\" is declared twice", indexes[i]->name),
								errhint("Give one of them another name by the option name.")));
		}
		(*n)++;
	}
	return indexes;
}
