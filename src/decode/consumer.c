/*
 * consumer.c
 *		Who listens to the decoder, and what the room declares in _PG_init.
 *
 * Consumers are declared once in the postmaster and inherited by fork; the
 * list never changes afterwards.
 */
#include "postgres.h"

#include "base/base.h"
#include "decode/internal.h"
#include "utils/snapmgr.h"
#include "worker/worker.h"

const PlinthDecodeConsumer *plinth_decode_consumers[PLINTH_DECODE_MAX_CONSUMERS];
int plinth_decode_nconsumers = 0;

void
plinth_decode_consumer_declare(const PlinthDecodeConsumer *consumer)
{
	if (plinth_decode_nconsumers >= PLINTH_DECODE_MAX_CONSUMERS)
		elog(FATAL, "too many consumers of logical decoding");
	plinth_decode_consumers[plinth_decode_nconsumers++] = consumer;
}

bool
plinth_decode_begin(void)
{
	if (!plinth_worker_transaction_begin())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

void
plinth_decode_end(void)
{
	PopActiveSnapshot();
	plinth_worker_transaction_end();
}

bool
plinth_decode_wanted(void)
{
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		const PlinthDecodeConsumer *consumer = plinth_decode_consumers[i];

		if (consumer->wanted != NULL && consumer->wanted())
			return true;
	}
	return false;
}

void
plinth_decode_tell_lost(const char *reason)
{
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->slot_lost != NULL)
			plinth_decode_consumers[i]->slot_lost(reason);
	}
}

void
plinth_decode_tell_created(uint64 slot_generation)
{
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->slot_created != NULL)
			plinth_decode_consumers[i]->slot_created(slot_generation);
	}
}

static const PlinthService decoder_service = {
	.name = PLINTH_DECODE_SERVICE,
	.group = "sync",
	.wanted = plinth_decode_service_wanted,
	.main = plinth_decode_service_main,
};

void
plinth_decode_init(void)
{
	plinth_decode_status_init();
	plinth_worker_service_declare(&decoder_service);
	plinth_worker_on_absent(plinth_decode_slot_cleanup);
}
