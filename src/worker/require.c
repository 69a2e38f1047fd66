/*
 * require.c
 *		Whether there is room for the workers that a statement is about to want.
 *
 * The postmaster's free slots can be counted in one way only: by taking them.
 * So as many workers as are missing are registered, and given up when all are,
 * as a rule before a process is started for one.  A process waits to be told,
 * since a slot that became free again would be counted twice.  All of them are
 * gone before this returns, or they would be in the way of the real ones.
 */
#include "postgres.h"

#include "base/base.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
#include "worker/process.h"

/* Seconds: who should have ended a probe may have died. */
#define PROBE_WAITS 10

PGDLLEXPORT void plinth_worker_probe_main(Datum arg);

void
plinth_worker_probe_main(Datum arg)
{
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	for (int waits = 0; waits < PROBE_WAITS && !ShutdownRequestPending; waits++)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 1000,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* Counts this database's workers that run or are about to, and places for more. */
static void
count_entries(int *services, bool *coordinator, int *places)
{
	*services = 0;
	*coordinator = false;
	*places = 0;
	plinth_worker_registry_lock(LW_SHARED);
	for (int i = 0; i < plinth_worker_registry->nentries; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];
		bool ours = entry->database == MyDatabaseId;
		bool active = entry->pid != 0 || entry->token != 0;

		if (entry->service == PLINTH_WORKER_FREE || (ours && !active))
			(*places)++;
		else if (ours && entry->service == PLINTH_WORKER_COORDINATOR)
			*coordinator = true;
		else if (ours)
			(*services)++;
	}
	plinth_worker_registry_unlock();
}

/* How many of so many slots the postmaster has. */
static int
probe_slots(int wanted)
{
	BackgroundWorkerHandle **handles = palloc(sizeof(BackgroundWorkerHandle *) * wanted);
	BackgroundWorker worker = {0};
	int n = 0;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "plinth", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "plinth_worker_probe_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "plinth probe", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "plinth probe", sizeof(worker.bgw_type));
	while (n < wanted && RegisterDynamicBackgroundWorker(&worker, &handles[n]))
		n++;
	for (int i = 0; i < n; i++)
		TerminateBackgroundWorker(handles[i]);
	for (int i = 0; i < n; i++)
		(void) WaitForBackgroundWorkerShutdown(handles[i]);
	return n;
}

void
plinth_worker_require(int wanted)
{
	int services;
	bool coordinator;
	int places;
	int missing;

	count_entries(&services, &coordinator, &places);
	missing = wanted - services + (coordinator ? 0 : 1);
	if (missing <= 0)
		return;
	if (places < missing)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("all %d places of \"plinth.max_workers\" are taken",
							   plinth_setting_max_workers),
						errdetail_plural("%d more is needed.", "%d more are needed.",
										 missing - places, missing - places),
						errhint("Raise \"plinth.max_workers\" and restart the server.")));
	places = probe_slots(missing);
	if (places < missing)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("no background worker is free"),
						errdetail_plural("%d more is needed.", "%d more are needed.",
										 missing - places, missing - places),
						errhint("Raise \"max_worker_processes\" (now %d) and restart the server.",
								max_worker_processes)));
}
