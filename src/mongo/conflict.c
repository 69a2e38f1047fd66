/*
 * conflict.c
 *		Which document stands in the way of a write that a unique index refused.
 *
 * The error names the index; its keys are asked for, and the values that the
 * refused document has under them are looked for in the other documents.  Not
 * by keyValue of the error, which not every server sends and which is cut.
 */
#include "postgres.h"

#include "mongo/client_int.h"

#define MAX_PATH_VALUES 1000

/* The values of one path of a document, appended to an array. */
typedef struct Values
{
	bson_t *list;
	uint32 count;
} Values;

static void
add_value(Values *values, const bson_iter_t *iter)
{
	char buffer[16];
	const char *key;
	int keylen;

	if (values->count >= MAX_PATH_VALUES)
		return;
	keylen = (int) bson_uint32_to_string(values->count, &key, buffer, sizeof(buffer));
	if (iter == NULL)
		bson_append_null(values->list, key, keylen);
	else
		bson_append_iter(values->list, key, keylen, iter);
	values->count++;
}

static void collect(Values *values, bson_iter_t *members, const char *path, int depth);

/* What an index sees of a value: an array's elements, each by itself. */
static void
collect_leaf(Values *values, const bson_iter_t *iter)
{
	bson_iter_t element;

	if (!BSON_ITER_HOLDS_ARRAY(iter) || !bson_iter_recurse(iter, &element))
	{
		add_value(values, iter);
		return;
	}
	while (bson_iter_next(&element))
		add_value(values, &element);
}

static void
collect_below(Values *values, const bson_iter_t *iter, const char *rest, int depth)
{
	bson_iter_t child;

	if (BSON_ITER_HOLDS_DOCUMENT(iter) && bson_iter_recurse(iter, &child))
		collect(values, &child, rest, depth + 1);
	else if (BSON_ITER_HOLDS_ARRAY(iter) && bson_iter_recurse(iter, &child))
	{
		while (bson_iter_next(&child))
		{
			bson_iter_t member;

			if (BSON_ITER_HOLDS_DOCUMENT(&child) && bson_iter_recurse(&child, &member))
				collect(values, &member, rest, depth + 1);
		}
	}
}

/* Follows a dotted path; one that leads nowhere adds nothing. */
static void
collect(Values *values, bson_iter_t *members, const char *path, int depth)
{
	size_t len = strcspn(path, ".");

	if (depth > PLINTH_BSON_MAX_DEPTH)
		return;
	while (bson_iter_next(members))
	{
		if (strlen(bson_iter_key(members)) != len ||
			strncmp(bson_iter_key(members), path, len) != 0)
			continue;
		if (path[len] == '\0')
			collect_leaf(values, members);
		else
			collect_below(values, members, path + len + 1, depth);
		return;
	}
}

/* {path: {$in: values of the document}}; what is missing counts as null. */
static void
append_condition(bson_t *filter, const char *path, const bson_t *document)
{
	bson_t condition;
	Values values = {0};
	bson_t list;
	bson_iter_t members;

	bson_append_document_begin(filter, path, -1, &condition);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(&condition, "$in", &list);
	values.list = &list;
	if (bson_iter_init(&members, document))
		collect(&values, &members, path, 1);
	if (values.count == 0)
		add_value(&values, NULL);
	bson_append_array_end(&condition, &list);
	bson_append_document_end(filter, &condition);
}

/* find: another document with the same values under the index's keys. */
static bool
build_find(bson_t *find, const char *collection, const PlinthMongoOp *op, const bson_t *index)
{
	bson_iter_t keys;
	bson_iter_t key;
	bson_iter_t option;
	bson_iter_t id;
	bson_t own;
	bson_t document;
	bson_t filter;
	bson_t condition;

	if (!bson_iter_init_find(&keys, index, "key") || !BSON_ITER_HOLDS_DOCUMENT(&keys) ||
		!bson_iter_recurse(&keys, &key) ||
		!bson_init_static(&document, op->document.data, op->document.len) ||
		!bson_init_static(&own, op->id.data, op->id.len) || !bson_iter_init_find(&id, &own, "_id"))
		return false;

	BSON_APPEND_UTF8(find, "find", collection);
	BSON_APPEND_DOCUMENT_BEGIN(find, "filter", &filter);
	BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &condition);
	bson_append_iter(&condition, "$ne", 3, &id);
	bson_append_document_end(&filter, &condition);
	while (bson_iter_next(&key))
		append_condition(&filter, bson_iter_key(&key), &document);
	if (bson_iter_init_find(&option, index, "partialFilterExpression"))
	{
		BSON_APPEND_ARRAY_UNSAFE_BEGIN(&filter, "$and", &condition);
		bson_append_iter(&condition, "0", 1, &option);
		bson_append_array_end(&filter, &condition);
	}
	bson_append_document_end(find, &filter);
	if (bson_iter_init_find(&option, index, "collation"))
		bson_append_iter(find, "collation", -1, &option);
	BSON_APPEND_DOCUMENT_BEGIN(find, "projection", &condition);
	BSON_APPEND_INT32(&condition, "_id", 1);
	bson_append_document_end(find, &condition);
	BSON_APPEND_INT32(find, "limit", 1);
	BSON_APPEND_BOOL(find, "singleBatch", true);
	return true;
}

/* A unique index other than _id's, whose name the message has (or any, when named is false). */
static bool
is_candidate(const bson_t *index, const char *message, bool named)
{
	bson_iter_t iter;
	const char *name;

	if (!bson_iter_init_find(&iter, index, "unique") || !bson_iter_as_bool(&iter) ||
		!bson_iter_init_find(&iter, index, "name") || !BSON_ITER_HOLDS_UTF8(&iter))
		return false;
	name = bson_iter_utf8(&iter, NULL);
	return strcmp(name, "_id_") != 0 && (!named || strstr(message, name) != NULL);
}

static PlinthMongoStatus
find_holder(PlinthMongoClient *client, const char *collection, const PlinthMongoOp *op,
			const MongoDocuments *indexes, bool named, PlinthBson *holder, bool *asked,
			PlinthMongoError *error)
{
	for (int i = 0; i < indexes->count; i++)
	{
		MongoDocuments found = {0};
		bson_t index;
		bson_t find = BSON_INITIALIZER;
		PlinthMongoStatus status;

		if (!bson_init_static(&index, indexes->items[i].data, indexes->items[i].len) ||
			!is_candidate(&index, op->error.message, named) ||
			!build_find(&find, collection, op, &index))
		{
			bson_destroy(&find);
			continue;
		}
		*asked = true;
		status = plinth_mongo_read_all(client, collection, &find, &found, error);
		if (status != PLINTH_MONGO_OK)
			return status;
		if (found.count > 0)
		{
			*holder = plinth_mongo_id_of(found.items[0]);
			return PLINTH_MONGO_OK;
		}
	}
	return PLINTH_MONGO_OK;
}

PlinthMongoStatus
plinth_mongo_conflict_holder(PlinthMongoClient *client, const char *collection,
							 const PlinthMongoOp *op, PlinthBson *holder, PlinthMongoError *error)
{
	MongoDocuments indexes = {0};
	bool asked = false;
	int utf8len;
	PlinthMongoStatus status;

	holder->data = NULL;
	holder->len = 0;
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	status = plinth_mongo_index_read(client, collection, &indexes, error);
	if (status != PLINTH_MONGO_OK)
		return status;

	status = find_holder(client, collection, op, &indexes, true, holder, &asked, error);
	if (status == PLINTH_MONGO_OK && !asked)
		status = find_holder(client, collection, op, &indexes, false, holder, &asked, error);
	return status;
}
