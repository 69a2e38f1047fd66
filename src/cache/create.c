/*
 * create.c
 *		Creating, altering and dropping caches.
 *
 * The table is written as plinth_owner; its triggers do the rest.
 */
#include "postgres.h"

#include "cache/define.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/* Arguments of cache_create and cache_alter from the second on, in this order. */
enum
{
	ARG_NAME,
	ARG_TTL,
	ARG_MAX_BYTES,
	ARG_PER_USER,
	ARG_DURABLE,
	ARG_OVERFLOW,
	ARG_JITTER,
	ARG_STALE_TTL,
	ARG_MAX_VALUE_BYTES,
	ARG_ROLES,
	ARG_WARM,
	ARG_OWNER,
	ARG_ENABLED = ARG_OWNER
};

PGDLLEXPORT Datum plinth_cache_create(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_alter(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_drop(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_create);
PG_FUNCTION_INFO_V1(plinth_cache_alter);
PG_FUNCTION_INFO_V1(plinth_cache_drop);

static void
invalid(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message), errhint("%s", hint)));
}

/* Each role must exist, so that a misspelt one is not found out later. */
static void
check_roles(ArrayType *array)
{
	Datum *names;
	bool *nulls;
	int n;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			invalid("a role is null", "Leave it out.");
		if (strcmp(NameStr(*DatumGetName(names[i])), "public") != 0)
			(void) get_role_oid(NameStr(*DatumGetName(names[i])), false);
	}
}

/* What the arguments given must be, whether for a new cache or an old one. */
static void
check_arguments(FunctionCallInfo fcinfo, bool create)
{
	if (!PG_ARGISNULL(ARG_TTL))
		(void) plinth_cache_interval(PG_GETARG_INTERVAL_P(ARG_TTL), "ttl", !create);
	if (!PG_ARGISNULL(ARG_STALE_TTL))
		(void) plinth_cache_interval(PG_GETARG_INTERVAL_P(ARG_STALE_TTL), "stale_ttl", true);
	if (!PG_ARGISNULL(ARG_MAX_BYTES) && PG_GETARG_INT64(ARG_MAX_BYTES) <= 0)
		invalid("max_bytes must be greater than zero", "It is the size of the whole cache.");
	if (!PG_ARGISNULL(ARG_MAX_VALUE_BYTES) && PG_GETARG_INT32(ARG_MAX_VALUE_BYTES) <= 0)
		invalid("max_value_bytes must be greater than zero", "It bounds a single value.");
	if (!PG_ARGISNULL(ARG_JITTER) &&
		!(PG_GETARG_FLOAT4(ARG_JITTER) >= 0 && PG_GETARG_FLOAT4(ARG_JITTER) <= 1))
		invalid("jitter must be between 0 and 1",
				"0.1 shortens each time to live by up to a tenth.");
	if (!PG_ARGISNULL(ARG_ROLES))
		check_roles(PG_GETARG_ARRAYTYPE_P(ARG_ROLES));
}

/* Whoever may create schemas in the database may create caches in it. */
static void
require_may_create(void)
{
	Datum may = DirectFunctionCall2(has_database_privilege_id, ObjectIdGetDatum(MyDatabaseId),
									CStringGetTextDatum("CREATE"));

	if (!DatumGetBool(may) && !has_privs_of_role(GetUserId(), get_role_oid("plinth_admin", false)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to create a cache"),
				 errhint("GRANT CREATE ON DATABASE to the role that owns the application, or "
						 "make it a member of plinth_admin.")));
}

/* The arguments as those of a plan. */
static void
gather(FunctionCallInfo fcinfo, int n, Datum *values, char *nulls)
{
	for (int i = 0; i < n; i++)
	{
		values[i] = fcinfo->args[i].value;
		nulls[i] = fcinfo->args[i].isnull ? 'n' : ' ';
	}
}

#define ARG_TYPES                                                                                  \
	TEXTOID, INTERVALOID, INT8OID, BOOLOID, BOOLOID, BOOLOID, FLOAT4OID, INTERVALOID, INT4OID,     \
		NAMEARRAYOID, TEXTOID

Datum
plinth_cache_create(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		.sql = "INSERT INTO plinth.caches (name, ttl, max_bytes, per_user, durable, overflow, "
			   "jitter, stale_ttl, max_value_bytes, roles, warm, owner) "
			   "VALUES ($1, $2, coalesce($3, 16777216), coalesce($4, true), coalesce($5, false), "
			   "coalesce($6, false), coalesce($7, 0), coalesce($8, interval '0'), "
			   "coalesce($9, least(coalesce($3, 16777216), 1048576)::int4), "
			   "coalesce($10, '{}'), nullif($11, ''), $12::pg_catalog.regrole) "
			   "ON CONFLICT (name) DO NOTHING",
		.nargs = 12,
		.argtypes = {ARG_TYPES, OIDOID},
	};
	Datum values[12];
	char nulls[12];
	text *name = plinth_cache_text_required(fcinfo, ARG_NAME, "name");
	PlinthAsOwner owner;

	require_may_create();
	check_arguments(fcinfo, true);
	if (VARSIZE_ANY_EXHDR(name) == 0 || VARSIZE_ANY_EXHDR(name) >= NAMEDATALEN)
		invalid("the name of a cache has 1 to 63 bytes", "Give it another name.");
	if (!PG_ARGISNULL(ARG_WARM) && (PG_ARGISNULL(ARG_PER_USER) || PG_GETARG_BOOL(ARG_PER_USER)))
		invalid("a cache that is per user cannot be warmed", "Create it with per_user => false.");
	if (!PG_ARGISNULL(ARG_DURABLE) && PG_GETARG_BOOL(ARG_DURABLE) && !PG_ARGISNULL(ARG_OVERFLOW) &&
		PG_GETARG_BOOL(ARG_OVERFLOW))
		invalid("a durable cache has its table already", "Leave out overflow.");
	gather(fcinfo, ARG_OWNER, values, nulls);
	values[ARG_OWNER] = ObjectIdGetDatum(GetUserId());
	nulls[ARG_OWNER] = ' ';

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_INSERT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("cache \"%s\" exists already", text_to_cstring(name)),
						errhint("Use plinth.cache_alter.")));
	plinth_base_owner_end(&owner);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
plinth_cache_alter(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		.sql = "UPDATE plinth.caches SET "
			   "ttl = CASE WHEN $2 = interval '0' THEN NULL ELSE coalesce($2, ttl) END, "
			   "max_bytes = coalesce($3, max_bytes), per_user = coalesce($4, per_user), "
			   "durable = coalesce($5, durable), overflow = coalesce($6, overflow), "
			   "jitter = coalesce($7, jitter), stale_ttl = coalesce($8, stale_ttl), "
			   "max_value_bytes = coalesce($9, max_value_bytes), roles = coalesce($10, roles), "
			   "warm = CASE WHEN $11 = '' THEN NULL ELSE coalesce($11, warm) END, "
			   "enabled = coalesce($12, enabled), updated_at = now() WHERE name = $1",
		.nargs = 12,
		.argtypes = {ARG_TYPES, BOOLOID},
	};
	PlinthCacheDef def;
	Datum values[12];
	char nulls[12];
	PlinthAsOwner owner;

	plinth_cache_use(plinth_cache_text_required(fcinfo, ARG_NAME, "name"), PLINTH_CACHE_MANAGE,
					 &def);
	check_arguments(fcinfo, false);
	gather(fcinfo, 12, values, nulls);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_UPDATE);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PG_RETURN_VOID();
}

Datum
plinth_cache_drop(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {
		.sql = "DELETE FROM plinth.caches WHERE id = $1", .nargs = 1, .argtypes = {INT4OID}};
	PlinthCacheDef def;
	Datum value;
	PlinthAsOwner owner;

	plinth_cache_use(plinth_cache_text_required(fcinfo, 0, "name"), PLINTH_CACHE_MANAGE, &def);
	value = Int32GetDatum(def.id);
	(void) plinth_cache_watch_drop(def.id, InvalidOid);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_DELETE);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PG_RETURN_VOID();
}
