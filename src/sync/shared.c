/*
 * shared.c
 *		Sync's part of shared memory: who serves what, and how far it is.
 *
 * An array of databases and one of mappings' statistics, both keyed by
 * database OID and purged when a database goes.  One LWLock guards taking and
 * freeing entries and everything in them but the atomics; it is never held
 * while anything can wait.  Entries do not move, so that a pointer to one
 * stays good for as long as its database is there; lsns and generations have
 * one writer each (the lane, or the decoder) and are read without the lock.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "sync/sync_int.h"

#define MAX_STATS 2048

typedef struct SyncShared
{
	PlinthSyncStat stats[MAX_STATS]; /* key.database is InvalidOid when free */
	PlinthSyncDatabase databases[FLEXIBLE_ARRAY_MEMBER];
} SyncShared;

static SyncShared *shared = NULL;
static LWLockPadded *locks = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(SyncShared, databases),
					mul_size(sizeof(PlinthSyncDatabase), plinth_setting_max_databases));
}

static void
lane_clear(PlinthSyncLane *lane)
{
	memset(&lane->server, 0, sizeof(NameData));
	lane->owner = InvalidOid;
	lane->share = 0;
	pg_atomic_write_u64(&lane->generation, 0);
	pg_atomic_write_u64(&lane->durable, 0);
	pg_atomic_write_u64(&lane->delivered, 0);
}

static void
shared_fill(void *ptr)
{
	SyncShared *fresh = ptr;

	memset(fresh, 0, shared_size());
	for (int i = 0; i < plinth_setting_max_databases; i++)
	{
		ConditionVariableInit(&fresh->databases[i].moved);
		for (int j = 0; j < PLINTH_SYNC_MAX_LANES; j++)
		{
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].generation, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].durable, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].delivered, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].look_asked, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].looked, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].handed, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].taken, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].seen, 0);
			pg_atomic_init_u64(&fresh->databases[i].lanes[j].counted, 0);
		}
	}
}

static void
database_purge(Oid database)
{
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	for (int i = 0; i < plinth_setting_max_databases; i++)
	{
		PlinthSyncDatabase *db = &shared->databases[i];

		if (db->database != database)
			continue;
		db->database = InvalidOid;
		db->channel = 0;
		db->decoder_pid = 0;
		for (int j = 0; j < PLINTH_SYNC_MAX_LANES; j++)
			lane_clear(&db->lanes[j]);
	}
	for (int i = 0; i < MAX_STATS; i++)
	{
		if (shared->stats[i].key.database == database)
			memset(&shared->stats[i], 0, sizeof(PlinthSyncStat));
	}
	LWLockRelease(&locks->lock);
}

static const PlinthShmemPart shared_part = {
	.name = "plinth_sync",
	.size = shared_size,
	.init = shared_fill,
	.pointer = (void **) &shared,
	.lwlocks = 1,
	.locks = &locks,
};

void
plinth_sync_shared_init(void)
{
	plinth_base_shmem_declare(&shared_part);
	plinth_base_database_on_purge(database_purge);
}

LWLock *
plinth_sync_lock(void)
{
	return &locks->lock;
}

PlinthSyncDatabase *
plinth_sync_database(Oid database, bool create)
{
	PlinthSyncDatabase *found = NULL;
	PlinthSyncDatabase *unused = NULL;

	LWLockAcquire(&locks->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < plinth_setting_max_databases && found == NULL; i++)
	{
		PlinthSyncDatabase *db = &shared->databases[i];

		if (db->database == database)
			found = db;
		else if (db->database == InvalidOid && unused == NULL)
			unused = db;
	}
	if (found == NULL && create && unused != NULL)
	{
		found = unused;
		found->database = database;
	}
	LWLockRelease(&locks->lock);

	if (found == NULL && create)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many databases use plinth"),
						errhint("Raise \"plinth.max_databases\" (now %d) and restart the server.",
								plinth_setting_max_databases)));
	return found;
}

int
plinth_sync_lane_of(PlinthSyncDatabase *db, const char *server, Oid owner, int share, bool assign)
{
	int found = -1;
	int unused = -1;

	LWLockAcquire(&locks->lock, assign ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES && found < 0; i++)
	{
		if (strcmp(NameStr(db->lanes[i].server), server) == 0 && db->lanes[i].owner == owner &&
			db->lanes[i].share == share)
			found = i;
		else if (NameStr(db->lanes[i].server)[0] == '\0' && unused < 0)
			unused = i;
	}
	if (found < 0 && assign && unused >= 0)
	{
		found = unused;
		lane_clear(&db->lanes[found]);
		namestrcpy(&db->lanes[found].server, server);
		db->lanes[found].owner = owner;
		db->lanes[found].share = share;
	}
	LWLockRelease(&locks->lock);
	return found;
}

void
plinth_sync_lanes_free(PlinthSyncDatabase *db, const bool *used)
{
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		if (!used[i] && NameStr(db->lanes[i].server)[0] != '\0')
			lane_clear(&db->lanes[i]);
	}
	LWLockRelease(&locks->lock);
}

void
plinth_sync_stat_set(const PlinthSyncStat *stat)
{
	PlinthSyncStat *place = NULL;

	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_STATS; i++)
	{
		PlinthSyncStat *candidate = &shared->stats[i];

		if (memcmp(&candidate->key, &stat->key, sizeof(PlinthSyncStatKey)) == 0)
		{
			place = candidate;
			break;
		}
		/* What an extension that was dropped has left is room, too. */
		if (place == NULL && (candidate->key.database == InvalidOid ||
							  (candidate->key.database == stat->key.database &&
							   candidate->key.extension != stat->key.extension)))
			place = candidate;
	}
	/* Where all are taken a mapping goes without statistics, nothing else. */
	if (place != NULL)
		*place = *stat;
	LWLockRelease(&locks->lock);
}

/* Later ones are worse; a lane that has no share in the mapping tells no state. */
static int
badness(const char *state)
{
	static const char *const states[] = {"",         "streaming",   "paused",   "catchup",
										 "sweep",    "snapshot",    "starting", "waiting",
										 "retrying", "unreachable", "blocked"};

	for (int i = 0; i < lengthof(states); i++)
	{
		if (strcmp(states[i], state) == 0)
			return i;
	}
	return lengthof(states);
}

static void
add_stat(PlinthSyncStat *sum, const PlinthSyncStat *stat)
{
	if (stat->state[0] != '\0')
	{
		sum->shares++;
		if (sum->state[0] == '\0' || stat->lag_lsn < sum->lag_lsn)
			sum->lag_lsn = stat->lag_lsn;
		if (stat->oldest_at != 0 && (sum->oldest_at == 0 || stat->oldest_at < sum->oldest_at))
			sum->oldest_at = stat->oldest_at;
		sum->next_try_at = Max(sum->next_try_at, stat->next_try_at);
		if (badness(stat->state) > badness(sum->state))
			strlcpy(sum->state, stat->state, sizeof(sum->state));
	}
	if (stat->last_error_at > sum->last_error_at ||
		(sum->last_error[0] == '\0' && stat->last_error[0] != '\0'))
	{
		strlcpy(sum->last_error, stat->last_error, sizeof(sum->last_error));
		sum->last_error_at = stat->last_error_at;
	}
	sum->elsewhere |= stat->elsewhere;
	sum->rate += stat->rate;
	sum->behind_at_least |= stat->behind_at_least;
	if (stat->key.share == 0)
	{
		sum->state_since = stat->state_since;
		sum->late = stat->late;
		sum->dead = stat->dead;
		memcpy(sum->told, stat->told, sizeof(sum->told));
	}
	sum->documents_replaced += stat->documents_replaced;
	sum->documents_deleted += stat->documents_deleted;
	sum->bytes_sent += stat->bytes_sent;
	sum->retries += stat->retries;
	sum->keys_in_memory += stat->keys_in_memory;
}

bool
plinth_sync_stat_get(int64 mapping, Oid extension, PlinthSyncStat *stat)
{
	bool found = false;

	memset(stat, 0, sizeof(*stat));
	LWLockAcquire(&locks->lock, LW_SHARED);
	for (int i = 0; i < MAX_STATS; i++)
	{
		if (shared->stats[i].key.database == MyDatabaseId &&
			shared->stats[i].key.extension == extension && shared->stats[i].key.mapping == mapping)
		{
			add_stat(stat, &shared->stats[i]);
			found = true;
		}
	}
	LWLockRelease(&locks->lock);
	return found;
}

void
plinth_sync_stat_remove(Oid database, int64 mapping)
{
	LWLockAcquire(&locks->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_STATS; i++)
	{
		if (shared->stats[i].key.database == database && shared->stats[i].key.mapping == mapping)
			memset(&shared->stats[i], 0, sizeof(PlinthSyncStat));
	}
	LWLockRelease(&locks->lock);
}
