/*
 * registry.c
 *		The registry of workers: who should run, who runs, and what it says.
 *
 * A fixed array in shared memory; the first entry is the launcher's, one
 * belongs to each coordinator, one to each instance of a service.  A parent
 * (launcher, coordinator) makes the entries of its children, and alone frees
 * them.
 *
 * Invariants:
 * - A process is attached to its entry before it connects to the database and
 *   until it has left the list of processes, its locks and its slot released.
 *   So where no process of a database is attached, none of ours is in the way
 *   of DROP DATABASE and its like.
 * - Only a process that knows the entry's token attaches: one that a parent
 *   asked for and that nobody has given up since.  None attaches to a database
 *   that is held.
 *
 * A worker that crashes takes the whole server's processes down with it, and
 * would do so again as soon as it is back.  So from the second crash in quick
 * succession on nothing starts for a while, longer with each.
 *
 * Locking: everything under the one LWLock but the latches, which are read
 * without it: waking must be possible after commit and must cost little.  A
 * latch belongs to a PGPROC, so a stale one at worst wakes a process for
 * nothing.
 */
#include "postgres.h"

#include <signal.h>

#include "base/base.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "worker/registry.h"

/* Workers that ran for so long are not why the server crashes again and again. */
#define CRASH_STABLE_MS 10000

PlinthWorkerRegistry *plinth_worker_registry = NULL;
static LWLockPadded *locks = NULL;

void
plinth_worker_registry_lock(LWLockMode mode)
{
	LWLockAcquire(&locks[0].lock, mode);
}

void
plinth_worker_registry_unlock(void)
{
	LWLockRelease(&locks[0].lock);
}

/* Needs the lock. */
static void
clear_entry(PlinthWorkerEntry *entry)
{
	entry->service = PLINTH_WORKER_FREE;
	entry->database = InvalidOid;
	entry->instance = 0;
	pg_atomic_write_u64(&entry->latch, 0);
	entry->token = 0;
	entry->pid = 0;
	entry->starts = 0;
	entry->last_exit = 0;
	entry->started_at = 0;
	entry->state[0] = '\0';
	entry->message[0] = '\0';
}

int
plinth_worker_entry_get(Oid database, int service, int instance)
{
	int unused = -1;
	int found = -1;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	for (int i = 0; i < plinth_worker_registry->nentries && found < 0; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];

		if (entry->service == PLINTH_WORKER_FREE)
			unused = unused < 0 ? i : unused;
		else if (entry->database == database && entry->service == service &&
				 entry->instance == instance)
			found = i;
	}
	if (found < 0 && unused >= 0)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[unused];

		clear_entry(entry);
		entry->database = database;
		entry->instance = instance;
		entry->service = service;
		found = unused;
	}
	plinth_worker_registry_unlock();
	return found;
}

void
plinth_worker_entry_free(int index)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[index];

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	if (entry->pid == 0)
		clear_entry(entry);
	plinth_worker_registry_unlock();
}

void
plinth_worker_entries_free(Oid database, bool services_only)
{
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	for (int i = 0; i < plinth_worker_registry->nentries; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];

		if (entry->database == database && entry->pid == 0 &&
			entry->service != PLINTH_WORKER_LAUNCHER && !(services_only && entry->service < 0))
			clear_entry(entry);
	}
	plinth_worker_registry_unlock();
}

uint64
plinth_worker_entry_expect(int index)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[index];
	uint64 token = 0;

	if (plinth_worker_database_is_held(entry->database))
		return 0;
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	if (entry->pid == 0)
	{
		token = ++plinth_worker_registry->counter;
		entry->token = token;
		strlcpy(entry->state, "starting", sizeof(entry->state));
	}
	plinth_worker_registry_unlock();
	return token;
}

void
plinth_worker_entry_refuse(int index)
{
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	plinth_worker_registry->entries[index].token = 0;
	plinth_worker_registry_unlock();
}

/* The last that this process does in shared memory but giving its PGPROC back. */
static void
detach_entry(int code, Datum arg)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[DatumGetInt32(arg)];

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	if (entry->pid == MyProcPid)
	{
		pg_atomic_write_u64(&entry->latch, 0);
		entry->pid = 0;
		entry->last_exit = code;

		/* What it failed of stays to be seen. */
		if (strcmp(entry->state, "failed") != 0)
		{
			strlcpy(entry->state, "stopped", sizeof(entry->state));
			entry->message[0] = '\0';
		}
	}
	plinth_worker_registry_unlock();
}

bool
plinth_worker_entry_attach(int index, uint64 token)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[index];
	bool held = plinth_worker_database_is_held(entry->database);
	bool ours;

	plinth_worker_registry_lock(LW_EXCLUSIVE);

	/* Who holds a database first says so and then refuses those expected. */
	ours = entry->pid == 0 && entry->token == token && !held;
	if (ours)
	{
		entry->token = 0;
		entry->pid = MyProcPid;
		entry->starts++;
		entry->started_at = GetCurrentTimestamp();
		entry->message[0] = '\0';
		strlcpy(entry->state, "starting", sizeof(entry->state));
		pg_atomic_write_u64(&entry->latch, (uint64) (uintptr_t) MyLatch);
	}
	plinth_worker_registry_unlock();

	/*
	 * Registered before the connection to the database registers its own
	 * callbacks, which therefore run earlier.
	 */
	if (ours)
		on_shmem_exit(detach_entry, Int32GetDatum(index));
	return ours;
}

int
plinth_worker_entry_pid(int index)
{
	int pid;

	plinth_worker_registry_lock(LW_SHARED);
	pid = plinth_worker_registry->entries[index].pid;
	plinth_worker_registry_unlock();
	return pid;
}

int
plinth_worker_entry_last_exit(int index)
{
	int last_exit;

	plinth_worker_registry_lock(LW_SHARED);
	last_exit = plinth_worker_registry->entries[index].last_exit;
	plinth_worker_registry_unlock();
	return last_exit;
}

void
plinth_worker_entry_report(int index, const char *state, const char *message)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[index];

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	if (state != NULL)
		strlcpy(entry->state, state, sizeof(entry->state));
	strlcpy(entry->message, message ? message : "", sizeof(entry->message));
	plinth_worker_registry_unlock();
}

void
plinth_worker_entry_stop(int index)
{
	PlinthWorkerEntry *entry = &plinth_worker_registry->entries[index];

	/* Under the lock a process that is attached cannot have exited yet. */
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry->token = 0;
	if (entry->pid != 0)
		kill(entry->pid, SIGTERM);
	plinth_worker_registry_unlock();
}

int
plinth_worker_entries_stop(Oid database, bool services_only)
{
	int running = 0;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	for (int i = 0; i < plinth_worker_registry->nentries; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];

		if (entry->database != database || entry->service == PLINTH_WORKER_FREE ||
			(services_only && entry->service < 0))
			continue;
		entry->token = 0;
		if (entry->pid == 0 || entry->pid == MyProcPid)
			continue;
		running++;
		kill(entry->pid, SIGTERM);
	}
	plinth_worker_registry_unlock();
	return running;
}

void
plinth_worker_wake(Oid database, const char *service, int instance)
{
	int number = PLINTH_WORKER_FREE;

	if (plinth_worker_registry == NULL)
		return;
	for (int i = PLINTH_WORKER_COORDINATOR; i < plinth_worker_service_count(); i++)
	{
		if (strcmp(plinth_worker_service_name(i), service) == 0)
			number = i;
	}
	if (number == PLINTH_WORKER_FREE)
		return;
	for (int i = 0; i < plinth_worker_registry->nentries; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];
		uint64 latch;

		if (entry->database != database || entry->service != number ||
			(instance >= 0 && entry->instance != instance))
			continue;
		latch = pg_atomic_read_u64(&entry->latch);
		if (latch != 0)
			SetLatch((Latch *) (uintptr_t) latch);
	}
}

static Size
registry_size(void)
{
	return add_size(offsetof(PlinthWorkerRegistry, entries),
					mul_size(plinth_setting_max_workers + 1, sizeof(PlinthWorkerEntry)));
}

static void
registry_fill(void *ptr)
{
	PlinthWorkerRegistry *registry = ptr;
	PlinthWorkerEntry *launcher;

	/* These two are the postmaster's own, so that they outlive the crash. */
	static TimestampTz last_start = 0;
	static int crashes = -1;
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(last_start, now, CRASH_STABLE_MS))
		crashes = Min(crashes, 0);
	crashes++;
	registry->crashes = crashes;
	registry->start_at =
		crashes > 1 ? TimestampTzPlusMilliseconds(now, plinth_worker_delay(crashes - 1)) : now;
	last_start = registry->start_at;

	registry->counter = 0;
	registry->scan = false;
	registry->forget = false;
	registry->nentries = plinth_setting_max_workers + 1;
	for (int i = 0; i < registry->nentries; i++)
	{
		pg_atomic_init_u64(&registry->entries[i].latch, 0);
		clear_entry(&registry->entries[i]);
	}

	launcher = &registry->entries[PLINTH_WORKER_LAUNCHER_ENTRY];
	launcher->service = PLINTH_WORKER_LAUNCHER;
	strlcpy(launcher->state, "not started", sizeof(launcher->state));
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth workers",
	.size = registry_size,
	.init = registry_fill,
	.pointer = (void **) &plinth_worker_registry,
	.lwlocks = 1,
	.locks = &locks,
};

void
plinth_worker_registry_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
