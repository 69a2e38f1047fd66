/*
 * extjson_parse.c
 *		Extended JSON as a tree, by PostgreSQL's own JSON parser.
 *
 * Not by jsonb, which sorts names and drops those given twice, and not by
 * libbson's reader, which cuts code at a NUL and takes what is no Extended
 * JSON.  The parser has C strings, which hold no NUL, and refuses its escape:
 * where the text has one, \u0000 becomes \u0001 and the digit 0, \u0001 becomes
 * itself and the digit 1, and strings are put right again when they are
 * copied.
 */
#include "postgres.h"

#include "base/compat.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "mongo/extjson.h"
#include "utils/jsonfuncs.h"

/* A level of BSON may take two of JSON: {"$code": …, "$scope": {…}}. */
#define MAX_LEVELS (2 * PLINTH_BSON_MAX_DEPTH + 3)

/* What is longer than this cannot become 16 MiB of BSON. */
#define MAX_TEXT (16 * MONGO_MAX_DOCUMENT)

typedef struct Parse
{
	ExtJson *open[MAX_LEVELS]; /* objects and arrays, the outermost first */
	int nopen;
	ExtJson *root;
	char *name; /* of the member that comes next */
	int namelen;
	bool escaped; /* NULs are hidden */
} Parse;

/* The text with NULs hidden, or the same where it has none. */
static const char *
hide_nuls(const char *text, size_t len, bool *hidden)
{
	const char *end = text + len;
	StringInfoData out;

	*hidden = strstr(text, "\\u0000") != NULL;
	if (!*hidden)
		return text;
	initStringInfo(&out);
	while (text < end)
	{
		if (*text != '\\')
			appendStringInfoChar(&out, *text++);
		else if (end - text >= 6 &&
				 (memcmp(text, "\\u0000", 6) == 0 || memcmp(text, "\\u0001", 6) == 0))
		{
			appendStringInfo(&out, "\\u0001%c", text[5]);
			text += 6;
		}
		else
		{
			appendBinaryStringInfo(&out, text, Min(2, end - text));
			text += Min(2, end - text);
		}
	}
	return out.data;
}

/* A string of the parser's as UTF-8, copied, with its NULs. */
static char *
copy_string(Parse *parse, const char *token, int *len)
{
	char *utf8 = plinth_mongo_to_utf8(token, strlen(token), len);
	char *to;

	if (utf8 == token)
		utf8 = pnstrdup(token, *len);
	if (!parse->escaped)
		return utf8;
	to = utf8;
	for (const char *from = utf8; *from != '\0'; from++)
	{
		if (*from != '\001')
			*to++ = *from;
		else
			*to++ = *++from == '0' ? '\0' : '\001';
	}
	*len = to - utf8;
	*to = '\0';
	return utf8;
}

static ExtJson *
add_node(Parse *parse, ExtJsonKind kind)
{
	ExtJson *node = palloc0(sizeof(ExtJson));
	ExtJson *parent = parse->nopen > 0 ? parse->open[parse->nopen - 1] : NULL;

	CHECK_FOR_INTERRUPTS();
	node->kind = kind;
	node->parent = parent;
	if (parent == NULL)
	{
		parse->root = node;
		return node;
	}
	node->number = parent->count++;
	if (parent->kind == EXTJSON_OBJECT)
	{
		node->name = parse->name;
		node->namelen = parse->namelen;
	}
	if (parent->last == NULL)
		parent->first = node;
	else
		parent->last->next = node;
	parent->last = node;
	return node;
}

static void
open_node(Parse *parse, ExtJsonKind kind)
{
	if (parse->nopen >= MAX_LEVELS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("extended JSON is nested more deeply than MongoDB allows"),
						errdetail("The limit is %d levels of documents.", PLINTH_BSON_MAX_DEPTH)));
	parse->open[parse->nopen] = add_node(parse, kind);
	parse->nopen++;
}

static PlinthJsonAction
open_object(void *state)
{
	open_node(state, EXTJSON_OBJECT);
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
open_array(void *state)
{
	open_node(state, EXTJSON_ARRAY);
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
close_node(void *state)
{
	((Parse *) state)->nopen--;
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
begin_member(void *state, char *name, bool isnull)
{
	Parse *parse = state;

	parse->name = copy_string(parse, name, &parse->namelen);
	PLINTH_JSON_NEXT;
}

static PlinthJsonAction
add_scalar(void *state, char *token, JsonTokenType type)
{
	Parse *parse = state;
	ExtJson *node;

	switch (type)
	{
		case JSON_TOKEN_STRING:
			node = add_node(parse, EXTJSON_STRING);
			node->text = copy_string(parse, token, &node->len);
			break;
		case JSON_TOKEN_NUMBER:
			node = add_node(parse, EXTJSON_NUMBER);
			node->text = pstrdup(token);
			node->len = strlen(token);
			break;
		case JSON_TOKEN_TRUE:
			add_node(parse, EXTJSON_TRUE);
			break;
		case JSON_TOKEN_FALSE:
			add_node(parse, EXTJSON_FALSE);
			break;
		default:
			add_node(parse, EXTJSON_NULL);
	}
	PLINTH_JSON_NEXT;
}

ExtJson *
plinth_mongo_extjson_parse(const char *text, size_t len)
{
	Parse parse = {0};
	JsonSemAction actions = {
		.semstate = &parse,
		.object_start = open_object,
		.object_end = close_node,
		.array_start = open_array,
		.array_end = close_node,
		.object_field_start = begin_member,
		.scalar = add_scalar,
	};

	if (len > MAX_TEXT)
		plinth_mongo_too_large();
	text = hide_nuls(text, len, &parse.escaped);
	pg_parse_json_or_ereport(
		plinth_compat_json_lexer(text, strlen(text), GetDatabaseEncoding(), true), &actions);
	return parse.root;
}
