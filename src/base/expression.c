/*
 * expression.c
 *		Expressions over the columns of one table, as people write them.
 *
 * What is made of a row by such an expression must depend on that row alone,
 * so that a change of the row is the only thing that can change it.  Hence no
 * subquery, no volatile or stable function (those see settings, the clock or
 * other tables), no system column, and not the whole row, whose shape changes.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "base/base.h"
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
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* A syntax error is in the expression, not in the statement that called us. */
static void
expression_error_callback(void *arg)
{
	const PlinthExpression *expression = arg;

	errcontext("%s \"%s\"", expression->what, expression->text);
	errposition(0);
}

/* The one expression that the text is, or an error. */
static Node *
parse_text(const PlinthExpression *expression)
{
	char *query = psprintf("SELECT %s", expression->text);
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
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s is not one expression", expression->what),
			 errhint("%s", expression->example)));
	return NULL;
}

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

static void
check_expression(Relation rel, const PlinthExpression *expression, ParseState *pstate, Node *expr)
{
	if (pstate->p_hasSubLinks)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s contains a subquery", expression->what),
						errhint("A %s looks at the row's own columns only: keep what it needs "
								"in a column of the table.",
								expression->what)));
	if (other_than_columns(expr, NULL))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s uses a system column or the whole row", expression->what),
						errhint("Name the columns that it looks at.")));
	if (is_mutable(rel, expr))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s uses a function that is not IMMUTABLE", expression->what),
				 errhint("What depends on time, settings or other tables changes without the row: "
						 "keep it in a column of the table.")));
}

Node *
plinth_base_expression_parse(Relation rel, const PlinthExpression *expression)
{
	ErrorContextCallback callback;
	ParseState *pstate;
	ParseNamespaceItem *nsitem;
	Node *expr;

	callback.callback = expression_error_callback;
	callback.arg = unconstify(PlinthExpression *, expression);
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	pstate = make_parsestate(NULL);
	nsitem = addRangeTableEntryForRelation(pstate, rel, AccessShareLock, NULL, false, true);
	addNSItemToQuery(pstate, nsitem, false, true, true);
	expr = transformExpr(pstate, parse_text(expression), EXPR_KIND_WHERE);
	if (expression->type == BOOLOID)
		expr = coerce_to_boolean(pstate, expr, expression->what);
	else
	{
		Oid type = exprType(expr);

		expr = coerce_to_target_type(pstate, expr, type, expression->type, -1, COERCION_EXPLICIT,
									 COERCE_EXPLICIT_CAST, -1);
		if (expr == NULL)
			ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
							errmsg("%s of type %s cannot become %s", expression->what,
								   format_type_be(type), format_type_be(expression->type))));
	}
	assign_expr_collations(pstate, expr);
	check_expression(rel, expression, pstate, expr);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return expr;
}

void
plinth_base_plain_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog"}, {"DateStyle", "ISO, YMD"}, {"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"},           {"bytea_output", "hex"},   {"extra_float_digits", "1"}};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

char *
plinth_base_expression_deparse(Relation rel, Node *expr)
{
	int nestlevel = NewGUCNestLevel();
	char *text;

	plinth_base_plain_settings();
	text = deparse_expression(
		expr, deparse_context_for(RelationGetRelationName(rel), RelationGetRelid(rel)), false,
		false);
	AtEOXact_GUC(true, nestlevel);
	return text;
}
