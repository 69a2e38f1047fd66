/*
 * estimate.c
 *		Which tables a snapshot reads, and how many rows it has before it, for
 *		stat_sync.
 *
 * What was counted by the last VACUUM or ANALYZE, for as many pages as the
 * table has now; without either, what the planner takes a row's width to be.
 *
 * Locking: a partition that somebody has locked is not waited for; what
 * pg_class says of it has to do.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "fmgr.h"
#include "optimizer/plancat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
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

List *
plinth_sync_relation_family(Oid relation)
{
	Relation inherits = table_open(InheritsRelationId, AccessShareLock);
	List *family = list_make1_oid(relation);

	/* It grows while it is gone through. */
	for (int i = 0; i < list_length(family); i++)
	{
		ScanKeyData key;
		SysScanDesc scan;
		HeapTuple tuple;

		ScanKeyInit(&key, Anum_pg_inherits_inhparent, BTEqualStrategyNumber, F_OIDEQ,
					ObjectIdGetDatum(list_nth_oid(family, i)));
		scan = systable_beginscan(inherits, InheritsParentIndexId, true, NULL, 1, &key);
		while (HeapTupleIsValid(tuple = systable_getnext(scan)))
			family =
				list_append_unique_oid(family, ((Form_pg_inherits) GETSTRUCT(tuple))->inhrelid);
		systable_endscan(scan);
	}
	table_close(inherits, AccessShareLock);
	return family;
}

int64
plinth_sync_estimate_rows(Oid relation)
{
	double rows = 0;
	ListCell *lc;

	foreach (lc, plinth_sync_relation_family(relation))
		rows += rows_of(lfirst_oid(lc));
	return (int64) Min(rows, (double) PG_INT32_MAX * 1000);
}

PG_FUNCTION_INFO_V1(plinth_sync_rows);
Datum
plinth_sync_rows(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(plinth_sync_estimate_rows(PG_GETARG_OID(0)));
}
