/*
 * mapping_document.c
 *		A document mapping: its query, the tables it reads, and the SQL by key.
 *
 * The query is text with every name qualified.  It names tables, columns and
 * functions, which may have other names by now: then it cannot be used, which
 * is the mapping's problem until the names are there again.  What it reads
 * must be the tables that were found in it when the mapping was made
 * (plinth.sync_sources): changes of others would not be seen.
 *
 * It is read for each key by itself (LATERAL, and OFFSET 0 so that the planner
 * leaves it there): the key goes into the query as a constant, and a GROUP BY
 * over a whole table is one over the rows of that key.
 *
 * A document is there while its root's row is and the query has a row for it.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#include "sync/read_int.h"
#include "sync/via_int.h"

#define DOCUMENT_COLUMN "document"

static char *
keep(PlinthSyncMapping *m, HeapTuple tuple, int column)
{
	char *value = SPI_getvalue(tuple, SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(m->context, value);
}

void
plinth_sync_document_sources(PlinthSyncMapping *m)
{
	static PlinthPlan plan = {
		"SELECT v.source::integer, v.relation::oid, cardinality(v.columns), v.roots,"
		"       row(v.source, v.relation::oid, v.columns, v.roots)::text, v.relation::text,"
		"       plinth._sync_unseen(v.relation) <> '',"
		"       EXISTS (SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c"
		"                   ON c.oid = i.inhparent"
		"                WHERE i.inhparent = v.relation AND c.relkind <> 'p')"
		"  FROM plinth.sync_sources AS v WHERE v.mapping_id = $1 ORDER BY v.source",
		1,
		{INT8OID},
		NULL};
	Datum id = Int64GetDatum(m->id);
	StringInfoData all;

	plinth_base_spi_execute(&plan, &id, NULL, true, SPI_OK_SELECT);
	initStringInfo(&all);
	m->nvias = (int) SPI_processed;
	m->vias = MemoryContextAllocZero(m->context, sizeof(PlinthSyncVia) * Max(m->nvias, 1));
	for (int i = 0; i < m->nvias; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		PlinthSyncVia *via = &m->vias[i];
		bool isnull;

		via->source = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		via->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		via->ncolumns = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
		via->roots = keep(m, tuple, 4);
		appendStringInfo(&all, "%s;", SPI_getvalue(tuple, desc, 5));
		if (DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull)))
			plinth_sync_mapping_problem(
				m,
				psprintf("table %s, which its query reads, or a partition of it, is UNLOGGED or "
						 "foreign now: its changes are not in the WAL",
						 SPI_getvalue(tuple, desc, 6)),
				"ALTER TABLE … SET LOGGED, or detach it; everything is sent again then.");
		if (DatumGetBool(SPI_getbinval(tuple, desc, 8, &isnull)))
			plinth_sync_mapping_problem(
				m,
				psprintf("table %s, which its query reads, has children that inherit from it: "
						 "their changes are not followed",
						 SPI_getvalue(tuple, desc, 6)),
				"ALTER TABLE … NO INHERIT, or use a partitioned table.");
	}
	m->vias_text = MemoryContextStrdup(m->context, all.data);
}

List *
plinth_sync_mapping_tables(PlinthSyncMapping *m)
{
	List *tables = plinth_sync_relation_family(m->relation);

	for (int i = 0; i < m->nvias; i++)
		tables = list_concat_unique_oid(tables, plinth_sync_relation_family(m->vias[i].relation));
	return tables;
}

bool
plinth_sync_mapping_reads(PlinthSyncMapping *m, Oid relation)
{
	for (int i = 0; i < m->nvias; i++)
	{
		if (m->vias[i].relation == relation)
			return true;
	}
	return false;
}

void
plinth_sync_document_check(PlinthSyncMapping *m, SPIPlanPtr plan)
{
	ListCell *source;

	foreach (source, SPI_plan_get_plan_sources(plan))
	{
		ListCell *lc;

		foreach (lc, ((CachedPlanSource *) lfirst(source))->relationOids)
		{
			Oid relation = lfirst_oid(lc);

			/* Its views were expanded: one that is there now runs code of whoever made it. */
			if ((relation != m->relation && !plinth_sync_mapping_reads(m, relation)) ||
				get_rel_relkind(relation) == RELKIND_VIEW)
				ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
								errmsg("the query reads another table now than when the mapping "
									   "was made: %s",
									   get_rel_name(relation))));
		}
	}
}

/* What the query gives; its names are resolved as it is, with nothing around it. */
static TupleDesc
describe_query(PlinthSyncMapping *m)
{
	SPIPlanPtr plan;
	PlinthAsOwner state;
	TupleDesc desc;
	CachedPlanSource *source;

	plinth_sync_query_as_owner(m, &state);
	plan = plinth_sync_query_prepare(m->query, 0, InvalidOid, InvalidOid, false);
	plinth_sync_query_as_before(&state);
	source = linitial(SPI_plan_get_plan_sources(plan));
	if (list_length(SPI_plan_get_plan_sources(plan)) != 1 || source->resultDesc == NULL)
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("it is not one SELECT")));
	desc = CreateTupleDescCopy(source->resultDesc);
	SPI_freeplan(plan);
	return desc;
}

/* Which of the key's columns has this name; -1 for none. */
static int
key_place(PlinthSyncMapping *m, const char *name)
{
	for (int i = 0; i < m->nkeys; i++)
	{
		if (strcmp(m->key_names[i], name) == 0)
			return i;
	}
	return -1;
}

static void
check_keys(PlinthSyncMapping *m, TupleDesc desc)
{
	int found[PLINTH_SYNC_MAX_KEYS] = {0};

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		int k = key_place(m, NameStr(attr->attname));

		if (k < 0)
			continue;
		found[k]++;
		if (attr->atttypid != m->key_types[k])
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of the query's result is of type %s, that of the table "
							"of type %s",
							NameStr(attr->attname), format_type_be(attr->atttypid),
							format_type_be(m->key_types[k]))));
	}
	for (int k = 0; k < m->nkeys; k++)
	{
		if (found[k] != 1)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("the query's result has %s column \"%s\"",
								   found[k] == 0 ? "no" : "more than one", m->key_names[k])));
	}
}

/* The fields' names and casts, as for columns of a table: by the result's columns. */
static void
name_fields(PlinthSyncMapping *m, TupleDesc desc)
{
	static PlinthPlan plan = {
		"SELECT m.fields ->> c.name, m.field_names = 'camelCase', m.casts ->> c.name"
		"  FROM plinth.sync_mappings AS m,"
		"       unnest($2) WITH ORDINALITY AS c (name, place)"
		" WHERE m.id = $1 ORDER BY c.place",
		2,
		{INT8OID, TEXTARRAYOID},
		NULL};
	Datum *names = palloc(sizeof(Datum) * desc->natts);
	Datum values[2];
	MemoryContext old;

	for (int i = 0; i < desc->natts; i++)
		names[i] = CStringGetTextDatum(NameStr(TupleDescAttr(desc, i)->attname));
	values[0] = Int64GetDatum(m->id);
	values[1] =
		PointerGetDatum(construct_array(names, desc->natts, TEXTOID, -1, false, TYPALIGN_INT));
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(m->context);
	m->nfields = 0;
	m->fields = palloc0(sizeof(PlinthMongoField *) * desc->natts);
	m->field_types = palloc0(sizeof(Oid) * desc->natts);
	for (int i = 0; i < desc->natts && i < (int) SPI_processed; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(desc, i);
		HeapTuple tuple = SPI_tuptable->vals[i];
		char *name = NameStr(attr->attname);
		char *field = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1);
		bool isnull;

		if (key_place(m, name) >= 0)
			continue;
		m->field_types[m->nfields] = attr->atttypid;
		if (desc->natts == m->nkeys + 1 && strcmp(name, DOCUMENT_COLUMN) == 0)
			m->fields[m->nfields++] = plinth_mongo_field_spread(attr->atttypid);
		else
		{
			if (field == NULL)
				field = DatumGetBool(SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &isnull))
							? plinth_sync_camel_case(name)
							: name;
			m->fields[m->nfields++] =
				plinth_mongo_field(field, attr->atttypid, attr->atttypmod,
								   SPI_getvalue(tuple, SPI_tuptable->tupdesc, 3));
		}
	}
	MemoryContextSwitchTo(old);
}

static char *
documents_sql(PlinthSyncMapping *m, const char *columns)
{
	StringInfoData sql;

	initStringInfo(&sql);
	plinth_sync_mapping_keys_head(m, &sql, columns);
	appendStringInfo(&sql, "LATERAL (SELECT q.* FROM (%s) AS q WHERE ", m->query);
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(&sql, "%s AND ", plinth_sync_mapping_is_key(m, "q", i));
	appendStringInfo(&sql, "EXISTS (SELECT FROM %s%s AS r WHERE ", m->only, m->relation_name);
	for (int i = 0; i < m->nkeys; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? " AND " : "", plinth_sync_mapping_is_key(m, "r", i));
	appendStringInfoString(&sql, ") OFFSET 0) AS t ON true");
	return sql.data;
}

void
plinth_sync_document_compile(PlinthSyncMapping *m)
{
	TupleDesc desc = describe_query(m);
	PlinthAsOwner state;
	StringInfoData columns;
	SPIPlanPtr plan;
	MemoryContext old;

	check_keys(m, desc);
	name_fields(m, desc);
	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);

		if (key_place(m, name) < 0)
			appendStringInfo(&columns, ", t.%s", quote_identifier(name));
	}
	old = MemoryContextSwitchTo(m->context);
	m->keys_sql = documents_sql(m, columns.data);
	m->absent_sql = documents_sql(m, "");
	plinth_sync_mapping_pages(m, "", NULL);
	MemoryContextSwitchTo(old);

	plinth_sync_query_as_owner(m, &state);
	plan = plinth_sync_query_prepare(m->keys_sql, m->nkeys, TEXTARRAYOID, InvalidOid, false);
	plinth_sync_query_as_before(&state);
	plinth_sync_document_check(m, plan);
	SPI_freeplan(plan);
}
