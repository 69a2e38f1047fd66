/*
 * document_check.c
 *		What the query of documents may contain.
 *
 * A document must depend on nothing but rows whose changes are in the WAL.  So:
 * plain and partitioned tables, no system columns, no locks, no samples; and
 * functions that are IMMUTABLE, or PostgreSQL's own STABLE ones of which it is
 * known that they look at no more than their arguments and settings, which are
 * the same whenever documents are made.  STABLE functions of others may read
 * tables, and nobody can tell which.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "sync/document_int.h"

typedef struct Check
{
	const char *argument;
	Oid owner;
} Check;

/* STABLE only because they look at settings, or at the types of what they are given; sorted. */
static const char *const harmless[] = {"anyarray_out",
									   "anyenum_out",
									   "anymultirange_out",
									   "anyrange_out",
									   "anytextcat",
									   "array_in",
									   "array_out",
									   "array_to_json",
									   "array_to_string",
									   "cash_in",
									   "cash_out",
									   "concat",
									   "concat_ws",
									   "convert",
									   "convert_from",
									   "convert_to",
									   "date",
									   "date_cmp_timestamptz",
									   "date_eq_timestamptz",
									   "date_ge_timestamptz",
									   "date_gt_timestamptz",
									   "date_in",
									   "date_le_timestamptz",
									   "date_lt_timestamptz",
									   "date_ne_timestamptz",
									   "date_out",
									   "date_part",
									   "date_trunc",
									   "domain_in",
									   "enum_in",
									   "enum_out",
									   "extract",
									   "format",
									   "generate_series",
									   "in_range",
									   "interval_in",
									   "interval_out",
									   "interval_pl_timestamptz",
									   "json_agg",
									   "json_agg_strict",
									   "json_agg_strict_transfn",
									   "json_agg_transfn",
									   "json_build_array",
									   "json_build_object",
									   "json_object_agg",
									   "json_object_agg_strict",
									   "json_object_agg_strict_transfn",
									   "json_object_agg_transfn",
									   "json_object_agg_unique",
									   "json_object_agg_unique_strict",
									   "json_object_agg_unique_strict_transfn",
									   "json_object_agg_unique_transfn",
									   "json_populate_record",
									   "json_populate_recordset",
									   "json_to_record",
									   "json_to_recordset",
									   "jsonb_agg",
									   "jsonb_agg_finalfn",
									   "jsonb_agg_strict",
									   "jsonb_agg_strict_transfn",
									   "jsonb_agg_transfn",
									   "jsonb_build_array",
									   "jsonb_build_object",
									   "jsonb_object_agg",
									   "jsonb_object_agg_finalfn",
									   "jsonb_object_agg_strict",
									   "jsonb_object_agg_strict_transfn",
									   "jsonb_object_agg_transfn",
									   "jsonb_object_agg_unique",
									   "jsonb_object_agg_unique_strict",
									   "jsonb_object_agg_unique_strict_transfn",
									   "jsonb_object_agg_unique_transfn",
									   "jsonb_path_exists_tz",
									   "jsonb_path_match_tz",
									   "jsonb_path_query_array_tz",
									   "jsonb_path_query_first_tz",
									   "jsonb_path_query_tz",
									   "jsonb_populate_record",
									   "jsonb_populate_recordset",
									   "jsonb_to_record",
									   "jsonb_to_recordset",
									   "length",
									   "make_timestamptz",
									   "money",
									   "multirange_in",
									   "multirange_out",
									   "numeric",
									   "overlaps",
									   "pg_typeof",
									   "quote_literal",
									   "quote_nullable",
									   "range_in",
									   "range_out",
									   "record_in",
									   "record_out",
									   "row_to_json",
									   "textanycat",
									   "time",
									   "time_in",
									   "timestamp",
									   "timestamp_cmp_timestamptz",
									   "timestamp_eq_timestamptz",
									   "timestamp_ge_timestamptz",
									   "timestamp_gt_timestamptz",
									   "timestamp_in",
									   "timestamp_le_timestamptz",
									   "timestamp_lt_timestamptz",
									   "timestamp_ne_timestamptz",
									   "timestamp_out",
									   "timestamptz",
									   "timestamptz_cmp_date",
									   "timestamptz_cmp_timestamp",
									   "timestamptz_eq_date",
									   "timestamptz_eq_timestamp",
									   "timestamptz_ge_date",
									   "timestamptz_ge_timestamp",
									   "timestamptz_gt_date",
									   "timestamptz_gt_timestamp",
									   "timestamptz_in",
									   "timestamptz_le_date",
									   "timestamptz_le_timestamp",
									   "timestamptz_lt_date",
									   "timestamptz_lt_timestamp",
									   "timestamptz_mi_interval",
									   "timestamptz_ne_date",
									   "timestamptz_ne_timestamp",
									   "timestamptz_out",
									   "timestamptz_pl_interval",
									   "timetz",
									   "timetz_in",
									   "timezone",
									   "to_char",
									   "to_date",
									   "to_json",
									   "to_jsonb",
									   "to_number",
									   "to_timestamp",
									   "xml",
									   "xml_in"};

static int
compare_names(const void *a, const void *b)
{
	return strcmp(a, *(const char *const *) b);
}

static void
refuse_function(Oid function, const Check *check)
{
	bool volatile_one = func_volatile(function) == PROVOLATILE_VOLATILE;

	ereport(ERROR,
			(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
			 errmsg("%s uses function %s, which is not IMMUTABLE", check->argument,
					format_procedure(function)),
			 volatile_one ? 0
						  : errdetail("A STABLE function may look at tables, settings or the "
									  "clock, whose changes nobody would see."),
			 errhint("Keep in a column what it says; or write into the query what it reads; or "
					 "declare it IMMUTABLE where it looks at nothing but its arguments.")));
}

static bool check_function(Oid function, void *arg);

/* An aggregate is marked IMMUTABLE whatever it is made of. */
static void
check_aggregate(Oid function, void *arg)
{
	HeapTuple tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(function));
	Form_pg_aggregate form;
	Oid parts[4];

	if (!HeapTupleIsValid(tuple))
		return;
	form = (Form_pg_aggregate) GETSTRUCT(tuple);
	parts[0] = form->aggtransfn;
	parts[1] = form->aggfinalfn;
	parts[2] = form->aggmtransfn;
	parts[3] = form->aggmfinalfn;
	ReleaseSysCache(tuple);
	for (int i = 0; i < lengthof(parts); i++)
		if (OidIsValid(parts[i]))
			(void) check_function(parts[i], arg);
}

static bool
check_function(Oid function, void *arg)
{
	char *name = get_func_name(function);

	if (name == NULL)
		elog(ERROR, "cache lookup failed for function %u", function);
	if (get_func_prokind(function) == PROKIND_AGGREGATE)
		check_aggregate(function, arg);
	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return false;
	if (function >= FirstNormalObjectId || get_func_namespace(function) != PG_CATALOG_NAMESPACE ||
		func_volatile(function) == PROVOLATILE_VOLATILE ||
		bsearch(name, harmless, lengthof(harmless), sizeof(char *), compare_names) == NULL)
		refuse_function(function, arg);
	return false;
}

static void
refuse(const Check *check, const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("%s contains %s", check->argument, what), errhint("%s", hint)));
}

static void
check_table(const Check *check, RangeTblEntry *rte)
{
	Relation rel = table_open(rte->relid, AccessShareLock);

	plinth_sync_check_relation(rel, check->owner);
	if (rte->tablesample != NULL)
		refuse(check, "TABLESAMPLE", "Take all rows, or those that a condition names.");
	if (check_enable_rls(rte->relid, check->owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("row-level security of table \"%s\" applies to role \"%s\"",
						RelationGetRelationName(rel), GetUserNameFromId(check->owner, false)),
				 errdetail("Rows are read as the owner of the root table, from whom policies must "
						   "not hide any."),
				 errhint("Let one role own both tables, or give it BYPASSRLS.")));
	table_close(rel, NoLock);
}

static bool
check_node(Node *node, void *arg)
{
	Check *check = arg;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		Bitmapset *used = plinth_sync_query_used(query);
		ListCell *lc;
		int i = -1;

		if (query->commandType != CMD_SELECT)
			refuse(check, "a statement that writes", "Only SELECT reads without changing.");
		if (query->rowMarks != NIL)
			refuse(check, "FOR UPDATE or FOR SHARE", "Leave it out.");
		foreach (lc, query->cteList)
		{
			/* Nothing would be known of its tables, and the plan would name them. */
			if (lfirst_node(CommonTableExpr, lc)->cterefcount == 0)
				refuse(check, "a WITH query that nothing refers to", "Leave it out.");
		}
		while ((i = bms_next_member(used, i)) >= 0)
		{
			RangeTblEntry *rte = rt_fetch(i, query->rtable);

			if (rte->rtekind == RTE_RELATION)
				check_table(check, rte);
		}
		return query_tree_walker(query, check_node, arg, 0);
	}
	if (IsA(node, SQLValueFunction))
		refuse(check, "CURRENT_TIMESTAMP, CURRENT_USER or the like",
			   "What depends on the clock or the session changes without a row: keep it in a "
			   "column.");
	if (IsA(node, Var) && ((Var *) node)->varattno < 0)
		refuse(check, "a system column", "Name columns of the table's own.");
	(void) check_functions_in_node(node, check_function, arg);
	return expression_tree_walker(node, check_node, arg);
}

void
plinth_sync_query_check(Query *query, const char *argument, Oid owner)
{
	Check check = {argument, owner};

	(void) check_node((Node *) query, &check);
}
