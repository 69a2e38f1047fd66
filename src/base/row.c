/*
 * row.c
 *		Rows that functions return, described once in a backend.
 *
 * PostgreSQL has a function look its row type up, from the catalogs' caches, in
 * every execution of a statement: that costs more than a decision on a rate
 * limit.  A description that is kept holds as long as the function is the same
 * and, where its row is of a type of its own, the type was not changed.
 *
 * Memory: under TopMemoryContext, one description for each place that keeps one.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* An entry of the type cache is never freed, and its number goes when the type was changed. */
static bool
is_current(const PlinthRow *kept)
{
	return kept->type == NULL || kept->type->tupDesc_identifier == kept->state;
}

TupleDesc
plinth_base_row(FunctionCallInfo fcinfo, PlinthRow *kept)
{
	TypeCacheEntry *type = NULL;
	TupleDesc desc;
	MemoryContext old;

	if (kept->desc != NULL && kept->function == fcinfo->flinfo->fn_oid && is_current(kept))
		return kept->desc;
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("function returning record called in context that cannot accept "
							   "type record")));
	if (desc->tdtypeid != RECORDOID)
	{
		/* Of one moment with its number. */
		type = lookup_type_cache(desc->tdtypeid, TYPECACHE_TUPDESC);
		desc = type->tupDesc;
	}
	if (kept->desc != NULL)
		FreeTupleDesc(kept->desc);
	kept->desc = NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	desc = CreateTupleDescCopyConstr(desc);
	MemoryContextSwitchTo(old);
	kept->desc = BlessTupleDesc(desc);
	kept->function = fcinfo->flinfo->fn_oid;
	kept->type = type;
	kept->state = type != NULL ? type->tupDesc_identifier : 0;
	return kept->desc;
}
