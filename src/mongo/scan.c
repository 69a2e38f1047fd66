/*
 * scan.c
 *		Reading documents in _id order, or by their _ids.
 *
 * $gt compares only within a class of types, while _ids of a collection may
 * be of any: when the class of the last _id is used up, a second query asks
 * for the classes behind it.  Cursors are read to their end at once, by plain
 * commands, since no cursor may outlive a call.
 */
#include "postgres.h"

#include <math.h>

#include "mongo/client_int.h"

/* A batch of the server's is 16 MB anyway; this bounds the size of one $in. */
#define MAX_IDS 10000
#define MAX_ID_BYTES 8000000

/*
 * BSON's classes in MongoDB's sort order, as $type's numbers.  Deprecated
 * types are in none: no row's _id is of one, and not every server knows them.
 */
static const int32 class_types[][4] = {{-1}, {10}, {16, 18, 1, 19}, {2}, {3}, {5}, {7}, {8}, {9},
									   {17}, {127}};

static int
class_of(bson_type_t type)
{
	int32 number = type == BSON_TYPE_MINKEY ? -1 : (int32) type;

	for (int i = 0; i < lengthof(class_types); i++)
	{
		for (int j = 0; j < lengthof(class_types[i]) && class_types[i][j] != 0; j++)
		{
			if (class_types[i][j] == number)
				return i;
		}
	}
	return lengthof(class_types) - 1;
}

static void
add_document(MongoDocuments *documents, const uint8 *data, uint32 len)
{
	PlinthBson *item;

	if (documents->count == documents->room)
	{
		documents->room = Max(64, documents->room * 2);
		documents->items =
			documents->items == NULL
				? palloc(documents->room * sizeof(PlinthBson))
				: repalloc_huge(documents->items, documents->room * sizeof(PlinthBson));
	}
	item = &documents->items[documents->count++];
	item->len = len;
	item->data = palloc(len);
	memcpy(item->data, data, len);
}

/* Takes a find's or getMore's batch; *cursor_id is 0 when there is no more. */
static bool
take_batch(PlinthBson reply, MongoDocuments *documents, int64 *cursor_id)
{
	bson_t view;
	bson_iter_t iter;
	bson_iter_t cursor;
	bool found = false;

	*cursor_id = 0;
	if (!bson_init_static(&view, reply.data, reply.len) ||
		!bson_iter_init_find(&iter, &view, "cursor") || !BSON_ITER_HOLDS_DOCUMENT(&iter) ||
		!bson_iter_recurse(&iter, &cursor))
		return false;
	while (bson_iter_next(&cursor))
	{
		const char *key = bson_iter_key(&cursor);
		bson_iter_t item;

		if (strcmp(key, "id") == 0)
			*cursor_id = bson_iter_as_int64(&cursor);
		else if ((strcmp(key, "firstBatch") == 0 || strcmp(key, "nextBatch") == 0) &&
				 BSON_ITER_HOLDS_ARRAY(&cursor) && bson_iter_recurse(&cursor, &item))
		{
			found = true;
			while (bson_iter_next(&item))
			{
				const uint8 *data;
				uint32 len;

				if (!BSON_ITER_HOLDS_DOCUMENT(&item))
					return false;
				bson_iter_document(&item, &len, &data);
				add_document(documents, data, len);
			}
		}
	}
	return found;
}

/* Runs a find or its like (which it destroys) and reads all of its result. */
PlinthMongoStatus
plinth_mongo_read_all(PlinthMongoClient *client, const char *collection, bson_t *find,
					  MongoDocuments *documents, PlinthMongoError *error)
{
	PlinthMongoStatus status;
	int64 cursor_id = 0;

	plinth_mongo_add_read_options(find);
	do
	{
		PlinthBson reply;

		status = plinth_mongo_run(client, find, &reply, error);
		if (status != PLINTH_MONGO_OK)
			break;
		if (!take_batch(reply, documents, &cursor_id))
		{
			status = PLINTH_MONGO_OTHER;
			plinth_mongo_error_set(error, status, 0, "the server's reply to find has no batch");
			break;
		}
		pfree(reply.data);
		if (cursor_id != 0)
		{
			bson_reinit(find);
			BSON_APPEND_INT64(find, "getMore", cursor_id);
			BSON_APPEND_UTF8(find, "collection", collection);
		}
	} while (cursor_id != 0);
	bson_destroy(find);
	return status;
}

static void
append_id_only(bson_t *command)
{
	bson_t projection;

	BSON_APPEND_DOCUMENT_BEGIN(command, "projection", &projection);
	BSON_APPEND_INT32(&projection, "_id", 1);
	bson_append_document_end(command, &projection);
}

static void
append_order_and_limit(bson_t *command, bool ids_only, int limit)
{
	bson_t sort;

	BSON_APPEND_DOCUMENT_BEGIN(command, "sort", &sort);
	BSON_APPEND_INT32(&sort, "_id", 1);
	bson_append_document_end(command, &sort);
	if (ids_only)
		append_id_only(command);
	BSON_APPEND_INT32(command, "limit", limit);
	BSON_APPEND_INT32(command, "batchSize", limit);
}

/* NaN is below all numbers but equal to itself only in comparisons. */
static bool
is_nan(bson_iter_t *iter)
{
	bson_decimal128_t decimal;
	char text[BSON_DECIMAL128_STRING];

	if (BSON_ITER_HOLDS_DOUBLE(iter))
		return isnan(bson_iter_double(iter));
	if (!BSON_ITER_HOLDS_DECIMAL128(iter))
		return false;
	bson_iter_decimal128(iter, &decimal);
	bson_decimal128_to_string(&decimal, text);
	return strcmp(text, "NaN") == 0;
}

/* {_id: {$gt: after}}, within after's class. */
static void
append_after(bson_t *command, bson_iter_t *after)
{
	bson_t filter;
	bson_t condition;

	BSON_APPEND_DOCUMENT_BEGIN(command, "filter", &filter);
	BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &condition);
	if (is_nan(after))
		BSON_APPEND_DOUBLE(&condition, "$gte", -INFINITY);
	else
		bson_append_iter(&condition, "$gt", 3, after);
	bson_append_document_end(&filter, &condition);
	bson_append_document_end(command, &filter);
}

/* {_id: {$type: […]}} of the classes behind one. */
static void
append_classes_after(bson_t *command, int class)
{
	bson_t filter;
	bson_t condition;
	bson_t types;
	uint32 index = 0;

	BSON_APPEND_DOCUMENT_BEGIN(command, "filter", &filter);
	BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &condition);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(&condition, "$type", &types);
	for (int i = class + 1; i < lengthof(class_types); i++)
	{
		for (int j = 0; j < lengthof(class_types[i]) && class_types[i][j] != 0; j++)
		{
			char buffer[16];
			const char *key;
			int keylen = (int) bson_uint32_to_string(index++, &key, buffer, sizeof(buffer));

			bson_append_int32(&types, key, keylen, class_types[i][j]);
		}
	}
	bson_append_array_end(&condition, &types);
	bson_append_document_end(&filter, &condition);
	bson_append_document_end(command, &filter);
}

PlinthMongoStatus
plinth_mongo_scan(PlinthMongoClient *client, const char *collection, PlinthBson after,
				  bool ids_only, int limit, PlinthBson **items, int *nitems,
				  PlinthMongoError *error)
{
	MongoDocuments documents = {0};
	bson_t view;
	bson_iter_t iter;
	bson_t find;
	bool has_after;
	int utf8len;
	PlinthMongoStatus status;

	*items = NULL;
	*nitems = 0;
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	has_after = after.data != NULL && bson_init_static(&view, after.data, after.len) &&
				bson_iter_init_find(&iter, &view, "_id");

	bson_init(&find);
	BSON_APPEND_UTF8(&find, "find", collection);
	if (has_after)
		append_after(&find, &iter);
	append_order_and_limit(&find, ids_only, limit);
	status = plinth_mongo_read_all(client, collection, &find, &documents, error);

	if (status == PLINTH_MONGO_OK && has_after && documents.count < limit &&
		class_of(bson_iter_type(&iter)) < lengthof(class_types) - 1 &&
		bson_iter_type(&iter) != BSON_TYPE_MINKEY)
	{
		bson_init(&find);
		BSON_APPEND_UTF8(&find, "find", collection);
		append_classes_after(&find, class_of(bson_iter_type(&iter)));
		append_order_and_limit(&find, ids_only, limit - documents.count);
		status = plinth_mongo_read_all(client, collection, &find, &documents, error);
	}
	*items = documents.items;
	*nitems = documents.count;
	return status;
}

/* find {_id: {$in: ids[from…]}}; returns how many ids it took. */
static int
append_in(bson_t *command, const PlinthBson *ids, int from, int nids)
{
	bson_t filter;
	bson_t condition;
	bson_t list;
	int count = 0;
	Size bytes = 0;

	BSON_APPEND_DOCUMENT_BEGIN(command, "filter", &filter);
	BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &condition);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(&condition, "$in", &list);
	while (from + count < nids && count < MAX_IDS && bytes < MAX_ID_BYTES)
	{
		bson_t view;
		bson_iter_t iter;
		char buffer[16];
		const char *key;
		int keylen = (int) bson_uint32_to_string(count, &key, buffer, sizeof(buffer));

		if (bson_init_static(&view, ids[from + count].data, ids[from + count].len) &&
			bson_iter_init_find(&iter, &view, "_id"))
			bson_append_iter(&list, key, keylen, &iter);
		bytes += ids[from + count].len;
		count++;
	}
	bson_append_array_end(&condition, &list);
	bson_append_document_end(&filter, &condition);
	bson_append_document_end(command, &filter);
	return count;
}

static PlinthMongoStatus
find(PlinthMongoClient *client, const char *collection, const PlinthBson *ids, int nids,
	 bool ids_only, PlinthBson **items, int *nitems, PlinthMongoError *error)
{
	MongoDocuments documents = {0};
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	int utf8len;

	plinth_mongo_error_clear(error);
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	for (int done = 0; done < nids && status == PLINTH_MONGO_OK;)
	{
		bson_t command = BSON_INITIALIZER;

		BSON_APPEND_UTF8(&command, "find", collection);
		done += append_in(&command, ids, done, nids);
		if (ids_only)
			append_id_only(&command);
		status = plinth_mongo_read_all(client, collection, &command, &documents, error);
	}
	*items = documents.items;
	*nitems = documents.count;
	return status;
}

PlinthMongoStatus
plinth_mongo_find(PlinthMongoClient *client, const char *collection, const PlinthBson *ids,
				  int nids, PlinthBson **items, int *nitems, PlinthMongoError *error)
{
	return find(client, collection, ids, nids, false, items, nitems, error);
}

PlinthMongoStatus
plinth_mongo_find_ids(PlinthMongoClient *client, const char *collection, const PlinthBson *ids,
					  int nids, PlinthBson **items, int *nitems, PlinthMongoError *error)
{
	return find(client, collection, ids, nids, true, items, nitems, error);
}
