/*
 * path_given.c
 *		The argument via: ways from changed rows to roots as people say them.
 *
 *	{"public.votes": "SELECT r.thread_id FROM public.replies r WHERE r.id = $1.reply_id",
 *	 "public.notes": ["thread_id"]}
 *
 * $1 is the changed row, once as it was and once as it is.  A list of columns
 * says that they are the root's key.  What is said of a table holds for every
 * place where it stands in the query, instead of what would be derived.  A
 * table that such a SELECT reads decides over roots as well: it must be the
 * root, or have a way itself, which is looked at when all are known.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/varlena.h"

#include "sync/document_int.h"

#define EXAMPLE                                                                                    \
	"Write it as '{\"schema.table\": \"SELECT key FROM ... WHERE ... = $1.column\"}', or "         \
	"'{\"schema.table\": [\"column\"]}' where columns of the table are the root's key."

static void
refuse_form(void)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("via must be a JSON object of SELECT statements or lists of columns"),
					errhint(EXAMPLE)));
}

typedef struct Given
{
	Relation rel;
	PlinthSyncWay *way;
	const char *argument;
} Given;

static void
refuse_row(Given *given)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("%s uses the whole row $1", given->argument),
					errhint("Name its columns, such as $1.%s.",
							quote_identifier(NameStr(
								TupleDescAttr(RelationGetDescr(given->rel), 0)->attname)))));
}

/* $1.column becomes a parameter of its own. */
static Node *
split_row(Node *node, void *arg)
{
	Given *given = arg;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, split_row, arg, 0);
	if (IsA(node, FieldSelect) && IsA(((FieldSelect *) node)->arg, Param) &&
		((Param *) ((FieldSelect *) node)->arg)->paramkind == PARAM_EXTERN)
	{
		FieldSelect *select = (FieldSelect *) node;

		return plinth_sync_way_param(given->way, select->fieldnum, select->resulttype,
									 select->resultcollid);
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN)
		refuse_row(given);
	return expression_tree_mutator(node, split_row, arg);
}

static bool
collect_tables(Node *node, void *arg)
{
	PlinthSyncWay *way = arg;
	ListCell *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, collect_tables, arg);
	foreach (lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION)
			way->reads = list_append_unique_oid(way->reads, rte->relid);
	}
	return query_tree_walker((Query *) node, collect_tables, arg, 0);
}

/* The result must be the root's key. */
static void
check_result(Query *query, const char *argument, const PlinthSyncNew *arg)
{
	ListCell *lc;
	int n = 0;
	bool same = true;

	foreach (lc, query->targetList)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Form_pg_attribute key;

		if (tle->resjunk)
			continue;
		if (n < arg->key.nkeys)
		{
			key = plinth_sync_key_column(arg, n);
			same &= getBaseType(exprType((Node *) tle->expr)) == getBaseType(key->atttypid);
		}
		n++;
	}
	if (n != arg->key.nkeys || !same)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("%s does not return the key of table \"%s\"", argument,
							   RelationGetRelationName(arg->rel)),
						errhint("Return (%s), in this order and of the same types.",
								plinth_sync_key_list(arg))));
}

static void
take_select(Given *given, const char *text, PlinthSyncNew *arg)
{
	PlinthSyncWay *way = given->way;
	Query *query = plinth_sync_query_parse(text, given->argument, given->rel->rd_rel->reltype);

	plinth_sync_query_check(query, given->argument, arg->owner);
	check_result(query, given->argument, arg);
	query = (Query *) split_row((Node *) query, given);
	if (way->ncolumns == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s does not use the changed row", given->argument),
						errhint("Its columns are $1.column.")));
	way->roots = plinth_sync_query_deparse(query);
	query = plinth_sync_query_parse(way->roots, given->argument, TEXTOID);
	(void) collect_tables((Node *) query, way);
}

static void
take_columns(Given *given, JsonbContainer *list, PlinthSyncNew *arg)
{
	PlinthSyncWay *way = given->way;
	uint32 n = JsonContainerSize(list);

	for (uint32 i = 0; i < n; i++)
	{
		JsonbValue *value = getIthJsonbValueFromContainer(list, i);
		Form_pg_attribute key;
		AttrNumber column;
		char *name;

		if (value->type != jbvString)
			refuse_form();
		name = pnstrdup(value->val.string.val, value->val.string.len);
		column = get_attnum(RelationGetRelid(given->rel), name);
		if (column <= 0)
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("%s: column \"%s\" does not exist", given->argument, name),
							errhint("Name columns of %s.", plinth_sync_relation_name(given->rel))));
		key = (int) i < arg->key.nkeys ? plinth_sync_key_column(arg, i) : NULL;
		if (key == NULL ||
			getBaseType(key->atttypid) !=
				getBaseType(TupleDescAttr(RelationGetDescr(given->rel), column - 1)->atttypid))
			break;
		way->columns[way->ncolumns++] = column;
	}
	if (way->ncolumns != arg->key.nkeys || (int) n != arg->key.nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s: the columns are not of the types of the key of table \"%s\"",
						given->argument, RelationGetRelationName(arg->rel)),
				 errhint("Name those that hold (%s), in this order.", plinth_sync_key_list(arg))));
}

static PlinthSyncWay *
take_table(const char *name, JsonbValue *value, PlinthSyncNew *arg)
{
	Oid relation =
		RangeVarGetRelid(makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name))),
						 AccessShareLock, false);
	Given given = {0};
	int natts;

	given.rel = table_open(relation, AccessShareLock);
	plinth_sync_check_relation(given.rel, arg->owner);
	natts = RelationGetDescr(given.rel)->natts;
	given.argument = psprintf("via for \"%s\"", name);
	given.way = palloc0(sizeof(PlinthSyncWay));
	given.way->relation = relation;
	given.way->columns = palloc(sizeof(AttrNumber) * Max(natts, INDEX_MAX_KEYS));
	if (value->type == jbvString)
		take_select(&given, pnstrdup(value->val.string.val, value->val.string.len), arg);
	else if (value->type == jbvBinary && JsonContainerIsArray(value->val.binary.data) &&
			 !JsonContainerIsScalar(value->val.binary.data))
		take_columns(&given, value->val.binary.data, arg);
	else
		refuse_form();
	table_close(given.rel, NoLock);
	return given.way;
}

List *
plinth_sync_paths_given(Jsonb *via, PlinthSyncNew *arg)
{
	List *ways = NIL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue value;
	char *name = NULL;

	if (via == NULL)
		return NIL;
	if (!JB_ROOT_IS_OBJECT(via))
		refuse_form();
	it = JsonbIteratorInit(&via->root);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			name = pnstrdup(value.val.string.val, value.val.string.len);
		else if (token == WJB_VALUE)
			ways = plinth_sync_paths_add(ways, take_table(name, &value, arg), arg);
	}
	return ways;
}
