/*
 * estimate.c
 *		How many rows a snapshot has before it, for stat_sync.
 *
 * What was counted by the last VACUUM or ANALYZE, for as many pages as the
 * table has now; without either, what the planner takes a row's width to be.
 *
 * Locking: a partition that somebody has locked is not waited for; what
 * pg_class says of it has to do.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "sync/sync_int.h"

PGDLLEXPORT Datum plinth_sync_rows(PG_FUNCTION_ARGS);

/* The planner takes a small table that was never looked at for a larger one. */
static double
rows_by_pages(Relation rel)
{
	BlockNumber there = RelationGetNumberOfBlocks(rel);
	BlockNumber pages;
	double tuples;
	double visible;

	estimate_rel_size(rel, NULL, &pages, &tuples, &visible);
	return pages == 0 ? 0 : tuples * there / pages;
}

static double
rows_by_catalog(Oid relation)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	double rows = 0;

	if (HeapTupleIsValid(tuple))
	{
		rows = Max(((Form_pg_class) GETSTRUCT(tuple))->reltuples, 0);
		ReleaseSysCache(tuple);
	}
	return rows;
}

static double
rows_of(Oid relation)
{
	Relation rel;
	double rows = 0;

	if (!ConditionalLockRelationOid(relation, AccessShareLock))
		return rows_by_catalog(relation);
	rel = try_relation_open(relation, NoLock);
	if (rel != NULL)
	{
		if (RELKIND_HAS_TABLE_AM(rel->rd_rel->relkind))
			rows = rows_by_pages(rel);
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(relation, AccessShareLock);
	return rows;
}

PG_FUNCTION_INFO_V1(plinth_sync_rows);
Datum
plinth_sync_rows(PG_FUNCTION_ARGS)
{
	double rows = 0;
	ListCell *lc;

	foreach (lc, find_all_inheritors(PG_GETARG_OID(0), NoLock, NULL))
		rows += rows_of(lfirst_oid(lc));
	PG_RETURN_INT64((int64) Min(rows, (double) PG_INT32_MAX * 1000));
}
