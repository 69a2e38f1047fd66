/*
 * second.c
 *		The second level: entries in a table, logged for a durable cache,
 *		unlogged for one with overflow.
 *
 * Requests only ever INSERT: entries into plinth.cache_durable_entries or
 * plinth.cache_entries, invalidations into plinth.cache_invalidations.  So
 * they wait for nobody, and never deadlock or fail to serialize.  Which entry
 * is valid is decided when it is read, by the views plinth._cache_valid_*: an
 * entry carries the snapshot under which it was computed, and an invalidation
 * that the reader sees but that snapshot does not makes it invalid.  It is
 * MVCC that makes this exact, on a standby too; docs/cache.md has the argument
 * and what purging must keep to.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "cache/define.h"
#include "cache/store.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/*
 * The last invalidation of all of a cache, so that a statement that changes
 * many rows of a watched table adds one row, not as many.  Another is needed
 * after an entry of our own, and in another subtransaction.
 */
static struct
{
	LocalTransactionId lxid;
	SubTransactionId subid;
	int32 cache;
} cleared;

static Datum
text_datum(const char *data, int len)
{
	return PointerGetDatum(cstring_to_text_with_len(data, len));
}

static Datum
column(int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, isnull);
}

/* The row that was selected, its value copied to another context. */
static void
read_entry(MemoryContext memory, PlinthCacheValue *value)
{
	ArrayType *tags;
	bool isnull;
	Datum data;

	memset(value, 0, sizeof(*value));
	value->kind = (PlinthCacheKind) DatumGetInt16(column(1, &isnull));
	data = column(2, &isnull);
	if (!isnull)
	{
		bytea *bytes = DatumGetByteaPP(data);
		char *copy = MemoryContextAlloc(memory, VARHDRSZ + VARSIZE_ANY_EXHDR(bytes));

		value->size = VARSIZE_ANY_EXHDR(bytes);
		memcpy(copy + VARHDRSZ, VARDATA_ANY(bytes), value->size);
		value->data = copy + VARHDRSZ;
	}
	value->stale_at = DatumGetTimestampTz(column(3, &isnull));
	value->expires_at = DatumGetTimestampTz(column(4, &isnull));
	tags = DatumGetArrayTypeP(column(5, &isnull));
	value->ntags = Min(ArrayGetNItems(ARR_NDIM(tags), ARR_DIMS(tags)), PLINTH_CACHE_MAX_TAGS);
	for (int i = 0; i < value->ntags; i++)
		value->tags[i] = (uint32) ((int64 *) ARR_DATA_PTR(tags))[i];
}

#define SELECT_ENTRY(view)                                                                         \
	{                                                                                              \
		.sql = "SELECT e.kind, e.value, e.stale_at, e.expires_at, e.tags FROM " view " e "         \
			   "WHERE e.cache_id = $1 AND e.user_id = $2 AND e.key = $3 "                          \
			   "ORDER BY e.id DESC LIMIT 1",                                                       \
		.nargs = 3, .argtypes = {INT4OID, UUIDOID, TEXTOID},                                       \
	}

PlinthCacheResult
plinth_cache_second_get(const PlinthCacheDef *def, const PlinthCacheKey *key, bool fresh,
						PlinthCacheValue *value)
{
	static PlinthPlan durable = SELECT_ENTRY("plinth._cache_valid_durable");
	static PlinthPlan overflow = SELECT_ENTRY("plinth._cache_valid_overflow");
	MemoryContext memory = CurrentMemoryContext;
	PlinthAsOwner owner;
	Datum values[3];
	TimestampTz now;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	values[0] = Int32GetDatum(def->id);
	values[1] = UUIDPGetDatum(&key->user);
	values[2] = text_datum(key->key, key->keylen);
	if (fresh)
		PushActiveSnapshot(GetLatestSnapshot());
	plinth_base_spi_execute(def->durable ? &durable : &overflow, values, NULL, true, SPI_OK_SELECT);
	if (fresh)
		PopActiveSnapshot();
	found = SPI_processed == 1;
	if (found)
		read_entry(memory, value);
	plinth_base_owner_end(&owner);
	SPI_finish();

	now = GetCurrentTimestamp();
	if (!found || now >= value->expires_at)
		return PLINTH_CACHE_MISS;
	return now >= value->stale_at ? PLINTH_CACHE_STALE : PLINTH_CACHE_HIT;
}

static Datum
tags_datum(const PlinthCacheValue *value)
{
	Datum tags[PLINTH_CACHE_MAX_TAGS];

	for (int i = 0; i < value->ntags; i++)
		tags[i] = Int64GetDatum(value->tags[i]);
	return PointerGetDatum(construct_array(tags, value->ntags, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

#define INSERT_ENTRY(table)                                                                        \
	{                                                                                              \
		.sql = "INSERT INTO " table " (id, cache_id, user_id, key, kind, value, tags, stale_at, "  \
			   "expires_at, fill, snapshot) VALUES (pg_catalog.nextval('plinth.cache_change_seq')" \
			   ", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",                                       \
		.nargs = 10,                                                                               \
		.argtypes = {INT4OID,      UUIDOID,        TEXTOID,        INT2OID, BYTEAOID,              \
					 INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID, BOOLOID, PG_SNAPSHOTOID},       \
	}

static void
insert_entry(const PlinthCacheDef *def, const PlinthCacheKey *key, const PlinthCacheValue *value,
			 bool fill, Datum snapshot)
{
	static PlinthPlan durable = INSERT_ENTRY("plinth.cache_durable_entries");
	static PlinthPlan overflow = INSERT_ENTRY("plinth.cache_entries");
	PlinthAsOwner owner;
	Datum values[10];
	char nulls[10];

	SPI_connect();
	plinth_base_owner_begin(&owner);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(def->id);
	values[1] = UUIDPGetDatum(&key->user);
	values[2] = text_datum(key->key, key->keylen);
	values[3] = Int16GetDatum((int16) value->kind);
	if (value->kind == PLINTH_CACHE_NULL)
		nulls[4] = 'n';
	else
		values[4] = text_datum(value->data, value->size);
	values[5] = tags_datum(value);
	values[6] = TimestampTzGetDatum(value->stale_at);
	values[7] = TimestampTzGetDatum(value->expires_at);
	values[8] = BoolGetDatum(fill);
	values[9] = snapshot;
	plinth_base_spi_execute(def->durable ? &durable : &overflow, values, nulls, false,
							SPI_OK_INSERT);
	cleared.lxid = InvalidLocalTransactionId;
	plinth_base_owner_end(&owner);
	SPI_finish();
}

/* The active snapshot as a value of type pg_snapshot. */
static Datum
snapshot_datum(void)
{
	return DirectFunctionCall1(pg_current_snapshot, (Datum) 0);
}

/*
 * A ticket that still holds after a snapshot was taken says that every
 * invalidation which this snapshot sees was over when the ticket was taken,
 * so that the value saw it too: it is as good as computed under this snapshot.
 */
static bool
ticket_holds(const PlinthCacheKey *key, const PlinthCacheValue *value, int64 ticket)
{
	uint32 slots[PLINTH_CACHE_FILL_SLOTS];
	int n;

	if (!plinth_cache_usable() || plinth_cache_pending_outdated(key, value, ticket))
		return false;
	n = plinth_cache_slots_of_fill(key, value->tags, value->ntags, slots);
	return plinth_cache_slots_still(slots, n, ticket);
}

/*
 * What every snapshot that this backend is using sees, that of an open cursor
 * too: all before its xmin.  It may well see more, so this holds an entry to
 * be older than it is.
 */
static Datum
oldest_snapshot_datum(void)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint64 epoch = EpochFromFullTransactionId(next);
	TransactionId xmin = MyProc->xmin;
	uint64 full;

	if (xmin > XidFromFullTransactionId(next))
		epoch--;
	full = epoch << 32 | xmin;
	return DirectFunctionCall1(
		pg_snapshot_in, CStringGetDatum(psprintf(UINT64_FORMAT ":" UINT64_FORMAT ":", full, full)));
}

bool
plinth_cache_second_put(const PlinthCacheDef *def, const PlinthCacheKey *key,
						const PlinthCacheValue *value, bool ticketed, int64 ticket)
{
	Datum snapshot;

	/* The value may come from any snapshot that is in use. */
	if (!ticketed && (IsolationUsesXactSnapshot() || plinth_cache_snapshots_agree()))
	{
		insert_entry(def, key, value, false, snapshot_datum());
		return true;
	}
	if (!ticketed)
		ticket = plinth_cache_ticket_take(def->id, false);
	PushActiveSnapshot(GetLatestSnapshot());
	snapshot = snapshot_datum();
	PopActiveSnapshot();
	if (!ticket_holds(key, value, ticket))
	{
		if (ticketed)
			return false;
		snapshot = oldest_snapshot_datum();
	}
	insert_entry(def, key, value, ticketed, snapshot);
	return true;
}

#define TOUCH_ENTRY(table, view)                                                                   \
	{                                                                                              \
		.sql = "INSERT INTO " table " (id, cache_id, user_id, key, kind, value, tags, stale_at, "  \
			   "expires_at, fill, snapshot) "                                                      \
			   "SELECT pg_catalog.nextval('plinth.cache_change_seq'), e.cache_id, e.user_id, "     \
			   "e.key, e.kind, e.value, e.tags, $4, $5, true, "                                    \
			   "pg_catalog.pg_current_snapshot() FROM " view " e "                                 \
			   "WHERE e.cache_id = $1 AND e.user_id = $2 AND e.key = $3 "                          \
			   "ORDER BY e.id DESC LIMIT 1",                                                       \
		.nargs = 5, .argtypes = {INT4OID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID},       \
	}

/* A copy of what is valid under one snapshot is valid as of that snapshot. */
void
plinth_cache_second_touch(const PlinthCacheDef *def, const PlinthCacheKey *key,
						  const PlinthCacheValue *value)
{
	static PlinthPlan durable =
		TOUCH_ENTRY("plinth.cache_durable_entries", "plinth._cache_valid_durable");
	static PlinthPlan overflow =
		TOUCH_ENTRY("plinth.cache_entries", "plinth._cache_valid_overflow");
	PlinthAsOwner owner;
	Datum values[5];

	SPI_connect();
	plinth_base_owner_begin(&owner);
	values[0] = Int32GetDatum(def->id);
	values[1] = UUIDPGetDatum(&key->user);
	values[2] = text_datum(key->key, key->keylen);
	values[3] = TimestampTzGetDatum(value->stale_at);
	values[4] = TimestampTzGetDatum(value->expires_at);
	plinth_base_spi_execute(def->durable ? &durable : &overflow, values, NULL, false,
							SPI_OK_INSERT);
	cleared.lxid = InvalidLocalTransactionId;
	plinth_base_owner_end(&owner);
	SPI_finish();
}

void
plinth_cache_second_invalidate(const PlinthCacheDef *def, char kind, const pg_uuid_t *user,
							   const char *key, int keylen, uint32 tag)
{
	static PlinthPlan plan = {
		.sql = "INSERT INTO plinth.cache_invalidations (id, cache_id, kind, user_id, key, tag) "
			   "VALUES (pg_catalog.nextval('plinth.cache_change_seq'), $1, $2, $3, $4, $5)",
		.nargs = 5,
		.argtypes = {INT4OID, CHAROID, UUIDOID, TEXTOID, INT8OID},
	};
	PlinthAsOwner owner;
	Datum values[5];
	char nulls[5];
	bool all = kind == 'a' && user == NULL;

	if (all && cleared.cache == def->id && cleared.lxid == plinth_compat_lxid() &&
		cleared.subid == GetCurrentSubTransactionId())
		return;
	SPI_connect();
	plinth_base_owner_begin(&owner);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(def->id);
	values[1] = CharGetDatum(kind);
	if (user == NULL)
		nulls[2] = 'n';
	else
		values[2] = UUIDPGetDatum(user);
	if (key == NULL)
		nulls[3] = 'n';
	else
		values[3] = text_datum(key, keylen);
	values[4] = Int64GetDatum(tag);
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (all)
	{
		cleared.lxid = plinth_compat_lxid();
		cleared.subid = GetCurrentSubTransactionId();
		cleared.cache = def->id;
	}
}

bool
plinth_cache_second_writable(const PlinthCacheDef *def)
{
	return PLINTH_CACHE_HAS_SECOND(def) && !XactReadOnly && !RecoveryInProgress();
}
