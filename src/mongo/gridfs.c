/*
 * gridfs.c
 *		What a GridFS bucket holds: are all chunks of a file there, has a chunk
 *		still a file?
 *
 * Both are asked before something is written that depends on the answer
 * (docs/files.md); only this lane writes these documents, so what it is told
 * holds until it writes.
 */
#include "postgres.h"

#include "mongo/client_int.h"

typedef struct IdSet
{
	bson_t list; /* an array */
	uint32 count;
	bson_oid_t least;
	bson_oid_t most;
} IdSet;

static void
id_set_add(IdSet *set, const bson_oid_t *id)
{
	char buffer[16];
	const char *key;
	int keylen = (int) bson_uint32_to_string(set->count++, &key, buffer, sizeof(buffer));

	bson_append_oid(&set->list, key, keylen, id);
	if (set->count == 1 || bson_oid_compare(id, &set->least) < 0)
		bson_oid_copy(id, &set->least);
	if (set->count == 1 || bson_oid_compare(id, &set->most) > 0)
		bson_oid_copy(id, &set->most);
}

/* {name: {$in: […]}} as a member of command; the range lets a server that has no index for it compare less. */
static void
append_in(bson_t *command, const char *member, const char *name, const IdSet *set)
{
	bson_t filter;
	bson_t condition;

	BSON_APPEND_DOCUMENT_BEGIN(command, member, &filter);
	BSON_APPEND_DOCUMENT_BEGIN(&filter, name, &condition);
	BSON_APPEND_OID(&condition, "$gte", &set->least);
	BSON_APPEND_OID(&condition, "$lte", &set->most);
	BSON_APPEND_ARRAY(&condition, "$in", &set->list);
	bson_append_document_end(&filter, &condition);
	bson_append_document_end(command, &filter);
}

static bool
field_oid(const bson_t *document, const char *name, bson_oid_t *oid)
{
	bson_iter_t iter;

	if (!bson_iter_init_find(&iter, document, name) || !BSON_ITER_HOLDS_OID(&iter))
		return false;
	bson_oid_copy(bson_iter_oid(&iter), oid);
	return true;
}

/* The ObjectId of an op; false for an _id of another type. */
static bool
op_oid(const PlinthMongoOp *op, bson_oid_t *id)
{
	bson_t view;

	return bson_init_static(&view, op->id.data, op->id.len) && field_oid(&view, "_id", id);
}

/* The documents of a collection with these _ids, of which only one field is wanted. */
static PlinthMongoStatus
read_field(PlinthMongoClient *client, const char *collection, const IdSet *set, const char *field,
		   MongoDocuments *documents, PlinthMongoError *error)
{
	bson_t find = BSON_INITIALIZER;
	bson_t projection;
	int utf8len;

	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	BSON_APPEND_UTF8(&find, "find", collection);
	append_in(&find, "filter", "_id", set);
	BSON_APPEND_DOCUMENT_BEGIN(&find, "projection", &projection);
	BSON_APPEND_INT32(&projection, field, 1);
	bson_append_document_end(&find, &projection);
	BSON_APPEND_INT32(&find, "batchSize", (int32) set->count);
	return plinth_mongo_read_all(client, collection, &find, documents, error);
}

/* How many chunks each of these files has: documents {_id, n}. */
static PlinthMongoStatus
count_chunks(PlinthMongoClient *client, const char *chunks, const IdSet *set,
			 MongoDocuments *documents, PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	bson_t pipeline;
	bson_t stage;
	bson_t group;
	bson_t sum;
	bson_t cursor;
	int utf8len;

	chunks = plinth_mongo_to_utf8(chunks, strlen(chunks), &utf8len);
	BSON_APPEND_UTF8(&command, "aggregate", chunks);
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(&command, "pipeline", &pipeline);
	BSON_APPEND_DOCUMENT_BEGIN(&pipeline, "0", &stage);
	append_in(&stage, "$match", "files_id", set);
	bson_append_document_end(&pipeline, &stage);
	BSON_APPEND_DOCUMENT_BEGIN(&pipeline, "1", &stage);
	BSON_APPEND_DOCUMENT_BEGIN(&stage, "$group", &group);
	BSON_APPEND_UTF8(&group, "_id", "$files_id");
	BSON_APPEND_DOCUMENT_BEGIN(&group, "n", &sum);
	BSON_APPEND_INT32(&sum, "$sum", 1);
	bson_append_document_end(&group, &sum);
	bson_append_document_end(&stage, &group);
	bson_append_document_end(&pipeline, &stage);
	bson_append_array_end(&command, &pipeline);
	BSON_APPEND_DOCUMENT_BEGIN(&command, "cursor", &cursor);
	BSON_APPEND_INT32(&cursor, "batchSize", (int32) set->count);
	bson_append_document_end(&command, &cursor);
	return plinth_mongo_read_all(client, chunks, &command, documents, error);
}

/* What is known of a document by its _id, an ObjectId. */
typedef struct Known
{
	bson_oid_t id;
	bson_oid_t file;
	int64 n;
} Known;

static int
compare_known(const void *a, const void *b)
{
	return bson_oid_compare(&((const Known *) a)->id, &((const Known *) b)->id);
}

/* The documents whose _id is an ObjectId, in its order; palloc'd. */
static Known *
sort_known(const MongoDocuments *documents, int *count)
{
	Known *known = palloc0(sizeof(Known) * Max(documents->count, 1));

	*count = 0;
	for (int i = 0; i < documents->count; i++)
	{
		bson_t view;
		bson_iter_t iter;
		Known *item = &known[*count];

		if (!bson_init_static(&view, documents->items[i].data, documents->items[i].len) ||
			!field_oid(&view, "_id", &item->id))
			continue;
		(void) field_oid(&view, "files_id", &item->file);
		if (bson_iter_init_find(&iter, &view, "n"))
			item->n = bson_iter_as_int64(&iter);
		(*count)++;
	}
	qsort(known, *count, sizeof(Known), compare_known);
	return known;
}

static const Known *
look_up(const Known *known, int count, const bson_oid_t *id)
{
	Known key;

	bson_oid_copy(id, &key.id);
	return bsearch(&key, known, count, sizeof(Known), compare_known);
}

/* How many chunks the file of a document has. */
static int64
chunks_needed(const PlinthMongoOp *op)
{
	bson_t view;
	bson_iter_t iter;
	int64 length = 0;
	int64 size = 0;

	if (!bson_init_static(&view, op->document.data, op->document.len))
		return 0;
	if (bson_iter_init_find(&iter, &view, "length"))
		length = bson_iter_as_int64(&iter);
	if (bson_iter_init_find(&iter, &view, "chunkSize"))
		size = bson_iter_as_int64(&iter);
	return size <= 0 ? 0 : (length + size - 1) / size;
}

PlinthMongoStatus
plinth_mongo_gridfs_incomplete(PlinthMongoClient *client, const char *chunks,
							   const PlinthMongoOp *ops, int nops, bool *held,
							   PlinthMongoError *error)
{
	IdSet set = {.list = BSON_INITIALIZER};
	MongoDocuments documents = {0};
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	Known *known;
	int nknown;
	bson_oid_t id;

	plinth_mongo_error_clear(error);
	for (int i = 0; i < nops; i++)
	{
		held[i] = ops[i].kind == PLINTH_MONGO_REPLACE && chunks_needed(&ops[i]) > 0 &&
				  op_oid(&ops[i], &id);
		if (held[i])
			id_set_add(&set, &id);
	}
	if (set.count > 0)
		status = count_chunks(client, chunks, &set, &documents, error);
	bson_destroy(&set.list);
	known = sort_known(&documents, &nknown);
	for (int i = 0; status == PLINTH_MONGO_OK && i < nops; i++)
	{
		const Known *found;

		if (!held[i] || !op_oid(&ops[i], &id))
			continue;
		found = look_up(known, nknown, &id);
		held[i] = found == NULL || found->n < chunks_needed(&ops[i]);
	}
	return status;
}

PlinthMongoStatus
plinth_mongo_gridfs_in_use(PlinthMongoClient *client, const char *files, const char *chunks,
						   const PlinthMongoOp *ops, int nops, bool *held, PlinthMongoError *error)
{
	IdSet ids = {.list = BSON_INITIALIZER};
	IdSet owners = {.list = BSON_INITIALIZER};
	MongoDocuments there = {0};
	MongoDocuments owned = {0};
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	Known *known;
	Known *alive;
	int nknown;
	int nalive;
	bson_oid_t id;

	plinth_mongo_error_clear(error);
	for (int i = 0; i < nops; i++)
	{
		held[i] = ops[i].kind == PLINTH_MONGO_DELETE && op_oid(&ops[i], &id);
		if (held[i])
			id_set_add(&ids, &id);
	}
	if (ids.count > 0)
		status = read_field(client, chunks, &ids, "files_id", &there, error);
	known = sort_known(&there, &nknown);
	for (int i = 0; i < nknown; i++)
		id_set_add(&owners, &known[i].file);
	if (status == PLINTH_MONGO_OK && owners.count > 0)
		status = read_field(client, files, &owners, "_id", &owned, error);
	bson_destroy(&ids.list);
	bson_destroy(&owners.list);
	alive = sort_known(&owned, &nalive);
	for (int i = 0; status == PLINTH_MONGO_OK && i < nops; i++)
	{
		const Known *chunk;

		if (!held[i] || !op_oid(&ops[i], &id))
			continue;
		chunk = look_up(known, nknown, &id);
		held[i] = chunk != NULL && look_up(alive, nalive, &chunk->file) != NULL;
	}
	return status;
}
