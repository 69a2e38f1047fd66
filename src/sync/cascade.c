/*
 * cascade.c
 *		sync_cascade: a user goes, and so do the rows that name them.
 *
 * Rules run one after another in the caller's transaction, tables that refer
 * to others before those, so that a rule is not forestalled by the foreign
 * key of a table that goes later.  Each is one statement, run as the table's
 * owner and without row-level security, as PostgreSQL does for ON DELETE
 * CASCADE: a trigger has the rights that it has then, never those of
 * plinth_owner, nor more than the owner's where a superuser calls.  But one that
 * is deferred runs when the transaction ends, as whoever ends it (before
 * PostgreSQL 18), as after any DELETE of theirs.
 *
 * What foreign keys and triggers did besides is told from the counts that
 * PostgreSQL keeps of the transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "audit/audit.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "sync/api_int.h"
#include "sync/cascade.h"
#include "sync/check.h"

extern PGDLLEXPORT Datum plinth_sync_cascade(PG_FUNCTION_ARGS);

typedef enum CascadeAction
{
	CASCADE_DELETE,
	CASCADE_ANONYMISE,
	CASCADE_KEEP
} CascadeAction;

typedef struct CascadeRule
{
	Oid relation;
	char *key_column;
	CascadeAction action;
	Jsonb *assignments;
	int64 count; /* out */
} CascadeRule;

/* What this transaction did to a table (partitions: to all of them). */
typedef struct CascadeCounts
{
	Oid relation;
	int64 deleted;
	int64 updated;
} CascadeCounts;

char *
plinth_sync_cascade_equals(Oid type)
{
	Oid operator= lookup_type_cache(type, TYPECACHE_EQ_OPR)->eq_opr;
	HeapTuple tuple;
	Form_pg_operator form;
	char *result;

	if (!OidIsValid(operator))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("could not identify an equality operator for type %s",
							   format_type_be(type))));
	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", operator);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	result = psprintf("OPERATOR(%s.%s)", quote_identifier(get_namespace_name(form->oprnamespace)),
					  NameStr(form->oprname));
	ReleaseSysCache(tuple);
	return result;
}

void
plinth_sync_cascade_require(const char *name, Oid owner, Oid caller)
{
	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("cascade \"%s\" has no rules", name),
				 errhint("SELECT DISTINCT name FROM plinth.sync_cascade_rules; lists yours.")));
	if (!has_privs_of_role(caller, owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for cascade \"%s\"", name),
						errhint("Only members of the role that owns its tables may do this; a "
								"SECURITY DEFINER function of that role may let others.")));
}

/*
 * The rules in their order: the height of a table is how many foreign keys
 * lead from others up to it, by tables that no rule names too.
 */
static List *
load_rules(const char *name, Oid caller, Oid *owner)
{
	static PlinthPlan plan = {
		"WITH RECURSIVE walk (relation, height) AS ("
		"  SELECT relation::oid, 0 FROM plinth.sync_cascade_rules WHERE name = $1"
		"  UNION SELECT c.confrelid, w.height + 1 FROM walk w JOIN pg_catalog.pg_constraint c"
		"   ON c.conrelid = w.relation AND c.contype = 'f' AND c.confrelid <> c.conrelid"
		"   WHERE w.height < 50)"
		" SELECT r.relation::oid, r.owner::oid, r.key_column, r.action, r.assignments"
		" FROM plinth.sync_cascade_rules r JOIN pg_catalog.pg_class t ON t.oid = r.relation"
		" WHERE r.name = $1"
		" ORDER BY (SELECT max(w.height) FROM walk w WHERE w.relation = r.relation), r.id",
		1,
		{TEXTOID},
		NULL};
	Datum values[1] = {CStringGetTextDatum(name)};
	PlinthSyncApi api;
	List *rules = NIL;

	*owner = InvalidOid;
	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(api.context);
		CascadeRule *rule = palloc0(sizeof(CascadeRule));
		char *action = SPI_getvalue(tuple, desc, 4);
		bool isnull;

		rule->relation = DatumGetObjectId(SPI_getbinval(tuple, desc, 1, &isnull));
		*owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		rule->key_column = pstrdup(NameStr(*DatumGetName(SPI_getbinval(tuple, desc, 3, &isnull))));
		rule->action = strcmp(action, "delete") == 0      ? CASCADE_DELETE
					   : strcmp(action, "anonymise") == 0 ? CASCADE_ANONYMISE
														  : CASCADE_KEEP;
		rule->assignments = DatumGetJsonbPCopy(SPI_getbinval(tuple, desc, 5, &isnull));
		rules = lappend(rules, rule);
		MemoryContextSwitchTo(old);
	}
	plinth_sync_api_end(&api);
	plinth_sync_cascade_require(name, *owner, caller);
	return rules;
}

/* "(a, b) = (SELECT r.a, r.b FROM …)" */
static char *
set_clause(const CascadeRule *rule, const char *table)
{
	StringInfoData names;
	StringInfoData values;
	JsonbIterator *it = JsonbIteratorInit(&rule->assignments->root);
	JsonbIteratorToken token;
	JsonbValue value;

	initStringInfo(&names);
	initStringInfo(&values);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		const char *column;

		if (token != WJB_KEY)
			continue;
		column = quote_identifier(pnstrdup(value.val.string.val, value.val.string.len));
		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", column);
		appendStringInfo(&values, "%sr.%s", values.len > 0 ? ", " : "", column);
	}
	return psprintf("(%s) = (SELECT %s FROM pg_catalog.jsonb_populate_record(NULL::%s, $2) AS r)",
					names.data, values.data, table);
}

static char *
rule_statement(const CascadeRule *rule, Relation rel)
{
	AttrNumber attnum = get_attnum(rule->relation, rule->key_column);
	char *table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											 RelationGetRelationName(rel));
	char *where;
	Oid type;

	if (attnum <= 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table %s does not exist any more",
							   rule->key_column, table),
						errhint("Declare the rule anew with plinth.sync_cascade_rule.")));
	type = TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid;
	where = psprintf("t.%s %s CAST($1 AS %s)", quote_identifier(rule->key_column),
					 plinth_sync_cascade_equals(type), format_type_be_qualified(type));
	switch (rule->action)
	{
		case CASCADE_DELETE:
			return psprintf("DELETE FROM %s AS t WHERE %s", table, where);
		case CASCADE_ANONYMISE:
			return psprintf("UPDATE %s AS t SET %s WHERE %s", table, set_clause(rule, table),
							where);
		default:
			return psprintf("SELECT FROM %s AS t WHERE %s", table, where);
	}
}

static void
run_rule(CascadeRule *rule, Oid owner, const char *key)
{
	Relation rel = table_open(rule->relation,
							  rule->action == CASCADE_KEEP ? AccessShareLock : RowExclusiveLock);
	Oid types[2] = {TEXTOID, JSONBOID};
	Datum values[2] = {CStringGetTextDatum(key), JsonbPGetDatum(rule->assignments)};
	char *sql = rule_statement(rule, rel);
	int sec_context;
	int nestlevel;
	Oid caller;
	int rc;

	if (rel->rd_rel->relowner != owner)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("table %s has another owner now", plinth_sync_relation_name(rel)),
						errhint("Drop its rules with plinth.sync_cascade_drop, and let its owner "
								"declare them in a cascade of another name.")));
	GetUserIdAndSecContext(&caller, &sec_context);
	SetUserIdAndSecContext(owner,
						   sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_NOFORCE_RLS);
	nestlevel = NewGUCNestLevel();
	SPI_connect();
	rc = SPI_execute_with_args(sql, rule->action == CASCADE_ANONYMISE ? 2 : 1, types, values, NULL,
							   false, 0);
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("a statement of a cascade returned %s", SPI_result_code_string(rc))));
	rule->count = (int64) SPI_processed;
	SPI_finish();
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(caller, sec_context);
	table_close(rel, NoLock);
}

/* What this transaction has done so far, to tables of any application. */
static List *
read_counts(void)
{
	static PlinthPlan plan = {
		"SELECT coalesce(pg_catalog.pg_partition_root(s.relid)::oid, s.relid),"
		" sum(s.n_tup_del)::bigint, sum(s.n_tup_upd)::bigint"
		" FROM pg_catalog.pg_stat_xact_user_tables s"
		" WHERE s.n_tup_del + s.n_tup_upd > 0 AND s.schemaname <> 'plinth' GROUP BY 1"
		" ORDER BY 1",
		0,
		{0},
		NULL};
	PlinthSyncApi api;
	List *result = NIL;

	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(api.context);
		CascadeCounts *counts = palloc(sizeof(CascadeCounts));
		bool isnull;

		counts->relation = DatumGetObjectId(
			SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		counts->deleted =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));
		counts->updated =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3, &isnull));
		result = lappend(result, counts);
		MemoryContextSwitchTo(old);
	}
	plinth_sync_api_end(&api);
	return result;
}

/*
 * One row of the report; the documents that follow are those of the table's
 * mappings, and of queries that read it, as far as the caller may see these;
 * what only grows keeps what it has.
 */
static void
report(ReturnSetInfo *rsinfo, Oid caller, Oid relation, const char *action, bool by_rule,
	   int64 count)
{
	static PlinthPlan plan = {
		"SELECT coalesce(array_agg(m.name ORDER BY m.name), '{}'),"
		" coalesce(array_agg(m.collection ORDER BY m.name), '{}')"
		" FROM plinth.sync_mappings m WHERE m.kind <> 'append' AND (m.relation = $1 OR EXISTS ("
		" SELECT FROM plinth.sync_sources s WHERE s.mapping_id = m.id AND s.relation = $1))"
		" AND (pg_has_role($2, m.owner, 'USAGE') OR pg_has_role($2, 'plinth_admin', 'USAGE'))",
		2,
		{OIDOID, OIDOID},
		NULL};
	Datum arguments[2] = {ObjectIdGetDatum(relation), ObjectIdGetDatum(caller)};
	Datum values[6];
	bool nulls[6] = {false};
	PlinthSyncApi api;
	bool isnull;

	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&plan, arguments, NULL, false, SPI_OK_SELECT);
	values[0] = ObjectIdGetDatum(relation);
	values[1] = CStringGetTextDatum(action);
	values[2] = BoolGetDatum(by_rule);
	values[3] = Int64GetDatum(count);
	values[4] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	values[5] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	plinth_sync_api_end(&api);
}

/* What was done to tables beyond what the rules did to them. */
static void
report_others(ReturnSetInfo *rsinfo, Oid caller, List *before, List *after, List *rules)
{
	ListCell *cell;
	ListCell *inner;

	foreach (cell, after)
	{
		CascadeCounts *counts = lfirst(cell);

		foreach (inner, before)
		{
			CascadeCounts *earlier = lfirst(inner);

			if (earlier->relation == counts->relation)
			{
				counts->deleted -= earlier->deleted;
				counts->updated -= earlier->updated;
			}
		}
		foreach (inner, rules)
		{
			CascadeRule *rule = lfirst(inner);

			if (rule->relation == counts->relation && rule->action == CASCADE_DELETE)
				counts->deleted -= rule->count;
			else if (rule->relation == counts->relation && rule->action == CASCADE_ANONYMISE)
				counts->updated -= rule->count;
		}
		if (counts->deleted > 0)
			report(rsinfo, caller, counts->relation, "deleted", false, counts->deleted);
		if (counts->updated > 0)
			report(rsinfo, caller, counts->relation, "updated", false, counts->updated);
	}
}

/* Arguments: name, key. */
PG_FUNCTION_INFO_V1(plinth_sync_cascade);
Datum
plinth_sync_cascade(PG_FUNCTION_ARGS)
{
	static const char *const done[] = {"deleted", "anonymised", "kept"};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	char *key = plinth_sync_api_text_required(fcinfo, 1, "key");
	List *rules;
	List *before;
	ListCell *cell;
	Oid owner;

	InitMaterializedSRF(fcinfo, 0);
	rules = load_rules(name, GetUserId(), &owner);
	before = read_counts();
	foreach (cell, rules)
		run_rule(lfirst(cell), owner, key);
	foreach (cell, rules)
	{
		CascadeRule *rule = lfirst(cell);

		report((ReturnSetInfo *) fcinfo->resultinfo, GetUserId(), rule->relation,
			   done[rule->action], true, rule->count);
	}
	report_others((ReturnSetInfo *) fcinfo->resultinfo, GetUserId(), before, read_counts(), rules);
	plinth_audit_record("plinth.sync_cascade", psprintf("%s:%s", name, key), "success", NULL);
	return (Datum) 0;
}
