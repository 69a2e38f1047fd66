/*
 * launcher.c
 *		The one process of the cluster that keeps a coordinator in each
 *		database that has the extension.
 *
 * It is connected to no database, hence reads pg_database only: at its start,
 * when asked to (CREATE, DROP, ALTER DATABASE), and every 10 s.  Whether the
 * extension is in a database only a process connected to it can see: a
 * coordinator is started in each, a few at a time, and ends where it is not;
 * the launcher remembers that and does not look again until an event says so.
 * On a standby no event comes, so it looks again every minute.
 *
 * All that it knows is local and found again after a crash.  Coordinators go
 * on while the launcher starts anew; it takes over those that are attached and
 * refuses those that are not yet.
 */
#include "postgres.h"

#include <limits.h>

#include "access/heapam.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/child.h"
#include "worker/process.h"

#define SCAN_MS 10000
#define STANDBY_PROBE_MS 60000
#define STABLE_MS 60000
#define ADOPTED_POLL_MS 1000

/* Databases in which it is not known yet whether the extension is there. */
#define MAX_PROBES 4

#define MAX_TICKS 4

typedef struct LauncherDatabase
{
	Oid database;  /* hash key */
	bool exists;   /* in pg_database */
	bool eligible; /* open for connections, and no template */
	bool absent;   /* the extension is not there, as far as we know */
	bool running;  /* its coordinator was alive when we last looked */
	uint64 epoch;  /* what the failures are about */
	int failures;
	TimestampTz started;
	TimestampTz next_start;
	PlinthWorkerChild child;
} LauncherDatabase;

static HTAB *databases = NULL;

static PlinthWorkerTick ticks[MAX_TICKS];
static int nticks = 0;

static LauncherDatabase *
get_database(Oid database)
{
	bool found;
	LauncherDatabase *db = hash_search(databases, &database, HASH_ENTER, &found);

	if (!found)
	{
		memset(db, 0, sizeof(*db));
		db->database = database;
		plinth_worker_child_init(&db->child, database, PLINTH_WORKER_COORDINATOR, 0);
	}
	return db;
}

static void
scan_databases(void)
{
	HASH_SEQ_STATUS status;
	LauncherDatabase *db;
	Relation rel;
	TableScanDesc scan;
	HeapTuple tuple;

	hash_seq_init(&status, databases);
	while ((db = hash_seq_search(&status)) != NULL)
		db->eligible = db->exists = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		/* A limit below -1 marks what an interrupted DROP DATABASE left. */
		bool eligible = form->datallowconn && !form->datistemplate && form->datconnlimit >= -1;

		db = eligible ? get_database(form->oid)
					  : hash_search(databases, &form->oid, HASH_FIND, NULL);
		if (db != NULL)
		{
			db->exists = true;
			db->eligible = eligible;
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	pgstat_report_stat(false);
}

/* Coordinators that an earlier launcher started, and databases that it knew. */
static void
take_over(void)
{
	int n;
	Oid *known = plinth_worker_databases_list(&n);

	for (int i = 0; i < n; i++)
		(void) get_database(known[i]);
	pfree(known);
	for (int i = 0; i < plinth_worker_registry->nentries; i++)
	{
		PlinthWorkerEntry *entry = &plinth_worker_registry->entries[i];

		/* Only a launcher makes and frees these. */
		if (entry->service != PLINTH_WORKER_COORDINATOR)
			continue;
		plinth_worker_entry_refuse(i);
		get_database(entry->database)->child.entry = i;
	}
}

/* The coordinator has ended, or was never there; notes when the next may start. */
static void
note_end(LauncherDatabase *db, TimestampTz now)
{
	db->running = false;
	if (plinth_worker_entry_last_exit(db->child.entry) != 0)
	{
		if (TimestampDifferenceExceeds(db->started, now, STABLE_MS))
			db->failures = 0;
		db->failures++;
	}
	db->next_start = TimestampTzPlusMilliseconds(now, plinth_worker_delay(db->failures));
}

static void
start_coordinator(LauncherDatabase *db, TimestampTz now)
{
	db->started = now;
	db->running = plinth_worker_child_start(&db->child);
	if (!db->running)
	{
		db->failures++;
		db->next_start = TimestampTzPlusMilliseconds(now, plinth_worker_delay(db->failures));
	}
}

/* A database that is not to have workers: gone, closed, or a template. */
static void
retire(LauncherDatabase *db)
{
	if (plinth_worker_entries_stop(db->database, false) > 0 ||
		plinth_worker_child_alive(&db->child))
		return;
	plinth_worker_child_forget(&db->child);
	if (!db->exists)
		plinth_worker_database_gone(db->database);
	else
	{
		plinth_worker_entries_free(db->database, false);
		plinth_worker_database_forget(db->database, plinth_worker_database_epoch(db->database));
	}
	(void) hash_search(databases, &db->database, HASH_REMOVE, NULL);
}

/* The coordinator has said that the extension is not there: keep nothing in shared memory. */
static void
settle_absent(LauncherDatabase *db, uint64 epoch)
{
	plinth_worker_child_forget(&db->child);
	plinth_worker_database_forget(db->database, epoch);
	db->absent = true;
}

/* Returns for how long nothing is due in this database. */
static long
step_database(LauncherDatabase *db, TimestampTz now, int *probes)
{
	PlinthWorkerDatabase shared;
	bool alive;

	if (!db->eligible)
	{
		retire(db);
		return LONG_MAX;
	}
	alive = plinth_worker_child_alive(&db->child);
	if (db->running && !alive)
		note_end(db, now);
	db->running = alive;

	/* Where the extension is absent there is an entry only after an event. */
	if (!plinth_worker_database_get(db->database, &shared, !db->absent))
		return LONG_MAX;
	db->absent = false;
	if (shared.epoch != db->epoch)
	{
		db->epoch = shared.epoch;
		db->failures = 0;
		db->next_start = 0;
	}
	if (alive)
	{
		*probes += shared.presence == PLINTH_WORKER_UNKNOWN;

		/* The postmaster tells its end to who started it only. */
		return db->child.handle != NULL ? LONG_MAX : ADOPTED_POLL_MS;
	}
	if (shared.presence == PLINTH_WORKER_ABSENT)
	{
		settle_absent(db, shared.epoch);
		return LONG_MAX;
	}
	if (shared.holds > 0)
		return LONG_MAX;
	if (now < db->next_start)
		return TimestampDifferenceMilliseconds(now, db->next_start);
	if (shared.presence == PLINTH_WORKER_UNKNOWN && *probes >= MAX_PROBES)
		return LONG_MAX;
	*probes += shared.presence == PLINTH_WORKER_UNKNOWN;
	start_coordinator(db, now);
	return LONG_MAX;
}

static long
step_databases(void)
{
	TimestampTz now = GetCurrentTimestamp();
	HASH_SEQ_STATUS status;
	LauncherDatabase *db;
	long least = LONG_MAX;
	int probes = 0;

	/* Removing the element just returned is allowed. */
	hash_seq_init(&status, databases);
	while ((db = hash_seq_search(&status)) != NULL)
	{
		long next = step_database(db, now, &probes);

		least = Min(least, next);
	}
	return least;
}

/* Look into every database again. */
static void
forget_absent(void)
{
	HASH_SEQ_STATUS status;
	LauncherDatabase *db;

	hash_seq_init(&status, databases);
	while ((db = hash_seq_search(&status)) != NULL)
		db->absent = false;
}

/* True when asked to look at pg_database since the last call. */
static bool
take_requests(void)
{
	bool scan;

	plinth_worker_registry_lock(LW_EXCLUSIVE);
	scan = plinth_worker_registry->scan;
	plinth_worker_registry->scan = false;
	if (plinth_worker_registry->forget)
	{
		plinth_worker_registry->forget = false;
		forget_absent();
	}
	plinth_worker_registry_unlock();
	return scan;
}

void
plinth_worker_on_tick(PlinthWorkerTick callback)
{
	if (nticks >= MAX_TICKS)
		elog(FATAL, "too many callbacks of the launcher");
	ticks[nticks++] = callback;
}

/* Returns for how long none is due. */
static long
step_ticks(void)
{
	long least = LONG_MAX;

	for (int i = 0; i < nticks; i++)
	{
		long next = ticks[i]();

		least = Min(least, next);
	}
	return least;
}

/* False when told to stop. */
static bool
wait_after_crash(void)
{
	for (;;)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													plinth_worker_registry->start_at);
		long next;

		if (left <= 0)
			return true;
		plinth_worker_report(
			"waiting", psprintf("The server crashed (%d in a row); workers start in a moment.",
								plinth_worker_registry->crashes));
		next = step_ticks();
		if (!plinth_worker_wait(Min(left, next)))
			return false;
	}
}

static void
launch(void *arg)
{
	bool recovery = RecoveryInProgress();
	TimestampTz next_scan = 0;
	TimestampTz next_probe = 0;
	HASHCTL ctl;

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(LauncherDatabase);
	ctl.hcxt = TopMemoryContext;
	databases = hash_create("plinth launcher", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	take_over();
	if (!wait_after_crash())
		return;
	plinth_worker_report("running", NULL);
	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool asked = take_requests();
		long next;
		long tick;

		if (recovery && (!RecoveryInProgress() || now >= next_probe))
		{
			recovery = RecoveryInProgress();
			next_probe = TimestampTzPlusMilliseconds(now, STANDBY_PROBE_MS);
			forget_absent();
		}
		if (asked || now >= next_scan)
		{
			scan_databases();
			next_scan = TimestampTzPlusMilliseconds(now, SCAN_MS);
		}
		next = step_databases();
		tick = step_ticks();
		next = Min(next, tick);
		next = Min(next, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_scan));
		if (!plinth_worker_wait(recovery ? Min(next, 1000) : next))
			return;
	}
}

void
plinth_worker_launcher_main(Datum arg)
{
	plinth_worker_process_begin(NULL);
	plinth_worker_process_run(launch, NULL);

	/* 0 would be for good: after pg_terminate_backend it is to come back. */
	proc_exit(1);
}
