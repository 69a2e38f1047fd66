/*
 * mapping_sql.c
 *		The SQL that a mapping's rows are read by: by keys, and a page at a time.
 *
 * Every name is qualified, comparisons are those of the key types' own ordering,
 * and keys come as texts.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/stratnum.h"
#include "catalog/pg_operator.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "sync/read_int.h"

/* Of a page the first column says nothing, as a rule. */
#define PAGE_NUMBER "SELECT 0::bigint"

/* OPERATOR(schema.name) of a comparison by the type's default btree operator class. */
static char *
operator_name(Oid type, StrategyNumber strategy)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	Oid operator= InvalidOid;
	HeapTuple tuple;
	Form_pg_operator form;
	char *name;

	if (OidIsValid(entry->btree_opf))
		operator= get_opfamily_member(entry->btree_opf, entry->btree_opintype,
									  entry->btree_opintype, strategy);
	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("type %s has no ordering", format_type_be(type))));
	form = (Form_pg_operator) GETSTRUCT(tuple);
	name = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return name;
}

/* "t.key > $n::type" for the columns from i on, in the order of the key's own operators. */
static void
append_after(StringInfo sql, PlinthSyncMapping *m, char **params, int i)
{
	const char *column = quote_identifier(m->key_names[i]);

	appendStringInfo(sql, "(t.%s %s %s", column,
					 operator_name(m->key_types[i], BTGreaterStrategyNumber), params[i]);
	if (i + 1 < m->nkeys)
	{
		appendStringInfo(sql, " OR (t.%s %s %s AND ", column,
						 operator_name(m->key_types[i], BTEqualStrategyNumber), params[i]);
		append_after(sql, m, params, i + 1);
		appendStringInfoChar(sql, ')');
	}
	appendStringInfoChar(sql, ')');
}

static char *
type_name(Oid type)
{
	return format_type_extended(getBaseType(type), -1,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* What follows the table's name in a page of rows in key order, from the start or behind a cursor. */
static char *
page_tail(PlinthSyncMapping *m, const char *filter, bool cursor)
{
	StringInfoData sql;
	char *params[PLINTH_SYNC_MAX_KEYS];

	initStringInfo(&sql);
	appendStringInfoString(&sql, " AS t WHERE ");
	for (int i = 0; i < m->nkeys; i++)
		params[i] = psprintf("$%d::text::%s", i + 1, type_name(m->key_types[i]));
	/* With several columns the first term is implied, and what an index can start from. */
	if (cursor && m->nkeys > 1)
		appendStringInfo(&sql, "t.%s %s %s AND ", quote_identifier(m->key_names[0]),
						 operator_name(m->key_types[0], BTGreaterEqualStrategyNumber), params[0]);
	if (cursor)
		append_after(&sql, m, params, 0);
	else
		appendStringInfoString(&sql, "true");
	if (filter != NULL)
		appendStringInfo(&sql, " AND (%s)", filter);
	appendStringInfoString(&sql, " ORDER BY ");
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(&sql, "%st.%s", i > 0 ? ", " : "", quote_identifier(m->key_names[i]));
	appendStringInfo(&sql, " LIMIT $%d", m->nkeys + 1);
	return sql.data;
}

/* A key without a row comes back with NULLs. */
void
plinth_sync_mapping_keys_head(PlinthSyncMapping *m, StringInfo sql, const char *columns)
{
	appendStringInfoString(sql, "SELECT \"plinth k\".\"plinth n\"");
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(sql, ", t.%s", quote_identifier(m->key_names[i]));
	appendStringInfo(sql, "%s FROM ROWS FROM (", columns);
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(sql, "%spg_catalog.unnest($%d::text[])", i > 0 ? ", " : "", i + 1);
	/* What somebody else wrote after this must not find these by a name of its own. */
	appendStringInfoString(sql, ") WITH ORDINALITY AS \"plinth k\" (");
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(sql, "\"plinth k%d\", ", i);
	appendStringInfoString(sql, "\"plinth n\") LEFT JOIN ");
}

char *
plinth_sync_mapping_is_key(PlinthSyncMapping *m, const char *alias, int i)
{
	return psprintf(
		"%s.%s %s \"plinth k\".\"plinth k%d\"::%s", alias, quote_identifier(m->key_names[i]),
		operator_name(m->key_types[i], BTEqualStrategyNumber), i, type_name(m->key_types[i]));
}

/* Rows by their keys. */
static char *
keys_sql(PlinthSyncMapping *m, const char *columns, const char *filter)
{
	StringInfoData sql;

	initStringInfo(&sql);
	plinth_sync_mapping_keys_head(m, &sql, columns);
	/* A filter knows the row's own columns only. */
	appendStringInfo(&sql, "(SELECT t.* FROM %s%s AS t WHERE (%s)) AS t ON ", m->only,
					 m->relation_name, filter != NULL ? filter : "true");
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? " AND " : "", plinth_sync_mapping_is_key(m, "t", i));
	return sql.data;
}

void
plinth_sync_mapping_pages(PlinthSyncMapping *m, const char *columns, const char *filter)
{
	StringInfoData keycols;

	initStringInfo(&keycols);
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(&keycols, ", t.%s", quote_identifier(m->key_names[i]));
	for (int keys_only = 0; keys_only < 2; keys_only++)
	{
		m->page_head[keys_only] =
			psprintf(PAGE_NUMBER "%s%s FROM %s", keycols.data, keys_only ? "" : columns, m->only);
		for (int cursor = 0; cursor < 2; cursor++)
			m->page_tail[cursor][keys_only] = page_tail(m, keys_only ? NULL : filter, cursor == 1);
	}
}

void
plinth_sync_mapping_sql(PlinthSyncMapping *m, const char *columns, const char *filter)
{
	MemoryContext old = MemoryContextSwitchTo(m->context);

	m->keys_sql = keys_sql(m, columns, filter);
	m->absent_sql = keys_sql(m, "", filter);
	plinth_sync_mapping_pages(m, columns, filter);
	MemoryContextSwitchTo(old);
}

char *
plinth_sync_mapping_changed_head(PlinthSyncMapping *m, const char *old_filter)
{
	const char *filter = m->filter != NULL ? m->filter : "true";

	return psprintf("SELECT CASE WHEN ((%s) IS TRUE) = ((%s) IS TRUE) THEN %d"
					" WHEN (%s) THEN %d ELSE %d END::bigint%s",
					filter, old_filter, PLINTH_SYNC_MATCH_SAME, filter, PLINTH_SYNC_MATCH_BEGUN,
					PLINTH_SYNC_MATCH_ENDED, m->page_head[0] + strlen(PAGE_NUMBER));
}
