/*
 * command.c
 *		Running one command and taking home its reply.
 */
#include "postgres.h"

#include "base/base.h"
#include "mongo/client_int.h"

bool
plinth_mongo_add_write_options(bson_t *command)
{
	bson_t concern;

	return BSON_APPEND_DOCUMENT_BEGIN(command, "writeConcern", &concern) &&
		   BSON_APPEND_UTF8(&concern, "w", "majority") &&
		   BSON_APPEND_INT64(&concern, "wtimeout", plinth_setting_sync_timeout) &&
		   bson_append_document_end(command, &concern) && plinth_mongo_add_read_options(command);
}

bool
plinth_mongo_add_read_options(bson_t *command)
{
	return BSON_APPEND_INT64(command, "maxTimeMS", plinth_setting_sync_timeout);
}

/* Out of memory is an error of the call, so that the driver's reply is freed. */
static bool
copy_reply(const bson_t *reply, PlinthBson *copy)
{
	copy->len = reply->len;
	copy->data = MemoryContextAllocExtended(CurrentMemoryContext, reply->len,
											MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
	if (copy->data == NULL)
		return false;
	memcpy(copy->data, bson_get_data(reply), reply->len);
	return true;
}

/* After these the connection or what the driver knows about the servers is no good. */
static bool
needs_new_driver(PlinthMongoStatus status)
{
	switch (status)
	{
		case PLINTH_MONGO_UNREACHABLE:
		case PLINTH_MONGO_DNS:
		case PLINTH_MONGO_TLS:
		case PLINTH_MONGO_AUTH:
		case PLINTH_MONGO_NOT_PRIMARY:
		case PLINTH_MONGO_CANCELLED:
			return true;
		default:
			return false;
	}
}

static PlinthMongoStatus
run_in_driver(PlinthMongoClient *client, const bson_t *command, PlinthBson *copy,
			  PlinthMongoError *error)
{
	bson_error_t reason = {0};
	bson_t reply;
	PlinthMongoStatus status = PLINTH_MONGO_OK;

	copy->data = NULL;
	copy->len = 0;
	if (!plinth_mongo_driver_open(client, error))
		return error->status;
	if (!mongoc_client_command_simple(client->driver, client->database, command, NULL, &reply,
									  &reason))
		status = plinth_mongo_error_from_driver(client, error, &reason);
	if (!bson_empty(&reply) && !copy_reply(&reply, copy))
	{
		status = PLINTH_MONGO_OTHER;
		plinth_mongo_error_set(error, status, 0, "out of memory for a reply of %u bytes",
							   reply.len);
	}
	bson_destroy(&reply);
	return status;
}

PlinthMongoStatus
plinth_mongo_run(PlinthMongoClient *client, const bson_t *command, PlinthBson *reply,
				 PlinthMongoError *error)
{
	PlinthMongoStatus status;

	plinth_mongo_error_clear(error);
	plinth_mongo_enter(client);
	status = run_in_driver(client, command, reply, error);
	if (needs_new_driver(status))
		plinth_mongo_driver_close(client);
	plinth_mongo_leave(client);
	if (status == PLINTH_MONGO_OK &&
		plinth_mongo_bson_check(reply->data, reply->len, PLINTH_BSON_MAX_REPLY_DEPTH) !=
			PLINTH_BSON_SOUND)
	{
		status = PLINTH_MONGO_OTHER;
		plinth_mongo_error_set(error, status, 0, "the server's reply is not valid BSON");
	}
	return status;
}

PlinthMongoStatus
plinth_mongo_ping(PlinthMongoClient *client, PlinthMongoError *error)
{
	bson_t command = BSON_INITIALIZER;
	PlinthBson reply;
	PlinthMongoStatus status;

	BSON_APPEND_INT32(&command, "ping", 1);
	status = plinth_mongo_run(client, &command, &reply, error);
	bson_destroy(&command);
	if (reply.data != NULL)
		pfree(reply.data);
	return status;
}
