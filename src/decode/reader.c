/*
 * reader.c
 *		Reads WAL without waiting for it, and hands it to logical decoding.
 *
 * PostgreSQL's own page reader polls until the WAL is there.  Ours fails at
 * once when the page is not flushed that far, so that the decoder can wait on
 * its latch; the WAL reader forgets the failed try, and the next one starts
 * over at the same record.
 *
 * The context is made inside a transaction on purpose: outside of one,
 * PostgreSQL marks the process as ignored by VACUUM's horizon for as long as
 * it holds the slot, and the consumers' reads of ordinary tables between two
 * records would lose rows.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogreader.h"
#include "access/xlogutils.h"
#include "base/base.h"
#include "decode/internal.h"
#include "miscadmin.h"
#include "replication/decode.h"
#include "replication/logical.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* What may be read: flushed, and confirmed by standbys where they have a say. */
static XLogRecPtr limit = InvalidXLogRecPtr;

/* The limit at which the next record was not complete. */
static XLogRecPtr exhausted = InvalidXLogRecPtr;

static ResourceOwner owner = NULL;

static int
read_page(XLogReaderState *reader, XLogRecPtr page, int needed, XLogRecPtr record, char *buffer)
{
	int count;

	if (page + needed > limit)
		return XLREAD_FAIL;

	/* It is flushed, so this does not wait.  What is beyond our limit is cut off. */
	count = read_local_xlog_page(reader, page, needed, record, buffer);
	if (count > 0 && page + count > limit)
		count = (int) (limit - page);
	return count;
}

LogicalDecodingContext *
plinth_decode_reader_new(bool init)
{
	XLogReaderRoutine *routine;
	LogicalDecodingContext *ctx;

	if (owner == NULL)
		owner = ResourceOwnerCreate(NULL, "plinth decoder");

	StartTransactionCommand();
	MemoryContextSwitchTo(TopMemoryContext);
	routine = XL_ROUTINE(.page_read = read_page, .segment_open = wal_segment_open,
						 .segment_close = wal_segment_close);
	if (init)
		ctx = CreateInitDecodingContext(PLINTH_DECODE_PLUGIN, NIL, false, InvalidXLogRecPtr,
										routine, NULL, NULL, NULL);
	else
		ctx = CreateDecodingContext(InvalidXLogRecPtr, NIL, false, routine, NULL, NULL, NULL);
	CommitTransactionCommand();

	exhausted = InvalidXLogRecPtr;
	XLogBeginRead(ctx->reader, ctx->slot->data.restart_lsn);
	return ctx;
}

bool
plinth_decode_reader_refresh(LogicalDecodingContext *ctx)
{
	XLogRecPtr flushed = GetFlushRecPtr(NULL);

	if (flushed > limit && plinth_compat_standbys_caught_up(flushed))
		limit = flushed;
	return ctx->reader->EndRecPtr < limit && exhausted < limit;
}

bool
plinth_decode_reader_next(LogicalDecodingContext *ctx)
{
	XLogRecord *record;
	char *error = NULL;

	if (ctx->reader->EndRecPtr >= limit || exhausted >= limit)
		return false;

	/* Transactions in between have left neither of these as they were. */
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(ctx->context);

	record = XLogReadRecord(ctx->reader, &error);
	if (error != NULL)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("could not read WAL at %X/%X: %s",
							   LSN_FORMAT_ARGS(ctx->reader->EndRecPtr), error)));
	if (record == NULL)
	{
		exhausted = limit;
		return false;
	}
	LogicalDecodingProcessRecord(ctx, ctx->reader);
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(ctx->context);
	return true;
}
