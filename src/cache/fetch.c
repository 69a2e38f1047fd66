/*
 * fetch.c
 *		cache_fetch: a value, computed by one caller while others wait for it.
 *
 * A flight is a heavyweight lock on the entry's name, held while its value is
 * computed, so that whoever computes may fail, be cancelled or be killed: the
 * lock goes with its (sub)transaction.  Who finds the lock taken gives out the
 * stale value, where there is one, or waits; when it has waited long enough,
 * or when waiting would be a deadlock, it computes for itself.  An error is
 * the caller's own, and nothing is kept of it.
 *
 * The ticket is taken before the query's snapshot.  A transaction that has
 * written nothing publishes at once, any other when it commits: what it
 * computed may come from its own changes.  The flight ends when the value is
 * computed, not at commit: nobody waits for a transaction.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/define.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "parser/parse_param.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

/* Unlike those of pg_advisory_lock, which have 1 and 2 here. */
#define FLIGHT_LOCK_CLASS 20580

PGDLLEXPORT Datum plinth_cache_fetch(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_fetch);

typedef struct Parameters
{
	Oid *types;
	int n;
} Parameters;

static void
flight_tag(const PlinthCacheKey *key, LOCKTAG *tag)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) key->key, key->keylen,
									  (uint64) (uint32) key->cache);

	hash ^= hash_bytes_extended((const unsigned char *) &key->user, sizeof(key->user), hash);
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, (uint32) (hash >> 32), (uint32) hash,
						 FLIGHT_LOCK_CLASS);
}

/*
 * Locks belong to the (sub)transaction rather than to the running portal, so
 * that one that was taken in an inner subtransaction is released like others.
 */
static bool
take_flight(const LOCKTAG *tag, bool wait)
{
	ResourceOwner owner = CurrentResourceOwner;
	LockAcquireResult result;

	CurrentResourceOwner = CurTransactionResourceOwner;
	result = LockAcquire(tag, ExclusiveLock, false, !wait);
	CurrentResourceOwner = owner;
	return result != LOCKACQUIRE_NOT_AVAIL;
}

static void
end_flight(const LOCKTAG *tag)
{
	ResourceOwner owner = CurrentResourceOwner;

	CurrentResourceOwner = CurTransactionResourceOwner;
	LockRelease(tag, ExclusiveLock, false);
	CurrentResourceOwner = owner;
}

/* Waits for a flight; false when it took too long or would never end. */
static bool
wait_for_flight(const LOCKTAG *tag, int timeout_ms)
{
	MemoryContext memory = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool taken = false;
	char timeout[32];

	/* Who has written holds locks that the one who computes may need. */
	if (timeout_ms <= 0 || TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return false;
	snprintf(timeout, sizeof(timeout), "%dms", timeout_ms);

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(memory);
	PG_TRY ()
		;
	{
		int nestlevel = NewGUCNestLevel();

		(void) set_config_option("lock_timeout", timeout, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		taken = take_flight(tag, true);
		AtEOXact_GUC(false, nestlevel);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
	}
	PG_CATCH ()
		;
	{
		ErrorData *edata;

		MemoryContextSwitchTo(memory);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(memory);
		CurrentResourceOwner = owner;
		if (edata->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			edata->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(edata);
		FreeErrorData(edata);
		taken = false;
	}
	PG_END_TRY();
	return taken;
}

static void
find_parameters(ParseState *pstate, void *arg)
{
	Parameters *parameters = arg;

	setup_parse_variable_parameters(pstate, &parameters->types, &parameters->n);
}

/* The texts given, as values of the types that the query has its parameters of. */
static ParamListInfo
bind_parameters(const Parameters *parameters, ArrayType *args)
{
	Datum *texts = NULL;
	bool *nulls = NULL;
	int n = 0;
	ParamListInfo list;

	if (args != NULL)
		deconstruct_array(args, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &n);
	if (parameters->n > n)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_PARAMETER),
						errmsg("the query has %d parameters, but %d are given", parameters->n, n),
						errhint("Pass each as an element of args.")));
	list = makeParamList(n);
	for (int i = 0; i < n; i++)
	{
		ParamExternData *param = &list->params[i];
		Oid type = i < parameters->n ? parameters->types[i] : TEXTOID;
		Oid input;
		Oid ioparam;

		if (!OidIsValid(type) || type == UNKNOWNOID)
			type = TEXTOID;
		getTypeInputInfo(type, &input, &ioparam);
		param->ptype = type;
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = nulls[i];
		param->value = OidInputFunctionCall(input, nulls[i] ? NULL : TextDatumGetCString(texts[i]),
											ioparam, -1);
	}
	return list;
}

/* The one value of the query's result as jsonb; NULL when it has no row, or it is NULL. */
static struct varlena *
result_jsonb(MemoryContext memory)
{
	Oid type;
	Datum datum;
	bool isnull;
	char isnull_char = ' ';
	struct varlena *value;
	MemoryContext old;

	if (SPI_tuptable == NULL || SPI_tuptable->tupdesc->natts != 1)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
						errmsg("the query of a cache must return one column"),
						errhint("Use to_jsonb, jsonb_build_object or jsonb_agg.")));
	if (SPI_processed > 1)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("the query of a cache returned more than one row"),
						errhint("Use jsonb_agg, or LIMIT 1.")));
	if (SPI_processed == 0)
		return NULL;
	type = SPI_gettypeid(SPI_tuptable->tupdesc, 1);
	datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		return NULL;
	if (type != JSONBOID)
	{
		if (SPI_execute_with_args("SELECT pg_catalog.to_jsonb($1)", 1, &type, &datum, &isnull_char,
								  false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not convert to jsonb");
		datum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	}
	old = MemoryContextSwitchTo(memory);
	value = PG_DETOAST_DATUM_COPY(datum);
	MemoryContextSwitchTo(old);
	return value;
}

/* Runs the query as the caller, under a new snapshot. */
static struct varlena *
compute(const char *query, ArrayType *args)
{
	MemoryContext memory = CurrentMemoryContext;
	Parameters parameters = {NULL, 0};
	SPIExecuteOptions options;
	SPIPlanPtr plan;
	struct varlena *value;
	int rc;

	SPI_connect();
	plan = SPI_prepare_params(query, find_parameters, &parameters, 0);
	if (plan == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the query of a cache cannot be prepared: %s",
							   SPI_result_code_string(SPI_result))));
	memset(&options, 0, sizeof(options));
	options.params = bind_parameters(&parameters, args);
	options.tcount = 2;
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the query of a cache is no query: %s", SPI_result_code_string(rc)),
						errhint("Give one SELECT.")));
	value = result_jsonb(memory);
	SPI_finish();
	return value;
}

static void
publish(const PlinthCacheDef *def, const PlinthCacheKey *key, const PlinthCacheValue *value,
		int64 ticket)
{
	bool clean = !TransactionIdIsValid(GetTopTransactionIdIfAny()) &&
				 !plinth_cache_pending_touches(key, value->tags, value->ntags);

	if (ticket == 0)
		return;
	if (clean)
		(void) plinth_cache_store_put(key, value, ticket, def->max_bytes);
	if (plinth_cache_second_writable(def))
		(void) plinth_cache_second_put(def, key, value, true, ticket);
	if (!clean)
		(void) plinth_cache_pending_set(key, value, ticket, def->max_bytes);
}

static int
timeout_argument(FunctionCallInfo fcinfo, int argument)
{
	int64 us;

	if (PG_ARGISNULL(argument))
		return 0;
	us = plinth_cache_interval(PG_GETARG_INTERVAL_P(argument), "wait_timeout", true);
	return (int) Min(us / 1000, INT_MAX / 2);
}

static Datum
give(FunctionCallInfo fcinfo, const PlinthCacheKey *key, const PlinthCacheValue *value)
{
	if (value->kind == PLINTH_CACHE_NULL)
		PG_RETURN_NULL();
	plinth_cache_require_kind(value, PLINTH_CACHE_JSONB);
	return plinth_cache_datum(value);
}

/*
 * Sees to it that the caller is the one to compute; true when *value was found
 * after all.  *flying: whether there is a flight to end.
 */
static bool
join_flight(const PlinthCacheDef *def, const PlinthCacheKey *key, const LOCKTAG *tag,
			PlinthCacheResult found, int timeout_ms, PlinthCacheValue *value, bool *flying)
{
	if (plinth_compat_lock_held_by_me(tag, ExclusiveLock))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
						errmsg("the value of this key is being computed by its own query"),
						errdetail("A cache_fetch ran inside of cache_fetch for the same key."),
						errhint("Compute the inner value without the cache, or under another "
								"key.")));
	*flying = take_flight(tag, false);
	if (!*flying)
	{
		if (found == PLINTH_CACHE_STALE)
			return true;
		*flying = wait_for_flight(tag, timeout_ms);
		plinth_cache_store_count_wait(key->cache, !*flying);
	}
	/* Another may have computed it since we looked. */
	if (plinth_cache_find(def, key, value) == PLINTH_CACHE_HIT)
	{
		if (*flying)
			end_flight(tag);
		return true;
	}
	return false;
}

/* Arguments: cache, key, query, args, ttl, tags, wait_timeout, cache_null. */
Datum
plinth_cache_fetch(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	PlinthCacheKey key;
	PlinthCacheValue value;
	PlinthCacheResult found;
	LOCKTAG tag;
	char *query;
	struct varlena *computed;
	int64 ttl = 0;
	int64 ticket;
	bool kept;
	bool flying = false;
	int timeout_ms = timeout_argument(fcinfo, 6);

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_USE, &def);
	plinth_cache_key(&def, plinth_cache_text_required(fcinfo, 1, "key"), &key);
	query = text_to_cstring(plinth_cache_text_required(fcinfo, 2, "query"));
	found = plinth_cache_find(&def, &key, &value);
	if (found == PLINTH_CACHE_HIT)
		return give(fcinfo, &key, &value);

	kept = def.enabled && !RecoveryInProgress();
	flight_tag(&key, &tag);
	if (kept && join_flight(&def, &key, &tag, found, timeout_ms, &value, &flying))
		return give(fcinfo, &key, &value);

	if (!PG_ARGISNULL(4))
		ttl = plinth_cache_interval(PG_GETARG_INTERVAL_P(4), "ttl", false);
	memset(&value, 0, sizeof(value));
	plinth_cache_tags(PG_ARGISNULL(5) ? NULL : PG_GETARG_ARRAYTYPE_P(5), &value);
	ticket =
		kept ? plinth_cache_ticket_take(key.cache, get_fn_expr_arg_stable(fcinfo->flinfo, 2) &&
													   get_fn_expr_arg_stable(fcinfo->flinfo, 3))
			 : 0;
	computed = compute(query, PG_ARGISNULL(3) ? NULL : PG_GETARG_ARRAYTYPE_P(3));
	if (computed != NULL)
	{
		value.kind = PLINTH_CACHE_JSONB;
		value.data = VARDATA_ANY(computed);
		value.size = VARSIZE_ANY_EXHDR(computed);
	}
	if (kept && plinth_cache_fits(&def, &key, value.size) &&
		(computed != NULL || (!PG_ARGISNULL(7) && PG_GETARG_BOOL(7))))
	{
		plinth_cache_times(&def, ttl, &value);
		publish(&def, &key, &value, ticket);
	}
	if (flying)
		end_flight(&tag);
	if (computed == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(computed);
}
