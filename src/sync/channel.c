/*
 * channel.c
 *		Marks on their way from the decoder to the lanes.
 *
 * The decoder makes one dynamic shared memory segment with a queue (shm_mq)
 * for each possible lane and publishes its handle; a lane attaches as the one
 * receiver of its queue.  The segment lives as long as the decoder: when
 * either side goes, the other sees its queue detached and ends too, and the
 * coordinator starts all of them anew from the slot's confirmed point.
 * Nothing in a queue is needed for durability.
 *
 * Marks are gathered to messages of some kilobytes, which is what makes a
 * queue fast.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"

#include "sync/sync_int.h"
#include "worker/worker.h"

#define QUEUE_BYTES ((Size) 128 * 1024)
#define MESSAGE_BYTES 8192

/* decoder side */
static dsm_segment *segment = NULL;
static shm_mq_handle *senders[PLINTH_SYNC_MAX_LANES];
static StringInfoData gathered[PLINTH_SYNC_MAX_LANES];
static bool sending[PLINTH_SYNC_MAX_LANES]; /* the message went partly */

/* lane side */
static shm_mq_handle *receiver = NULL;
static char *message = NULL;
static Size message_len = 0;
static Size message_at = 0;

static void
withdraw(int code, Datum arg)
{
	PlinthSyncDatabase *db = (PlinthSyncDatabase *) DatumGetPointer(arg);

	LWLockAcquire(plinth_sync_lock(), LW_EXCLUSIVE);
	if (db->decoder_pid == MyProcPid)
	{
		db->decoder_pid = 0;
		db->channel = 0;
	}
	LWLockRelease(plinth_sync_lock());
}

void
plinth_sync_channel_create(PlinthSyncDatabase *db)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	char *base;

	segment = dsm_create(QUEUE_BYTES * PLINTH_SYNC_MAX_LANES, 0);
	dsm_pin_mapping(segment);
	base = dsm_segment_address(segment);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		shm_mq *queue = shm_mq_create(base + QUEUE_BYTES * i, QUEUE_BYTES);

		shm_mq_set_sender(queue, MyProc);
		senders[i] = shm_mq_attach(queue, segment, NULL);
		initStringInfo(&gathered[i]);
		sending[i] = false;
	}
	MemoryContextSwitchTo(old);

	before_shmem_exit(withdraw, PointerGetDatum(db));
	LWLockAcquire(plinth_sync_lock(), LW_EXCLUSIVE);
	db->decoder_pid = MyProcPid;
	db->channel = dsm_segment_handle(segment);
	LWLockRelease(plinth_sync_lock());
}

static void
peer_gone(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE), errmsg("the %s of this database has ended", what),
			 errdetail("Its companions start anew with it.")));
}

bool
plinth_sync_channel_flush(int lane)
{
	if (gathered[lane].len == 0)
		return true;
	switch (shm_mq_send(senders[lane], gathered[lane].len, gathered[lane].data, true, true))
	{
		case SHM_MQ_SUCCESS:
			resetStringInfo(&gathered[lane]);
			sending[lane] = false;
			return true;
		case SHM_MQ_WOULD_BLOCK:
			/* shm_mq wants the very same message again. */
			sending[lane] = true;
			return false;
		case SHM_MQ_DETACHED:
			peer_gone("sync lane");
	}
	return false;
}

bool
plinth_sync_channel_send(int lane, const PlinthSyncMark *mark, const char *key)
{
	if ((sending[lane] || gathered[lane].len >= MESSAGE_BYTES) && !plinth_sync_channel_flush(lane))
		return false;
	appendBinaryStringInfo(&gathered[lane], (const char *) mark, sizeof(*mark));
	if (mark->keylen > 0)
		appendBinaryStringInfo(&gathered[lane], key, mark->keylen);
	return true;
}

static void
release_lane(int code, Datum arg)
{
	PlinthSyncLane *lane = (PlinthSyncLane *) DatumGetPointer(arg);

	LWLockAcquire(plinth_sync_lock(), LW_EXCLUSIVE);
	if (lane->pid == MyProcPid)
	{
		lane->pid = 0;
		pg_atomic_write_u64(&lane->durable, 0);
		pg_atomic_write_u64(&lane->delivered, 0);
		pg_atomic_write_u64(&lane->generation, 0);
	}
	LWLockRelease(plinth_sync_lock());
}

bool
plinth_sync_channel_attach(PlinthSyncDatabase *db, int lane)
{
	MemoryContext old;
	dsm_segment *attached;
	shm_mq *queue;

	for (;;)
	{
		dsm_handle handle;

		LWLockAcquire(plinth_sync_lock(), LW_SHARED);
		handle = db->channel;
		LWLockRelease(plinth_sync_lock());
		if (handle != 0)
		{
			old = MemoryContextSwitchTo(TopMemoryContext);
			attached = dsm_attach(handle);
			MemoryContextSwitchTo(old);
			if (attached != NULL)
				break;
		}
		plinth_worker_report("waiting", "for the decoder");
		if (!plinth_worker_wait(handle != 0 ? 100 : 250))
			return false;
	}

	before_shmem_exit(release_lane, PointerGetDatum(&db->lanes[lane]));
	LWLockAcquire(plinth_sync_lock(), LW_EXCLUSIVE);
	db->lanes[lane].pid = MyProcPid;
	pg_atomic_write_u64(&db->lanes[lane].durable, 0);
	pg_atomic_write_u64(&db->lanes[lane].delivered, 0);
	LWLockRelease(plinth_sync_lock());

	dsm_pin_mapping(attached);
	queue = (shm_mq *) ((char *) dsm_segment_address(attached) + QUEUE_BYTES * lane);
	if (shm_mq_get_receiver(queue) != NULL)
		peer_gone("sync lane");
	shm_mq_set_receiver(queue, MyProc);
	old = MemoryContextSwitchTo(TopMemoryContext);
	receiver = shm_mq_attach(queue, attached, NULL);
	MemoryContextSwitchTo(old);
	return true;
}

bool
plinth_sync_channel_receive(PlinthSyncMark *mark, const char **key)
{
	if (message_at >= message_len)
	{
		void *data;

		switch (shm_mq_receive(receiver, &message_len, &data, true))
		{
			case SHM_MQ_SUCCESS:
				message = data;
				message_at = 0;
				break;
			case SHM_MQ_WOULD_BLOCK:
				message_len = message_at = 0;
				return false;
			case SHM_MQ_DETACHED:
				peer_gone("decoder");
		}
	}
	memcpy(mark, message + message_at, sizeof(*mark));
	*key = message + message_at + sizeof(*mark);
	message_at += sizeof(*mark) + mark->keylen;
	Assert(message_at <= message_len);
	return true;
}
