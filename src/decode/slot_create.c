/*
 * slot_create.c
 *		The decoder makes its database's slot.
 *
 * The record says "creating" before the slot exists and "ready" after it was
 * made persistent, so a crash at any point leaves either a slot that the next
 * start drops or a slot whose generation is recorded.
 *
 * Finding the point from which decoding is consistent waits for the
 * transactions that run just now, as CREATE_REPLICATION_SLOT does: those of
 * every database, and prepared ones.
 */
#include "postgres.h"

#include "base/base.h"
#include "decode/internal.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "storage/spin.h"
#include "worker/worker.h"

/* Reads on until the snapshot is consistent; false when this worker is to stop. */
static bool
find_startpoint(LogicalDecodingContext *ctx)
{
	while (!DecodingContextReady(ctx))
	{
		if (plinth_worker_stopping())
			return false;
		CHECK_FOR_INTERRUPTS();
		(void) plinth_decode_reader_refresh(ctx);
		if (!plinth_decode_reader_next(ctx) && !plinth_worker_wait(10))
			return false;
	}

	SpinLockAcquire(&ctx->slot->mutex);
	ctx->slot->data.confirmed_flush = ctx->reader->EndRecPtr;
	SpinLockRelease(&ctx->slot->mutex);
	return true;
}

static bool
make_slot(void)
{
	LogicalDecodingContext *ctx;
	bool found;

	/* It goes away by itself until it is made persistent. */
	plinth_compat_slot_create(plinth_decode_slot_name(), true, RS_EPHEMERAL, false, true);
	ctx = plinth_decode_reader_new(true);
	found = find_startpoint(ctx);
	if (found)
		ReplicationSlotPersist();
	FreeDecodingContext(ctx);
	if (!found)
		ReplicationSlotRelease();
	return found;
}

bool
plinth_decode_slot_create(PlinthSlotRecord *record)
{
	/* What is found now was never used. */
	plinth_decode_slot_drop();

	plinth_worker_report("creating slot", "waits for running transactions to end");
	if (!make_slot())
		return false;

	if (!plinth_decode_begin())
	{
		ReplicationSlotRelease();
		plinth_decode_slot_drop();
		return false;
	}
	plinth_decode_slot_record(record, PLINTH_SLOT_READY);
	CommandCounterIncrement();
	plinth_decode_tell_created(record->generation);
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
	plinth_decode_end();
	ereport(LOG, (errmsg("plinth created replication slot \"%s\"", plinth_decode_slot_name()),
				  errdetail("Its generation is " UINT64_FORMAT ".", record->generation)));
	return true;
}
