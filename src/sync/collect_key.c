/*
 * collect_key.c
 *		What a changed row marks: its key, or values that lead to a root's.
 *
 * A key is its columns' texts, one after another (key.c).  What leads to roots
 * is the number of the source and, for each of its columns, "=" and the text,
 * or "-" for NULL: told to a lane as a mark of kind VIA and resolved there.
 *
 * A column is known of a new tuple unless it is an unchanged TOAST value that
 * the old one does not have, and of an old tuple where the replica identity
 * holds it: elsewhere a NULL there says nothing.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "sync/collect_int.h"

/* Which of the columns does the table's replica identity hold? */
static void
look_at_identity(PlinthCollectSeen *seen, Relation relation)
{
	bool full = relation->rd_rel->relreplident == REPLICA_IDENTITY_FULL;
	Bitmapset *identity = full ? NULL : RelationGetIdentityKeyBitmap(relation);

	seen->covered = true;
	for (int i = 0; i < seen->target->nkeys; i++)
	{
		seen->held[i] =
			full || bms_is_member(seen->attnums[i] - FirstLowInvalidHeapAttributeNumber, identity);
		seen->covered &= seen->held[i];
	}
}

static bool
resolve(PlinthCollectSeen *seen, Relation relation, Oid relid)
{
	const PlinthCollectTarget *target = seen->target;

	for (int i = 0; i < target->nkeys; i++)
	{
		AttrNumber attnum = target->attnums[i];
		Form_pg_attribute attr;
		Oid output;
		bool varlena;

		if (relid != target->relation)
		{
			char *name = get_attname(target->relation, attnum, true);

			attnum = name == NULL ? InvalidAttrNumber : get_attnum(relid, name);
		}
		if (attnum <= 0 || attnum > RelationGetNumberOfAttributes(relation))
			return false;
		attr = TupleDescAttr(RelationGetDescr(relation), attnum - 1);
		if (attr->attisdropped)
			return false;
		seen->attnums[i] = attnum;
		getTypeOutputInfo(attr->atttypid, &output, &varlena);
		fmgr_info_cxt(output, &seen->output[i], CurrentMemoryContext);
	}
	look_at_identity(seen, relation);
	return target->nkeys > 0;
}

void
plinth_sync_collect_resolve(PlinthCollectSeen *seen, Relation relation, Oid relid)
{
	if (!resolve(seen, relation, relid))
		seen->attnums[0] = InvalidAttrNumber;
}

static PlinthCollectKey
column_value(TupleDesc desc, AttrNumber attnum, HeapTuple tuple, HeapTuple older, Datum *value)
{
	bool isnull;

	*value = heap_getattr(tuple, attnum, desc, &isnull);
	if (isnull)
		return PLINTH_COLLECT_NONE;
	if (TupleDescAttr(desc, attnum - 1)->attlen != -1 ||
		!VARATT_IS_EXTERNAL_ONDISK(DatumGetPointer(*value)))
		return PLINTH_COLLECT_KNOWN;
	/* An unchanged TOAST value is not in the WAL, only a pointer to it; the old tuple has it whole. */
	if (older == NULL || column_value(desc, attnum, older, NULL, value) != PLINTH_COLLECT_KNOWN)
		return PLINTH_COLLECT_UNKNOWN;
	return PLINTH_COLLECT_KNOWN;
}

PlinthCollectKey
plinth_sync_collect_key(PlinthCollectSeen *seen, Relation relation, HeapTuple tuple,
						HeapTuple older, bool is_old, StringInfo key)
{
	const PlinthCollectTarget *target = seen->target;
	PlinthCollectKey result = PLINTH_COLLECT_KNOWN;

	resetStringInfo(key);
	if (tuple == NULL || seen->attnums[0] == InvalidAttrNumber)
		return PLINTH_COLLECT_UNKNOWN;
	if (target->via)
	{
		appendStringInfo(key, "%d", target->source);
		appendStringInfoChar(key, '\0');
	}
	for (int i = 0; i < target->nkeys; i++)
	{
		Datum value;
		PlinthCollectKey state =
			column_value(RelationGetDescr(relation), seen->attnums[i], tuple, older, &value);

		if (state == PLINTH_COLLECT_UNKNOWN ||
			(state == PLINTH_COLLECT_NONE && ((is_old && !seen->held[i]) || target->source < 0)))
			return PLINTH_COLLECT_UNKNOWN;
		if (target->via)
			appendStringInfoChar(key, state == PLINTH_COLLECT_NONE ? '-' : '=');
		else if (state == PLINTH_COLLECT_NONE)
			result = PLINTH_COLLECT_NONE;
		if (state == PLINTH_COLLECT_KNOWN)
			appendStringInfoString(key, OutputFunctionCall(&seen->output[i], value));
		appendStringInfoChar(key, '\0');
	}
	return result;
}
