/*
 * worker.h
 *		Launcher, coordinators and what runs under them.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_WORKER_H
#define PLINTH_WORKER_H

#include "storage/latch.h"

/*
 * A service is a kind of per-database worker of some room.  The coordinator
 * of a database asks wanted() inside a transaction of its own whenever the
 * generation of the extension, sync, limits or caches changed (and every 10 s),
 * and keeps that many instances alive, numbered from 0.  All instances of services with
 * the same group stop when one of them ends or fewer are wanted, and start anew
 * together; when more are wanted, those join and the others go on.
 */
typedef struct PlinthService
{
	const char *name;           /* "decoder", "lane": in stat_workers and backend_type */
	const char *group;          /* NULL: stands alone */
	int (*wanted)(void);        /* how many instances; inside a transaction with a snapshot */
	void (*main)(int instance); /* body: connected, signals unblocked; returns to stop cleanly */
	bool numbered;              /* shown with its number in pg_stat_activity: "plinth lane 0" */
	bool standby;               /* runs on a hot standby too; the others start after promotion */
} PlinthService;

#define PLINTH_MAX_SERVICES 16

/* Declares a service; only from _PG_init.  The struct must be static. */
extern void plinth_worker_service_declare(const PlinthService *service);

/*
 * Called in a database's coordinator, in no transaction, when it finds the
 * extension absent (after DROP EXTENSION, or at its start, so after a crash
 * too) and no service runs: removes what the extension left behind outside of
 * the database.  Not called on a standby.  False: call again.
 */
typedef bool (*PlinthWorkerAbsent)(void);
extern void plinth_worker_on_absent(PlinthWorkerAbsent callback);

/*
 * Called again and again in the launcher, of which the server has one, on a
 * standby too, in no transaction and connected to no database; returns after
 * how many ms it is to be called again.  Must be brief, and not ERROR.  Only
 * from _PG_init.
 */
typedef long (*PlinthWorkerTick)(void);
extern void plinth_worker_on_tick(PlinthWorkerTick callback);
extern void plinth_worker_init(void);

/*
 * Waits for the latch at most timeout_ms, in slices of 1 s at most, handling
 * interrupts and configuration reloads.  Returns false when this worker is to
 * stop; does not return when the postmaster is gone.
 */
extern bool plinth_worker_wait(long timeout_ms);

/* True when this worker is to stop; cheap.  Always false in a client's backend. */
extern bool plinth_worker_stopping(void);

/* What stat_workers and pg_stat_activity show of this worker; NULL message clears it. */
extern void plinth_worker_report(const char *state, const char *message);

/*
 * Wakes a service's instances of a database (every one when instance < 0);
 * "coordinator" makes it ask wanted() again.  Takes no lock and raises no
 * error, so that it may be called after commit.
 */
extern void plinth_worker_wake(Oid database, const char *service, int instance);

/*
 * Starts a transaction, takes the extension's lock and looks again whether
 * the extension still exists; false (and no transaction open) when it does
 * not.  End with plinth_worker_transaction_end.
 */
extern bool plinth_worker_transaction_begin(void);
extern void plinth_worker_transaction_end(void);

/*
 * Does work, in transactions of its own; what it raises is returned, in the
 * caller's memory and with no transaction open any more.  NULL: it went well.
 */
extern struct ErrorData *plinth_worker_try(void (*work)(void *), void *arg);

/*
 * The main of a service that writes what shared memory gathers (upkeep.c), and
 * deletes what is over every 10 min and at its start.
 */
typedef struct PlinthUpkeep
{
	const int *interval;                  /* ms between two flushes: a setting */
	bool (*pressed)(void);                /* is one wanted before its time? */
	bool (*work)(bool flush, bool purge); /* false when the worker must end */
	const char *failure;                  /* "plinth could not write usage": for the log */
	bool flush_at_end;                    /* once more when the worker is told to stop */
} PlinthUpkeep;
extern void plinth_worker_upkeep(const PlinthUpkeep *upkeep);

/*
 * ERROR, with the setting to raise, unless there is room for as many instances
 * of services in this database as are wanted once this transaction commits,
 * those that run included, and for a coordinator.  Takes some milliseconds when
 * some are missing; room that is there now may be gone at commit.
 */
extern void plinth_worker_require(int wanted);

/*
 * Clone guard: deliveries outside are bound to (system identifier, database
 * OID).  True when this database is bound to itself, or not bound yet.
 * Needs a transaction.
 */
extern bool plinth_worker_is_adopted(void);

/* Binds a database that is not bound yet; from a function that first delivers. */
extern void plinth_worker_bind(void);

#endif /* PLINTH_WORKER_H */
