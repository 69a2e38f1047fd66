/*
 * watch.c
 *		Watches: triggers by which a change of a table invalidates entries.
 *
 * A watch is a row of plinth.cache_watches and triggers on the table that name
 * it by its number: one for rows, which partitions inherit, and one for
 * TRUNCATE, which they do not, so that each gets its own.  A trigger whose
 * watch is gone, or is another table's, does nothing.  watched.c is what they
 * do.
 *
 * Triggers are made as the caller, who must own the table, and dropped as the
 * table's owner, whoever drops the cache.
 */
#include "postgres.h"

#include "access/table.h"
#include "cache/watch.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PGDLLEXPORT Datum plinth_cache_watch(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_unwatch(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_watch);
PG_FUNCTION_INFO_V1(plinth_cache_unwatch);

static char *
qualified_name(Oid relation)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)),
									  get_rel_name(relation));
}

static void
run(const char *sql)
{
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run: %s", sql);
}

static void
make_triggers(Oid relation, int32 watch)
{
	List *tables = find_all_inheritors(relation, ShareRowExclusiveLock, NULL);
	char *name = qualified_name(relation);
	ListCell *cell;

	run(psprintf("CREATE TRIGGER plinth_cache_watch_%d AFTER INSERT OR UPDATE OR DELETE ON %s "
				 "FOR EACH ROW EXECUTE FUNCTION plinth._cache_watched('%d')",
				 watch, name, watch));
	run(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER plinth_cache_watch_%d", name, watch));
	foreach (cell, tables)
	{
		name = qualified_name(lfirst_oid(cell));
		run(psprintf("CREATE TRIGGER plinth_cache_watch_%d_truncate AFTER TRUNCATE ON %s "
					 "FOR EACH STATEMENT EXECUTE FUNCTION plinth._cache_watched('%d')",
					 watch, name, watch));
		run(psprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER plinth_cache_watch_%d_truncate",
					 name, watch));
	}
}

static void
check_table(Relation rel)
{
	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a table", RelationGetRelationName(rel)),
						errhint("Watch the tables that it is made of.")));
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("\"%s\" is a temporary table", RelationGetRelationName(rel)),
						errhint("Invalidate by request what depends on it.")));
	if (rel->rd_rel->relkind == RELKIND_RELATION && has_subclass(RelationGetRelid(rel)))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("\"%s\" has child tables", RelationGetRelationName(rel)),
						errhint("Watch each of them, or use partitions.")));
	if (rel->rd_rel->relispartition)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is a partition", RelationGetRelationName(rel)),
						errhint("Watch the partitioned table.")));
	if (!object_ownercheck(RelationRelationId, RelationGetRelid(rel), GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE, RelationGetRelationName(rel));
	if (RelationGetNamespace(rel) == plinth_base_schema_oid())
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("tables of plinth cannot be watched")));
}

/* An expression argument, checked, in the form in which it is kept; NULL for none. */
static char *
expression_argument(FunctionCallInfo fcinfo, int argument, Relation rel, const char *what)
{
	if (PG_ARGISNULL(argument))
		return NULL;
	return plinth_base_expression_deparse(
		rel, plinth_cache_watch_parse(rel, what, text_to_cstring(PG_GETARG_TEXT_PP(argument))));
}

static int32
insert_watch(const PlinthCacheDef *def, Oid relation, const char *key, const char *tag)
{
	static PlinthPlan plan = {
		.sql = "INSERT INTO plinth.cache_watches (cache_id, relation, key_expression, "
			   "tag_expression) VALUES ($1, $2, $3, $4) RETURNING id",
		.nargs = 4,
		.argtypes = {INT4OID, REGCLASSOID, TEXTOID, TEXTOID},
	};
	PlinthAsOwner owner;
	Datum values[4];
	char nulls[4];
	bool isnull;

	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(def->id);
	values[1] = ObjectIdGetDatum(relation);
	values[2] = key != NULL ? CStringGetTextDatum(key) : (Datum) 0;
	values[3] = tag != NULL ? CStringGetTextDatum(tag) : (Datum) 0;
	nulls[2] = key != NULL ? ' ' : 'n';
	nulls[3] = tag != NULL ? ' ' : 'n';
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT_RETURNING);
	plinth_base_owner_end(&owner);
	return DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* Arguments: cache, relation, key_expression, tag_expression. */
Datum
plinth_cache_watch(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;
	Relation rel;
	Oid relation;
	char *key;
	char *tag;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_MANAGE, &def);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null"),
				 errhint("Pass a value for the argument relation.")));
	if (!PG_ARGISNULL(2) && !PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a watch invalidates a key or a tag, not both"),
						errhint("Call plinth.cache_watch twice.")));
	relation = PG_GETARG_OID(1);
	rel = table_open(relation, ShareRowExclusiveLock);
	check_table(rel);
	key = expression_argument(fcinfo, 2, rel, "key expression");
	tag = expression_argument(fcinfo, 3, rel, "tag expression");
	table_close(rel, NoLock);

	SPI_connect();
	make_triggers(relation, insert_watch(&def, relation, key, tag));
	SPI_finish();
	/* What was cached before was not watched. */
	plinth_cache_forget_all(&def, NULL);
	PG_RETURN_VOID();
}

/* Drops one watch's triggers, as the owner of the table that has them. */
static void
drop_triggers(const char *table, Oid owner, const char *trigger)
{
	Oid userid;
	int sec_context;
	int nestlevel;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
									  SECURITY_RESTRICTED_OPERATION);
	nestlevel = NewGUCNestLevel();
	plinth_base_plain_settings();
	run(psprintf("DROP TRIGGER IF EXISTS %s ON %s", quote_identifier(trigger), table));
	AtEOXact_GUC(true, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
}

int
plinth_cache_watch_drop(int32 cache, Oid relation)
{
	/* Those of partitions that are clones go with their parent's. */
	static PlinthPlan find = {
		.sql = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner, t.tgname "
			   "FROM plinth.cache_watches w "
			   "JOIN pg_catalog.pg_trigger t ON t.tgfoid = 'plinth._cache_watched()'::regprocedure "
			   "AND t.tgargs = pg_catalog.convert_to(w.id::text, 'SQL_ASCII') || '\\x00' "
			   "AND t.tgparentid = 0 "
			   "JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid "
			   "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
			   "WHERE w.cache_id = $1 AND ($2 = 0 OR w.relation = $2)",
		.nargs = 2,
		.argtypes = {INT4OID, OIDOID},
	};
	static PlinthPlan forget = {
		.sql = "DELETE FROM plinth.cache_watches WHERE cache_id = $1 AND ($2 = 0 OR relation = $2)",
		.nargs = 2,
		.argtypes = {INT4OID, OIDOID},
	};
	Datum values[2] = {Int32GetDatum(cache), ObjectIdGetDatum(relation)};
	PlinthAsOwner owner;
	SPITupleTable *found;
	int n;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&find, values, NULL, false, SPI_OK_SELECT);
	plinth_base_owner_end(&owner);
	found = SPI_tuptable;
	for (uint64 i = 0; i < found->numvals; i++)
	{
		bool isnull;
		Oid role = DatumGetObjectId(SPI_getbinval(found->vals[i], found->tupdesc, 2, &isnull));

		drop_triggers(SPI_getvalue(found->vals[i], found->tupdesc, 1), role,
					  SPI_getvalue(found->vals[i], found->tupdesc, 3));
	}
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&forget, values, NULL, false, SPI_OK_DELETE);
	n = (int) SPI_processed;
	plinth_base_owner_end(&owner);
	SPI_finish();
	return n;
}

/* Arguments: cache, relation.  How many watches ended. */
Datum
plinth_cache_unwatch(PG_FUNCTION_ARGS)
{
	PlinthCacheDef def;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "cache"), PLINTH_CACHE_MANAGE, &def);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null"),
				 errhint("Pass a value for the argument relation.")));
	PG_RETURN_INT32(plinth_cache_watch_drop(def.id, PG_GETARG_OID(1)));
}
