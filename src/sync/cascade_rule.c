/*
 * cascade_rule.c
 *		sync_cascade_rule and sync_cascade_drop: what goes with a user.
 *
 * The tables of one cascade have one owner, who alone says its rules: they
 * run with that role's rights (cascade.c).
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "sync/api_int.h"
#include "sync/cascade.h"
#include "sync/check.h"

extern PGDLLEXPORT Datum plinth_sync_cascade_rule(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_cascade_drop(PG_FUNCTION_ARGS);

static Form_pg_attribute
column_of(Relation rel, const char *name)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table %s does not exist", name,
							   plinth_sync_relation_name(rel))));
	return TupleDescAttr(RelationGetDescr(rel), attnum - 1);
}

static void
check_assignments(Relation rel, const char *action, Jsonb *assignments)
{
	bool wanted = strcmp(action, "anonymise") == 0;
	JsonbIterator *it = JsonbIteratorInit(&assignments->root);
	JsonbIteratorToken token;
	JsonbValue value;

	if (!JB_ROOT_IS_OBJECT(assignments) || wanted != (JB_ROOT_COUNT(assignments) > 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						wanted ? errmsg("assignments must be an object with a column or more")
							   : errmsg("assignments are for action \"anonymise\" only"),
						errhint("Pass assignments such as '{\"user_id\": null}'.")));
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		Form_pg_attribute column;

		if (token != WJB_KEY)
			continue;
		column = column_of(rel, pnstrdup(value.val.string.val, value.val.string.len));
		if (column->attgenerated || column->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("column \"%s\" takes no values", NameStr(column->attname)),
							errhint("Assign to the columns that it is generated from.")));
		(void) JsonbIteratorNext(&it, &value, true);
		if (value.type == jbvNull && column->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("column \"%s\" of table %s takes no NULL", NameStr(column->attname),
							plinth_sync_relation_name(rel)),
					 errhint("Drop its NOT NULL, or assign a value that stands for nobody.")));
	}
}

/* The table's owner, who must be the caller or let it act as them. */
static Oid
check_rule(Oid relation, const char *key_column, const char *action, Jsonb *assignments)
{
	Relation rel = table_open(relation, AccessShareLock);
	Oid owner = rel->rd_rel->relowner;

	if ((rel->rd_rel->relkind != RELKIND_RELATION &&
		 rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) ||
		rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP ||
		IsCatalogNamespace(RelationGetNamespace(rel)) ||
		RelationGetNamespace(rel) == plinth_base_schema_oid())
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table of an application", RelationGetRelationName(rel)),
				 errhint("Name an ordinary or partitioned table.")));
	if (!has_privs_of_role(GetUserId(), owner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	if (strcmp(action, "delete") != 0 && strcmp(action, "anonymise") != 0 &&
		strcmp(action, "keep") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unknown action \"%s\"", action),
				 errhint("It is \"delete\", \"anonymise\" or \"keep\".")));
	(void) plinth_sync_cascade_equals(column_of(rel, key_column)->atttypid);
	check_assignments(rel, action, assignments);
	table_close(rel, NoLock);
	return owner;
}

/* Between begin and end. */
static Oid
owner_of(const char *name)
{
	static PlinthPlan find = {
		"SELECT owner::oid FROM plinth.sync_cascade_rules WHERE name = $1 LIMIT 1",
		1,
		{TEXTOID},
		NULL};
	Datum values[1] = {CStringGetTextDatum(name)};
	bool isnull;

	plinth_base_spi_execute(&find, values, NULL, false, SPI_OK_SELECT);
	return SPI_processed == 0 ? InvalidOid
							  : DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
															   SPI_tuptable->tupdesc, 1, &isnull));
}

/* Arguments: name, relation, key_column, action, assignments. */
PG_FUNCTION_INFO_V1(plinth_sync_cascade_rule);
Datum
plinth_sync_cascade_rule(PG_FUNCTION_ARGS)
{
	static PlinthPlan lock = {
		"LOCK TABLE plinth.sync_cascade_rules IN SHARE ROW EXCLUSIVE MODE", 0, {0}, NULL};
	static PlinthPlan add = {
		"INSERT INTO plinth.sync_cascade_rules (name, relation, owner, key_column, action, assignments)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, relation, key_column)"
		" DO UPDATE SET action = excluded.action, assignments = excluded.assignments",
		6,
		{TEXTOID, REGCLASSOID, REGROLEOID, NAMEOID, TEXTOID, JSONBOID},
		NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	char *action = plinth_sync_api_text_required(fcinfo, 3, "action");
	PlinthSyncApi api;
	Datum values[6];
	Oid owner;
	Oid others;

	for (int i = 1; i <= 4; i++)
	{
		static const char *const arguments[] = {"relation", "key_column", "action", "assignments"};

		if (PG_ARGISNULL(i))
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("%s must not be null", arguments[i - 1]),
							errhint("Pass a value for the argument %s.", arguments[i - 1])));
	}
	if (*name == '\0' || strlen(name) > 200)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a cascade's name has 1 to 200 bytes")));
	owner = check_rule(PG_GETARG_OID(1), NameStr(*PG_GETARG_NAME(2)), action, PG_GETARG_JSONB_P(4));

	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&lock, NULL, NULL, false, 0);
	others = owner_of(name);
	if (OidIsValid(others) && others != owner)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("cascade \"%s\" is for tables of another owner", name),
						errhint("Choose another name for the tables of \"%s\".",
								GetUserNameFromId(owner, false))));
	values[0] = CStringGetTextDatum(name);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = ObjectIdGetDatum(owner);
	values[3] = PG_GETARG_DATUM(2);
	values[4] = CStringGetTextDatum(action);
	values[5] = PG_GETARG_DATUM(4);
	plinth_base_spi_execute(&add, values, NULL, false, SPI_OK_INSERT);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

/* Arguments: name, relation. */
PG_FUNCTION_INFO_V1(plinth_sync_cascade_drop);
Datum
plinth_sync_cascade_drop(PG_FUNCTION_ARGS)
{
	static PlinthPlan forget = {
		"DELETE FROM plinth.sync_cascade_rules WHERE name = $1 AND ($2 = 0 OR relation = $2)",
		2,
		{TEXTOID, OIDOID},
		NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	Oid caller = GetUserId();
	PlinthSyncApi api;
	Datum values[2];
	Oid owner;
	int count;

	values[0] = CStringGetTextDatum(name);
	values[1] = PG_ARGISNULL(1) ? ObjectIdGetDatum(InvalidOid) : PG_GETARG_DATUM(1);
	plinth_sync_api_begin(&api);
	owner = owner_of(name);
	plinth_sync_cascade_require(name, owner, caller);
	plinth_base_spi_execute(&forget, values, NULL, false, SPI_OK_DELETE);
	count = (int) SPI_processed;
	plinth_sync_api_end(&api);
	PG_RETURN_INT32(count);
}
