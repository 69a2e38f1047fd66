/*
 * fence.c
 *		The document that says who writes a collection, and how far it is.
 *
 * It is moved only by a conditional write, so of two writers that both read
 * it, one sees that it lost.  Numbers above 2^63 keep their bits in Int64.
 */
#include "postgres.h"

#include "mongo/client_int.h"

#define FENCE_COLLECTION "plinth_sync"

static bool
append_fields(bson_t *bson, const PlinthMongoFence *fence)
{
	return BSON_APPEND_INT64(bson, "systemIdentifier", (int64) fence->system_identifier) &&
		   BSON_APPEND_INT64(bson, "database", (int64) fence->database) &&
		   BSON_APPEND_INT64(bson, "timeline", (int64) fence->timeline) &&
		   BSON_APPEND_INT64(bson, "slotGeneration", (int64) fence->slot_generation) &&
		   BSON_APPEND_INT64(bson, "lsn", (int64) fence->lsn) &&
		   BSON_APPEND_INT64(bson, "epoch", (int64) fence->epoch) &&
		   (fence->hold_ms == 0 || BSON_APPEND_INT64(bson, "holdMs", (int64) fence->hold_ms));
}

static bool
append_fence(bson_t *bson, const char *collection, const PlinthMongoFence *fence)
{
	return BSON_APPEND_UTF8(bson, "_id", collection) && append_fields(bson, fence);
}

/* "lanes.3", and what follows. */
static void
lane_name(char *name, Size size, int lane, const char *field)
{
	snprintf(name, size, "lanes.%d%s", lane, field);
}

static void
take_lanes(bson_iter_t *lanes, PlinthMongoFence *fence)
{
	bson_iter_t lane;

	if (!BSON_ITER_HOLDS_DOCUMENT(lanes) || !bson_iter_recurse(lanes, &lane))
		return;
	while (bson_iter_next(&lane))
	{
		int number = atoi(bson_iter_key(&lane));
		bson_iter_t field;

		if (number < 1 || number >= PLINTH_MONGO_FENCE_LANES || !BSON_ITER_HOLDS_DOCUMENT(&lane) ||
			!bson_iter_recurse(&lane, &field))
			continue;
		while (bson_iter_next(&field))
		{
			uint64 value = (uint64) bson_iter_as_int64(&field);

			if (strcmp(bson_iter_key(&field), "lsn") == 0)
				fence->lane_lsn[number] = value;
			else if (strcmp(bson_iter_key(&field), "holdMs") == 0)
				fence->longest_hold_ms = Max(fence->longest_hold_ms, (uint32) value);
		}
	}
}

static void
take_fence(const bson_t *document, PlinthMongoFence *fence)
{
	bson_iter_t iter;

	memset(fence, 0, sizeof(*fence));
	bson_iter_init(&iter, document);
	while (bson_iter_next(&iter))
	{
		const char *key = bson_iter_key(&iter);
		int64 value = bson_iter_as_int64(&iter);

		if (strcmp(key, "systemIdentifier") == 0)
			fence->system_identifier = (uint64) value;
		else if (strcmp(key, "database") == 0)
			fence->database = (uint32) value;
		else if (strcmp(key, "timeline") == 0)
			fence->timeline = (uint32) value;
		else if (strcmp(key, "slotGeneration") == 0)
			fence->slot_generation = (uint64) value;
		else if (strcmp(key, "lsn") == 0)
			fence->lsn = (uint64) value;
		else if (strcmp(key, "epoch") == 0)
			fence->epoch = (uint64) value;
		else if (strcmp(key, "holdMs") == 0)
			fence->hold_ms = (uint32) value;
		else if (strcmp(key, "lanes") == 0)
			take_lanes(&iter, fence);
	}
	fence->longest_hold_ms = Max(fence->longest_hold_ms, fence->hold_ms);
}

PlinthMongoStatus
plinth_mongo_fence_read(PlinthMongoClient *client, const char *collection, PlinthMongoFence *fence,
						bool *found, PlinthMongoError *error)
{
	bson_t id = BSON_INITIALIZER;
	bson_t view;
	PlinthBson key;
	PlinthBson *documents;
	int count;
	int utf8len;
	PlinthMongoStatus status;

	*found = false;
	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	BSON_APPEND_UTF8(&id, "_id", collection);
	key = plinth_mongo_bson_copy(&id);
	bson_destroy(&id);
	status = plinth_mongo_find(client, FENCE_COLLECTION, &key, 1, &documents, &count, error);
	if (status == PLINTH_MONGO_OK && count > 0 &&
		bson_init_static(&view, documents[0].data, documents[0].len))
	{
		take_fence(&view, fence);
		*found = true;
	}
	return status;
}

/* What a write command says: n and its first write error. */
static PlinthMongoStatus
take_outcome(PlinthBson reply, int64 *n, PlinthMongoError *error)
{
	bson_t view;
	bson_iter_t iter;
	bson_iter_t field;

	*n = 0;
	if (!bson_init_static(&view, reply.data, reply.len))
		return PLINTH_MONGO_OTHER;
	if (bson_iter_init_find(&iter, &view, "n"))
		*n = bson_iter_as_int64(&iter);
	if (bson_iter_init(&iter, &view) && bson_iter_find_descendant(&iter, "writeErrors.0", &field))
	{
		bson_iter_t detail;
		int code = 0;

		if (bson_iter_recurse(&field, &detail) && bson_iter_find(&detail, "code"))
			code = (int) bson_iter_as_int64(&detail);
		return plinth_mongo_error_from_server(error, code, "the fence could not be written", 30);
	}
	if (bson_iter_init_find(&iter, &view, "writeConcernError"))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_WRITE_CONCERN, 0,
							   "the fence was not acknowledged by the majority");
		return PLINTH_MONGO_WRITE_CONCERN;
	}
	return PLINTH_MONGO_OK;
}

static PlinthMongoStatus
run_write(PlinthMongoClient *client, bson_t *command, int64 *n, PlinthMongoError *error)
{
	PlinthBson reply;
	PlinthMongoStatus status;

	*n = 0;
	plinth_mongo_add_write_options(command);
	status = plinth_mongo_run(client, command, &reply, error);
	bson_destroy(command);
	if (status == PLINTH_MONGO_OK)
		status = take_outcome(reply, n, error);
	return status;
}

static void
build_insert(bson_t *command, const char *collection, const PlinthMongoFence *fence)
{
	bson_t list;
	bson_t document;

	bson_init(command);
	BSON_APPEND_UTF8(command, "insert", FENCE_COLLECTION);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(command, "documents", &list);
	BSON_APPEND_DOCUMENT_BEGIN(&list, "0", &document);
	append_fence(&document, collection, fence);
	bson_append_document_end(&list, &document);
	bson_append_array_end(command, &list);
}

/* As long as the writer is the same, what its other lanes wrote there stays. */
static bool
same_writer(const PlinthMongoFence *a, const PlinthMongoFence *b)
{
	return a->system_identifier == b->system_identifier && a->database == b->database &&
		   a->timeline == b->timeline && a->epoch == b->epoch;
}

static void
build_update(bson_t *command, const char *collection, const PlinthMongoFence *expected,
			 const PlinthMongoFence *fence)
{
	bson_t list;
	bson_t update;
	bson_t document;
	bson_t set;

	bson_init(command);
	BSON_APPEND_UTF8(command, "update", FENCE_COLLECTION);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(command, "updates", &list);
	BSON_APPEND_DOCUMENT_BEGIN(&list, "0", &update);
	BSON_APPEND_DOCUMENT_BEGIN(&update, "q", &document);
	append_fence(&document, collection, expected);
	bson_append_document_end(&update, &document);
	BSON_APPEND_DOCUMENT_BEGIN(&update, "u", &document);
	if (same_writer(expected, fence))
	{
		BSON_APPEND_DOCUMENT_BEGIN(&document, "$set", &set);
		append_fields(&set, fence);
		bson_append_document_end(&document, &set);
	}
	else
		append_fence(&document, collection, fence);
	bson_append_document_end(&update, &document);
	BSON_APPEND_BOOL(&update, "upsert", false);
	bson_append_document_end(&list, &update);
	bson_append_array_end(command, &list);
}

PlinthMongoStatus
plinth_mongo_fence_move(PlinthMongoClient *client, const char *collection,
						const PlinthMongoFence *expected, const PlinthMongoFence *fence,
						bool *moved, PlinthMongoError *error)
{
	bson_t command;
	int64 n;
	int utf8len;
	PlinthMongoStatus status;

	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	if (expected == NULL)
		build_insert(&command, collection, fence);
	else
		build_update(&command, collection, expected, fence);
	status = run_write(client, &command, &n, error);
	*moved = status == PLINTH_MONGO_OK && n == 1;
	if (expected == NULL && status == PLINTH_MONGO_DUPLICATE_KEY)
	{
		plinth_mongo_error_clear(error);
		status = PLINTH_MONGO_OK;
	}
	return status;
}

static void
build_lane_update(bson_t *command, const char *collection, int lane, const PlinthMongoFence *fence,
				  uint64 from, uint64 lsn)
{
	bson_t list;
	bson_t update;
	bson_t document;
	bson_t inner;
	char name[32];

	bson_init(command);
	BSON_APPEND_UTF8(command, "update", FENCE_COLLECTION);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(command, "updates", &list);
	BSON_APPEND_DOCUMENT_BEGIN(&list, "0", &update);
	BSON_APPEND_DOCUMENT_BEGIN(&update, "q", &document);
	BSON_APPEND_UTF8(&document, "_id", collection);
	BSON_APPEND_INT64(&document, "systemIdentifier", (int64) fence->system_identifier);
	BSON_APPEND_INT64(&document, "database", (int64) fence->database);
	BSON_APPEND_INT64(&document, "timeline", (int64) fence->timeline);
	BSON_APPEND_INT64(&document, "epoch", (int64) fence->epoch);
	lane_name(name, sizeof(name), lane, ".lsn");
	if (from != 0)
		BSON_APPEND_INT64(&document, name, (int64) from);
	else
	{
		BSON_APPEND_DOCUMENT_BEGIN(&document, name, &inner);
		BSON_APPEND_BOOL(&inner, "$exists", false);
		bson_append_document_end(&document, &inner);
	}
	bson_append_document_end(&update, &document);
	BSON_APPEND_DOCUMENT_BEGIN(&update, "u", &document);
	BSON_APPEND_DOCUMENT_BEGIN(&document, "$set", &inner);
	BSON_APPEND_INT64(&inner, name, (int64) lsn);
	lane_name(name, sizeof(name), lane, ".holdMs");
	BSON_APPEND_INT64(&inner, name, (int64) fence->hold_ms);
	bson_append_document_end(&document, &inner);
	bson_append_document_end(&update, &document);
	BSON_APPEND_BOOL(&update, "upsert", false);
	bson_append_document_end(&list, &update);
	bson_append_array_end(command, &list);
}

PlinthMongoStatus
plinth_mongo_fence_lane_move(PlinthMongoClient *client, const char *collection, int lane,
							 const PlinthMongoFence *fence, uint64 from, uint64 lsn, bool *moved,
							 PlinthMongoError *error)
{
	bson_t command;
	int64 n;
	int utf8len;
	PlinthMongoStatus status;

	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	build_lane_update(&command, collection, lane, fence, from, lsn);
	status = run_write(client, &command, &n, error);
	*moved = status == PLINTH_MONGO_OK && n == 1;
	return status;
}
