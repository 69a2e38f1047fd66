/*
 * raw_writer.c
 *		What the driver alone can do: the peer that sync is measured against.
 *
 *	raw_writer URI DATABASE COLLECTION FILE BATCH
 *
 * FILE holds BSON documents one after another.  They are read into memory,
 * then written over one connection as unordered bulks of BATCH replaceOne
 * with upsert and write concern majority.  Prints rows and seconds.
 */
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>

static bson_t **
read_documents(const char *file, size_t *count)
{
	bson_error_t error;
	bson_reader_t *reader = bson_reader_new_from_file(file, &error);
	bson_t **documents = NULL;
	size_t room = 0;
	const bson_t *document;
	bool end = false;

	if (reader == NULL)
	{
		fprintf(stderr, "%s: %s\n", file, error.message);
		exit(1);
	}
	*count = 0;
	while ((document = bson_reader_read(reader, &end)) != NULL)
	{
		if (*count == room)
		{
			room = room == 0 ? 1024 : room * 2;
			documents = bson_realloc(documents, room * sizeof(bson_t *));
		}
		documents[(*count)++] = bson_copy(document);
	}
	bson_reader_destroy(reader);
	return documents;
}

static void
write_batch(mongoc_collection_t *collection, bson_t **documents, size_t count, const bson_t *opts)
{
	bson_t bulk_opts = BSON_INITIALIZER;
	mongoc_bulk_operation_t *bulk;
	bson_error_t error;
	bson_t reply;

	BSON_APPEND_BOOL(&bulk_opts, "ordered", false);
	bulk = mongoc_collection_create_bulk_operation_with_opts(collection, &bulk_opts);
	for (size_t i = 0; i < count; i++)
	{
		bson_t selector = BSON_INITIALIZER;
		bson_iter_t id;

		if (!bson_iter_init_find(&id, documents[i], "_id") ||
			!bson_append_iter(&selector, "_id", 3, &id) ||
			!mongoc_bulk_operation_replace_one_with_opts(bulk, &selector, documents[i], opts,
														 &error))
		{
			fprintf(stderr, "a document cannot be written\n");
			exit(1);
		}
		bson_destroy(&selector);
	}
	if (!mongoc_bulk_operation_execute(bulk, &reply, &error))
	{
		fprintf(stderr, "%s\n", error.message);
		exit(1);
	}
	bson_destroy(&reply);
	mongoc_bulk_operation_destroy(bulk);
	bson_destroy(&bulk_opts);
}

int
main(int argc, char **argv)
{
	mongoc_client_t *client;
	mongoc_collection_t *collection;
	mongoc_write_concern_t *concern;
	bson_t opts = BSON_INITIALIZER;
	bson_t **documents;
	size_t count;
	size_t batch;
	int64_t start;

	if (argc != 6)
	{
		fprintf(stderr, "usage: raw_writer URI DATABASE COLLECTION FILE BATCH\n");
		return 1;
	}
	mongoc_init();
	documents = read_documents(argv[4], &count);
	batch = strtoul(argv[5], NULL, 10);
	client = mongoc_client_new(argv[1]);
	if (client == NULL || batch == 0)
		return 1;
	concern = mongoc_write_concern_new();
	mongoc_write_concern_set_wmajority(concern, 30000);
	collection = mongoc_client_get_collection(client, argv[2], argv[3]);
	mongoc_collection_set_write_concern(collection, concern);
	BSON_APPEND_BOOL(&opts, "upsert", true);

	/* Connecting is not what is measured. */
	write_batch(collection, documents, 1, &opts);
	start = bson_get_monotonic_time();
	for (size_t i = 0; i < count; i += batch)
		write_batch(collection, documents + i, count - i < batch ? count - i : batch, &opts);
	printf("%zu %.6f\n", count, (double) (bson_get_monotonic_time() - start) / 1e6);
	return 0;
}
