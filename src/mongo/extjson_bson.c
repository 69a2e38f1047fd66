/*
 * extjson_bson.c
 *		Extended JSON as BSON: documents, arrays and plain values.
 *
 * Members are appended in the order of the text, those named twice too.  The
 * outermost object is always a document, whatever its names are.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mongo/extjson.h"
#include "utils/builtins.h"

static void append_children(bson_t *bson, const ExtJson *parent, int depth);

/* Where a value stands: the names that lead to it. */
static void
append_path(StringInfo path, const ExtJson *node)
{
	if (node->parent == NULL)
		return;
	append_path(path, node->parent);
	if (path->len > 0)
		appendStringInfoChar(path, '.');
	if (node->name != NULL)
		appendStringInfoString(path, plinth_mongo_from_utf8(node->name, strlen(node->name)));
	else
		appendStringInfo(path, "%d", node->number);
}

void
plinth_mongo_extjson_refuse(const ExtJson *node, const char *expected)
{
	StringInfoData path;

	initStringInfo(&path);
	append_path(&path, node);
	ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION), errmsg("invalid extended JSON"),
					path.len == 0 ? errdetail("Expected %s.", expected)
								  : errdetail("Expected %s at \"%s\".", expected, path.data)));
}

static void
append_value(bson_t *bson, const char *key, int keylen, const ExtJson *node, int depth)
{
	bson_t inner;

	switch (node->kind)
	{
		case EXTJSON_OBJECT:
			if (plinth_mongo_extjson_wrapper(bson, key, keylen, node, depth))
				return;
			MONGO_APPEND(bson_append_document_begin(bson, key, keylen, &inner));
			append_children(&inner, node, depth + 1);
			MONGO_APPEND(bson_append_document_end(bson, &inner));
			break;
		case EXTJSON_ARRAY:
			MONGO_APPEND(bson_append_array_unsafe_begin(bson, key, keylen, &inner));
			append_children(&inner, node, depth + 1);
			MONGO_APPEND(bson_append_array_end(bson, &inner));
			break;
		case EXTJSON_STRING:
			MONGO_APPEND(bson_append_utf8(bson, key, keylen, node->text, node->len));
			break;
		case EXTJSON_NUMBER:
			plinth_mongo_extjson_number(bson, key, keylen, node);
			break;
		case EXTJSON_NULL:
			MONGO_APPEND(bson_append_null(bson, key, keylen));
			break;
		default:
			MONGO_APPEND(bson_append_bool(bson, key, keylen, node->kind == EXTJSON_TRUE));
	}
}

static void
append_children(bson_t *bson, const ExtJson *parent, int depth)
{
	char buffer[16];
	const char *key;

	plinth_mongo_check_depth(depth);
	for (const ExtJson *node = parent->first; node != NULL; node = node->next)
	{
		if (parent->kind == EXTJSON_ARRAY)
		{
			int keylen = bson_uint32_to_string(node->number, &key, buffer, sizeof(buffer));

			append_value(bson, key, keylen, node, depth);
			continue;
		}
		if (strlen(node->name) != node->namelen)
			plinth_mongo_extjson_refuse(node, "a name without NUL");
		append_value(bson, node->name, node->namelen, node, depth);
	}
}

void
plinth_mongo_extjson_append(bson_t *bson, const ExtJson *object, int depth)
{
	if (object->kind != EXTJSON_OBJECT)
		plinth_mongo_extjson_refuse(object, "a document");
	append_children(bson, object, depth);
}
