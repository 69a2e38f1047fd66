/*
 * process.h
 *		What every process of this room does at its start; private to it.
 */
#ifndef PLINTH_WORKER_PROCESS_H
#define PLINTH_WORKER_PROCESS_H

#include "postmaster/bgworker.h"
#include "worker/registry.h"

/* What a parent hands to its child, in bgw_extra. */
typedef struct PlinthWorkerTicket
{
	uint64 token;
	Oid database;
	int entry;
	int service;
	int instance;
} PlinthWorkerTicket;

/*
 * Signal handlers, entry, connection, settings.  Does not return when this
 * process is not expected (any more).  The launcher passes NULL.
 */
extern void plinth_worker_process_begin(const PlinthWorkerTicket *ticket);

/* Runs body; an ERROR is kept for stat_workers before it ends the process. */
extern void plinth_worker_process_run(void (*body)(void *), void *arg);

/* From now on nothing is waited for long: a lock, or a standby. */
extern void plinth_worker_process_wait_shortly(void);

/*
 * While it is deferred, SIGTERM interrupts nothing and only shows in
 * plinth_worker_stopping.  For what waits shortly.
 */
extern void plinth_worker_process_defer_stop(bool defer);

/* Is there anything to work on, and no transaction in the way? */
extern bool plinth_worker_process_may_go_on(void);

/*
 * As plinth_worker_transaction_begin, for who lives on when the extension is
 * dropped and created anew: its OID, or InvalidOid and no transaction.
 */
extern Oid plinth_worker_transaction_try(void);

/* Entry points of the background workers. */
extern PGDLLEXPORT void plinth_worker_launcher_main(Datum arg);
extern PGDLLEXPORT void plinth_worker_coordinator_main(Datum arg);
extern PGDLLEXPORT void plinth_worker_service_main(Datum arg);

#endif /* PLINTH_WORKER_PROCESS_H */
