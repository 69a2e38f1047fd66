/*
 * wait.c
 *		Waiting for a socket as PostgreSQL waits: on the latch, in slices.
 *
 * The driver cannot be left by a longjmp, so while it runs interrupts are
 * held and looked at by hand: a worker that is to stop makes every wait of
 * the call fail (cancelled), and procsignal barriers are absorbed, or DROP
 * DATABASE of any database would wait for a slow MongoDB.  A latch that was
 * reset here is set again when the call is over: its event was the caller's.
 *
 * The first wait for an answer is when the caller's own work is done, if it
 * gave any.  For that time interrupts are not held.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "mongo/client_int.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "utils/elog.h"
#include "utils/memutils.h"
#include "worker/worker.h"

#define SLICE_MS 1000

/* Milliseconds of a clock that never goes back. */
int64
plinth_mongo_now(void)
{
	return bson_get_monotonic_time() / 1000;
}

void
plinth_mongo_enter(PlinthMongoClient *client)
{
	HOLD_INTERRUPTS();
	plinth_mongo_in_driver = true;
	client->latch_was_set = false;
	client->cancelled = false;
	plinth_mongo_error_clear(&client->connect_error);
}

void
plinth_mongo_leave(PlinthMongoClient *client)
{
	ErrorData *error = client->meanwhile_error;

	plinth_mongo_in_driver = false;
	client->meanwhile_error = NULL;
	if (client->latch_was_set)
		SetLatch(MyLatch);
	RESUME_INTERRUPTS();
	if (error != NULL)
		ReThrowError(error);
}

void
plinth_mongo_meanwhile(PlinthMongoClient *client, PlinthMongoWork work, void *arg)
{
	client->meanwhile = work;
	client->meanwhile_arg = arg;
}

/* The caller's work, outside the driver as far as interrupts go; its error waits for the driver's end. */
static void
run_meanwhile(PlinthMongoClient *client)
{
	PlinthMongoWork work = client->meanwhile;
	MemoryContext context = CurrentMemoryContext;
	uint32 holdoff = InterruptHoldoffCount;

	client->meanwhile = NULL;
	PG_TRY ()
		;
	{
		plinth_mongo_in_driver = false;
		RESUME_INTERRUPTS();
		work(client->meanwhile_arg);
		HOLD_INTERRUPTS();
	}
	PG_CATCH ()
		;
	{
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(TopMemoryContext);
		client->meanwhile_error = CopyErrorData();
		FlushErrorState();
		client->cancelled = true;
	}
	PG_END_TRY();
	plinth_mongo_in_driver = true;
	MemoryContextSwitchTo(context);
}

static bool
is_cancelled(PlinthMongoClient *client)
{
	if (!client->cancelled && (plinth_worker_stopping() || ProcDiePending || QueryCancelPending))
		client->cancelled = true;
	return client->cancelled;
}

static int
wait_slice(PlinthMongoClient *client, int fd, uint32 events, long timeout)
{
	int result;

	result = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH | events,
							   fd, timeout, PG_WAIT_EXTENSION);
	if (result & WL_POSTMASTER_DEATH)
		client->cancelled = true;
	if (result & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		client->latch_was_set = true;
	}
	if (ProcSignalBarrierPending)
		ProcessProcSignalBarrier();
	return result;
}

/* Neither epoll nor a barrier may throw through the driver. */
static int
wait_slice_guarded(PlinthMongoClient *client, int fd, uint32 events, long timeout)
{
	MemoryContext context = CurrentMemoryContext;
	uint32 holdoff = InterruptHoldoffCount;
	volatile int result = 0;

	PG_TRY ()
		;
	{
		result = wait_slice(client, fd, events, timeout);
	}
	PG_CATCH ()
		;
	{
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		client->cancelled = true;
	}
	PG_END_TRY();
	return result;
}

/* Waits until the socket is ready for events (WL_SOCKET_*). */
MongoWait
plinth_mongo_wait_socket(PlinthMongoClient *client, int fd, uint32 events, int64 deadline)
{
	if (client->meanwhile != NULL && events == WL_SOCKET_READABLE)
		run_meanwhile(client);
	for (;;)
	{
		int64 left = deadline - plinth_mongo_now();

		if (is_cancelled(client))
			return MONGO_WAIT_CANCELLED;
		if (wait_slice_guarded(client, fd, events, Max(0, Min(left, SLICE_MS))) & events)
			return client->cancelled ? MONGO_WAIT_CANCELLED : MONGO_WAIT_READY;
		if (left <= 0)
			return is_cancelled(client) ? MONGO_WAIT_CANCELLED : MONGO_WAIT_TIMEOUT;
	}
}
