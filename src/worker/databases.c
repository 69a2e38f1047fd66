/*
 * databases.c
 *		What is known of each database: whether the extension is there, and
 *		whether somebody needs it without workers.
 *
 * A fixed array beside the registry, under the registry's lock.  A database
 * has an entry while the launcher keeps a coordinator there (or is about to),
 * while it is held, or when a backend has said that it changed.  The launcher
 * remembers for itself where the extension is absent, so that a cluster of
 * many databases needs no more room than those that use it; where an event
 * finds no room it asks the launcher to look at every database again.
 *
 * Each event moves the entry's epoch.  A coordinator reads it before it looks
 * at the catalog and reports together with it; what an event has overtaken is
 * not believed.
 *
 * Holds: a statement (DROP, RENAME, SET TABLESPACE, use as a template) counts
 * the entry's holds up, refuses the workers that are expected and stops those
 * that are attached.  While the count is not 0 none is expected or attached.
 * It goes down at the end of the transaction, whichever way that ends; a
 * backend that dies aborts its transaction first.
 */
#include "postgres.h"

#include "base/base.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "worker/registry.h"

/* Databases that are being looked at, or held, beside those that use the extension. */
#define SPARE_DATABASES 64

/* Workers that do not stop in this time are left to the statement's own check. */
#define HOLD_TIMEOUT_MS 30000
#define HOLD_POLL_MS 20

typedef struct DatabaseArray
{
	int nentries;
	PlinthWorkerDatabase entries[FLEXIBLE_ARRAY_MEMBER];
} DatabaseArray;

static DatabaseArray *databases = NULL;

/* What a transaction holds. */
typedef struct Hold
{
	Oid database;
	bool counted;
	bool dropping;
} Hold;

/* Needs the lock. */
static PlinthWorkerDatabase *
find_database(Oid database)
{
	for (int i = 0; i < databases->nentries; i++)
	{
		if (databases->entries[i].database == database)
			return &databases->entries[i];
	}
	return NULL;
}

/* Needs the lock, exclusively; NULL when all entries are taken. */
static PlinthWorkerDatabase *
make_database(Oid database)
{
	PlinthWorkerDatabase *entry = find_database(database);

	if (entry != NULL)
		return entry;
	entry = find_database(InvalidOid);
	if (entry == NULL)
		return NULL;
	entry->database = database;
	entry->presence = PLINTH_WORKER_UNKNOWN;
	entry->epoch = ++plinth_worker_registry->counter;
	entry->holds = 0;
	return entry;
}

void
plinth_worker_launcher_scan(void)
{
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	plinth_worker_registry->scan = true;
	plinth_worker_registry_unlock();
	plinth_worker_wake(InvalidOid, "launcher", 0);
}

void
plinth_worker_database_changed(Oid database)
{
	PlinthWorkerDatabase *entry;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = make_database(database);
	if (entry != NULL)
	{
		entry->epoch = ++plinth_worker_registry->counter;
		if (entry->presence == PLINTH_WORKER_ABSENT)
			entry->presence = PLINTH_WORKER_UNKNOWN;
	}
	else
		plinth_worker_registry->forget = true;
	plinth_worker_registry_unlock();

	plinth_worker_wake(database, "coordinator", 0);
	plinth_worker_launcher_scan();
}

bool
plinth_worker_database_get(Oid database, PlinthWorkerDatabase *copy, bool make)
{
	PlinthWorkerDatabase *entry;

	plinth_worker_registry_lock(make ? LW_EXCLUSIVE : LW_SHARED);
	entry = make ? make_database(database) : find_database(database);
	if (entry != NULL)
		*copy = *entry;
	plinth_worker_registry_unlock();
	return entry != NULL;
}

uint64
plinth_worker_database_epoch(Oid database)
{
	PlinthWorkerDatabase entry;

	return plinth_worker_database_get(database, &entry, false) ? entry.epoch : 0;
}

bool
plinth_worker_database_is_held(Oid database)
{
	PlinthWorkerDatabase entry;

	return OidIsValid(database) && plinth_worker_database_get(database, &entry, false) &&
		   entry.holds > 0;
}

bool
plinth_worker_database_found(Oid database, uint64 epoch, PlinthWorkerPresence presence)
{
	PlinthWorkerDatabase *entry;
	bool current;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = find_database(database);
	current = entry != NULL && entry->epoch == epoch;
	if (current)
		entry->presence = presence;
	plinth_worker_registry_unlock();
	return current;
}

void
plinth_worker_database_forget(Oid database, uint64 epoch)
{
	PlinthWorkerDatabase *entry;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL && entry->epoch == epoch && entry->holds == 0)
		entry->database = InvalidOid;
	plinth_worker_registry_unlock();
}

void
plinth_worker_database_gone(Oid database)
{
	PlinthWorkerDatabase *entry;

	plinth_worker_entries_free(database, false);
	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL && entry->holds == 0)
		entry->database = InvalidOid;
	plinth_worker_registry_unlock();

	plinth_base_database_purge(database);
}

Oid *
plinth_worker_databases_list(int *n)
{
	Oid *list = palloc(sizeof(Oid) * databases->nentries);

	*n = 0;
	plinth_worker_registry_lock(LW_SHARED);
	for (int i = 0; i < databases->nentries; i++)
	{
		if (OidIsValid(databases->entries[i].database))
			list[(*n)++] = databases->entries[i].database;
	}
	plinth_worker_registry_unlock();
	return list;
}

static void
release_hold(Hold *hold, bool gone)
{
	PlinthWorkerDatabase *entry;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = find_database(hold->database);
	if (hold->counted && entry != NULL)
	{
		entry->holds--;
		entry->epoch = ++plinth_worker_registry->counter;
	}
	plinth_worker_registry_unlock();

	if (gone)
		plinth_worker_database_gone(hold->database);
	plinth_worker_launcher_scan();
}

static void
publish_hold(void *arg)
{
	release_hold(arg, ((Hold *) arg)->dropping);
}

static void
discard_hold(void *arg)
{
	release_hold(arg, false);
}

static const PlinthXactAction hold_action = {
	.name = "workers of a database stopped",
	.reserve = NULL,
	.publish = publish_hold,
	.discard = discard_hold,
	.shared = true,
};

void
plinth_worker_database_hold(Oid database, bool dropping)
{
	Hold *hold = MemoryContextAllocZero(TopTransactionContext, sizeof(Hold));
	PlinthWorkerDatabase *entry;

	hold->database = database;
	hold->dropping = dropping;
	plinth_base_xact_add(&hold_action, hold);

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	entry = find_database(database);
	if (entry != NULL)
	{
		entry->holds++;
		hold->counted = true;
	}
	plinth_worker_registry_unlock();

	/* Without an entry there is neither a worker nor a start under way. */
	if (!hold->counted)
		return;

	for (int waited = 0; waited < HOLD_TIMEOUT_MS; waited += HOLD_POLL_MS)
	{
		if (plinth_worker_entries_stop(database, false) == 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, HOLD_POLL_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static Size
databases_size(void)
{
	return add_size(
		offsetof(DatabaseArray, entries),
		mul_size(plinth_setting_max_databases + SPARE_DATABASES, sizeof(PlinthWorkerDatabase)));
}

static void
databases_fill(void *ptr)
{
	DatabaseArray *array = ptr;

	array->nentries = plinth_setting_max_databases + SPARE_DATABASES;
	for (int i = 0; i < array->nentries; i++)
	{
		array->entries[i].database = InvalidOid;
		array->entries[i].presence = PLINTH_WORKER_UNKNOWN;
		array->entries[i].epoch = 0;
		array->entries[i].holds = 0;
	}
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth worker databases",
	.size = databases_size,
	.init = databases_fill,
	.pointer = (void **) &databases,
	.lwlocks = 0,
	.locks = NULL,
};

void
plinth_worker_databases_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
