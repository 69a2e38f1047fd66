/*
 * path.c
 *		Which rows concern which documents: the ways from the tables of a query
 *		to the root's key.
 *
 * The document of key k is what the query returns with its key columns equal
 * to k.  Each place where a table stands is an occurrence; the root's own row
 * is the occurrence from which the key columns come.  An edge says: a row of
 * child matters to the document only together with a row of parent for which
 * a condition, an equality of two columns, holds.  So the rows that matter,
 * R(k), are found from the root's own row outward: R of an occurrence is the
 * rows that satisfy the conditions of its way with a row in R of its parent,
 * and the document is a function of R(k) and of nothing else.
 *
 * Why marks are enough.  Let the document as last written and as it is now
 * differ.  Then some R differs; take the one nearest to the root.  Its
 * parent's R is the same, so a row r that is in one of the two was changed
 * in between, and its old or new values, which are marked, satisfy the
 * conditions with a row p of the parent.  The mark is resolved under a later
 * snapshot, by the conditions from p on.  Either that way still stands, and k
 * is found; or a row on it changed after r did, and of those the one nearest
 * to the root was changed with its own way still standing: its mark finds k,
 * by the same argument with a shorter way.  k's document is read after that.
 * Hence every table on a way must be a source itself, and the columns of its
 * conditions must be in the WAL for old rows as well (path_roots.c).
 *
 * Where edges come from.  Terms of AND, "column = column", in
 * - WHERE, and ON of inner joins, in either direction: only rows for which
 *   they are true make a result, NULL from outer joins included, since the
 *   operator is strict;
 * - ON of outer joins: from the side that becomes NULL only, as rows of the
 *   other side stay without a partner;  of full joins none;
 * - either where a subquery uses a column of a query around it: from the
 *   inside out, whatever else the subquery does, as it begins with its rows;
 * - "x IN (subquery)" as such a term: from the subquery's column to x.  Elsewhere
 *   (NOT IN) a row whose column is NULL matters to everybody.
 * A term about a subquery's output column is one about the table's column
 * where it comes from; of the child it must be open besides (path_scope.c).
 * All conditions that lead to the parent hold together; those to others are
 * left out, which makes R larger, never smaller.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_oper.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "sync/path_int.h"

/* Texts of these say another thing under another search_path. */
static bool
is_name_of_object(Oid type)
{
	switch (getBaseType(type))
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGCOLLATIONOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
}

/* Equality as btree or hash indexes know it, of two columns; by bytes, or by one collation. */
static bool
is_equality(OpExpr *op)
{
	Oid type;

	if (!IsA(op, OpExpr) || list_length(op->args) != 2)
		return false;
	type = exprType(linitial(op->args));
	if (!op_strict(op->opno) ||
		!(op_mergejoinable(op->opno, type) || op_hashjoinable(op->opno, type)))
		return false;
	if (is_name_of_object(type) || is_name_of_object(exprType(lsecond(op->args))))
		return false;
	return !OidIsValid(op->inputcollid) || get_collation_isdeterministic(op->inputcollid) ||
		   (exprCollation(linitial(op->args)) == op->inputcollid &&
			exprCollation(lsecond(op->args)) == op->inputcollid);
}

/* From child to parent, where both are certain; left and right are the operands of op. */
static void
add_edge(PlinthPaths *paths, OpExpr *op, PlinthPathPlace *child, PlinthPathPlace *parent,
		 bool child_is_left)
{
	PlinthPathEdge *edge;
	OpExpr *condition;

	if (child->occurrence == NULL || !child->open || parent->occurrence == NULL ||
		child->occurrence == parent->occurrence)
		return;
	condition = copyObject(op);
	condition->args = child_is_left ? list_make2(copyObject(child->expr), copyObject(parent->expr))
									: list_make2(copyObject(parent->expr), copyObject(child->expr));
	condition->location = -1;
	edge = palloc(sizeof(PlinthPathEdge));
	edge->child = child->occurrence;
	edge->parent = parent->occurrence;
	edge->condition = (Expr *) condition;
	paths->edges = lappend(paths->edges, edge);
}

/* children: the range table entries from whose rows an edge may lead. */
static void
add_edges(PlinthPaths *paths, OpExpr *op, List *children, List *parents, Bitmapset *allowed,
		  bool children_are_left)
{
	ListCell *lc;

	if (list_length(parents) != 1)
		return;
	foreach (lc, children)
	{
		PlinthPathPlace *child = lfirst(lc);

		if (allowed == NULL || (child->index > 0 && bms_is_member(child->index, allowed)))
			add_edge(paths, op, child, linitial(parents), children_are_left);
	}
}

static void
take_equality(PlinthPaths *paths, PlinthPathScope *scope, OpExpr *op, Bitmapset *allowed)
{
	List *left;
	List *right;

	if (!is_equality(op))
		return;
	left = plinth_sync_path_places(scope, linitial(op->args), op->opno);
	right = plinth_sync_path_places(scope, lsecond(op->args), op->opno);
	add_edges(paths, op, left, right, allowed, true);
	add_edges(paths, op, right, left, allowed, false);
}

/* x = column of a subquery, where the Param stands for that column. */
static void
take_sublink_test(PlinthPaths *paths, PlinthPathScope *scope, PlinthPathSublink *entry, Node *test)
{
	OpExpr *op = (OpExpr *) test;
	ListCell *lc;
	Param *param;
	List *inner;

	if (IsA(test, BoolExpr) && ((BoolExpr *) test)->boolop == AND_EXPR)
	{
		foreach (lc, ((BoolExpr *) test)->args)
			take_sublink_test(paths, scope, entry, lfirst(lc));
		return;
	}
	if (!is_equality(op) || !IsA(lsecond(op->args), Param))
		return;
	param = lsecond(op->args);
	if (param->paramkind != PARAM_SUBLINK)
		return;
	inner = plinth_sync_path_output(entry->scope, param->paramid, op->opno);
	add_edges(paths, op, inner, plinth_sync_path_places(scope, linitial(op->args), op->opno), NULL,
			  false);
}

static void
take_condition(PlinthPaths *paths, PlinthPathScope *scope, Node *node, Bitmapset *allowed)
{
	ListCell *lc;

	if (node == NULL || bms_is_empty(allowed))
		return;
	if (IsA(node, List))
	{
		foreach (lc, (List *) node)
			take_condition(paths, scope, lfirst(lc), allowed);
	}
	else if (IsA(node, BoolExpr) && ((BoolExpr *) node)->boolop == AND_EXPR)
		take_condition(paths, scope, (Node *) ((BoolExpr *) node)->args, allowed);
	else if (IsA(node, OpExpr))
		take_equality(paths, scope, (OpExpr *) node, allowed);
	else if (IsA(node, SubLink) && ((SubLink *) node)->subLinkType == ANY_SUBLINK)
	{
		foreach (lc, scope->sublinks)
		{
			PlinthPathSublink *entry = lfirst(lc);

			if (entry->sublink == (SubLink *) node)
				take_sublink_test(paths, scope, entry, entry->sublink->testexpr);
		}
	}
}

/* The conditions of joins; returns which range table entries are in it. */
static Bitmapset *
take_joins(PlinthPaths *paths, PlinthPathScope *scope, Node *node)
{
	Bitmapset *left;
	Bitmapset *right;
	Bitmapset *both;
	Bitmapset *allowed = NULL;
	JoinExpr *join;
	ListCell *lc;

	check_stack_depth();
	if (IsA(node, RangeTblRef))
		return bms_make_singleton(((RangeTblRef *) node)->rtindex);
	if (IsA(node, FromExpr))
	{
		both = NULL;
		foreach (lc, ((FromExpr *) node)->fromlist)
			both = bms_join(both, take_joins(paths, scope, lfirst(lc)));
		take_condition(paths, scope, ((FromExpr *) node)->quals, both);
		return both;
	}
	join = castNode(JoinExpr, node);
	left = take_joins(paths, scope, join->larg);
	right = take_joins(paths, scope, join->rarg);
	both = bms_union(left, right);
	if (join->jointype == JOIN_INNER)
		allowed = both;
	else if (join->jointype == JOIN_LEFT)
		allowed = right;
	else if (join->jointype == JOIN_RIGHT)
		allowed = left;
	take_condition(paths, scope, join->quals, allowed);
	return both;
}

/* The occurrence that the key columns of the result come from; NULL when it is not one. */
static PlinthPathOccurrence *
find_root(PlinthPathScope *top, const PlinthSyncNew *arg)
{
	PlinthPathOccurrence *root = NULL;

	for (int i = 0; i < arg->key.nkeys; i++)
	{
		Form_pg_attribute key = plinth_sync_key_column(arg, i);
		Oid equality = lookup_type_cache(key->atttypid, TYPECACHE_EQ_OPR)->eq_opr;
		PlinthPathPlace *place = NULL;
		ListCell *lc;

		foreach (lc, top->query->targetList)
		{
			TargetEntry *tle = lfirst_node(TargetEntry, lc);
			List *places;

			if (tle->resjunk || strcmp(tle->resname, NameStr(key->attname)) != 0)
				continue;
			places = plinth_sync_path_output(top, tle->resno, equality);
			if (list_length(places) == 1)
				place = linitial(places);
		}
		if (place == NULL || place->occurrence == NULL || !place->open || !IsA(place->expr, Var) ||
			((Var *) place->expr)->varattno != key->attnum ||
			place->occurrence->relation != arg->relation ||
			(root != NULL && place->occurrence != root))
			return NULL;
		root = place->occurrence;
	}
	return root;
}

/* How many edges lead from child to parent. */
static int
count_edges(PlinthPaths *paths, PlinthPathOccurrence *child, PlinthPathOccurrence *parent)
{
	ListCell *lc;
	int n = 0;

	foreach (lc, paths->edges)
	{
		PlinthPathEdge *edge = lfirst(lc);

		n += edge->child == child && edge->parent == parent;
	}
	return n;
}

/* One step further from the root: of several parents the one with most conditions. */
static bool
reach(PlinthPaths *paths, int depth)
{
	bool any = false;
	ListCell *i;
	ListCell *j;

	foreach (i, paths->occurrences)
	{
		PlinthPathOccurrence *child = lfirst(i);
		int most = 0;

		if (child->depth >= 0)
			continue;
		foreach (j, paths->edges)
		{
			PlinthPathEdge *edge = lfirst(j);

			if (edge->child == child && edge->parent->depth == depth &&
				count_edges(paths, child, edge->parent) > most)
			{
				most = count_edges(paths, child, edge->parent);
				child->parent = edge->parent;
			}
		}
		if (most == 0)
			continue;
		child->depth = depth + 1;
		any = true;
		foreach (j, paths->edges)
		{
			PlinthPathEdge *edge = lfirst(j);

			if (edge->child == child && edge->parent == child->parent &&
				!list_member(child->conditions, edge->condition))
				child->conditions = lappend(child->conditions, edge->condition);
		}
	}
	return any;
}

static void
refuse_root(const PlinthSyncNew *arg)
{
	char *name = plinth_sync_relation_name(arg->rel);

	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("query does not return the key of table \"%s\" as it is in the table",
				RelationGetRelationName(arg->rel)),
		 errdetail("Each column of the key (%s) must be an output column of that name, straight "
				   "from one %s, and neither LIMIT nor groups nor windows over several of its "
				   "rows may stand in between.",
				   plinth_sync_key_list(arg), name),
		 errhint("Write it as: SELECT t.%s, ... FROM %s AS t ...; what else there is goes into "
				 "subqueries.",
				 quote_identifier(NameStr(plinth_sync_key_column(arg, 0)->attname)), name)));
}

static void
refuse_occurrence(PlinthPathOccurrence *occurrence, const PlinthSyncNew *arg)
{
	char *table =
		quote_qualified_identifier(get_namespace_name(get_rel_namespace(occurrence->relation)),
								   get_rel_name(occurrence->relation));

	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 errmsg("it is not certain which documents a row of table \"%s\" concerns",
				get_rel_name(occurrence->relation)),
		 errdetail("No equality of plain columns leads from it, by the tables of the query, to "
				   "the row of \"%s\" that the document is for.",
				   RelationGetRelationName(arg->rel)),
		 errhint("Join it, or its subquery, by such an equality; or say it in the argument via, "
				 "such as '{\"%s\": \"SELECT %s FROM ... WHERE ... = $1.column\"}'.",
				 table, plinth_sync_key_list(arg))));
}

List *
plinth_sync_paths(Query *query, PlinthSyncNew *arg, List *given)
{
	PlinthPaths paths = {0};
	PlinthPathScope *top = plinth_sync_path_scopes(&paths, query);
	PlinthPathOccurrence *root = find_root(top, arg);
	List *ways = NIL;
	ListCell *lc;

	if (root == NULL)
		refuse_root(arg);
	foreach (lc, paths.scopes)
	{
		PlinthPathScope *scope = lfirst(lc);

		(void) take_joins(&paths, scope, (Node *) scope->query->jointree);
	}
	root->depth = 0;
	for (int depth = 0; reach(&paths, depth); depth++)
		;
	foreach (lc, paths.occurrences)
	{
		PlinthPathOccurrence *occurrence = lfirst(lc);

		if (occurrence == root || list_member_oid(given, occurrence->relation))
			continue;
		if (occurrence->depth < 0)
			refuse_occurrence(occurrence, arg);
		ways = plinth_sync_paths_add(ways, plinth_sync_path_way(occurrence, arg), arg);
	}
	plinth_sync_path_advise(&paths);
	return ways;
}
