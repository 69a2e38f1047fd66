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

/* Which state of a row type a description is of. */
static uint64
state_of(TupleDesc desc)
{
	return desc->tdtypeid == RECORDOID
			   ? 0
			   : assign_record_type_identifier(desc->tdtypeid, desc->tdtypmod);
}

TupleDesc
plinth_base_row(FunctionCallInfo fcinfo, PlinthRow *kept)
{
	TupleDesc desc;
	MemoryContext old;

	if (kept->desc != NULL && kept->function == fcinfo->flinfo->fn_oid &&
		kept->state == state_of(kept->desc))
		return kept->desc;
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("function returning record called in context that cannot accept "
							   "type record")));
	if (kept->desc != NULL)
		FreeTupleDesc(kept->desc);
	kept->desc = NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	desc = CreateTupleDescCopyConstr(desc);
	MemoryContextSwitchTo(old);
	kept->desc = BlessTupleDesc(desc);
	kept->function = fcinfo->flinfo->fn_oid;
	kept->state = state_of(desc);
	return kept->desc;
}
