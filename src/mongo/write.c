/*
 * write.c
 *		A batch of deletes, replaces and inserts, unordered.
 *
 * The driver's bulk API knows no maxTimeMS, without which a write that hangs
 * in the server could land much later; so the commands are built here.  One
 * command holds one kind and stays below MongoDB's limits on operations and
 * size; every op learns its own outcome.
 */
#include "postgres.h"

#include "mongo/client_int.h"

#define MAX_OPS 100000
#define MAX_BYTES 16000000
/* Around one operation in an array: names, lengths, a key of up to 6 digits. */
#define OP_OVERHEAD 64
/* The server takes so much above MONGO_MAX_DOCUMENT in a command. */
#define COMMAND_ALLOWANCE (16 * 1024)

static const struct
{
	const char *command;
	const char *array;
} kinds[] = {[PLINTH_MONGO_DELETE] = {"delete", "deletes"},
			 [PLINTH_MONGO_REPLACE] = {"update", "updates"},
			 [PLINTH_MONGO_INSERT] = {"insert", "documents"}};

typedef struct Batch
{
	PlinthMongoOp **ops;
	int count;
	Size bytes;
	bool ordered; /* ends at the first that fails */
	int tried;    /* out: how many the server got to */
} Batch;

static Size
op_size(const PlinthMongoOp *op)
{
	return OP_OVERHEAD + (op->kind == PLINTH_MONGO_INSERT ? 0 : op->id.len) + op->document.len;
}

static bool
append_op(bson_t *array, int index, const PlinthMongoOp *op)
{
	char buffer[16];
	const char *key;
	int keylen = (int) bson_uint32_to_string(index, &key, buffer, sizeof(buffer));
	bson_t id;
	bson_t document;
	bson_t child;

	if (op->kind != PLINTH_MONGO_DELETE &&
		!bson_init_static(&document, op->document.data, op->document.len))
		return false;
	if (op->kind == PLINTH_MONGO_INSERT)
		return bson_append_document(array, key, keylen, &document);

	return bson_init_static(&id, op->id.data, op->id.len) &&
		   bson_append_document_begin(array, key, keylen, &child) &&
		   BSON_APPEND_DOCUMENT(&child, "q", &id) &&
		   (op->kind == PLINTH_MONGO_DELETE ? BSON_APPEND_INT32(&child, "limit", 1)
											: (BSON_APPEND_DOCUMENT(&child, "u", &document) &&
											   BSON_APPEND_BOOL(&child, "upsert", true))) &&
		   bson_append_document_end(array, &child);
}

static bool
build_command(bson_t *command, const char *collection, PlinthMongoOpKind kind, const Batch *batch)
{
	bson_t array;

	if (!BSON_APPEND_UTF8(command, kinds[kind].command, collection) ||
		!BSON_APPEND_BOOL(command, "ordered", batch->ordered) ||
		!plinth_mongo_add_write_options(command) ||
		!BSON_APPEND_ARRAY_UNSAFE_BEGIN(command, kinds[kind].array, &array))
		return false;
	for (int i = 0; i < batch->count; i++)
	{
		if (!append_op(&array, i, batch->ops[i]))
			return false;
	}
	return bson_append_array_end(command, &array);
}

static void
set_all(const Batch *batch, const PlinthMongoError *error)
{
	for (int i = 0; i < batch->count; i++)
		plinth_mongo_error_copy(&batch->ops[i]->error, error);
}

/* Takes {index, code, errmsg} of writeErrors; returns how many there were. */
static int
take_write_errors(const Batch *batch, const bson_t *reply)
{
	bson_iter_t iter;
	bson_iter_t errors;
	int count = 0;

	if (!bson_iter_init_find(&iter, reply, "writeErrors") || !BSON_ITER_HOLDS_ARRAY(&iter) ||
		!bson_iter_recurse(&iter, &errors))
		return 0;
	while (bson_iter_next(&errors))
	{
		bson_iter_t field;
		int64 index = -1;
		int code = 0;
		const char *message = "";
		uint32 len = 0;

		if (!BSON_ITER_HOLDS_DOCUMENT(&errors) || !bson_iter_recurse(&errors, &field))
			continue;
		while (bson_iter_next(&field))
		{
			if (strcmp(bson_iter_key(&field), "index") == 0)
				index = bson_iter_as_int64(&field);
			else if (strcmp(bson_iter_key(&field), "code") == 0)
				code = (int) bson_iter_as_int64(&field);
			else if (strcmp(bson_iter_key(&field), "errmsg") == 0 && BSON_ITER_HOLDS_UTF8(&field))
				message = bson_iter_utf8(&field, &len);
		}
		if (index < 0 || index >= batch->count)
			continue;
		plinth_mongo_error_from_server(&batch->ops[index]->error, code, message, len);
		count++;
	}
	return count;
}

/* Written, but not known to be by the majority. */
static bool
take_concern_error(const bson_t *reply, PlinthMongoError *error)
{
	bson_iter_t iter;
	bson_iter_t field;
	int code = 0;
	char message[256] = "not acknowledged by the majority";

	if (!bson_iter_init_find(&iter, reply, "writeConcernError") ||
		!BSON_ITER_HOLDS_DOCUMENT(&iter) || !bson_iter_recurse(&iter, &field))
		return false;
	while (bson_iter_next(&field))
	{
		if (strcmp(bson_iter_key(&field), "code") == 0)
			code = (int) bson_iter_as_int64(&field);
		else if (strcmp(bson_iter_key(&field), "errmsg") == 0 && BSON_ITER_HOLDS_UTF8(&field))
			strlcpy(message, bson_iter_utf8(&field, NULL), sizeof(message));
	}
	plinth_mongo_error_set(error, PLINTH_MONGO_WRITE_CONCERN, code, "%s", message);
	return true;
}

static void
take_reply(Batch *batch, PlinthMongoOpKind kind, const bson_t *reply)
{
	PlinthMongoError error;
	bson_iter_t iter;
	int64 n = 0;
	int failed;
	bool concern;

	plinth_mongo_error_clear(&error);
	concern = take_concern_error(reply, &error);
	set_all(batch, &error);
	failed = take_write_errors(batch, reply);
	if (concern || kind == PLINTH_MONGO_DELETE)
		return;
	if (batch->ordered && failed > 0)
	{
		/* By the place of the error and not by n, which not every server counts so. */
		while (batch->ops[batch->tried - 1]->error.status == PLINTH_MONGO_OK)
			batch->tried--;
		return;
	}
	/* Every replace upserts, so each op that did not fail counts. */
	if (bson_iter_init_find(&iter, reply, "n"))
		n = bson_iter_as_int64(&iter);
	if (n + failed == batch->count)
		return;
	plinth_mongo_error_set(&error, PLINTH_MONGO_OTHER, 0,
						   "server acknowledged " INT64_FORMAT " of %d writes", n,
						   batch->count - failed);
	for (int i = 0; i < batch->count; i++)
	{
		if (batch->ops[i]->error.status == PLINTH_MONGO_OK)
			batch->ops[i]->error = error;
	}
}

static PlinthMongoStatus
send_batch(PlinthMongoClient *client, const char *collection, PlinthMongoOpKind kind, Batch *batch,
		   PlinthMongoError *error)
{
	bson_t *command = bson_sized_new(batch->bytes + 1024);
	bson_t view;
	PlinthBson reply = {0};
	PlinthMongoStatus status;

	batch->tried = batch->count;
	if (build_command(command, collection, kind, batch))
		status = plinth_mongo_run(client, command, &reply, error);
	else
	{
		status = PLINTH_MONGO_BAD_DOCUMENT;
		plinth_mongo_error_set(error, status, 0, "could not build the command");
	}
	bson_destroy(command);

	if (status == PLINTH_MONGO_OK && bson_init_static(&view, reply.data, reply.len))
		take_reply(batch, kind, &view);
	else
		set_all(batch, error);
	if (reply.data != NULL)
		pfree(reply.data);
	return status;
}

bool
plinth_mongo_op_too_large(PlinthMongoOp *op)
{
	if (op->document.len <= MONGO_MAX_DOCUMENT &&
		op_size(op) <= MONGO_MAX_DOCUMENT + COMMAND_ALLOWANCE - 1024)
		return false;
	plinth_mongo_error_set(&op->error, PLINTH_MONGO_TOO_LARGE, 0,
						   "document of %u bytes is larger than the limit of %d bytes",
						   op->document.len, MONGO_MAX_DOCUMENT);
	return true;
}

/* Sends the ops of one kind; sets *first to the first failure of a whole command. */
static void
write_kind(PlinthMongoClient *client, const char *collection, PlinthMongoOpKind kind,
		   PlinthMongoOp *ops, int nops, PlinthMongoOp **room, PlinthMongoError *first)
{
	Batch batch = {.ops = room};

	for (int i = 0; i <= nops && first->status == PLINTH_MONGO_OK; i++)
	{
		PlinthMongoOp *op = i < nops ? &ops[i] : NULL;

		if (op != NULL && (op->kind != kind || plinth_mongo_op_too_large(op)))
			continue;
		if (batch.count > 0 &&
			(op == NULL || batch.count == MAX_OPS || batch.bytes + op_size(op) > MAX_BYTES))
		{
			(void) send_batch(client, collection, kind, &batch, first);
			batch.count = 0;
			batch.bytes = 0;
		}
		if (op != NULL)
		{
			batch.ops[batch.count++] = op;
			batch.bytes += op_size(op);
		}
	}
}

PlinthMongoStatus
plinth_mongo_write(PlinthMongoClient *client, const char *collection, PlinthMongoOp *ops, int nops,
				   PlinthMongoError *error)
{
	PlinthMongoOp **room = palloc(Max(nops, 1) * sizeof(PlinthMongoOp *));
	PlinthMongoError unsent;
	int utf8len;

	collection = plinth_mongo_to_utf8(collection, strlen(collection), &utf8len);
	plinth_mongo_error_clear(error);
	plinth_mongo_error_set(&unsent, PLINTH_MONGO_UNREACHABLE, -1, "not sent");
	for (int i = 0; i < nops; i++)
		plinth_mongo_error_copy(&ops[i].error, &unsent);

	write_kind(client, collection, PLINTH_MONGO_DELETE, ops, nops, room, error);
	write_kind(client, collection, PLINTH_MONGO_REPLACE, ops, nops, room, error);
	write_kind(client, collection, PLINTH_MONGO_INSERT, ops, nops, room, error);
	client->meanwhile = NULL;
	pfree(room);
	return error->status;
}

PlinthMongoStatus
plinth_mongo_insert_ordered(PlinthMongoClient *client, const char *collection, PlinthMongoOp **ops,
							int nops, int *tried, PlinthMongoError *error)
{
	Batch batch = {.ops = ops, .ordered = true};
	PlinthMongoStatus status;

	while (batch.count < nops && batch.count < MAX_OPS &&
		   (batch.count == 0 || batch.bytes + op_size(ops[batch.count]) <= MAX_BYTES))
		batch.bytes += op_size(ops[batch.count++]);
	status = send_batch(client, collection, PLINTH_MONGO_INSERT, &batch, error);
	*tried = batch.tried;
	return status;
}
