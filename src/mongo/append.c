/*
 * append.c
 *		Inserting in order into a collection that only grows.
 *
 * Inserts are ordered, so one that fails ends its command.  Where it failed
 * since its _id is there, the same is likely of those behind it (they were sent
 * before a crash): which of them are there is asked for at once, and only the
 * others are inserted.  The last of those that are there is inserted all the
 * same: its refusal is answered when the majority has what was there before.
 */
#include "postgres.h"

#include "mongo/client_int.h"

#define CODE_NAMESPACE_EXISTS 48

typedef struct Append
{
	PlinthMongoClient *client;
	const char *collection;
	PlinthMongoOp **left; /* to be inserted, in order */
	bool *known;          /* of left: it is there already */
	int nleft;
	PlinthBson *ids; /* room for as many */
} Append;

static int
compare_ids(const void *a, const void *b)
{
	const PlinthBson *x = a;
	const PlinthBson *y = b;

	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return memcmp(x->data, y->data, x->len);
}

static bool
is_duplicate(const PlinthMongoOp *op)
{
	return op->error.status == PLINTH_MONGO_DUPLICATE_KEY;
}

/*
 * Of the ops that were tried, those refused as duplicates are settled: done
 * where their _id is there.  Those of the others that are there are done, too,
 * but for the last.
 */
static PlinthMongoStatus
settle_duplicates(Append *append, int tried, PlinthMongoError *error)
{
	PlinthBson *found;
	int nfound;
	int nids = 0;
	int kept = 0;
	int last = -1;
	PlinthMongoStatus status;

	for (int i = 0; i < append->nleft; i++)
	{
		if (i >= tried || is_duplicate(append->left[i]))
			append->ids[nids++] = append->left[i]->id;
	}
	status = plinth_mongo_find_ids(append->client, append->collection, append->ids, nids, &found,
								   &nfound, error);
	if (status != PLINTH_MONGO_OK)
		return status;
	if (nfound > 0)
		qsort(found, nfound, sizeof(PlinthBson), compare_ids);
	for (int i = 0; i < append->nleft; i++)
	{
		PlinthMongoOp *op = append->left[i];
		bool there =
			nfound > 0 && bsearch(&op->id, found, nfound, sizeof(PlinthBson), compare_ids) != NULL;

		if (i < tried)
		{
			if (there && is_duplicate(op))
				plinth_mongo_error_clear(&op->error);
			continue;
		}
		append->known[i] = there;
		last = there ? i : last;
	}
	for (int i = tried; i < append->nleft; i++)
	{
		if (append->known[i] && i != last)
		{
			plinth_mongo_error_clear(&append->left[i]->error);
			continue;
		}
		append->left[kept] = append->left[i];
		append->known[kept++] = i == last;
	}
	append->nleft = kept;
	return PLINTH_MONGO_OK;
}

/* One command, and what its answer means for the ops. */
static PlinthMongoStatus
step(Append *append, PlinthMongoError *error)
{
	int tried;
	bool duplicates = false;
	PlinthMongoStatus status = plinth_mongo_insert_ordered(
		append->client, append->collection, append->left, append->nleft, &tried, error);

	if (status != PLINTH_MONGO_OK)
		return status;
	for (int i = 0; i < tried; i++)
	{
		if (!is_duplicate(append->left[i]))
			continue;
		if (append->known[i])
			plinth_mongo_error_clear(&append->left[i]->error);
		else
			duplicates = true;
	}
	if (duplicates)
		return settle_duplicates(append, tried, error);
	append->nleft -= tried;
	memmove(append->left, append->left + tried, sizeof(PlinthMongoOp *) * append->nleft);
	memmove(append->known, append->known + tried, sizeof(bool) * append->nleft);
	return PLINTH_MONGO_OK;
}

PlinthMongoStatus
plinth_mongo_append(PlinthMongoClient *client, const char *collection, PlinthMongoOp *ops, int nops,
					PlinthMongoError *error)
{
	Append append = {.client = client};
	PlinthMongoError unsent;
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	int utf8len;

	append.collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	append.left = palloc(Max(nops, 1) * sizeof(PlinthMongoOp *));
	append.known = palloc0(Max(nops, 1) * sizeof(bool));
	append.ids = palloc(Max(nops, 1) * sizeof(PlinthBson));
	plinth_mongo_error_clear(error);
	plinth_mongo_error_set(&unsent, PLINTH_MONGO_UNREACHABLE, -1, "not sent");
	for (int i = 0; i < nops; i++)
	{
		plinth_mongo_error_copy(&ops[i].error, &unsent);
		if (!plinth_mongo_op_too_large(&ops[i]))
			append.left[append.nleft++] = &ops[i];
	}
	while (append.nleft > 0 && status == PLINTH_MONGO_OK)
		status = step(&append, error);
	client->meanwhile = NULL;
	return status;
}

/* Is there such a collection, and is it capped? */
static PlinthMongoStatus
look(PlinthMongoClient *client, const char *collection, bool *capped, PlinthMongoError *error)
{
	bson_t list = BSON_INITIALIZER;
	bson_t filter;
	MongoDocuments found = {0};
	PlinthMongoStatus status;
	bson_t view;
	bson_iter_t iter;
	bson_iter_t value;

	*capped = false;
	BSON_APPEND_INT32(&list, "listCollections", 1);
	BSON_APPEND_DOCUMENT_BEGIN(&list, "filter", &filter);
	BSON_APPEND_UTF8(&filter, "name", collection);
	bson_append_document_end(&list, &filter);
	status = plinth_mongo_read_all(client, "$cmd.listCollections", &list, &found, error);
	for (int i = 0; status == PLINTH_MONGO_OK && i < found.count; i++)
		*capped |= bson_init_static(&view, found.items[i].data, found.items[i].len) &&
				   bson_iter_init(&iter, &view) &&
				   bson_iter_find_descendant(&iter, "options.capped", &value) &&
				   bson_iter_as_bool(&value);
	return status;
}

PlinthMongoStatus
plinth_mongo_make_capped(PlinthMongoClient *client, const char *collection, int64 bytes,
						 int64 documents, bool *capped, PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	PlinthBson reply;
	PlinthMongoStatus status;
	int utf8len;

	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	BSON_APPEND_UTF8(&command, "create", collection);
	BSON_APPEND_BOOL(&command, "capped", true);
	BSON_APPEND_INT64(&command, "size", bytes);
	if (documents > 0)
		BSON_APPEND_INT64(&command, "max", documents);
	plinth_mongo_add_write_options(&command);
	status = plinth_mongo_run(client, &command, &reply, error);
	bson_destroy(&command);
	*capped = status == PLINTH_MONGO_OK;
	if (status == PLINTH_MONGO_OK || error->code != CODE_NAMESPACE_EXISTS)
		return status;
	plinth_mongo_error_clear(error);
	return look(client, collection, capped, error);
}
