/*
 * batch.c
 *		The documents of one write, and the memory they live in.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sync/sync_int.h"

PlinthSyncBatch *
plinth_sync_batch_create(MemoryContext parent)
{
	MemoryContext context =
		AllocSetContextCreate(parent, "plinth sync batch", ALLOCSET_DEFAULT_SIZES);
	PlinthSyncBatch *batch = MemoryContextAllocZero(context, sizeof(PlinthSyncBatch));

	batch->context = context;
	return batch;
}

void
plinth_sync_batch_free(PlinthSyncBatch *batch)
{
	MemoryContextDelete(batch->context);
}

void
plinth_sync_batch_cut(PlinthSyncBatch *batch, int nops)
{
	batch->nops = nops;
	batch->exhausted = false;
}

PlinthSyncOp *
plinth_sync_batch_add(PlinthSyncBatch *batch, PlinthMongoOpKind kind, int key)
{
	PlinthSyncOp *op;

	if (batch->ops == NULL)
	{
		batch->maxops = 64;
		batch->ops = MemoryContextAlloc(batch->context, sizeof(PlinthSyncOp) * batch->maxops);
	}
	else if (batch->nops == batch->maxops)
	{
		batch->maxops *= 4;
		batch->ops = repalloc_huge(batch->ops, sizeof(PlinthSyncOp) * batch->maxops);
	}
	op = &batch->ops[batch->nops++];
	/* All of it but the room for a message. */
	memset(&op->op, 0, offsetof(PlinthMongoOp, error));
	op->op.kind = kind;
	op->op.error.status = PLINTH_MONGO_OK;
	op->op.error.code = 0;
	op->op.error.message[0] = '\0';
	op->key = key;
	op->literal = NULL;
	return op;
}
