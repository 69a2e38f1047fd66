/*
 * check_filter.c
 *		What a filter may be: one boolean expression over the row's own columns.
 *
 * A document depends on its row alone, so that a change of that row is the
 * only thing that can change it.  Hence no subquery, no volatile or stable
 * function (those see settings, the clock or other tables) and no system
 * column.  What is kept is the deparsed form: every name qualified and every
 * literal in a form that no DateStyle or TimeZone changes.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "base/base.h"
#include "sync/api_int.h"
#include "sync/check.h"

/* A syntax error is in the filter, not in the statement that called us. */
static void
filter_error_callback(void *arg)
{
	errcontext("filter \"%s\"", (const char *) arg);
	errposition(0);
}

/* The one expression that the text is, or an error. */
static Node *
parse_filter(const char *filter)
{
	char *query = psprintf("SELECT %s", filter);
	List *raw = raw_parser(query, RAW_PARSE_DEFAULT);
	SelectStmt *select;
	ResTarget *target;

	if (list_length(raw) == 1 && IsA(linitial_node(RawStmt, raw)->stmt, SelectStmt))
	{
		select = (SelectStmt *) linitial_node(RawStmt, raw)->stmt;
		if (select->op == SETOP_NONE && select->distinctClause == NIL &&
			select->intoClause == NULL && list_length(select->targetList) == 1 &&
			select->fromClause == NIL && select->whereClause == NULL &&
			select->groupClause == NIL && select->havingClause == NULL &&
			select->windowClause == NIL && select->valuesLists == NIL &&
			select->sortClause == NIL && select->limitOffset == NULL &&
			select->limitCount == NULL && select->lockingClause == NIL &&
			select->withClause == NULL)
		{
			target = linitial_node(ResTarget, select->targetList);
			if (target->name == NULL && target->indirection == NIL)
				return target->val;
		}
	}
	ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("filter is not one expression"),
					errhint("Write what would stand after WHERE, such as: status = 'published'")));
	return NULL;
}

/* Columns only: neither system columns nor the whole row, whose shape changes. */
static bool
other_than_columns(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varattno <= InvalidAttrNumber)
		return true;
	return expression_tree_walker(node, other_than_columns, context);
}

/*
 * Simplifying an expression runs functions (a cast of a literal to a type of
 * the table's owner, say): as that role, whoever asks, as everything later.
 */
static bool
is_mutable(Relation rel, Node *expr)
{
	Oid userid;
	int sec_context;
	int nestlevel = NewGUCNestLevel();
	bool mutable;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, sec_context | SECURITY_RESTRICTED_OPERATION |
													  SECURITY_LOCAL_USERID_CHANGE);
	mutable = contain_mutable_functions((Node *) expression_planner((Expr *) copyObject(expr)));
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	return mutable;
}

/*
 * Deparses in the settings that the readers of the mapping use: those that
 * make literals unambiguous, and a search_path under which each name that is
 * not pg_catalog's gets its schema.
 */
static char *
deparse_filter(Relation rel, Node *expr)
{
	int nestlevel = NewGUCNestLevel();
	char *text;

	plinth_sync_api_settings();
	text = deparse_expression(
		expr, deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)), false,
		false);
	AtEOXact_GUC(true, nestlevel);
	return text;
}

char *
plinth_sync_check_filter(Relation rel, const char *filter)
{
	ErrorContextCallback callback;
	ParseState *pstate;
	ParseNamespaceItem *nsitem;
	Node *expr;
	char *text;

	callback.callback = filter_error_callback;
	callback.arg = unconstify(char *, filter);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	pstate = make_parsestate(NULL);
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL, false, true);
	addNSItemToQuery(pstate, nsitem, false, true, true);
	expr = transformExpr(pstate, parse_filter(filter), EXPR_KIND_WHERE);
	expr = coerce_to_boolean(pstate, expr, "filter");
	assign_expr_collations(pstate, expr);

	if (pstate->p_hasSubLinks)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("filter contains a subquery"),
				 errhint("A filter looks at the row's own columns only: keep what it needs "
						 "in a column of the table.")));
	if (other_than_columns(expr, NULL))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("filter uses a system column or the whole row"),
						errhint("Name the columns that it looks at.")));
	if (is_mutable(rel, expr))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("filter uses a function that is not IMMUTABLE"),
				 errhint("What depends on time, settings or other tables changes without the row: "
						 "keep it in a column of the table.")));

	text = deparse_filter(rel, expr);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return text;
}
