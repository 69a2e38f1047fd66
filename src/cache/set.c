/*
 * set.c
 *		Writing: what others see when the transaction commits.
 *
 * A value without a ticket is taken to be computed by the running statement:
 * its ticket is taken here, and is refused when an invalidation has ended
 * since the statement's snapshot.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/define.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PGDLLEXPORT Datum plinth_cache_set(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_set_text(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_set_bytea(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_ticket(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_set);
PG_FUNCTION_INFO_V1(plinth_cache_set_text);
PG_FUNCTION_INFO_V1(plinth_cache_set_bytea);
PG_FUNCTION_INFO_V1(plinth_cache_ticket);

void
plinth_cache_times(const PlinthCacheDef *def, int64 ttl, PlinthCacheValue *value)
{
	if (ttl == 0)
		ttl = def->ttl;
	value->stale_at = value->expires_at = DT_NOEND;
	if (ttl == 0)
		return;
	if (def->jitter > 0)
		ttl -= (int64) (ttl * def->jitter * pg_prng_double(&pg_global_prng_state));
	value->stale_at = GetCurrentTimestamp() + ttl;
	value->expires_at = value->stale_at + def->stale_ttl;
}

void
plinth_cache_tags(ArrayType *tags, PlinthCacheValue *value)
{
	Datum *items;
	bool *nulls;
	int n;

	value->ntags = 0;
	if (tags == NULL)
		return;
	deconstruct_array(tags, TEXTOID, -1, false, TYPALIGN_INT, &items, &nulls, &n);
	if (n > PLINTH_CACHE_MAX_TAGS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("%d tags are more than %d", n, PLINTH_CACHE_MAX_TAGS),
						errhint("Use fewer tags for an entry.")));
	for (int i = 0; i < n; i++)
	{
		text *tag;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("tag must not be null")));
		tag = DatumGetTextPP(items[i]);
		value->tags[value->ntags++] =
			plinth_cache_tag_hash(VARDATA_ANY(tag), VARSIZE_ANY_EXHDR(tag));
	}
}

/* The largest value, with its key, that the cache keeps. */
static int64
largest(const PlinthCacheDef *def)
{
	return Min(Min(def->max_bytes, (int64) def->max_value_bytes),
			   (int64) plinth_cache_store_max_size());
}

bool
plinth_cache_fits(const PlinthCacheDef *def, const PlinthCacheKey *key, Size size)
{
	return key->keylen + (int64) size <= largest(def);
}

static void
check_size(const PlinthCacheDef *def, const PlinthCacheKey *key, Size size)
{
	if (!plinth_cache_fits(def, key, size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("value of %zu bytes is too large for cache \"%s\"", size, def->name),
				 errdetail("Key and value may have " INT64_FORMAT " bytes together.", largest(def)),
				 errhint("Raise max_value_bytes and max_bytes by plinth.cache_alter, or "
						 "\"plinth.cache_memory\".")));
}

/* An argument that says how long an entry lives; 0 when it is NULL. */
static int64
ttl_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument)
			   ? 0
			   : plinth_cache_interval(PG_GETARG_INTERVAL_P(argument), "ttl", false);
}

/* Arguments: cache, key, value, ttl, tags, ticket.  Whether the value was taken. */
static Datum
set_kind(FunctionCallInfo fcinfo, PlinthCacheKind kind)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	PlinthCacheValue value;
	bool given = !PG_ARGISNULL(5);
	int64 ticket;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	plinth_cache_key(&def, plinth_cache_text_required(fcinfo, 1, "key"), &key);
	memset(&value, 0, sizeof(value));
	if (!PG_ARGISNULL(2))
	{
		struct varlena *data = PG_GETARG_VARLENA_PP(2);

		value.kind = kind;
		value.data = VARDATA_ANY(data);
		value.size = VARSIZE_ANY_EXHDR(data);
	}
	check_size(&def, &key, value.size);
	plinth_cache_times(&def, ttl_argument(fcinfo, 3), &value);
	plinth_cache_tags(PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4), &value);
	if (PLINTH_CACHE_HAS_SECOND(&def))
		PreventCommandIfReadOnly("cache_set on a cache with a table");
	if (!def.enabled || RecoveryInProgress())
		PG_RETURN_BOOL(false);

	if (PLINTH_CACHE_HAS_SECOND(&def))
	{
		/* From the table it comes to memory, for who reads it after commit. */
		if (!plinth_cache_second_put(&def, &key, &value, given, given ? PG_GETARG_INT64(5) : 0))
			PG_RETURN_BOOL(false);
		plinth_cache_pending_delete(&key);
		PG_RETURN_BOOL(true);
	}
	ticket = given ? PG_GETARG_INT64(5) : plinth_cache_ticket_take(key.cache, false);
	if (given && ticket == 0)
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(plinth_cache_pending_set(&key, &value, ticket, def.max_bytes) && ticket != 0);
}

Datum
plinth_cache_set(PG_FUNCTION_ARGS)
{
	return set_kind(fcinfo, PLINTH_CACHE_JSONB);
}

Datum
plinth_cache_set_text(PG_FUNCTION_ARGS)
{
	return set_kind(fcinfo, PLINTH_CACHE_TEXT);
}

Datum
plinth_cache_set_bytea(PG_FUNCTION_ARGS)
{
	return set_kind(fcinfo, PLINTH_CACHE_BYTEA);
}

/* To be taken before the value is computed, by later statements or by this one. */
Datum
plinth_cache_ticket(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	if (RecoveryInProgress())
		PG_RETURN_INT64(0);
	/* A value that is computed in this transaction may outlive it together with its ticket. */
	plinth_cache_ticket_given = true;
	PG_RETURN_INT64(plinth_cache_ticket_take(def.id, false));
}
