/*
 * child.c
 *		Starts, watches and stops a dynamic background worker through its entry
 *		in the registry.
 *
 * All are BGW_NEVER_RESTART: whether one starts again is for its parent to
 * say, which knows whether the database still wants it.  A child is alive
 * while a process is attached to its entry or the postmaster still knows the
 * registration; a parent that took over another's children has no handle and
 * goes by the entry alone, having refused those that were not attached yet.
 */
#include "postgres.h"

#include <signal.h>

#include "base/base.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "worker/child.h"
#include "worker/process.h"

#define MAX_DELAY_MS 60000
#define LOG_INTERVAL_MS 60000

/* When this process last logged that there is no room. */
static TimestampTz logged_no_slot = 0;
static TimestampTz logged_no_entry = 0;

void
plinth_worker_child_init(PlinthWorkerChild *child, Oid database, int service, int instance)
{
	child->database = database;
	child->service = service;
	child->instance = instance;
	child->entry = -1;
	child->handle = NULL;
}

static bool
may_log(TimestampTz *last)
{
	TimestampTz now = GetCurrentTimestamp();

	if (*last != 0 && !TimestampDifferenceExceeds(*last, now, LOG_INTERVAL_MS))
		return false;
	*last = now;
	return true;
}

static void
describe(BackgroundWorker *worker, const PlinthWorkerChild *child)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_ConsistentState;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_notify_pid = MyProcPid;
	strlcpy(worker->bgw_library_name, "plinth", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name,
			child->service == PLINTH_WORKER_COORDINATOR ? "plinth_worker_coordinator_main"
														: "plinth_worker_service_main",
			sizeof(worker->bgw_function_name));
	if (child->service >= 0 && plinth_worker_service_get(child->service)->numbered)
		snprintf(worker->bgw_type, sizeof(worker->bgw_type), "plinth %s %d",
				 plinth_worker_service_name(child->service), child->instance);
	else
		snprintf(worker->bgw_type, sizeof(worker->bgw_type), "plinth %s",
				 plinth_worker_service_name(child->service));
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s for database %u", worker->bgw_type,
			 child->database);
}

/* The postmaster has no room for another background worker. */
static void
report_no_slot(PlinthWorkerChild *child)
{
	char message[PLINTH_WORKER_MESSAGE_LEN];

	child->handle = NULL;
	plinth_worker_entry_refuse(child->entry);
	snprintf(message, sizeof(message), "Raise max_worker_processes (now %d).",
			 max_worker_processes);
	plinth_worker_entry_report(child->entry, "no worker slot free", message);
	if (may_log(&logged_no_slot))
		ereport(LOG, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					  errmsg("plinth could not start its %s for database %u: no worker slot free",
							 plinth_worker_service_name(child->service), child->database),
					  errhint("Raise max_worker_processes (now %d) and restart the server.",
							  max_worker_processes)));
}

bool
plinth_worker_child_start(PlinthWorkerChild *child)
{
	BackgroundWorker worker;
	PlinthWorkerTicket ticket;
	MemoryContext oldcontext;
	bool registered;

	Assert(child->handle == NULL);
	if (child->entry < 0)
		child->entry = plinth_worker_entry_get(child->database, child->service, child->instance);
	if (child->entry < 0)
	{
		if (may_log(&logged_no_entry))
			ereport(LOG, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("plinth could not start its %s for database %u: all %d places of "
								 "\"plinth.max_workers\" are taken",
								 plinth_worker_service_name(child->service), child->database,
								 plinth_setting_max_workers),
						  errhint("Raise \"plinth.max_workers\" and restart the server.")));
		return false;
	}

	memset(&ticket, 0, sizeof(ticket));
	ticket.token = plinth_worker_entry_expect(child->entry);
	ticket.database = child->database;
	ticket.entry = child->entry;
	ticket.service = child->service;
	ticket.instance = child->instance;
	if (ticket.token == 0)
		return false;

	describe(&worker, child);
	StaticAssertStmt(sizeof(ticket) <= sizeof(worker.bgw_extra), "ticket does not fit");
	memcpy(worker.bgw_extra, &ticket, sizeof(ticket));
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &child->handle);
	MemoryContextSwitchTo(oldcontext);
	if (!registered)
		report_no_slot(child);
	return registered;
}

bool
plinth_worker_child_alive(PlinthWorkerChild *child)
{
	pid_t pid;

	if (child->entry < 0)
		return false;
	if (plinth_worker_entry_pid(child->entry) != 0)
		return true;
	if (child->handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(child->handle, &pid) != BGWH_STOPPED)
		return true;
	pfree(child->handle);
	child->handle = NULL;
	return false;
}

void
plinth_worker_child_stop(PlinthWorkerChild *child)
{
	if (child->entry < 0)
		return;
	plinth_worker_entry_stop(child->entry);
	if (child->handle != NULL)
		TerminateBackgroundWorker(child->handle);
}

void
plinth_worker_child_forget(PlinthWorkerChild *child)
{
	Assert(child->handle == NULL);
	if (child->entry >= 0)
		plinth_worker_entry_free(child->entry);
	child->entry = -1;
}

long
plinth_worker_delay(int failures)
{
	long delay = plinth_setting_worker_restart_delay;
	long max = Max(delay, MAX_DELAY_MS);

	for (int i = 1; i < failures && delay < max; i++)
		delay *= 2;
	return Min(delay, max);
}
