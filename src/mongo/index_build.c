/*
 * index_build.c
 *		Creating, dropping and listing indexes.
 *
 * Building an index takes as long as it takes: neither maxTimeMS nor the
 * socket's time-out bound it.  A server that goes away meanwhile is noticed by
 * TCP's keepalive, and a worker that is to stop stops.
 */
#include "postgres.h"

#include "mongo/client_int.h"

#define CODE_NAMESPACE_NOT_FOUND 26
#define CODE_INDEX_NOT_FOUND 27

void
plinth_mongo_be_patient(PlinthMongoClient *client)
{
	client->patient = true;
}

static const char *
utf8(const char *text)
{
	int len;

	return plinth_mongo_to_utf8(text, strlen(text), &len);
}

/* Runs a command, which it destroys, and forgets what it answers. */
static PlinthMongoStatus
run(PlinthMongoClient *client, bson_t *command, PlinthMongoError *error)
{
	PlinthBson reply;
	PlinthMongoStatus status;
	bson_t concern;

	BSON_APPEND_DOCUMENT_BEGIN(command, "writeConcern", &concern);
	BSON_APPEND_UTF8(&concern, "w", "majority");
	bson_append_document_end(command, &concern);
	status = plinth_mongo_run(client, command, &reply, error);
	bson_destroy(command);
	if (reply.data != NULL)
		pfree(reply.data);
	return status;
}

PlinthMongoStatus
plinth_mongo_index_create(PlinthMongoClient *client, const char *collection, PlinthBson spec,
						  PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	bson_t list;
	bson_t view;
	PlinthMongoStatus status;

	plinth_mongo_bson_view(spec, &view);
	BSON_APPEND_UTF8(&command, "createIndexes", utf8(collection));
	BSON_APPEND_ARRAY_UNSAFE_BEGIN(&command, "indexes", &list);
	BSON_APPEND_DOCUMENT(&list, "0", &view);
	bson_append_array_end(&command, &list);
	client->endless = client->patient;
	status = run(client, &command, error);
	client->endless = false;
	return status;
}

PlinthMongoStatus
plinth_mongo_index_drop(PlinthMongoClient *client, const char *collection, const char *name,
						PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	PlinthMongoStatus status;

	BSON_APPEND_UTF8(&command, "dropIndexes", utf8(collection));
	BSON_APPEND_UTF8(&command, "index", utf8(name));
	status = run(client, &command, error);
	if (status == PLINTH_MONGO_OK ||
		(error->code != CODE_INDEX_NOT_FOUND && error->code != CODE_NAMESPACE_NOT_FOUND))
		return status;
	plinth_mongo_error_clear(error);
	return PLINTH_MONGO_OK;
}

PlinthMongoStatus
plinth_mongo_index_read(PlinthMongoClient *client, const char *collection, MongoDocuments *indexes,
						PlinthMongoError *error)
{
	bson_t list = BSON_INITIALIZER;
	bson_t cursor;

	BSON_APPEND_UTF8(&list, "listIndexes", collection);
	BSON_APPEND_DOCUMENT_BEGIN(&list, "cursor", &cursor);
	bson_append_document_end(&list, &cursor);
	return plinth_mongo_read_all(client, collection, &list, indexes, error);
}

PlinthMongoStatus
plinth_mongo_index_list(PlinthMongoClient *client, const char *collection, PlinthBson **indexes,
						int *nindexes, PlinthMongoError *error)
{
	MongoDocuments documents = {0};
	PlinthMongoStatus status;

	*indexes = NULL;
	*nindexes = 0;
	status = plinth_mongo_index_read(client, utf8(collection), &documents, error);
	if (status != PLINTH_MONGO_OK && error->code == CODE_NAMESPACE_NOT_FOUND)
	{
		plinth_mongo_error_clear(error);
		return PLINTH_MONGO_OK;
	}
	if (status != PLINTH_MONGO_OK)
		return status;
	*indexes = documents.items;
	for (int i = 0; i < documents.count; i++)
	{
		char *name = plinth_mongo_index_name(documents.items[i]);

		if (name == NULL || strcmp(name, "_id_") != 0)
			documents.items[(*nindexes)++] = documents.items[i];
	}
	return PLINTH_MONGO_OK;
}
