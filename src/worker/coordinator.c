/*
 * coordinator.c
 *		One process in each database that has the extension: keeps its services
 *		alive.
 *
 * It looks whether the extension is there at its start, whenever the
 * database's epoch or a generation has moved (CREATE, ALTER, DROP EXTENSION,
 * changed mappings, meters or caches), when recovery has ended, and every 10 s.  Where it is,
 * each service is asked how many instances it wants.  Where it is not, the
 * services stop, what the extension left behind outside of the database is
 * removed, and the coordinator ends; the launcher starts another when the
 * extension comes back.
 *
 * There is one at most, since there is one entry for it.  One that starts
 * first stops what a predecessor left running, so that no service ever has two
 * parents.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xlog.h"
#include "base/base.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "worker/child.h"
#include "worker/process.h"
#include "worker/unit.h"

#define RECHECK_MS 10000
#define POLL_MS 100
#define MAX_ABSENT 8

/* What makes the coordinator look again. */
typedef struct Seen
{
	uint64 epoch;
	uint64 extension_generation;
	uint64 sync_generation;
	uint64 limits_generation;
	uint64 cache_generation;
	bool recovery;
} Seen;

static PlinthWorkerAbsent absent_callbacks[MAX_ABSENT];
static int nabsent = 0;

void
plinth_worker_on_absent(PlinthWorkerAbsent callback)
{
	if (nabsent >= MAX_ABSENT)
		elog(FATAL, "too many callbacks for an absent extension");
	absent_callbacks[nabsent++] = callback;
}

static Seen
look(void)
{
	Seen seen;

	memset(&seen, 0, sizeof(seen));
	seen.epoch = plinth_worker_database_epoch(MyDatabaseId);
	seen.extension_generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	seen.sync_generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	seen.limits_generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_LIMITS);
	seen.cache_generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_CACHE);
	seen.recovery = RecoveryInProgress();
	return seen;
}

/* Waits until a predecessor's services have ended; false when told to stop. */
static bool
stop_orphans(void)
{
	while (plinth_worker_entries_stop(MyDatabaseId, true) > 0)
	{
		if (!plinth_worker_wait(POLL_MS))
			return false;
	}
	plinth_worker_entries_free(MyDatabaseId, true);
	return true;
}

/* Stops all services; false when told to stop before they ended. */
static bool
stop_services(void)
{
	static const PlinthWorkerCounts none;

	plinth_worker_units_want(&none);
	for (;;)
	{
		(void) plinth_worker_units_step();
		if (plinth_worker_units_idle())
			return true;
		if (!plinth_worker_wait(POLL_MS))
			return false;
	}
}

/* Asks each service, inside the transaction. */
static void
ask_services(PlinthWorkerCounts *counts, bool recovery)
{
	memset(counts, 0, sizeof(*counts));
	for (int s = 0; s < plinth_worker_service_count(); s++)
	{
		const PlinthService *service = plinth_worker_service_get(s);

		if (!recovery || service->standby)
			counts->n[s] = Max(service->wanted(), 0);
	}
}

/*
 * The extension is not there.  Returns true when that is settled: nothing of
 * it is left, and no event has come since it was looked for.
 */
static bool
leave(const Seen *seen)
{
	plinth_worker_report("extension absent", NULL);
	if (!stop_services())
		return true;
	for (int i = 0; i < nabsent && !seen->recovery; i++)
	{
		if (!absent_callbacks[i]())
		{
			(void) plinth_worker_wait(POLL_MS);
			return plinth_worker_stopping();
		}
	}
	return plinth_worker_database_found(MyDatabaseId, seen->epoch, PLINTH_WORKER_ABSENT);
}

/* Keeps services as they are wanted until there is something new to look at. */
static void
keep_services(const Seen *seen)
{
	TimestampTz recheck = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RECHECK_MS);

	for (;;)
	{
		long step = plinth_worker_units_step();
		TimestampTz now = GetCurrentTimestamp();
		Seen current = look();

		if (memcmp(&current, seen, sizeof(Seen)) != 0 || now >= recheck)
			return;
		step = Min(step, TimestampDifferenceMilliseconds(now, recheck));

		/* Changes of a generation wake nobody, so look every second. */
		if (!plinth_worker_wait(Min(step, 1000)))
			return;
	}
}

static void
coordinate(void *arg)
{
	Oid known = InvalidOid;

	if (!stop_orphans())
		return;
	while (!plinth_worker_stopping())
	{
		Seen seen = look();
		PlinthWorkerCounts counts;
		Oid extension = plinth_worker_transaction_try();

		if (!OidIsValid(extension))
		{
			known = InvalidOid;
			if (leave(&seen))
				return;
			continue;
		}
		ask_services(&counts, seen.recovery);
		plinth_worker_transaction_end();
		(void) plinth_worker_database_found(MyDatabaseId, seen.epoch, PLINTH_WORKER_PRESENT);
		plinth_worker_report(seen.recovery ? "standby" : "running", NULL);

		/* Dropped and created in one go: what runs knows the one that is gone. */
		if (OidIsValid(known) && known != extension)
			plinth_worker_units_restart();
		known = extension;
		plinth_worker_units_want(&counts);
		keep_services(&seen);
	}
}

void
plinth_worker_coordinator_main(Datum arg)
{
	PlinthWorkerTicket ticket;

	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));
	plinth_worker_process_begin(&ticket);
	plinth_worker_process_run(coordinate, NULL);
	proc_exit(0);
}
