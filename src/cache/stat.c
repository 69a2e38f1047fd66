/*
 * stat.c
 *		Counters of a cache.
 */
#include "postgres.h"

#include "cache/define.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"

PGDLLEXPORT Datum plinth_cache_stats(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_stats);

Datum
plinth_cache_stats(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	PlinthCacheStats stats;
	const int64 *counters = (const int64 *) &stats;
	TupleDesc desc;
	Datum values[sizeof(stats) / sizeof(int64)];
	bool nulls[sizeof(stats) / sizeof(int64)] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "name"),
					 has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) ? PLINTH_CACHE_MONITOR
																	 : PLINTH_CACHE_MANAGE,
					 &def);
	plinth_cache_store_stats(def.id, &stats);
	for (int i = 0; i < lengthof(values); i++)
		values[i] = Int64GetDatum(counters[i]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
