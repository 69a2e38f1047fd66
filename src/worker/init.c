/*
 * init.c
 *		What this room does in _PG_init, and the services that others declare.
 */
#include "postgres.h"

#include "base/base.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "worker/hooks.h"
#include "worker/registry.h"

#define LAUNCHER_RESTART_S 1

static const PlinthService *services[PLINTH_MAX_SERVICES];
static int nservices = 0;

void
plinth_worker_service_declare(const PlinthService *service)
{
	if (nservices >= PLINTH_MAX_SERVICES)
		elog(FATAL, "too many services");
	services[nservices++] = service;
}

int
plinth_worker_service_count(void)
{
	return nservices;
}

const PlinthService *
plinth_worker_service_get(int service)
{
	Assert(service >= 0 && service < nservices);
	return services[service];
}

const char *
plinth_worker_service_name(int service)
{
	if (service == PLINTH_WORKER_COORDINATOR)
		return "coordinator";
	if (service == PLINTH_WORKER_LAUNCHER)
		return "launcher";
	return plinth_worker_service_get(service)->name;
}

static void
register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = LAUNCHER_RESTART_S;
	strlcpy(worker.bgw_library_name, "plinth", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "plinth_worker_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "plinth launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "plinth launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}

void
plinth_worker_init(void)
{
	plinth_worker_registry_init();
	plinth_worker_databases_init();
	if (IsBinaryUpgrade)
		return;
	plinth_worker_hooks_init();
	register_launcher();
}
