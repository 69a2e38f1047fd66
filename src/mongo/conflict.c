/*
 * conflict.c
 *		Which document holds the value that a unique index refused.
 *
 * Servers tell the index's name in the message of E11000; its pattern comes
 * from listIndexes, the values from the document that was refused.
 */
#include "postgres.h"

#include "mongo/client_int.h"

/* "… index: NAME dup key: …" */
static bool
index_name(const char *message, char *name, size_t size)
{
	const char *start = strstr(message, "index: ");
	const char *end;

	if (start == NULL)
		return false;
	start += strlen("index: ");
	end = strstr(start, " dup key");
	if (end == NULL || end == start || (size_t) (end - start) >= size)
		return false;
	memcpy(name, start, end - start);
	name[end - start] = '\0';
	return true;
}

/* The key pattern of an index in listIndexes' reply. */
static bool
find_pattern(PlinthBson reply, const char *name, bson_t *pattern)
{
	bson_t view;
	bson_iter_t iter;
	bson_iter_t batch;
	bson_iter_t item;

	if (!bson_init_static(&view, reply.data, reply.len) || !bson_iter_init(&iter, &view) ||
		!bson_iter_find_descendant(&iter, "cursor.firstBatch", &batch) ||
		!BSON_ITER_HOLDS_ARRAY(&batch) || !bson_iter_recurse(&batch, &item))
		return false;
	while (bson_iter_next(&item))
	{
		bson_iter_t field;
		bson_iter_t key;

		if (!BSON_ITER_HOLDS_DOCUMENT(&item) || !bson_iter_recurse(&item, &field) ||
			!bson_iter_find(&field, "name") || !BSON_ITER_HOLDS_UTF8(&field) ||
			strcmp(bson_iter_utf8(&field, NULL), name) != 0)
			continue;
		if (bson_iter_recurse(&item, &key) && bson_iter_find(&key, "key") &&
			BSON_ITER_HOLDS_DOCUMENT(&key))
		{
			const uint8 *data;
			uint32 len;

			bson_iter_document(&key, &len, &data);
			return bson_init_static(pattern, data, len);
		}
	}
	return false;
}

/* {field: value of our document, …, _id: {$ne: ours}} */
static bool
append_filter(bson_t *command, const bson_t *pattern, const PlinthMongoOp *op)
{
	bson_t document;
	bson_t id;
	bson_t filter;
	bson_t other;
	bson_iter_t field;
	bson_iter_t ours;

	if (!bson_init_static(&document, op->document.data, op->document.len) ||
		!bson_init_static(&id, op->id.data, op->id.len) || !bson_iter_init(&field, pattern) ||
		!bson_iter_init_find(&ours, &id, "_id"))
		return false;
	BSON_APPEND_DOCUMENT_BEGIN(command, "filter", &filter);
	while (bson_iter_next(&field))
	{
		const char *path = bson_iter_key(&field);
		bson_iter_t at;
		bson_iter_t value;

		if (bson_iter_init(&at, &document) && bson_iter_find_descendant(&at, path, &value))
			bson_append_iter(&filter, path, -1, &value);
		else
			BSON_APPEND_NULL(&filter, path);
	}
	BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &other);
	bson_append_iter(&other, "$ne", 3, &ours);
	bson_append_document_end(&filter, &other);
	return bson_append_document_end(command, &filter);
}

static void
take_holder(PlinthBson reply, PlinthBson *holder)
{
	bson_t view;
	bson_iter_t iter;
	bson_iter_t found;

	if (bson_init_static(&view, reply.data, reply.len) && bson_iter_init(&iter, &view) &&
		bson_iter_find_descendant(&iter, "cursor.firstBatch.0", &found) &&
		BSON_ITER_HOLDS_DOCUMENT(&found))
	{
		PlinthBson document;
		const uint8 *data;

		bson_iter_document(&found, &document.len, &data);
		document.data = unconstify(uint8 *, data);
		*holder = plinth_mongo_id_of(document);
	}
}

static PlinthMongoStatus
find_holder(PlinthMongoClient *client, const char *collection, const bson_t *pattern,
			const PlinthMongoOp *op, PlinthBson *holder, PlinthMongoError *error)
{
	bson_t *command = bson_new();
	PlinthBson reply = {0};
	PlinthMongoStatus status = PLINTH_MONGO_OTHER;

	BSON_APPEND_UTF8(command, "find", collection);
	if (append_filter(command, pattern, op))
	{
		BSON_APPEND_INT32(command, "limit", 1);
		BSON_APPEND_BOOL(command, "singleBatch", true);
		plinth_mongo_add_read_options(command);
		status = plinth_mongo_run(client, command, &reply, error);
	}
	bson_destroy(command);
	if (status == PLINTH_MONGO_OK)
		take_holder(reply, holder);
	return status;
}

PlinthMongoStatus
plinth_mongo_conflict_holder(PlinthMongoClient *client, const char *collection,
							 const PlinthMongoOp *op, PlinthBson *holder, PlinthMongoError *error)
{
	char name[256];
	bson_t *command;
	bson_t pattern;
	PlinthBson reply = {0};
	PlinthMongoStatus status;
	int utf8len;

	holder->data = NULL;
	holder->len = 0;
	plinth_mongo_error_clear(error);
	if (!index_name(op->error.message, name, sizeof(name)))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_OTHER, 0,
							   "the server does not tell which index is concerned");
		return PLINTH_MONGO_OTHER;
	}
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	command = bson_new();
	BSON_APPEND_UTF8(command, "listIndexes", collection);
	plinth_mongo_add_read_options(command);
	status = plinth_mongo_run(client, command, &reply, error);
	bson_destroy(command);
	if (status != PLINTH_MONGO_OK)
		return status;
	if (!find_pattern(reply, name, &pattern))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_OTHER, 0, "index \"%s\" is not in the list",
							   name);
		return PLINTH_MONGO_OTHER;
	}
	return find_holder(client, collection, &pattern, op, holder, error);
}
