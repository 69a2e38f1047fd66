/*
 * spool.c
 *		A queue of byte records in bounded memory.
 *
 * Records are taken in the order in which they were put in.  While everything
 * fits, they stay in one buffer; beyond the limit what is put in goes to a
 * temporary file, from which the buffer is filled again in pieces.  Invariant:
 * whatever is in memory was put in before whatever is in the file.
 *
 * The file outlives transactions and goes with the process.
 */
#include "postgres.h"

#include "storage/buffile.h"
#include "utils/memutils.h"

#include "sync/sync_int.h"

#define REFILL_BYTES (64 * 1024)

struct PlinthSpool
{
	MemoryContext context;
	Size limit;
	StringInfoData buffer;
	int taken;     /* bytes of the buffer that were taken */
	bool spill;    /* nothing more into memory */
	BufFile *file; /* NULL while everything is in memory */
	int read_file;
	off_t read_offset;
	int write_file;
	off_t write_offset;
	uint64 in_file; /* records */
};

PlinthSpool *
plinth_sync_spool_create(MemoryContext context, Size memory)
{
	MemoryContext own = AllocSetContextCreate(context, "plinth spool", ALLOCSET_SMALL_SIZES);
	PlinthSpool *spool = MemoryContextAllocZero(own, sizeof(PlinthSpool));
	MemoryContext old = MemoryContextSwitchTo(own);

	spool->context = own;
	spool->limit = Max(memory, (Size) 1024);
	initStringInfo(&spool->buffer);
	MemoryContextSwitchTo(old);
	return spool;
}

void
plinth_sync_spool_free(PlinthSpool *spool)
{
	if (spool->file != NULL)
		BufFileClose(spool->file);
	MemoryContextDelete(spool->context);
}

Size
plinth_sync_spool_memory(PlinthSpool *spool)
{
	return spool->buffer.maxlen;
}

static void
seek_to(PlinthSpool *spool, int fileno, off_t offset)
{
	if (BufFileSeek(spool->file, fileno, offset, SEEK_SET) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not seek in temporary file: %m")));
}

static void
file_put(PlinthSpool *spool, const void *record, uint32 len)
{
	if (spool->file == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(spool->context);

		spool->file = BufFileCreateTemp(true);
		MemoryContextSwitchTo(old);
		spool->read_file = spool->write_file = 0;
		spool->read_offset = spool->write_offset = 0;
		spool->in_file = 0;
	}
	else
		seek_to(spool, spool->write_file, spool->write_offset);
	BufFileWrite(spool->file, &len, sizeof(len));
	BufFileWrite(spool->file, unconstify(void *, record), len);
	BufFileTell(spool->file, &spool->write_file, &spool->write_offset);
	spool->in_file++;
}

void
plinth_sync_spool_push(PlinthSpool *spool, const void *record, uint32 len)
{
	if (spool->file != NULL || spool->spill || (Size) spool->buffer.len + len > spool->limit)
	{
		file_put(spool, record, len);
		return;
	}
	appendBinaryStringInfo(&spool->buffer, (const char *) &len, sizeof(len));
	appendBinaryStringInfo(&spool->buffer, record, len);
}

static void
read_exactly(PlinthSpool *spool, void *dst, Size len)
{
	if (BufFileRead(spool->file, dst, len) != len)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not read from temporary file: %m")));
}

/* The buffer is empty: takes what the file holds next, at least one record. */
static void
refill(PlinthSpool *spool)
{
	resetStringInfo(&spool->buffer);
	spool->taken = 0;
	if (spool->file == NULL)
		return;
	seek_to(spool, spool->read_file, spool->read_offset);
	while (spool->in_file > 0 && spool->buffer.len < REFILL_BYTES)
	{
		uint32 len;

		read_exactly(spool, &len, sizeof(len));
		appendBinaryStringInfo(&spool->buffer, (const char *) &len, sizeof(len));
		enlargeStringInfo(&spool->buffer, len);
		read_exactly(spool, spool->buffer.data + spool->buffer.len, len);
		spool->buffer.len += len;
		spool->in_file--;
	}
	BufFileTell(spool->file, &spool->read_file, &spool->read_offset);
	if (spool->in_file == 0)
	{
		BufFileClose(spool->file);
		spool->file = NULL;
	}
}

const char *
plinth_sync_spool_peek(PlinthSpool *spool, uint32 *len)
{
	if (spool->taken >= spool->buffer.len)
		refill(spool);
	if (spool->taken >= spool->buffer.len)
		return NULL;
	memcpy(len, spool->buffer.data + spool->taken, sizeof(*len));
	return spool->buffer.data + spool->taken + sizeof(*len);
}

void
plinth_sync_spool_next(PlinthSpool *spool)
{
	uint32 len;

	Assert(spool->taken < spool->buffer.len);
	memcpy(&len, spool->buffer.data + spool->taken, sizeof(len));
	spool->taken += sizeof(len) + len;
	if (spool->taken >= spool->buffer.len && spool->file == NULL)
	{
		resetStringInfo(&spool->buffer);
		spool->taken = 0;
	}
}

void
plinth_sync_spool_spill(PlinthSpool *spool)
{
	StringInfoData old = spool->buffer;
	int at = spool->taken;

	spool->spill = true;
	if (spool->file != NULL || old.len == at)
		return;
	while (at < old.len)
	{
		uint32 len;

		memcpy(&len, old.data + at, sizeof(len));
		file_put(spool, old.data + at + sizeof(len), len);
		at += sizeof(len) + len;
	}
	pfree(old.data);
	spool->taken = 0;
	{
		MemoryContext cxt = MemoryContextSwitchTo(spool->context);

		initStringInfo(&spool->buffer);
		MemoryContextSwitchTo(cxt);
	}
}
