/*
 * registry.h
 *		The registry of workers in shared memory; private to this room.
 */
#ifndef PLINTH_WORKER_REGISTRY_H
#define PLINTH_WORKER_REGISTRY_H

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

/* What an entry is for: a declared service by its number, or one of these. */
#define PLINTH_WORKER_FREE (-3)
#define PLINTH_WORKER_COORDINATOR (-2)
#define PLINTH_WORKER_LAUNCHER (-1)

#define PLINTH_WORKER_STATE_LEN 32
#define PLINTH_WORKER_MESSAGE_LEN 256

/* The launcher's entry is always the first. */
#define PLINTH_WORKER_LAUNCHER_ENTRY 0

typedef struct PlinthWorkerEntry
{
	Oid database; /* InvalidOid: the launcher's */
	int service;
	int instance;
	pg_atomic_uint64 latch; /* Latch * of the process, 0 without one; read without the lock */
	uint64 token;           /* of the process that may attach; 0: none may */
	int pid;                /* of the process that is attached, or 0 */
	int starts;
	int last_exit; /* exit code of the process before */
	TimestampTz started_at;
	char state[PLINTH_WORKER_STATE_LEN];
	char message[PLINTH_WORKER_MESSAGE_LEN];
} PlinthWorkerEntry;

typedef enum PlinthWorkerPresence
{
	PLINTH_WORKER_UNKNOWN, /* a coordinator must look whether the extension is there */
	PLINTH_WORKER_PRESENT,
	PLINTH_WORKER_ABSENT
} PlinthWorkerPresence;

typedef struct PlinthWorkerDatabase
{
	Oid database; /* InvalidOid: free */
	PlinthWorkerPresence presence;
	uint64 epoch; /* moves when something must be looked at again; never repeats */
	int holds;    /* statements that need this database without workers */
} PlinthWorkerDatabase;

typedef struct PlinthWorkerRegistry
{
	uint64 counter;       /* the last token or epoch */
	int crashes;          /* of the server in quick succession, up to this start */
	TimestampTz start_at; /* no coordinator starts before */
	bool scan;            /* the launcher is to look at pg_database now */
	bool forget;          /* ... and at every database again: an event found no room */
	int nentries;
	PlinthWorkerEntry entries[FLEXIBLE_ARRAY_MEMBER];
} PlinthWorkerRegistry;

extern PlinthWorkerRegistry *plinth_worker_registry;

extern void plinth_worker_registry_init(void);
extern void plinth_worker_registry_lock(LWLockMode mode);
extern void plinth_worker_registry_unlock(void);

/* How long to wait before the next start after so many failures in a row (child.c). */
extern long plinth_worker_delay(int failures);

/* Declared services (init.c). */
extern int plinth_worker_service_count(void);
extern const PlinthService *plinth_worker_service_get(int service);
/* The name in stat_workers of a service, the coordinator or the launcher. */
extern const char *plinth_worker_service_name(int service);

/* Finds or makes an entry; -1 when all are taken. */
extern int plinth_worker_entry_get(Oid database, int service, int instance);
/* Gives an entry back; nothing happens while a process is attached. */
extern void plinth_worker_entry_free(int index);
/* Gives back all entries of a database that have no process; of services only, or all. */
extern void plinth_worker_entries_free(Oid database, bool services_only);
/* Names the one process that may attach next; 0 when the database is held. */
extern uint64 plinth_worker_entry_expect(int index);
extern void plinth_worker_entry_refuse(int index);
/* Makes this process the entry's, until it exits; false when it is not expected. */
extern bool plinth_worker_entry_attach(int index, uint64 token);
extern int plinth_worker_entry_pid(int index);
extern int plinth_worker_entry_last_exit(int index);
/* NULL state keeps it, NULL message clears it. */
extern void plinth_worker_entry_report(int index, const char *state, const char *message);
/* Sends SIGTERM to the attached process, and refuses one that is expected. */
extern void plinth_worker_entry_stop(int index);
/*
 * Sends SIGTERM to the attached processes of a database, those of services
 * only or all, this one aside, and lets no other attach that is expected
 * already.  Returns how many there are.
 */
extern int plinth_worker_entries_stop(Oid database, bool services_only);

/* Databases (databases.c). */
extern void plinth_worker_databases_init(void);
/* Something about the extension changed in a database: look again, now. */
extern void plinth_worker_database_changed(Oid database);
/* Makes an entry if there is none; false when all are taken. */
extern bool plinth_worker_database_get(Oid database, PlinthWorkerDatabase *copy, bool make);
extern uint64 plinth_worker_database_epoch(Oid database);
/* What a coordinator found; refused (false) when the epoch has moved on. */
extern bool plinth_worker_database_found(Oid database, uint64 epoch, PlinthWorkerPresence presence);
/* Gives the entry back unless it is held or its epoch has moved on. */
extern void plinth_worker_database_forget(Oid database, uint64 epoch);
/* The database is gone: frees all that is kept of it, in every room. */
extern void plinth_worker_database_gone(Oid database);
/* The databases that have an entry; palloc'd. */
extern Oid *plinth_worker_databases_list(int *n);
extern bool plinth_worker_database_is_held(Oid database);
/*
 * Stops the workers of a database and keeps them away until the transaction
 * ends; dropping: it is gone when that commits.
 */
extern void plinth_worker_database_hold(Oid database, bool dropping);
/* Asks the launcher to look at pg_database. */
extern void plinth_worker_launcher_scan(void);

#endif /* PLINTH_WORKER_REGISTRY_H */
