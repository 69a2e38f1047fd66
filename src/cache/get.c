/*
 * get.c
 *		Reading: the transaction's own changes, then shared memory, then the
 *		table.
 *
 * This is the hot path: a hit in shared memory looks at no catalog and no
 * table, and copies the value once.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xlog.h"
#include "cache/define.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

static const char *const kind_names[] = {"null", "jsonb", "text", "bytea"};

PGDLLEXPORT Datum plinth_cache_get(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_get_text(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_get_bytea(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_get_many(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_lookup(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_get);
PG_FUNCTION_INFO_V1(plinth_cache_get_text);
PG_FUNCTION_INFO_V1(plinth_cache_get_bytea);
PG_FUNCTION_INFO_V1(plinth_cache_get_many);
PG_FUNCTION_INFO_V1(plinth_cache_lookup);

/* Of pending values, which stay where they are: a copy like those of the store. */
static void
copy_value(PlinthCacheValue *value)
{
	char *copy;

	if (value->kind == PLINTH_CACHE_NULL)
		return;
	copy = palloc(VARHDRSZ + value->size);
	memcpy(copy + VARHDRSZ, value->data, value->size);
	value->data = copy + VARHDRSZ;
}

static PlinthCacheResult
age(const PlinthCacheValue *value)
{
	TimestampTz now;

	if (value->expires_at == DT_NOEND && value->stale_at == DT_NOEND)
		return PLINTH_CACHE_HIT;
	now = GetCurrentTimestamp();
	if (now >= value->expires_at)
		return PLINTH_CACHE_MISS;
	return now >= value->stale_at ? PLINTH_CACHE_STALE : PLINTH_CACHE_HIT;
}

/*
 * From the table, and from there to memory: the ticket is taken before the
 * snapshot, so that nothing that is invalidated since gets there.
 */
static PlinthCacheResult
find_second(const PlinthCacheDef *def, const PlinthCacheKey *key, PlinthCacheValue *value, bool own)
{
	bool fresh = !IsInParallelMode();
	int64 ticket = fresh && !own ? plinth_cache_ticket_take(key->cache, true) : 0;
	PlinthCacheResult result = plinth_cache_second_get(def, key, fresh, value);

	if (result != PLINTH_CACHE_MISS && ticket != 0 &&
		!plinth_cache_pending_touches(key, value->tags, value->ntags))
		(void) plinth_cache_store_put(key, value, ticket, def->max_bytes);
	return result;
}

PlinthCacheResult
plinth_cache_find(const PlinthCacheDef *def, const PlinthCacheKey *key, PlinthCacheValue *value)
{
	bool found;
	PlinthCacheResult result;

	if (!def->enabled)
		return PLINTH_CACHE_MISS;

	/* A standby's memory hears of no invalidation. */
	if (RecoveryInProgress())
		return def->durable ? plinth_cache_second_get(def, key, !IsInParallelMode(), value)
							: PLINTH_CACHE_MISS;

	if (plinth_cache_pending_get(key, &found, value))
	{
		if (PLINTH_CACHE_HAS_SECOND(def) && !found)
			return find_second(def, key, value, true);
		if (!found)
			return PLINTH_CACHE_MISS;
		copy_value(value);
		return age(value);
	}
	result = plinth_cache_store_get(key, value);
	if (result != PLINTH_CACHE_MISS && value->ntags > 0 &&
		plinth_cache_pending_touches(key, value->tags, value->ntags))
		result = PLINTH_CACHE_MISS;
	if (result == PLINTH_CACHE_MISS && PLINTH_CACHE_HAS_SECOND(def))
		result = find_second(def, key, value, false);
	return result;
}

Datum
plinth_cache_datum(const PlinthCacheValue *value)
{
	char *datum = unconstify(char *, value->data) - VARHDRSZ;

	SET_VARSIZE(datum, VARHDRSZ + value->size);
	return PointerGetDatum(datum);
}

void
plinth_cache_require_kind(const PlinthCacheValue *value, PlinthCacheKind kind)
{
	if (value->kind != kind)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("the entry is of type %s, not %s", kind_names[value->kind], kind_names[kind]),
			 errhint("Use plinth.cache_get, plinth.cache_get_text or plinth.cache_get_bytea, as "
					 "it was set.")));
}

static Datum
get_kind(FunctionCallInfo fcinfo, PlinthCacheKind kind)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	PlinthCacheValue value;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	plinth_cache_key(&def, plinth_cache_text_required(fcinfo, 1, "key"), &key);
	if (plinth_cache_find(&def, &key, &value) != PLINTH_CACHE_HIT ||
		value.kind == PLINTH_CACHE_NULL)
		PG_RETURN_NULL();
	plinth_cache_require_kind(&value, kind);
	return plinth_cache_datum(&value);
}

Datum
plinth_cache_get(PG_FUNCTION_ARGS)
{
	return get_kind(fcinfo, PLINTH_CACHE_JSONB);
}

Datum
plinth_cache_get_text(PG_FUNCTION_ARGS)
{
	return get_kind(fcinfo, PLINTH_CACHE_TEXT);
}

Datum
plinth_cache_get_bytea(PG_FUNCTION_ARGS)
{
	return get_kind(fcinfo, PLINTH_CACHE_BYTEA);
}

/* Rows (key, value jsonb) of those keys that are there and fresh; negative ones with NULL. */
Datum
plinth_cache_get_many(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum *keys;
	bool *nulls;
	int n;
	MemoryContext row_memory = AllocSetContextCreate(
		CurrentMemoryContext, "plinth cache_get_many, one row", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	(void) plinth_cache_text_required(fcinfo, 1, "keys");
	InitMaterializedSRF(fcinfo, 0);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls,
					  &n);
	old = MemoryContextSwitchTo(row_memory);
	for (int i = 0; i < n; i++)
	{
		PlinthCacheKey key;
		PlinthCacheValue value;
		Datum row[2];
		bool row_nulls[2] = {false, false};

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("key must not be null")));
		MemoryContextReset(row_memory);
		plinth_cache_key(&def, DatumGetTextPP(keys[i]), &key);
		if (plinth_cache_find(&def, &key, &value) != PLINTH_CACHE_HIT)
			continue;
		row[0] = keys[i];
		row_nulls[1] = value.kind == PLINTH_CACHE_NULL;
		if (!row_nulls[1])
		{
			plinth_cache_require_kind(&value, PLINTH_CACHE_JSONB);
			row[1] = plinth_cache_datum(&value);
		}
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row, row_nulls);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(row_memory);
	return (Datum) 0;
}

/* (found, stale, kind, value, value_text, value_bytes, expires_at, hits, last_access) */
Datum
plinth_cache_lookup(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	PlinthCacheValue value;
	PlinthCacheResult result;
	TupleDesc desc;
	Datum values[9] = {0};
	bool nulls[9] = {false, false, true, true, true, true, true, true, true};
	int64 hits;
	TimestampTz last_access;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	plinth_cache_key(&def, plinth_cache_text_required(fcinfo, 1, "key"), &key);
	result = plinth_cache_find(&def, &key, &value);

	values[0] = BoolGetDatum(result != PLINTH_CACHE_MISS);
	values[1] = BoolGetDatum(result == PLINTH_CACHE_STALE);
	if (result != PLINTH_CACHE_MISS)
	{
		values[2] = CStringGetTextDatum(kind_names[value.kind]);
		nulls[2] = false;
		if (value.kind != PLINTH_CACHE_NULL)
		{
			values[2 + value.kind] = plinth_cache_datum(&value);
			nulls[2 + value.kind] = false;
		}
		values[6] = TimestampTzGetDatum(value.expires_at);
		nulls[6] = value.expires_at == DT_NOEND;
		if (!RecoveryInProgress() && plinth_cache_store_usage(&key, &hits, &last_access))
		{
			values[7] = Int64GetDatum(hits);
			values[8] = TimestampTzGetDatum(last_access);
			nulls[7] = nulls[8] = false;
		}
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
