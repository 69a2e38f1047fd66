/*
 * api_key_used.c
 *		When API keys were last used, gathered in shared memory.
 *
 * A request notes its key here, in READ ONLY transactions too; a flush writes
 * all of a database's in one statement, and takes away what it wrote once that
 * has committed.  There is room for MAX_USED keys between two flushes: of more,
 * and of what a crash forgets, nobody learns.  The lock guards all of it, but
 * at: that is set under a shared lock.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_USED 1024

typedef struct Used
{
	Oid database;
	pg_uuid_t id;
	pg_atomic_uint64 at;
} Used;

typedef struct UsedKeys
{
	int n;
	Used used[MAX_USED];
} UsedKeys;

typedef struct Written
{
	int n;
	struct
	{
		pg_uuid_t id;
		uint64 at;
	} key[MAX_USED];
} Written;

static UsedKeys *keys = NULL;
static LWLockPadded *lock = NULL;

/* A row that somebody has locked is left for the next time. */
static PlinthPlan write_plan = {
	.sql =
		"UPDATE plinth.api_keys k SET last_used_at = l.at FROM (SELECT k.id, d.at "
		"FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS d (id, at) "
		"JOIN plinth.api_keys k ON k.id = d.id WHERE k.last_used_at IS NULL OR k.last_used_at < d.at "
		"FOR NO KEY UPDATE OF k SKIP LOCKED) l WHERE k.id = l.id",
	.nargs = 2,
	.argtypes = {UUIDARRAYOID, TIMESTAMPTZARRAYOID},
};

PGDLLEXPORT Datum plinth_identity_api_key_flush_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_api_key_flush_sql);

static Used *
find(const pg_uuid_t *id)
{
	for (int i = 0; i < keys->n; i++)
	{
		if (keys->used[i].database == MyDatabaseId &&
			memcmp(&keys->used[i].id, id, sizeof(pg_uuid_t)) == 0)
			return &keys->used[i];
	}
	return NULL;
}

void
plinth_identity_api_key_used(const pg_uuid_t *id)
{
	uint64 now = GetCurrentTimestamp();
	Used *used;

	if (RecoveryInProgress())
		return;
	LWLockAcquire(&lock->lock, LW_SHARED);
	used = find(id);
	if (used != NULL)
		pg_atomic_write_u64(&used->at, now);
	LWLockRelease(&lock->lock);
	if (used != NULL)
		return;

	LWLockAcquire(&lock->lock, LW_EXCLUSIVE);
	used = find(id);
	if (used == NULL && keys->n < MAX_USED)
	{
		used = &keys->used[keys->n++];
		used->database = MyDatabaseId;
		used->id = *id;
	}
	if (used != NULL)
		pg_atomic_write_u64(&used->at, now);
	LWLockRelease(&lock->lock);
}

static void
take_away(Used *used)
{
	Used *last = &keys->used[--keys->n];

	used->database = last->database;
	used->id = last->id;
	pg_atomic_write_u64(&used->at, pg_atomic_read_u64(&last->at));
}

/* What was used since stays. */
static void
publish(void *arg)
{
	const Written *written = arg;

	LWLockAcquire(&lock->lock, LW_EXCLUSIVE);
	for (int i = 0; i < written->n; i++)
	{
		Used *used = find(&written->key[i].id);

		if (used != NULL && pg_atomic_read_u64(&used->at) == written->key[i].at)
			take_away(used);
	}
	LWLockRelease(&lock->lock);
}

static const PlinthXactAction written_action = {
	.name = "use of API keys",
	.reserve = NULL,
	.publish = publish,
	.discard = NULL,
	.shared = true,
};

static Written *
collect(void)
{
	Written *written = MemoryContextAlloc(TopTransactionContext, sizeof(Written));

	written->n = 0;
	LWLockAcquire(&lock->lock, LW_SHARED);
	for (int i = 0; i < keys->n; i++)
	{
		if (keys->used[i].database != MyDatabaseId)
			continue;
		written->key[written->n].id = keys->used[i].id;
		written->key[written->n++].at = pg_atomic_read_u64(&keys->used[i].at);
	}
	LWLockRelease(&lock->lock);
	return written;
}

int64
plinth_identity_api_key_flush(void)
{
	Written *written = collect();
	Datum *ids = palloc(sizeof(Datum) * Max(written->n, 1));
	Datum *times = palloc(sizeof(Datum) * Max(written->n, 1));
	Datum values[2];
	PlinthAsOwner owner;
	int64 rows;

	if (written->n == 0)
		return 0;
	for (int i = 0; i < written->n; i++)
	{
		ids[i] = UUIDPGetDatum(&written->key[i].id);
		times[i] = TimestampTzGetDatum((TimestampTz) written->key[i].at);
	}
	values[0] =
		PointerGetDatum(construct_array(ids, written->n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	values[1] = PointerGetDatum(construct_array(
		times, written->n, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&write_plan, values, NULL, false, SPI_OK_UPDATE);
	rows = SPI_processed;
	plinth_base_owner_end(&owner);
	SPI_finish();
	plinth_base_xact_add(&written_action, written);
	return rows;
}

Datum
plinth_identity_api_key_flush_sql(PG_FUNCTION_ARGS)
{
	PreventCommandIfReadOnly("plinth.api_key_flush()");
	PG_RETURN_INT64(plinth_identity_api_key_flush());
}

static void
purge(Oid database)
{
	LWLockAcquire(&lock->lock, LW_EXCLUSIVE);
	for (int i = keys->n - 1; i >= 0; i--)
	{
		if (keys->used[i].database == database)
			take_away(&keys->used[i]);
	}
	LWLockRelease(&lock->lock);
}

static Size
shmem_size(void)
{
	return sizeof(UsedKeys);
}

static void
shmem_init(void *ptr)
{
	UsedKeys *made = ptr;

	made->n = 0;
	for (int i = 0; i < MAX_USED; i++)
		pg_atomic_init_u64(&made->used[i].at, 0);
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth API keys",
	.size = shmem_size,
	.init = shmem_init,
	.pointer = (void **) &keys,
	.lwlocks = 1,
	.locks = &lock,
};

void
plinth_identity_api_key_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
	plinth_base_database_on_purge(purge);
	plinth_base_secret_function("api_key_create");
}
