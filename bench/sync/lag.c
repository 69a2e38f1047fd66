/*
 * lag.c
 *		How long a document takes.
 *
 *	lag sync CONNINFO INSERT URI DATABASE COLLECTION COUNT
 *		runs INSERT, whose $1 is a key, as a transaction, and takes the time
 *		from the return of its COMMIT until a find by _id sees the document
 *	lag raw URI DATABASE COLLECTION FILE COUNT
 *		writes documents of FILE one at a time (replaceOne with upsert,
 *		majority) and takes the time of each
 *
 * Prints a time a line, in microseconds.  Between two there is a pause of
 * random length, so that nothing falls into step with anything.
 */
#include <libpq-fe.h>
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TOO_LONG_US 20000000
#define POLL_US 100

static void
fail(const char *message)
{
	fprintf(stderr, "%s\n", message);
	exit(1);
}

static void
rest(void)
{
	usleep(10000 + random() % 40000);
}

static mongoc_collection_t *
open_collection(const char *uri, const char *database, const char *name)
{
	mongoc_client_t *client = mongoc_client_new(uri);
	mongoc_write_concern_t *concern = mongoc_write_concern_new();
	mongoc_collection_t *collection;

	if (client == NULL)
		fail("bad uri");
	collection = mongoc_client_get_collection(client, database, name);
	mongoc_write_concern_set_wmajority(concern, 30000);
	mongoc_collection_set_write_concern(collection, concern);
	return collection;
}

static bool
is_there(mongoc_collection_t *collection, int64_t key)
{
	bson_t filter = BSON_INITIALIZER;
	bson_t opts = BSON_INITIALIZER;
	mongoc_cursor_t *cursor;
	const bson_t *document;
	bson_error_t error;
	bool found;

	BSON_APPEND_INT64(&filter, "_id", key);
	BSON_APPEND_INT64(&opts, "limit", 1);
	BSON_APPEND_BOOL(&opts, "singleBatch", true);
	cursor = mongoc_collection_find_with_opts(collection, &filter, &opts, NULL);
	found = mongoc_cursor_next(cursor, &document);
	if (mongoc_cursor_error(cursor, &error))
		fail(error.message);
	mongoc_cursor_destroy(cursor);
	bson_destroy(&filter);
	bson_destroy(&opts);
	return found;
}

static void
measure_sync(char **argv)
{
	PGconn *conn = PQconnectdb(argv[0]);
	mongoc_collection_t *collection = open_collection(argv[2], argv[3], argv[4]);
	PGresult *result;
	long count = atol(argv[5]);
	time_t started = time(NULL);

	if (PQstatus(conn) != CONNECTION_OK)
		fail(PQerrorMessage(conn));
	result = PQprepare(conn, "insert", argv[1], 1, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail(PQerrorMessage(conn));
	is_there(collection, 0);
	/* The first is for warming up. */
	for (long i = 0; i <= count; i++)
	{
		int64_t key = -((int64_t) started * 1000000 + i);
		char text[32];
		const char *values[1] = {text};
		int64_t start;

		snprintf(text, sizeof(text), "%lld", (long long) key);
		result = PQexecPrepared(conn, "insert", 1, values, NULL, NULL, 0);
		start = bson_get_monotonic_time();
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail(PQerrorMessage(conn));
		PQclear(result);
		while (!is_there(collection, key))
		{
			if (bson_get_monotonic_time() - start > TOO_LONG_US)
				fail("a document did not come");
			usleep(POLL_US);
		}
		if (i > 0)
			printf("%lld\n", (long long) (bson_get_monotonic_time() - start));
		rest();
	}
}

static void
measure_raw(char **argv)
{
	mongoc_collection_t *collection = open_collection(argv[0], argv[1], argv[2]);
	bson_error_t error;
	bson_reader_t *reader = bson_reader_new_from_file(argv[3], &error);
	long count = atol(argv[4]);
	bson_t opts = BSON_INITIALIZER;

	if (reader == NULL)
		fail(error.message);
	BSON_APPEND_BOOL(&opts, "upsert", true);
	for (long i = 0; i <= count; i++)
	{
		const bson_t *document = bson_reader_read(reader, NULL);
		bson_t selector = BSON_INITIALIZER;
		bson_iter_t id;
		int64_t start = bson_get_monotonic_time();

		if (document == NULL || !bson_iter_init_find(&id, document, "_id"))
			fail("too few documents");
		bson_append_iter(&selector, "_id", 3, &id);
		if (!mongoc_collection_replace_one(collection, &selector, document, &opts, NULL, &error))
			fail(error.message);
		if (i > 0)
			printf("%lld\n", (long long) (bson_get_monotonic_time() - start));
		bson_destroy(&selector);
		rest();
	}
}

int
main(int argc, char **argv)
{
	mongoc_init();
	srandom((unsigned) getpid());
	if (argc == 8 && strcmp(argv[1], "sync") == 0)
		measure_sync(argv + 2);
	else if (argc == 7 && strcmp(argv[1], "raw") == 0)
		measure_raw(argv + 2);
	else
		fail("usage: lag sync CONNINFO INSERT URI DATABASE COLLECTION COUNT\n"
			 "       lag raw URI DATABASE COLLECTION FILE COUNT");
	return 0;
}
