/*
 * scan.c
 *		Reading a collection in _id order, page by page.
 *
 * A client keeps one scan's cursor open between calls, so that the server looks
 * for the place once and not with each page.  It is only a shortcut: the place
 * is the _id that the caller hands in, and whenever the cursor does not stand
 * right behind it (another scan came between, a page is read again), has been
 * open for long, or is no more (ended by the server, gone with it), it is
 * opened anew behind that _id.  So what is read through it may be as old as
 * the cursor, CURSOR_MS at most on a server that reads it all beforehand.
 *
 * $gt compares only within a class of types, while _ids of a collection may
 * be of any: when the class of the last _id is used up, a second query asks
 * for the classes behind it.
 */
#include "postgres.h"

#include <math.h>

#include "mongo/client_int.h"

/* Servers end a cursor that nobody asks for 10 min, and may have to wait for one that is open. */
#define CURSOR_MS 300000

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

/* Forgets the cursor, which the server may still have. */
void
plinth_mongo_scan_forget(PlinthMongoClient *client)
{
	MongoScan *scan = &client->scan;

	bson_free(scan->collection);
	bson_free(scan->last);
	memset(scan, 0, sizeof(*scan));
}

/* Has the server end it; where that fails it does so by itself some time. */
static void
end_cursor(PlinthMongoClient *client)
{
	MongoScan *scan = &client->scan;

	if (scan->cursor != 0)
	{
		bson_t command = BSON_INITIALIZER;
		bson_t cursors;
		PlinthMongoError error;
		PlinthBson reply;

		BSON_APPEND_UTF8(&command, "killCursors", scan->collection);
		BSON_APPEND_ARRAY_UNSAFE_BEGIN(&command, "cursors", &cursors);
		BSON_APPEND_INT64(&cursors, "0", scan->cursor);
		bson_append_array_end(&command, &cursors);
		(void) plinth_mongo_run(client, &command, &reply, &error);
		if (reply.data != NULL)
			pfree(reply.data);
		bson_destroy(&command);
	}
	plinth_mongo_scan_forget(client);
}

/* Does the cursor stand right behind after? */
static bool
goes_on(const MongoScan *scan, const char *collection, PlinthBson after, bool ids_only)
{
	return scan->cursor != 0 && scan->ids_only == ids_only && after.len == scan->lastlen &&
		   memcmp(after.data, scan->last, after.len) == 0 &&
		   strcmp(collection, scan->collection) == 0 &&
		   plinth_mongo_now() - scan->opened_at < CURSOR_MS;
}

/* The _id that the next document comes behind; false at the start. */
static bool
find_place(PlinthBson after, const MongoDocuments *documents, bson_t *view, bson_iter_t *iter)
{
	PlinthBson place = documents->count > 0 ? documents->items[documents->count - 1] : after;

	return place.data != NULL && bson_init_static(view, place.data, place.len) &&
		   bson_iter_init_find(iter, view, "_id");
}

/* Opens a cursor: of all, of what is behind place in its class, or of the classes behind that. */
static PlinthMongoStatus
open_cursor(PlinthMongoClient *client, const char *collection, bson_iter_t *place, bool ids_only,
			int limit, MongoDocuments *documents, PlinthMongoError *error)
{
	MongoScan *scan = &client->scan;
	bson_t command = BSON_INITIALIZER;
	PlinthMongoStatus status;
	bson_t sort;

	BSON_APPEND_UTF8(&command, "find", collection);
	if (scan->stage == MONGO_SCAN_CLASS)
		append_after(&command, place);
	else if (scan->stage == MONGO_SCAN_BEHIND)
		append_classes_after(&command, class_of(bson_iter_type(place)));
	BSON_APPEND_DOCUMENT_BEGIN(&command, "sort", &sort);
	BSON_APPEND_INT32(&sort, "_id", 1);
	bson_append_document_end(&command, &sort);
	if (ids_only)
		plinth_mongo_append_id_only(&command);
	/* A single one is no scan. */
	if (limit == 1)
		BSON_APPEND_INT32(&command, "limit", 1);
	BSON_APPEND_INT32(&command, "batchSize", limit);
	plinth_mongo_add_read_options(&command);
	status = plinth_mongo_read_batch(client, &command, documents, &scan->cursor, error);
	bson_destroy(&command);
	scan->opened_at = plinth_mongo_now();
	return status;
}

static PlinthMongoStatus
read_cursor(PlinthMongoClient *client, const char *collection, int limit, MongoDocuments *documents,
			PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	PlinthMongoStatus status;

	BSON_APPEND_INT64(&command, "getMore", client->scan.cursor);
	BSON_APPEND_UTF8(&command, "collection", collection);
	BSON_APPEND_INT32(&command, "batchSize", limit);
	status = plinth_mongo_read_batch(client, &command, documents, &client->scan.cursor, error);
	bson_destroy(&command);
	return status;
}

/* Is there a class behind the one that was just read to its end? */
static bool
move_on(MongoScan *scan, bool has_place, bson_iter_t *place)
{
	if (scan->stage != MONGO_SCAN_CLASS || !has_place ||
		bson_iter_type(place) == BSON_TYPE_MINKEY ||
		class_of(bson_iter_type(place)) == lengthof(class_types) - 1)
		return false;
	scan->stage = MONGO_SCAN_BEHIND;
	return true;
}

/* Reads until there are limit documents, or no more. */
static PlinthMongoStatus
fill(PlinthMongoClient *client, const char *collection, PlinthBson after, bool ids_only, int limit,
	 MongoDocuments *documents, PlinthMongoError *error)
{
	MongoScan *scan = &client->scan;
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	bool began = scan->cursor != 0;
	bool opened = false;

	while (status == PLINTH_MONGO_OK && documents->count < limit)
	{
		int left = limit - documents->count;
		bson_t view;
		bson_iter_t place;
		bool has_place = find_place(after, documents, &view, &place);

		if (scan->cursor != 0)
		{
			status = read_cursor(client, collection, left, documents, error);
			if (status == PLINTH_MONGO_OK || status == PLINTH_MONGO_CANCELLED || opened)
				continue;
			/* It is no more, or cannot be had any more: once more from where it stood. */
			status = PLINTH_MONGO_OK;
			scan->stage = MONGO_SCAN_CLASS;
		}
		else if (!began)
			scan->stage = has_place ? MONGO_SCAN_CLASS : MONGO_SCAN_ALL;
		else if (!move_on(scan, has_place, &place))
			break;
		began = opened = true;
		status = open_cursor(client, collection, &place, ids_only, left, documents, error);
	}
	return status;
}

PlinthMongoStatus
plinth_mongo_scan(PlinthMongoClient *client, const char *collection, PlinthBson after,
				  bool ids_only, int limit, PlinthBson **items, int *nitems,
				  PlinthMongoError *error)
{
	MongoScan *scan = &client->scan;
	MongoDocuments documents = {0};
	PlinthMongoStatus status;
	int utf8len;

	plinth_mongo_error_clear(error);
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	if (!goes_on(scan, collection, after, ids_only))
		end_cursor(client);
	status = fill(client, collection, after, ids_only, limit, &documents, error);
	if (status == PLINTH_MONGO_OK && scan->cursor != 0)
	{
		PlinthBson last = plinth_mongo_id_of(documents.items[documents.count - 1]);

		bson_free(scan->collection);
		bson_free(scan->last);
		scan->collection = bson_strdup(collection);
		scan->ids_only = ids_only;
		scan->last = bson_malloc(last.len);
		scan->lastlen = last.len;
		memcpy(scan->last, last.data, last.len);
	}
	else
		plinth_mongo_scan_forget(client);
	*items = documents.items;
	*nitems = documents.count;
	return status;
}
