/*
 * document_store.c
 *		What is kept of a document mapping's query beside its text: the ways from
 *		changed rows to roots (plinth.sync_sources), and which columns are read.
 *
 * The columns are those that PostgreSQL would ask rights for: names in the kept
 * text are resolved one by one, so that a column which is added later is not
 * among them unless the text has a whole row.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "sync/document_int.h"

typedef struct TableRead
{
	Oid relation;
	Bitmapset *columns; /* numbered as PostgreSQL does for rights */
} TableRead;

static TableRead *
table_read(List **tables, Oid relation)
{
	TableRead *table;
	ListCell *lc;

	foreach (lc, *tables)
	{
		table = lfirst(lc);
		if (table->relation == relation)
			return table;
	}
	table = palloc0(sizeof(TableRead));
	table->relation = relation;
	*tables = lappend(*tables, table);
	return table;
}

static bool
collect_columns(Node *node, void *tables)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, collect_columns, tables);
	foreach (lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		TableRead *table;

		if (rte->rtekind != RTE_RELATION)
			continue;
		table = table_read(tables, rte->relid);
		table->columns =
			bms_add_members(table->columns, plinth_compat_selected_columns((Query *) node, rte));
	}
	return query_tree_walker((Query *) node, collect_columns, tables, 0);
}

static ArrayType *
column_names(Oid relation, const AttrNumber *columns, int ncolumns)
{
	const char **names = palloc(sizeof(char *) * Max(ncolumns, 1));

	for (int i = 0; i < ncolumns; i++)
		names[i] = get_attname(relation, columns[i], false);
	return plinth_sync_name_array(names, ncolumns);
}

/* NULL where whole rows are read. */
static ArrayType *
columns_read(const TableRead *table)
{
	AttrNumber *columns = palloc(sizeof(AttrNumber) * (bms_num_members(table->columns) + 1));
	int n = 0;
	int member = -1;

	if (bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, table->columns))
		return NULL;
	while ((member = bms_next_member(table->columns, member)) >= 0)
		columns[n++] = member + FirstLowInvalidHeapAttributeNumber;
	return column_names(table->relation, columns, n);
}

void
plinth_sync_document_note_columns(PlinthSyncNew *arg, Query *query, List *ways)
{
	List *tables = NIL;
	ListCell *lc;

	(void) collect_columns((Node *) query, &tables);
	foreach (lc, ways)
	{
		PlinthSyncWay *way = lfirst(lc);

		if (way->roots != NULL)
			(void) collect_columns(
				(Node *) plinth_sync_query_parse(way->roots, "way to the root", TEXTOID), &tables);
	}
	foreach (lc, ways)
	{
		PlinthSyncWay *way = lfirst(lc);

		way->used = columns_read(table_read(&tables, way->relation));
	}
	arg->fields.columns = columns_read(table_read(&tables, arg->relation));
}

/* The number of the way, which may have been the mapping's before. */
static Datum
store_way(int64 mapping, const PlinthSyncWay *way)
{
	static PlinthPlan plan = {
		"WITH kept AS ("
		"  UPDATE plinth.sync_sources SET reads = $6"
		"   WHERE mapping_id = $1 AND relation = $2 AND columns = $3 AND derived = $5"
		"     AND roots IS NOT DISTINCT FROM $4 RETURNING source"
		"), number AS ("
		"  UPDATE plinth.sync_mappings SET last_source = last_source + 1"
		"   WHERE id = $1 AND NOT EXISTS (SELECT FROM kept) RETURNING last_source"
		"), added AS ("
		"  INSERT INTO plinth.sync_sources (mapping_id, source, relation, columns, roots, derived, reads)"
		"  SELECT $1, last_source, $2, $3, $4, $5, $6 FROM number RETURNING source)"
		" SELECT source FROM kept UNION ALL SELECT source FROM added",
		6,
		{INT8OID, REGCLASSOID, NAMEARRAYOID, TEXTOID, BOOLOID, NAMEARRAYOID},
		NULL};
	Datum values[6] = {0};
	char nulls[] = "      ";
	bool isnull;

	values[0] = Int64GetDatum(mapping);
	values[1] = ObjectIdGetDatum(way->relation);
	values[2] = PointerGetDatum(column_names(way->relation, way->columns, way->ncolumns));
	if (way->roots != NULL)
		values[3] = CStringGetTextDatum(way->roots);
	else
		nulls[3] = 'n';
	values[4] = BoolGetDatum(way->derived);
	values[5] = PointerGetDatum(way->used);
	if (way->used == NULL)
		nulls[5] = 'n';
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_SELECT);
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
}

void
plinth_sync_document_store(int64 mapping, List *ways)
{
	static PlinthPlan plan = {
		"DELETE FROM plinth.sync_sources WHERE mapping_id = $1 AND source <> ALL ($2)",
		2,
		{INT8OID, INT4ARRAYOID},
		NULL};
	Datum *sources = palloc(sizeof(Datum) * Max(list_length(ways), 1));
	Datum values[2];
	ListCell *lc;
	int n = 0;

	foreach (lc, ways)
		sources[n++] = store_way(mapping, lfirst(lc));
	values[0] = Int64GetDatum(mapping);
	values[1] =
		PointerGetDatum(construct_array(sources, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_DELETE);
}
