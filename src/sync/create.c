/*
 * create.c
 *		A new mapping: what every kind of it has in common.
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
#include "sync/create.h"
#include "sync/index_int.h"
#include "worker/worker.h"

#define MAX_NAME_BYTES 200

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

void
plinth_sync_new_relation(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int relation,
						 const char *name)
{
	if (PG_ARGISNULL(relation))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errhint("Pass the name of a table, such as 'public.threads'.")));
	arg->relation = PG_GETARG_OID(relation);
}

void
plinth_sync_new_server(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int server)
{
	if (PG_ARGISNULL(server))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("server must not be null"),
						errhint("Pass the name of a server of mongodb_fdw.")));
	arg->server = pstrdup(NameStr(*PG_GETARG_NAME(server)));
}

void
plinth_sync_new_fields(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int first)
{
	arg->field_names =
		one_of(plinth_sync_api_text(fcinfo, first), "field_names", "same", "camelCase", NULL);
	arg->fields.camel = strcmp(arg->field_names, "camelCase") == 0;
	arg->fields.fields = jsonb_argument(fcinfo, first + 1);
	arg->fields.casts = jsonb_argument(fcinfo, first + 2);
	arg->fields.id_cast = plinth_sync_api_text(fcinfo, first + 3);
	arg->fields.id_prefix = plinth_sync_api_text(fcinfo, first + 4);
}

void
plinth_sync_new_on_existing(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place)
{
	arg->on_existing =
		one_of(plinth_sync_api_text(fcinfo, place), "on_existing", "error", "replace", "keep");
}

void
plinth_sync_new_snapshot(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place)
{
	arg->snapshot = PG_ARGISNULL(place) || PG_GETARG_BOOL(place);
}

void
plinth_sync_new_lanes(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place)
{
	arg->lanes = PG_ARGISNULL(place) ? 1 : PG_GETARG_INT32(place);
	plinth_sync_new_check_lanes(arg->lanes);
}

void
plinth_sync_new_of_table(FunctionCallInfo fcinfo, PlinthSyncNew *arg)
{
	plinth_sync_new_relation(fcinfo, arg, 0, "relation");
	plinth_sync_new_server(fcinfo, arg, 1);
	arg->collection = plinth_sync_api_text(fcinfo, 2);
	arg->name = plinth_sync_api_text(fcinfo, 3);
	arg->fields.columns = PG_ARGISNULL(4) ? NULL : PG_GETARG_ARRAYTYPE_P(4);
	plinth_sync_new_fields(fcinfo, arg, 5);
	arg->filter = plinth_sync_api_text(fcinfo, 10);
	plinth_sync_new_on_existing(fcinfo, arg, 11);
	plinth_sync_new_snapshot(fcinfo, arg, 12);
}

void
plinth_sync_new_check_lanes(int lanes)
{
	if (lanes < 1 || lanes > PLINTH_SYNC_MAX_LANES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("lanes must be between 1 and %d", PLINTH_SYNC_MAX_LANES)));
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

ArrayType *
plinth_sync_name_array(const char *const *names, int n)
{
	Datum *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = DirectFunctionCall1(namein, CStringGetDatum(names[i]));
	return construct_array(elements, n, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR);
}

static ArrayType *
key_columns(Relation rel, const PlinthSyncKeyColumns *key)
{
	const char *names[INDEX_MAX_KEYS];

	for (int i = 0; i < key->nkeys; i++)
		names[i] = NameStr(TupleDescAttr(RelationGetDescr(rel), key->attnums[i] - 1)->attname);
	return plinth_sync_name_array(names, key->nkeys);
}

void
plinth_sync_new_open(PlinthSyncNew *arg)
{
	check_ownership(arg->relation);
	arg->rel = try_relation_open(arg->relation, ShareUpdateExclusiveLock);
	check_ownership(arg->relation);
	arg->owner = arg->rel->rd_rel->relowner;
}

void
plinth_sync_new_check_rows(PlinthSyncNew *arg)
{
	plinth_sync_check_relation(arg->rel, arg->owner);
	plinth_sync_check_key(arg->rel, &arg->key);
	arg->key_columns = key_columns(arg->rel, &arg->key);
}

void
plinth_sync_new_check(PlinthSyncNew *arg)
{
	if (arg->name == NULL)
		arg->name = pstrdup(RelationGetRelationName(arg->rel));
	if (arg->collection == NULL)
		arg->collection = pstrdup(RelationGetRelationName(arg->rel));
	if (arg->name[0] == '\0' || strlen(arg->name) > MAX_NAME_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a sync mapping"),
						errhint("A name has from 1 to %d bytes.", MAX_NAME_BYTES)));

	plinth_sync_new_check_rows(arg);
	plinth_sync_check_server(arg->server, GetUserId(), arg->owner);
	plinth_decode_require();
	plinth_sync_api_require_adopted();
}

void
plinth_sync_new_check_table(PlinthSyncNew *arg)
{
	plinth_sync_new_open(arg);
	plinth_sync_new_check(arg);
	plinth_sync_check_fields(RelationGetDescr(arg->rel), plinth_sync_relation_name(arg->rel),
							 &arg->key, &arg->fields);
	if (arg->filter != NULL)
		arg->filter = plinth_sync_check_filter(arg->rel, arg->filter);
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

/* Each pair of server and owner takes its lanes: one too many would stop them all. */
static void
check_lane_free(const PlinthSyncNew *arg)
{
	static PlinthPlan plan = {
		"SELECT coalesce(sum(greatest(n, CASE WHEN ours THEN $3 END)), 0)::bigint"
		"       + CASE WHEN bool_or(ours) THEN 0 ELSE $3 END"
		"  FROM (SELECT max(lanes) AS n, (server_name, owner) = ($1, $2::oid) AS ours"
		"          FROM plinth.sync_mappings GROUP BY server_name, owner) AS p",
		3,
		{NAMEOID, OIDOID, INT4OID},
		NULL};
	NameData server;
	Datum values[3];
	bool isnull;

	namestrcpy(&server, arg->server);
	values[0] = NameGetDatum(&server);
	values[1] = ObjectIdGetDatum(arg->owner);
	values[2] = Int32GetDatum(Max(arg->lanes, 1));
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	if (DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) >
		PLINTH_SYNC_MAX_LANES)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("more than %d pairs of server and owner, or lanes of them, cannot "
							   "be synced from one database",
							   PLINTH_SYNC_MAX_LANES),
						errhint("Let fewer roles own the tables, fewer servers take them, or use "
								"fewer lanes.")));
}

/* The row; its trigger adds the one in sync_states. */
static int64
insert_mapping(const PlinthSyncNew *arg)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_mappings (name, relation, owner, server_name, collection,"
		"                                  key_columns, columns, field_names, fields, casts,"
		"                                  id_cast, id_prefix, filter, on_existing, kind, query, lanes)"
		" VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, '{}'), coalesce($10, '{}'),"
		"         $11, $12, $13, $14, $15, $16, $17) RETURNING id",
		17,
		{TEXTOID, REGCLASSOID, REGROLEOID, NAMEOID, TEXTOID, NAMEARRAYOID, NAMEARRAYOID, TEXTOID,
		 JSONBOID, JSONBOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID},
		NULL};
	NameData server;
	Datum values[17] = {0};
	char nulls[18] = "                 ";
	bool isnull;
	const char *texts[17] = {0};

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
	texts[14] = arg->kind;
	texts[15] = arg->query;
	values[16] = Int32GetDatum(Max(arg->lanes, 1));
	for (int i = 0; i < lengthof(texts); i++)
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
release_mapping(int64 id, const PlinthSyncNew *arg)
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

/* Lanes share out keys; not every type's can be. */
static void
check_lanes(int64 id, int lanes)
{
	static PlinthPlan plan = {"SELECT plinth._sync_lanes($1)", 1, {INT8OID}, NULL};
	Datum value = Int64GetDatum(id);
	bool isnull;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	if (DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)) <
		lanes)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("this mapping cannot be shared out among lanes"),
				 errdetail("Files, and rows that are appended in their order, have one lane; "
						   "so has a key of whose type two texts may be one _id."),
				 errhint("Use lanes => 1.")));
}

/* A decoder, the lanes of each pair of server and owner, and one for indexes while there are any. */
void
plinth_sync_new_require_workers(void)
{
	static PlinthPlan plan = {
		"SELECT sum(n)::bigint FROM (SELECT max(lanes) AS n FROM plinth.sync_mappings"
		"                             GROUP BY server_name, owner) AS p",
		0,
		{0},
		NULL};
	static PlinthPlan indexes = {"SELECT FROM plinth.sync_indexes LIMIT 1", 0, {0}, NULL};
	bool isnull;
	int lanes;

	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	lanes = (int) DatumGetInt64(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	plinth_base_spi_execute(&indexes, NULL, NULL, false, SPI_OK_SELECT);
	plinth_worker_require(1 + lanes + (int) SPI_processed);
}

void
plinth_sync_new_begin(PlinthSyncNew *arg, PlinthSyncApi *api)
{
	plinth_sync_api_begin(api);
	LockRelationOid(get_relname_relid("sync_mappings", plinth_base_schema_oid()),
					ShareRowExclusiveLock);
	/* What others committed counts, whatever this transaction may see. */
	PushActiveSnapshot(GetLatestSnapshot());
	plinth_sync_check_target(arg->server, arg->collection);
	check_name_free(arg->name);
	check_lane_free(arg);
	PopActiveSnapshot();
}

int64
plinth_sync_new_insert(PlinthSyncNew *arg)
{
	int64 id = insert_mapping(arg);

	if (arg->lanes > 1)
		check_lanes(id, arg->lanes);
	release_mapping(id, arg);
	plinth_sync_indexes_declare(id, "", true, arg->indexes);
	return id;
}

void
plinth_sync_new_end(PlinthSyncNew *arg, PlinthSyncApi *api)
{
	plinth_sync_new_require_workers();
	plinth_worker_bind();
	plinth_sync_api_end(api);
	relation_close(arg->rel, NoLock);
}
