/*
 * find.c
 *		What a command that reads returns, and documents by their _ids.
 *
 * Cursors are read to their end at once, by plain commands; scan.c keeps one.
 */
#include "postgres.h"

#include "mongo/client_int.h"

/* A batch of the server's is 16 MB anyway; this bounds the size of one $in. */
#define MAX_IDS 10000
#define MAX_ID_BYTES 8000000

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

PlinthMongoStatus
plinth_mongo_read_batch(PlinthMongoClient *client, const bson_t *command, MongoDocuments *documents,
						int64 *cursor_id, PlinthMongoError *error)
{
	PlinthBson reply;
	PlinthMongoStatus status = plinth_mongo_run(client, command, &reply, error);

	*cursor_id = 0;
	if (status != PLINTH_MONGO_OK)
		return status;
	if (!take_batch(reply, documents, cursor_id))
	{
		status = PLINTH_MONGO_OTHER;
		plinth_mongo_error_set(error, status, 0, "the server's reply to find has no batch");
	}
	pfree(reply.data);
	return status;
}

PlinthMongoStatus
plinth_mongo_read_all(PlinthMongoClient *client, const char *collection, bson_t *find,
					  MongoDocuments *documents, PlinthMongoError *error)
{
	PlinthMongoStatus status;
	int64 cursor_id = 0;

	plinth_mongo_add_read_options(find);
	do
	{
		status = plinth_mongo_read_batch(client, find, documents, &cursor_id, error);
		if (status == PLINTH_MONGO_OK && cursor_id != 0)
		{
			bson_reinit(find);
			BSON_APPEND_INT64(find, "getMore", cursor_id);
			BSON_APPEND_UTF8(find, "collection", collection);
		}
	} while (status == PLINTH_MONGO_OK && cursor_id != 0);
	bson_destroy(find);
	return status;
}

void
plinth_mongo_append_id_only(bson_t *command)
{
	bson_t projection;

	BSON_APPEND_DOCUMENT_BEGIN(command, "projection", &projection);
	BSON_APPEND_INT32(&projection, "_id", 1);
	bson_append_document_end(command, &projection);
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
		int n;

		BSON_APPEND_UTF8(&command, "find", collection);
		n = append_in(&command, ids, done, nids);
		done += n;
		/* As much at once as a reply holds: of itself it would begin with a hundred. */
		BSON_APPEND_INT32(&command, "batchSize", n);
		if (ids_only)
			plinth_mongo_append_id_only(&command);
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
