/*
 * document_query.c
 *		Queries as people write them, and as they are kept.
 *
 * What is kept is deparsed from the analyzed query: every name qualified,
 * every literal in a form that no setting changes, and views replaced by what
 * they select, so that neither search_path nor CREATE OR REPLACE VIEW changes
 * what was looked at when the mapping was made.  What is looked at is the kept
 * text once more, so that it is what will run.
 *
 * The caller has become the owner of the root, with row_security off: a policy
 * that would hide rows from that role is an ERROR here.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parser.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "sync/document_int.h"

#define MAX_QUERY_PARAMS 64

static void
refuse_statement(const char *argument)
{
	ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR), errmsg("%s is not one SELECT", argument),
					errhint("Write one SELECT statement, without a semicolon.")));
}

/* An error is in the text, not in the statement that called us. */
static void
query_error_callback(void *arg)
{
	errcontext("%s", (const char *) arg);
	if (geterrposition() > 0)
	{
		internalerrposition(geterrposition());
		errposition(0);
	}
}

Query *
plinth_sync_query_parse(const char *text, const char *argument, Oid rowtype)
{
	ErrorContextCallback callback = {error_context_stack, query_error_callback,
									 unconstify(char *, argument)};
	Oid types[MAX_QUERY_PARAMS];
	List *raw;
	List *queries;
	Query *query;
	int ntypes = OidIsValid(rowtype) ? 1 : 0;

	types[0] = rowtype;
	if (rowtype == TEXTOID)
	{
		ntypes = MAX_QUERY_PARAMS;
		for (int i = 0; i < ntypes; i++)
			types[i] = TEXTOID;
	}
	error_context_stack = &callback;
	raw = raw_parser(text, RAW_PARSE_DEFAULT);
	if (list_length(raw) != 1 || !IsA(linitial_node(RawStmt, raw)->stmt, SelectStmt))
		refuse_statement(argument);
	queries =
		pg_analyze_and_rewrite_fixedparams(linitial_node(RawStmt, raw), text, types, ntypes, NULL);
	query = list_length(queries) == 1 ? linitial_node(Query, queries) : NULL;
	if (query == NULL || query->commandType != CMD_SELECT)
		refuse_statement(argument);
	error_context_stack = callback.previous;
	return query;
}

/* Tables that might get children are read without them: those are not looked at here. */
static bool
without_children(Node *node, void *context)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, without_children, context);
	foreach (lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_RELATION)
			rte->inh = false;
	}
	return query_tree_walker((Query *) node, without_children, context, 0);
}

static void
collect_used(Node *node, Bitmapset **used)
{
	ListCell *lc;

	if (node == NULL)
		return;
	check_stack_depth();
	if (IsA(node, RangeTblRef))
		*used = bms_add_member(*used, ((RangeTblRef *) node)->rtindex);
	else if (IsA(node, FromExpr))
	{
		foreach (lc, ((FromExpr *) node)->fromlist)
			collect_used(lfirst(lc), used);
	}
	else if (IsA(node, JoinExpr))
	{
		collect_used(((JoinExpr *) node)->larg, used);
		collect_used(((JoinExpr *) node)->rarg, used);
	}
	else if (IsA(node, SetOperationStmt))
	{
		collect_used(((SetOperationStmt *) node)->larg, used);
		collect_used(((SetOperationStmt *) node)->rarg, used);
	}
}

Bitmapset *
plinth_sync_query_used(Query *query)
{
	Bitmapset *used = NULL;

	collect_used((Node *) query->jointree, &used);
	collect_used(query->setOperations, &used);
	return used;
}

char *
plinth_sync_query_deparse(Query *query)
{
	int nestlevel = NewGUCNestLevel();
	char *text;

	(void) without_children((Node *) query, NULL);
	plinth_base_plain_settings();
	text = pg_get_querydef(query, false);
	AtEOXact_GUC(true, nestlevel);
	return text + strspn(text, " ");
}

/* Which parameter is the column, from 1? */
static int
parameter_of(PlinthSyncWay *way, AttrNumber column)
{
	for (int i = 0; i < way->ncolumns; i++)
		if (way->columns[i] == column)
			return i + 1;
	way->columns[way->ncolumns++] = column;
	return way->ncolumns;
}

Node *
plinth_sync_way_param(PlinthSyncWay *way, AttrNumber column, Oid type, Oid collation)
{
	Param *param = makeNode(Param);
	Oid base = getBaseType(type);
	Node *node;

	param->paramkind = PARAM_EXTERN;
	param->paramid = parameter_of(way, column);
	param->paramtype = TEXTOID;
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(TEXTOID);
	param->location = -1;
	node = coerce_to_target_type(NULL, (Node *) param, TEXTOID, base, -1, COERCION_EXPLICIT,
								 COERCE_EXPLICIT_CAST, -1);
	if (OidIsValid(collation) && collation != get_typcollation(base))
	{
		CollateExpr *collate = makeNode(CollateExpr);

		collate->arg = (Expr *) node;
		collate->collOid = collation;
		collate->location = -1;
		node = (Node *) collate;
	}
	return node;
}

void
plinth_sync_query_try(const char *text, int nparams)
{
	Oid types[MAX_QUERY_PARAMS];
	Datum values[MAX_QUERY_PARAMS] = {0};
	char nulls[MAX_QUERY_PARAMS];
	SPIPlanPtr plan;
	int nestlevel = NewGUCNestLevel();

	for (int i = 0; i < nparams; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = 'n';
	}
	plinth_base_plain_settings();
	SPI_connect();
	/* What EXPLAIN would not be allowed to plan or to read, nobody may run. */
	plan = SPI_prepare(psprintf("EXPLAIN %s", text), nparams, types);
	if (plan == NULL || SPI_execute_plan(plan, values, nulls, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not plan a query: %s", SPI_result_code_string(SPI_result));
	SPI_finish();
	AtEOXact_GUC(true, nestlevel);
}
