/*
 * api_table.c
 *		sync_table(): says that a table is copied to a collection.
 *
 * The table is locked against DDL (not against writes) until the end of the
 * transaction, so that what was checked holds when the mapping becomes
 * visible.  sync_mappings is locked so that of two who name one collection
 * the second sees the first.
 *
 * The mapping belongs to the owner of the table, not to whoever called: rows
 * are read, and code of the table's owner is run, with that role's rights.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "decode/decode.h"
#include "sync/api_int.h"
#include "sync/check.h"
#include "worker/worker.h"

extern PGDLLEXPORT Datum plinth_sync_table(PG_FUNCTION_ARGS);

#define MAX_NAME_BYTES 200

typedef struct SyncTable
{
	Oid relation;
	Oid owner;
	char *server;
	char *collection;
	char *name;
	char *field_names;
	char *filter;
	char *on_existing;
	bool snapshot;
	PlinthSyncFields fields;
	PlinthSyncKeyColumns key;
	ArrayType *key_columns;
} SyncTable;

static char *
one_of(char *value, const char *argument, const char *first, const char *second, const char *third)
{
	if (value == NULL)
		return pstrdup(first);
	if (strcmp(value, first) != 0 && strcmp(value, second) != 0 &&
		(third == NULL || strcmp(value, third) != 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid %s: \"%s\"", argument, value),
						third == NULL ? errhint("Pass '%s' or '%s'.", first, second)
									  : errhint("Pass '%s', '%s' or '%s'.", first, second, third)));
	return value;
}

static Jsonb *
jsonb_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : PG_GETARG_JSONB_P(argument);
}

static void
read_arguments(FunctionCallInfo fcinfo, SyncTable *arg)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("relation must not be null"),
				 errhint("Pass the name of a table, such as 'public.threads'.")));
	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("server must not be null"),
						errhint("Pass the name of a server of mongodb_fdw.")));
	arg->relation = PG_GETARG_OID(0);
	arg->server = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	arg->collection = plinth_sync_api_text(fcinfo, 2);
	arg->name = plinth_sync_api_text(fcinfo, 3);
	arg->fields.columns = PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4);
	arg->field_names =
		one_of(plinth_sync_api_text(fcinfo, 5), "field_names", "same", "camelCase", NULL);
	arg->fields.camel = strcmp(arg->field_names, "camelCase") == 0;
	arg->fields.fields = jsonb_argument(fcinfo, 6);
	arg->fields.casts = jsonb_argument(fcinfo, 7);
	arg->fields.id_cast = plinth_sync_api_text(fcinfo, 8);
	arg->fields.id_prefix = plinth_sync_api_text(fcinfo, 9);
	arg->filter = plinth_sync_api_text(fcinfo, 10);
	arg->on_existing =
		one_of(plinth_sync_api_text(fcinfo, 11), "on_existing", "error", "replace", "keep");
	arg->snapshot = PG_ARGISNULL(12) || PG_GETARG_BOOL(12);
}

/* Who may not even know more than that the table exists learns nothing else, and locks nothing. */
static void
check_ownership(Oid relation)
{
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("relation with OID %u does not exist", relation),
						errhint("Pass the name of a table.")));
	if (!object_ownercheck(RelationRelationId, relation, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(get_rel_relkind(relation)),
					   get_rel_name(relation));
}

static ArrayType *
key_columns(Relation rel, const PlinthSyncKeyColumns *key)
{
	Datum names[INDEX_MAX_KEYS];

	for (int i = 0; i < key->nkeys; i++)
		names[i] =
			NameGetDatum(&TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1)->attname);
	return construct_array(names, key->nkeys, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR);
}

/* Everything that depends on the table and the caller. */
static void
check_all(Relation rel, SyncTable *arg)
{
	arg->owner = rel->rd_rel->relowner;
	if (arg->name == NULL)
		arg->name = pstrdup(RelationGetRelationName(rel));
	if (arg->collection == NULL)
		arg->collection = pstrdup(RelationGetRelationName(rel));
	if (arg->name[0] == '\0' || strlen(arg->name) > MAX_NAME_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a sync mapping"),
						errhint("A name has from 1 to %d bytes.", MAX_NAME_BYTES)));

	plinth_sync_check_relation(rel, arg->owner);
	plinth_sync_check_key(rel, &arg->key);
	arg->key_columns = key_columns(rel, &arg->key);
	plinth_sync_check_fields(rel, &arg->key, &arg->fields);
	if (arg->filter != NULL)
		arg->filter = plinth_sync_check_filter(rel, arg->filter);
	plinth_sync_check_server(arg->server, GetUserId(), arg->owner);
	plinth_decode_require();
	if (!plinth_worker_is_adopted())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("this database is a copy of the one that delivers"),
						errhint("If this one is to deliver from now on: SELECT plinth.adopt();")));
}

static void
check_name_free(const char *name)
{
	static PlinthPlan plan = {
		"SELECT FROM plinth.sync_mappings WHERE name = $1", 1, {TEXTOID}, NULL};
	Datum values[1];

	values[0] = CStringGetTextDatum(name);
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("sync mapping \"%s\" already exists", name),
						errhint("Pass another name in the argument name, or first SELECT "
								"plinth.sync_drop(%s);",
								quote_literal_cstr(name))));
}

/* Each pair of server and owner takes a lane: one too many would stop them all. */
static void
check_lane_free(const SyncTable *arg)
{
	static PlinthPlan plan = {
		"SELECT FROM plinth.sync_mappings WHERE (server_name, owner) <> ($1, $2::oid)"
		" GROUP BY server_name, owner",
		2,
		{NAMEOID, OIDOID},
		NULL};
	NameData server;
	Datum values[2];

	namestrcpy(&server, arg->server);
	values[0] = NameGetDatum(&server);
	values[1] = ObjectIdGetDatum(arg->owner);
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	if (SPI_processed >= PLINTH_SYNC_MAX_LANES)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("more than %d pairs of server and owner cannot be synced from one "
							   "database",
							   PLINTH_SYNC_MAX_LANES),
						errhint("Let fewer roles own the tables, or fewer servers take them.")));
}

/* The row; its trigger adds the one in sync_states. */
static int64
insert_mapping(const SyncTable *arg)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection,"
		"                                  key_columns, columns, field_names, fields, casts,"
		"                                  id_cast, id_prefix, filter, on_existing)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, '{}'), coalesce($10, '{}'),"
		"         $11, $12, $13, $14) RETURNING id",
		14,
		{TEXTOID, REGCLASSOID, REGROLEOID, NAMEOID, TEXTOID, NAMEARRAYOID, NAMEARRAYOID, TEXTOID,
		 JSONBOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID},
		NULL};
	NameData server;
	Datum values[14] = {0};
	char nulls[15] = "              ";
	bool isnull;
	const char *texts[14] = {0};

	namestrcpy(&server, arg->server);
	texts[0] = arg->name;
	values[1] = ObjectIdGetDatum(arg->relation);
	values[2] = ObjectIdGetDatum(arg->owner);
	values[3] = NameGetDatum(&server);
	texts[4] = arg->collection;
	values[5] = PointerGetDatum(arg->key_columns);
	values[6] = PointerGetDatum(arg->fields.columns);
	texts[7] = arg->field_names;
	values[8] = PointerGetDatum(arg->fields.fields);
	values[9] = PointerGetDatum(arg->fields.casts);
	texts[10] = arg->fields.id_cast;
	texts[11] = arg->fields.id_prefix;
	texts[12] = arg->filter;
	texts[13] = arg->on_existing;
	for (int i = 0; i < 14; i++)
	{
		if (texts[i] != NULL)
			values[i] = CStringGetTextDatum(texts[i]);
		if (values[i] == (Datum) 0)
			nulls[i] = 'n';
	}
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT_RETURNING);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

/* A mapping that was asked for here is not blocked; its rows are sent unless snapshot is false. */
static void
release_mapping(int64 id, const SyncTable *arg)
{
	static PlinthPlan state = {"UPDATE plinth.sync_states SET blocked = NULL, blocked_hint = NULL,"
							   " blocked_at = NULL WHERE mapping_id = $1",
							   1,
							   {INT8OID},
							   NULL};
	static PlinthPlan task = {"INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, total)"
							  " VALUES ($1, 'snapshot', $2, plinth._sync_rows($2))",
							  2,
							  {INT8OID, OIDOID},
							  NULL};
	Datum values[2];

	values[0] = Int64GetDatum(id);
	values[1] = ObjectIdGetDatum(arg->relation);
	plinth_base_spi_execute(&state, values, NULL, false, SPI_OK_UPDATE);
	if (arg->snapshot)
		plinth_base_spi_execute(&task, values, NULL, false, SPI_OK_INSERT);
}

/* A decoder, and a lane for each pair of server and owner. */
static void
require_workers(void)
{
	static PlinthPlan plan = {
		"SELECT DISTINCT server_name, owner FROM plinth.sync_mappings", 0, {0}, NULL};

	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	plinth_worker_require(1 + (int) SPI_processed);
}

PG_FUNCTION_INFO_V1(plinth_sync_table);
Datum
plinth_sync_table(PG_FUNCTION_ARGS)
{
	SyncTable arg = {0};
	PlinthSyncApi api;
	Relation rel;
	int64 id;

	read_arguments(fcinfo, &arg);
	check_ownership(arg.relation);
	rel = try_relation_open(arg.relation, ShareUpdateExclusiveLock);
	check_ownership(arg.relation);
	check_all(rel, &arg);

	plinth_sync_api_begin(&api);
	LockRelationOid(get_relname_relid("sync_mappings", plinth_base_schema_oid()),
					ShareRowExclusiveLock);
	/* What others committed counts, whatever this transaction may see. */
	PushActiveSnapshot(GetLatestSnapshot());
	plinth_sync_check_target(arg.server, arg.collection);
	check_name_free(arg.name);
	check_lane_free(&arg);
	PopActiveSnapshot();
	id = insert_mapping(&arg);
	release_mapping(id, &arg);
	require_workers();
	plinth_worker_bind();
	plinth_sync_api_end(&api);

	relation_close(rel, NoLock);
	PG_RETURN_INT64(id);
}
