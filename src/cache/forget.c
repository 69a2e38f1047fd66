/*
 * forget.c
 *		Invalidation by request: of a key, a prefix, a tag, or all of a cache.
 *
 * Each goes to both levels: to memory when the transaction commits, to the
 * table as a row of plinth.cache_invalidations at once, which others see at
 * commit too.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/define.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PGDLLEXPORT Datum plinth_cache_delete(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_delete_prefix(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_invalidate_tag(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_clear(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_touch(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_delete);
PG_FUNCTION_INFO_V1(plinth_cache_delete_prefix);
PG_FUNCTION_INFO_V1(plinth_cache_invalidate_tag);
PG_FUNCTION_INFO_V1(plinth_cache_clear);
PG_FUNCTION_INFO_V1(plinth_cache_touch);

/* The cache that the first argument names; a standby cannot invalidate. */
static void
begin(FunctionCallInfo fcinfo, const char *command, PlinthCacheDef *def)
{
	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, def);
	PreventCommandDuringRecovery(command);
	if (PLINTH_CACHE_HAS_SECOND(def))
		PreventCommandIfReadOnly(command);
}

static void
refuse_user(const PlinthCacheDef *def)
{
	ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					errmsg("permission denied for other users' entries of cache \"%s\"", def->name),
					errhint("Only its owner and members of plinth_admin may do this.")));
}

/*
 * Whose entries: those of the user that an argument names, which only who
 * manages the cache may do, or the caller's.
 */
static void
user_argument(FunctionCallInfo fcinfo, int argument, const PlinthCacheDef *def, pg_uuid_t *user)
{
	if (PG_ARGISNULL(argument))
		plinth_cache_user(def, user);
	else
	{
		if (!def->manages)
			refuse_user(def);
		if (!def->per_user)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("cache \"%s\" is not per user", def->name),
							errhint("Leave out user_id.")));
		*user = *PG_GETARG_UUID_P(argument);
	}
}

static void
check_key(int len)
{
	if (len > PLINTH_CACHE_MAX_KEY)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("key of %d bytes is longer than %d", len, PLINTH_CACHE_MAX_KEY)));
}

void
plinth_cache_forget_key(const PlinthCacheDef *def, const PlinthCacheKey *key)
{
	if (plinth_cache_second_writable(def))
		plinth_cache_second_invalidate(def, 'k', &key->user, key->key, key->keylen, 0);
	plinth_cache_pending_delete(key);
}

void
plinth_cache_forget_prefix(const PlinthCacheDef *def, const pg_uuid_t *user, const char *prefix,
						   int len)
{
	if (plinth_cache_second_writable(def))
		plinth_cache_second_invalidate(def, 'p', user, prefix, len, 0);
	plinth_cache_pending_prefix(def->id, user, prefix, len);
}

void
plinth_cache_forget_tag(const PlinthCacheDef *def, uint32 tag)
{
	if (plinth_cache_second_writable(def))
		plinth_cache_second_invalidate(def, 't', NULL, NULL, 0, tag);
	plinth_cache_pending_tag(def->id, tag);
}

void
plinth_cache_forget_all(const PlinthCacheDef *def, const pg_uuid_t *user)
{
	if (plinth_cache_second_writable(def))
		plinth_cache_second_invalidate(def, 'a', user, NULL, 0, 0);
	plinth_cache_pending_clear(def->id, user);
}

/* Arguments: cache, key, user_id. */
Datum
plinth_cache_delete(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	text *name;

	begin(fcinfo, "cache_delete", &def);
	name = plinth_cache_text_required(fcinfo, 1, "key");
	key.cache = def.id;
	user_argument(fcinfo, 2, &def, &key.user);
	key.key = VARDATA_ANY(name);
	key.keylen = VARSIZE_ANY_EXHDR(name);
	check_key(key.keylen);
	plinth_cache_forget_key(&def, &key);
	PG_RETURN_VOID();
}

/* Arguments: cache, prefix, user_id. */
Datum
plinth_cache_delete_prefix(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	pg_uuid_t user;
	text *prefix;

	begin(fcinfo, "cache_delete_prefix", &def);
	prefix = plinth_cache_text_required(fcinfo, 1, "prefix");
	user_argument(fcinfo, 2, &def, &user);
	check_key(VARSIZE_ANY_EXHDR(prefix));
	plinth_cache_forget_prefix(&def, def.per_user ? &user : NULL, VARDATA_ANY(prefix),
							   VARSIZE_ANY_EXHDR(prefix));
	PG_RETURN_VOID();
}

/* Arguments: cache, tag.  In a cache that is per user it reaches every user. */
Datum
plinth_cache_invalidate_tag(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	text *tag;

	begin(fcinfo, "cache_invalidate_tag", &def);
	tag = plinth_cache_text_required(fcinfo, 1, "tag");
	if (def.per_user && !def.manages)
		refuse_user(&def);
	plinth_cache_forget_tag(&def, plinth_cache_tag_hash(VARDATA_ANY(tag), VARSIZE_ANY_EXHDR(tag)));
	PG_RETURN_VOID();
}

/* Arguments: cache, user_id.  Who manages the cache clears all of it, others their own. */
Datum
plinth_cache_clear(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	pg_uuid_t user;

	begin(fcinfo, "cache_clear", &def);
	if (!def.per_user || (def.manages && PG_ARGISNULL(1)))
	{
		if (!PG_ARGISNULL(1))
			user_argument(fcinfo, 1, &def, &user);
		plinth_cache_forget_all(&def, NULL);
	}
	else
	{
		user_argument(fcinfo, 1, &def, &user);
		plinth_cache_forget_all(&def, &user);
	}
	PG_RETURN_VOID();
}

/* Arguments: cache, key, ttl.  Gives an entry of the caller's a new time to live; whether it was there. */
Datum
plinth_cache_touch(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	PlinthCacheValue value;
	int64 ttl = 0;

	begin(fcinfo, "cache_touch", &def);
	plinth_cache_key(&def, plinth_cache_text_required(fcinfo, 1, "key"), &key);
	if (!PG_ARGISNULL(2))
		ttl = plinth_cache_interval(PG_GETARG_INTERVAL_P(2), "ttl", false);
	if (plinth_cache_find(&def, &key, &value) == PLINTH_CACHE_MISS)
		PG_RETURN_BOOL(false);
	plinth_cache_times(&def, ttl, &value);
	if (plinth_cache_second_writable(&def))
		plinth_cache_second_touch(&def, &key, &value);
	if (!plinth_cache_pending_touch(&key, value.stale_at, value.expires_at))
		(void) plinth_cache_store_touch(&key, value.stale_at, value.expires_at);
	PG_RETURN_BOOL(true);
}
