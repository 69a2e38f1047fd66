/*
 * database.c
 *		An entry in shared memory for each database that uses the extension,
 *		with generations by which readers notice that something changed.
 *
 * The entries are a fixed array of plinth.max_databases.  Readers look an
 * entry up without a lock, by its database's OID, starting where they found it
 * last; adding and removing take the one LWLock.  All numbers come from one
 * counter that only grows, so that a generation never repeats, in an entry
 * used again neither; and 0 always means that there is no entry.
 *
 * A generation moves before commit and again after it.  A reader takes the
 * generation first and reads the data then: if it read the old rows, the
 * second move makes it look again.
 */
#include "postgres.h"

#include "base/base.h"
#include "miscadmin.h"

#define MAX_PURGES 16
#define GENERATIONS (PLINTH_GEN_LAST + 1)

typedef struct DatabaseEntry
{
	pg_atomic_uint32 database; /* InvalidOid: free */
	pg_atomic_uint64 generations[GENERATIONS];
} DatabaseEntry;

typedef struct DatabaseState
{
	pg_atomic_uint64 counter; /* the last number given to any generation */
	int nentries;
	DatabaseEntry entries[FLEXIBLE_ARRAY_MEMBER];
} DatabaseState;

static DatabaseState *state = NULL;
static LWLockPadded *locks = NULL;

static PlinthDatabasePurge purges[MAX_PURGES];
static int npurges = 0;

/* Where this backend found its last entry; a hint only. */
static int last_index = 0;

static DatabaseEntry *
find_entry(Oid database)
{
	if (state == NULL || !OidIsValid(database))
		return NULL;
	if (pg_atomic_read_u32(&state->entries[last_index].database) == database)
		return &state->entries[last_index];
	for (int i = 0; i < state->nentries; i++)
	{
		if (pg_atomic_read_u32(&state->entries[i].database) == database)
		{
			last_index = i;
			return &state->entries[i];
		}
	}
	return NULL;
}

/* Moves a generation to a number that no generation had before and above its last. */
static void
move_generation(DatabaseEntry *entry, PlinthGeneration which)
{
	pg_atomic_uint64 *generation = &entry->generations[which];
	uint64 old = pg_atomic_read_u64(generation);

	for (;;)
	{
		uint64 next = pg_atomic_add_fetch_u64(&state->counter, 1);

		/*
		 * When another number overtook ours, a reader may have seen that one
		 * before our change: take one above it.
		 */
		while (old < next)
		{
			if (pg_atomic_compare_exchange_u64(generation, &old, next))
				return;
		}
	}
}

/* Finds or adds; NULL when all entries are taken. */
static DatabaseEntry *
ensure_entry(Oid database)
{
	DatabaseEntry *entry = find_entry(database);

	if (entry != NULL || state == NULL || !OidIsValid(database))
		return entry;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = find_entry(database);
	for (int i = 0; entry == NULL && i < state->nentries; i++)
	{
		DatabaseEntry *candidate = &state->entries[i];

		if (pg_atomic_read_u32(&candidate->database) != InvalidOid)
			continue;
		for (int g = 0; g < GENERATIONS; g++)
			move_generation(candidate, g);
		pg_write_barrier();
		pg_atomic_write_u32(&candidate->database, database);
		entry = candidate;
	}
	LWLockRelease(&locks[0].lock);
	return entry;
}

uint64
plinth_base_generation(Oid database, PlinthGeneration which)
{
	DatabaseEntry *entry = find_entry(database);
	uint64 generation;

	if (entry == NULL)
		return 0;
	generation = pg_atomic_read_u64(&entry->generations[which]);

	/* What the caller reads next must not be older than the generation. */
	pg_memory_barrier();
	return generation;
}

void
plinth_base_generation_bump(Oid database, PlinthGeneration which)
{
	DatabaseEntry *entry = ensure_entry(database);

	if (entry != NULL)
		move_generation(entry, which);
	else if (state != NULL)
		ereport(WARNING, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						  errmsg("no place for database %u in plinth's shared memory", database),
						  errhint("Raise \"plinth.max_databases\" and restart the server.")));
}

uint64
plinth_base_generation_keep(PlinthGeneration which)
{
	static bool asked = false;
	uint64 generation = plinth_base_generation(MyDatabaseId, which);

	/* Nobody has changed anything of this database since the server started. */
	if (generation == 0 && !asked && !IsInParallelMode())
	{
		asked = true;
		plinth_base_generation_bump(MyDatabaseId, which);
		generation = plinth_base_generation(MyDatabaseId, which);
	}
	return generation;
}

static void
reserve_touch(void *arg)
{
	DatabaseEntry *entry = ensure_entry(MyDatabaseId);

	if (entry == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all %d databases of \"plinth.max_databases\" are taken", state->nentries),
				 errhint("Raise \"plinth.max_databases\" and restart the server.")));
	move_generation(entry, (PlinthGeneration) (intptr_t) arg);
}

static void
publish_touch(void *arg)
{
	DatabaseEntry *entry = find_entry(MyDatabaseId);

	if (entry != NULL)
		move_generation(entry, (PlinthGeneration) (intptr_t) arg);
}

static const PlinthXactAction touch_action = {
	.name = "generation",
	.reserve = reserve_touch,
	.publish = publish_touch,
	.discard = NULL,
	.shared = true,
};

void
plinth_base_generation_touch(PlinthGeneration which)
{
	Assert(which <= PLINTH_GEN_LAST);
	plinth_base_xact_add_once(&touch_action, (void *) (intptr_t) which);
}

void
plinth_base_database_on_purge(PlinthDatabasePurge purge)
{
	if (npurges >= MAX_PURGES)
		elog(FATAL, "too many purge callbacks");
	purges[npurges++] = purge;
}

void
plinth_base_database_purge(Oid database)
{
	DatabaseEntry *entry;

	for (int i = 0; i < npurges; i++)
		purges[i](database);

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	entry = find_entry(database);
	if (entry != NULL)
		pg_atomic_write_u32(&entry->database, InvalidOid);
	LWLockRelease(&locks[0].lock);
}

static Size
state_size(void)
{
	return add_size(offsetof(DatabaseState, entries),
					mul_size(plinth_setting_max_databases, sizeof(DatabaseEntry)));
}

static void
state_init(void *ptr)
{
	DatabaseState *s = ptr;

	pg_atomic_init_u64(&s->counter, 0);
	s->nentries = plinth_setting_max_databases;
	for (int i = 0; i < s->nentries; i++)
	{
		pg_atomic_init_u32(&s->entries[i].database, InvalidOid);
		for (int g = 0; g < GENERATIONS; g++)
			pg_atomic_init_u64(&s->entries[i].generations[g], 0);
	}
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth databases",
	.size = state_size,
	.init = state_init,
	.pointer = (void **) &state,
	.lwlocks = 1,
	.locks = &locks,
};

void
plinth_base_database_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
