/*
 * path_roots.c
 *		The queries that find the roots of a changed row, and the indexes that
 *		they would want.
 *
 * A query of roots joins the tables of the way from the changed row's parent
 * to the root, by the conditions as they stand in the user's query; the
 * changed row's columns are parameters in them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_node.h"
#include "parser/parse_oper.h"
#include "parser/parse_relation.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "sync/path_int.h"

typedef struct Rewrite
{
	PlinthPathOccurrence *changed; /* its columns become parameters; or NULL */
	PlinthSyncWay *way;            /* which collects them */
	int *places;                   /* varno of each occurrence in the query of roots */
} Rewrite;

static Node *
rewrite_condition(Node *node, void *arg)
{
	Rewrite *rewrite = arg;
	Var *var = (Var *) node;

	if (node == NULL)
		return NULL;
	if (!IsA(node, Var))
		return expression_tree_mutator(node, rewrite_condition, arg);
	if (rewrite->changed != NULL && var->varno == rewrite->changed->number)
		return plinth_sync_way_param(rewrite->way, var->varattno, var->vartype, var->varcollid);
	var = copyObject(var);
	var->varno = rewrite->places[var->varno];
	var->varnosyn = 0;
	var->varattnosyn = 0;
	return (Node *) var;
}

/* Are these the columns of the root's key, each equal to its own and of its type? */
static bool
is_key(PlinthPathOccurrence *occurrence, const PlinthSyncNew *arg, PlinthSyncWay *way)
{
	if (occurrence->parent->depth > 0)
		return false;
	for (int i = 0; i < arg->key.nkeys; i++)
	{
		Form_pg_attribute key = plinth_sync_key_column(arg, i);
		Oid equality = lookup_type_cache(key->atttypid, TYPECACHE_EQ_OPR)->eq_opr;
		Var *child = NULL;
		ListCell *lc;

		foreach (lc, occurrence->conditions)
		{
			OpExpr *op = lfirst_node(OpExpr, lc);
			Var *a = linitial(op->args);
			Var *b = lsecond(op->args);

			if (!IsA(a, Var) || !IsA(b, Var) || op->opno != equality || a->vartype != b->vartype)
				continue;
			if (a->varno == occurrence->number && b->varattno == key->attnum)
				child = a;
			else if (b->varno == occurrence->number && a->varattno == key->attnum)
				child = b;
		}
		if (child == NULL)
			return false;
		way->columns[i] = child->varattno;
	}
	way->ncolumns = arg->key.nkeys;
	return true;
}

static void
add_key_targets(Query *query, const PlinthSyncNew *arg, int varno, bool distinct)
{
	for (int i = 0; i < arg->key.nkeys; i++)
	{
		Form_pg_attribute key = plinth_sync_key_column(arg, i);
		Var *var = makeVar(varno, key->attnum, key->atttypid, key->atttypmod, key->attcollation, 0);
		TargetEntry *tle =
			makeTargetEntry((Expr *) var, i + 1, pstrdup(NameStr(key->attname)), false);

		query->targetList = lappend(query->targetList, tle);
		if (distinct)
		{
			SortGroupClause *clause = makeNode(SortGroupClause);

			get_sort_group_operators(key->atttypid, true, true, false, &clause->sortop,
									 &clause->eqop, NULL, &clause->hashable);
			clause->tleSortGroupRef = tle->ressortgroupref = i + 1;
			query->distinctClause = lappend(query->distinctClause, clause);
		}
	}
}

/* The query of roots, from the changed row's parent to the root. */
static char *
roots_text(PlinthPathOccurrence *occurrence, const PlinthSyncNew *arg, PlinthSyncWay *way)
{
	ParseState *pstate = make_parsestate(NULL);
	Query *query = makeNode(Query);
	List *from = NIL;
	List *quals = NIL;
	Rewrite rewrite = {occurrence, way, NULL};
	int most = occurrence->number;
	int n = 0;
	PlinthPathOccurrence *at;
	ListCell *lc;

	for (at = occurrence->parent; at != NULL; at = at->parent)
		most = Max(most, at->number);
	rewrite.places = palloc0(sizeof(int) * (most + 1));
	for (at = occurrence->parent; at != NULL; at = at->parent)
	{
		Relation rel = table_open(at->relation, AccessShareLock);
		RangeTblRef *ref = makeNode(RangeTblRef);

		(void) addRangeTableEntryForRelation(
			pstate, rel, AccessShareLock, makeAlias(psprintf("t%d", n + 1), NIL),
			rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE, true);
		table_close(rel, NoLock);
		ref->rtindex = ++n;
		rewrite.places[at->number] = n;
		from = lappend(from, ref);
		way->reads = lappend_oid(way->reads, at->relation);
	}
	for (at = occurrence; at->parent != NULL; at = at->parent)
	{
		foreach (lc, at->conditions)
			quals = lappend(quals, rewrite_condition(lfirst(lc), &rewrite));
		rewrite.changed = NULL;
	}
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = pstate->p_rtable;
	query->jointree = makeFromExpr(from, (Node *) make_ands_explicit(quals));
	add_key_targets(query, arg, n, n > 1);
	free_parsestate(pstate);
	return plinth_sync_query_deparse(query);
}

PlinthSyncWay *
plinth_sync_path_way(PlinthPathOccurrence *occurrence, PlinthSyncNew *arg)
{
	PlinthSyncWay *way = palloc0(sizeof(PlinthSyncWay));

	way->relation = occurrence->relation;
	way->derived = true;
	way->columns =
		palloc(sizeof(AttrNumber) * Max(2 * list_length(occurrence->conditions), INDEX_MAX_KEYS));
	if (!is_key(occurrence, arg, way))
	{
		way->ncolumns = 0;
		way->roots = roots_text(occurrence, arg, way);
	}
	return way;
}

/* Does some index of the table begin with one of these columns? */
static bool
has_index(Oid relation, Bitmapset *columns)
{
	Relation rel = table_open(relation, AccessShareLock);
	List *indexes = RelationGetIndexList(rel);
	bool found = false;
	ListCell *lc;

	foreach (lc, indexes)
	{
		Relation index = index_open(lfirst_oid(lc), AccessShareLock);

		if (index->rd_index->indisvalid && RelationGetIndexPredicate(index) == NIL &&
			(index->rd_rel->relam == BTREE_AM_OID || index->rd_rel->relam == HASH_AM_OID) &&
			bms_is_member(index->rd_index->indkey.values[0], columns))
			found = true;
		index_close(index, NoLock);
	}
	list_free(indexes);
	table_close(rel, NoLock);
	return found;
}

/* The columns of an occurrence in conditions, and their names as a list. */
static Bitmapset *
condition_columns(List *conditions, PlinthPathOccurrence *occurrence, char **names)
{
	Bitmapset *columns = NULL;
	StringInfoData text;
	ListCell *lc;
	ListCell *var;

	initStringInfo(&text);
	foreach (lc, conditions)
	{
		List *vars = pull_var_clause(lfirst(lc), 0);

		foreach (var, vars)
		{
			Var *column = lfirst_node(Var, var);

			if (column->varno != occurrence->number || bms_is_member(column->varattno, columns))
				continue;
			columns = bms_add_member(columns, column->varattno);
			appendStringInfo(
				&text, "%s%s", text.len > 0 ? ", " : "",
				quote_identifier(get_attname(occurrence->relation, column->varattno, false)));
		}
	}
	*names = text.data;
	return columns;
}

/* Each once. */
static List *
advise(List *told, List *conditions, PlinthPathOccurrence *occurrence, const char *why)
{
	char *names;
	Bitmapset *columns = condition_columns(conditions, occurrence, &names);
	char *table =
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(occurrence->relation)),
								   get_rel_name(occurrence->relation));
	char *index = psprintf("CREATE INDEX ON %s (%s);", table, names);
	ListCell *lc;

	foreach (lc, told)
		if (strcmp(lfirst(lc), index) == 0)
			return told;
	if (has_index(occurrence->relation, columns))
		return told;
	ereport(NOTICE, (errmsg("no index of table \"%s\" begins with a column of (%s)",
							get_rel_name(occurrence->relation), names),
					 errdetail("%s", why), errhint("%s", index)));
	return lappend(told, index);
}

void
plinth_sync_path_advise(PlinthPaths *paths)
{
	List *told = NIL;
	ListCell *lc;

	foreach (lc, paths->occurrences)
	{
		PlinthPathOccurrence *occurrence = lfirst(lc);

		if (occurrence->parent == NULL)
			continue;
		told = advise(told, occurrence->conditions, occurrence,
					  "Each document that is written reads the whole table.");
		told = advise(told, occurrence->conditions, occurrence->parent,
					  psprintf("Each change of \"%s\" reads the whole table.",
							   get_rel_name(occurrence->relation)));
	}
}
