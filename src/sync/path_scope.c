/*
 * path_scope.c
 *		The levels of a query, the tables in them, and where columns come from.
 *
 * A WITH query becomes a scope of its own for each reference, as if it were
 * written there, since each reference may look at other rows of it.  A
 * reference of a recursive query to itself stands for nothing: no column
 * comes from it.
 *
 * A column comes from a table when it is that table's column all the way,
 * through output columns of subqueries and merged columns of joins: so
 * wherever it is not NULL, there is a row of the table with that value.  It is
 * open when besides a restriction "column = value" of the result may be
 * applied to the table's rows first: no LIMIT cuts, no window frame and no
 * group mixes rows of different values.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/lsyscache.h"

#include "sync/path_int.h"

#define MAX_SCOPES 1000

typedef struct BuildContext
{
	PlinthPaths *paths;
	PlinthPathScope *scope;
} BuildContext;

static PlinthPathScope *build_scope(PlinthPaths *paths, Query *query, PlinthPathScope *parent,
									bool recursive);

static PlinthPathScope *
build_cte(PlinthPaths *paths, PlinthPathScope *scope, RangeTblEntry *rte)
{
	PlinthPathScope *holder = scope;
	ListCell *lc;

	if (rte->self_reference)
		return NULL;
	for (Index i = 0; i < rte->ctelevelsup; i++)
		holder = holder->parent;
	foreach (lc, holder->query->cteList)
	{
		CommonTableExpr *cte = lfirst_node(CommonTableExpr, lc);

		if (strcmp(cte->ctename, rte->ctename) == 0)
			return build_scope(paths, castNode(Query, cte->ctequery), holder, cte->cterecursive);
	}
	elog(ERROR, "WITH query \"%s\" not found", rte->ctename);
	return NULL;
}

/* Scopes for the subqueries in expressions. */
static bool
build_sublinks(Node *node, void *arg)
{
	BuildContext *context = arg;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		PlinthPathSublink *entry = palloc(sizeof(PlinthPathSublink));

		entry->sublink = (SubLink *) node;
		entry->scope = build_scope(context->paths, castNode(Query, entry->sublink->subselect),
								   context->scope, false);
		context->scope->sublinks = lappend(context->scope->sublinks, entry);
		return build_sublinks(entry->sublink->testexpr, arg);
	}
	return expression_tree_walker(node, build_sublinks, arg);
}

static PlinthPathScope *
build_scope(PlinthPaths *paths, Query *query, PlinthPathScope *parent, bool recursive)
{
	PlinthPathScope *scope = palloc0(sizeof(PlinthPathScope));
	BuildContext context = {paths, scope};
	Bitmapset *used = plinth_sync_query_used(query);
	int i = -1;

	check_stack_depth();
	if (list_length(paths->scopes) >= MAX_SCOPES)
		ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
						errmsg("query has more than %d subqueries", MAX_SCOPES),
						errhint("A WITH query counts once for each reference.")));
	scope->query = query;
	scope->parent = parent;
	scope->recursive = recursive;
	scope->nodes = palloc0(sizeof(PlinthPathNode) * (list_length(query->rtable) + 1));
	paths->scopes = lappend(paths->scopes, scope);

	while ((i = bms_next_member(used, i)) >= 0)
	{
		RangeTblEntry *rte = rt_fetch(i, query->rtable);
		PlinthPathNode *node = &scope->nodes[i - 1];

		if (rte->rtekind == RTE_RELATION)
		{
			node->occurrence = palloc0(sizeof(PlinthPathOccurrence));
			paths->occurrences = lappend(paths->occurrences, node->occurrence);
			node->occurrence->number = list_length(paths->occurrences);
			node->occurrence->relation = rte->relid;
			node->occurrence->depth = -1;
		}
		else if (rte->rtekind == RTE_SUBQUERY)
			node->scope = build_scope(paths, rte->subquery, scope, false);
		else if (rte->rtekind == RTE_CTE)
			node->scope = build_cte(paths, scope, rte);
	}
	(void) query_tree_walker(query, build_sublinks, &context,
							 QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES |
								 QTW_IGNORE_JOINALIASES);
	return scope;
}

PlinthPathScope *
plinth_sync_path_scopes(PlinthPaths *paths, Query *query)
{
	return build_scope(paths, query, NULL, false);
}

/* Do the two operators mean the same equality? */
static bool
same_equality(Oid a, Oid b)
{
	List *families;
	List *others;
	ListCell *lc;

	if (!OidIsValid(a) || !OidIsValid(b) || a == b)
		return OidIsValid(a) && a == b;
	families = get_mergejoin_opfamilies(b);
	others = get_mergejoin_opfamilies(a);
	foreach (lc, others)
	{
		if (list_member_oid(families, lfirst_oid(lc)))
			return true;
	}
	return false;
}

/* Is the column among those that rows are put together by, by the same equality? */
static bool
grouped_by(List *clauses, TargetEntry *tle, Oid equality)
{
	ListCell *lc;

	foreach (lc, clauses)
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (clause->tleSortGroupRef == tle->ressortgroupref &&
			same_equality(clause->eqop, equality))
			return true;
	}
	return false;
}

static bool
output_is_open(PlinthPathScope *scope, TargetEntry *tle, Oid equality)
{
	Query *query = scope->query;
	ListCell *lc;

	if (scope->recursive || query->limitCount != NULL || query->limitOffset != NULL ||
		query->groupingSets != NIL)
		return false;
	if ((query->hasAggs || query->groupClause != NIL || query->havingQual != NULL) &&
		!grouped_by(query->groupClause, tle, equality))
		return false;
	if (query->distinctClause != NIL && !grouped_by(query->distinctClause, tle, equality))
		return false;
	foreach (lc, query->windowClause)
	{
		if (!grouped_by(lfirst_node(WindowClause, lc)->partitionClause, tle, equality))
			return false;
	}
	return true;
}

/* The branches of set operations, and whether each step compares the column by the same equality. */
static void
collect_branches(PlinthPathScope *scope, Node *node, AttrNumber column, Oid equality,
				 List **branches, bool *open)
{
	check_stack_depth();
	if (IsA(node, SetOperationStmt))
	{
		SetOperationStmt *operation = (SetOperationStmt *) node;

		if (operation->groupClauses != NIL &&
			!same_equality(
				list_nth_node(SortGroupClause, operation->groupClauses, column - 1)->eqop,
				equality))
			*open = false;
		collect_branches(scope, operation->larg, column, equality, branches, open);
		collect_branches(scope, operation->rarg, column, equality, branches, open);
	}
	else
		*branches =
			lappend(*branches, scope->nodes[castNode(RangeTblRef, node)->rtindex - 1].scope);
}

List *
plinth_sync_path_output(PlinthPathScope *scope, AttrNumber column, Oid equality)
{
	List *places = NIL;
	List *found;
	ListCell *lc;
	bool open = true;

	if (column <= 0 || column > list_length(scope->query->targetList))
		return NIL;
	if (scope->query->setOperations != NULL)
	{
		List *branches = NIL;

		open = !scope->recursive && scope->query->limitCount == NULL &&
			   scope->query->limitOffset == NULL;
		collect_branches(scope, scope->query->setOperations, column, equality, &branches, &open);
		foreach (lc, branches)
		{
			found = plinth_sync_path_output(lfirst(lc), column, equality);
			if (found == NIL) /* one that is not known */
				found = list_make1(palloc0(sizeof(PlinthPathPlace)));
			places = list_concat(places, found);
		}
	}
	else
	{
		TargetEntry *tle = list_nth_node(TargetEntry, scope->query->targetList, column - 1);

		open = output_is_open(scope, tle, equality);
		places = plinth_sync_path_places(scope, tle->expr, equality);
	}
	foreach (lc, places)
		((PlinthPathPlace *) lfirst(lc))->open &= open;
	return places;
}

/* An output column of a subquery, with the relabelings that stand around it here. */
static List *
places_below(PlinthPathScope *scope, AttrNumber column, Oid equality)
{
	return scope == NULL ? NIL : plinth_sync_path_output(scope, column, equality);
}

static List *
places_of_var(PlinthPathScope *scope, Var *var, Oid equality)
{
	PlinthPathScope *at = scope;
	RangeTblEntry *rte;
	PlinthPathNode *node;
	List *places = NIL;
	ListCell *lc;
	Expr *alias;

	for (Index i = 0; i < var->varlevelsup; i++)
		at = at->parent;
	rte = rt_fetch(var->varno, at->query->rtable);
	if (var->varattno <= 0)
		return NIL;
	alias = plinth_compat_alias(rte, var->varattno);
	if (alias != NULL)
	{
		places = plinth_sync_path_places(at, alias, equality);
		if (at == scope)
			return places;
	}
	else
	{
		node = &at->nodes[var->varno - 1];
		if (node->occurrence != NULL)
		{
			PlinthPathPlace *place = palloc0(sizeof(PlinthPathPlace));
			Var *column = copyObject(var);

			column->varno = node->occurrence->number;
			column->varlevelsup = 0;
			plinth_compat_forget_joins(column);
			place->occurrence = node->occurrence;
			place->expr = (Expr *) column;
			place->open = true;
			places = list_make1(place);
		}
		else
			places = places_below(node->scope, var->varattno, equality);
	}
	foreach (lc, places)
		((PlinthPathPlace *) lfirst(lc))->index = at == scope ? var->varno : 0;
	return places;
}

List *
plinth_sync_path_places(PlinthPathScope *scope, Expr *expr, Oid equality)
{
	List *places;
	ListCell *lc;

	check_stack_depth();
	if (IsA(expr, Var))
		return places_of_var(scope, (Var *) expr, equality);
	if (!IsA(expr, RelabelType))
		return NIL;
	places = plinth_sync_path_places(scope, ((RelabelType *) expr)->arg, equality);
	foreach (lc, places)
	{
		PlinthPathPlace *place = lfirst(lc);
		RelabelType *relabel;

		if (place->expr == NULL)
			continue;
		relabel = copyObject((RelabelType *) expr);
		relabel->arg = place->expr;
		place->expr = (Expr *) relabel;
	}
	return places;
}
