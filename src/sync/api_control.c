/*
 * api_control.c
 *		What can be asked of a mapping that exists: drop, pause, resume, resync,
 *		retry, adopt.
 *
 * Each only writes down what is to be done; the lanes do it.  A request that
 * rolls back was never made.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "decode/decode.h"
#include "sync/api_int.h"
#include "sync/sync_int.h"

extern PGDLLEXPORT Datum plinth_sync_drop(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_pause(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_resume(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_resync(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_retry(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_adopt(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_adopt_all(PG_FUNCTION_ARGS);

/* Runs a statement whose $1 is the mapping's id, as plinth_owner. */
static void
execute_for(PlinthPlan *plan, int64 id, int expect)
{
	Datum values[1];

	values[0] = Int64GetDatum(id);
	plinth_base_spi_execute(plan, values, NULL, false, expect);
}

PG_FUNCTION_INFO_V1(plinth_sync_drop);
Datum
plinth_sync_drop(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {"DELETE FROM plinth.sync_mappings WHERE id = $1", 1, {INT8OID}, NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	execute_for(&plan, target.id, SPI_OK_DELETE);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

static void
set_paused(const char *name, bool paused)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_mappings SET paused = $2 WHERE id = $1", 2, {INT8OID, BOOLOID}, NULL};
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;
	Datum values[2];

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	values[0] = Int64GetDatum(target.id);
	values[1] = BoolGetDatum(paused);
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
	plinth_sync_api_end(&api);
}

PG_FUNCTION_INFO_V1(plinth_sync_pause);
Datum
plinth_sync_pause(PG_FUNCTION_ARGS)
{
	set_paused(plinth_sync_api_text_required(fcinfo, 0, "name"), true);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(plinth_sync_resume);
Datum
plinth_sync_resume(PG_FUNCTION_ARGS)
{
	set_paused(plinth_sync_api_text_required(fcinfo, 0, "name"), false);
	PG_RETURN_VOID();
}

/*
 * Everything again: what stands in the table, and what stands in the
 * collection.  The two tasks replace those that were under way.
 */
static void
add_tasks(int64 id, Oid relation)
{
	static PlinthPlan forget = {
		"DELETE FROM plinth.sync_tasks WHERE mapping_id = $1", 1, {INT8OID}, NULL};
	static PlinthPlan revive = {
		"DELETE FROM plinth.sync_dead_letters WHERE mapping_id = $1", 1, {INT8OID}, NULL};
	static PlinthPlan add = {"INSERT INTO plinth.sync_tasks (mapping_id, kind, relation, total)"
							 " VALUES ($1, 'snapshot', $2, plinth._sync_rows($2))",
							 2,
							 {INT8OID, OIDOID},
							 NULL};
	static PlinthPlan sweep = {"INSERT INTO plinth.sync_tasks (mapping_id, kind, relation)"
							   " SELECT id, 'sweep', $2 FROM plinth.sync_mappings"
							   "  WHERE id = $1 AND kind <> 'append'",
							   2,
							   {INT8OID, OIDOID},
							   NULL};
	Datum values[2];

	execute_for(&forget, id, SPI_OK_DELETE);
	execute_for(&revive, id, SPI_OK_DELETE);
	values[0] = Int64GetDatum(id);
	values[1] = ObjectIdGetDatum(relation);
	plinth_base_spi_execute(&add, values, NULL, false, SPI_OK_INSERT);
	plinth_base_spi_execute(&sweep, values, NULL, false, SPI_OK_INSERT);
}

/* One key value as its type writes it; an ERROR when it is none. */
static char *
canonical_value(Oid relation, AttrNumber attnum, char *value)
{
	Oid type;
	int32 typmod;
	Oid collation;
	Oid function;
	Oid param;
	bool varlena;
	Datum datum;

	if (!OidIsValid(get_atttype(relation, attnum)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("a column of the mapping's key does not exist any more"),
						errhint("Drop the mapping by plinth.sync_drop(), and make it again.")));
	get_atttypetypmodcoll(relation, attnum, &type, &typmod, &collation);
	getTypeInputInfo(type, &function, &param);
	datum = OidInputFunctionCall(function, value, param, typmod);
	getTypeOutputInfo(type, &function, &varlena);
	return OidOutputFunctionCall(function, datum);
}

/*
 * A key as it was passed (a value, or for several columns an array literal) to
 * what sync_dirty holds.
 */
static char *
canonical_key(const PlinthSyncTarget *target, Datum key)
{
	Datum *parts = &key;
	bool *nulls;
	int nparts = 1;
	bool complete = true;
	StringInfoData strings;

	if (target->nkeys > 1)
	{
		Datum array = OidInputFunctionCall(F_ARRAY_IN, TextDatumGetCString(key), TEXTOID, -1);

		deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT, &parts,
						  &nulls, &nparts);
		for (int i = 0; i < nparts; i++)
			complete &= !nulls[i];
	}
	if (nparts != target->nkeys || !complete)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("key \"%s\" does not have %d values", TextDatumGetCString(key),
							   target->nkeys),
						errhint("Write a key of several columns as an array literal, such as "
								"'{1,a}'.")));
	initStringInfo(&strings);
	for (int i = 0; i < target->nkeys; i++)
	{
		char *value = canonical_value(target->relation, target->key_attnums[i],
									  TextDatumGetCString(parts[i]));

		appendBinaryStringInfo(&strings, value, strlen(value) + 1);
	}
	return plinth_sync_key_literal(target->nkeys, strings.data, strings.len);
}

/*
 * Checks keys and writes them as the tables hold them.  Domains run code of
 * the table's owner: so this runs as that role, in a restricted context.
 */
static Datum
canonical_keys(const PlinthSyncTarget *target, ArrayType *keys)
{
	Oid userid;
	int sec_context;
	int nestlevel = NewGUCNestLevel();
	Datum *values;
	bool *nulls;
	int n;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(target->owner, sec_context | SECURITY_RESTRICTED_OPERATION |
											  SECURITY_LOCAL_USERID_CHANGE);
	plinth_base_plain_settings();
	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("keys must not contain NULL"),
					 errhint("Pass keys as texts, or no keys at all for every row.")));
		values[i] = CStringGetTextDatum(canonical_key(target, values[i]));
	}
	/* What a domain's constraint set must not stay with our caller. */
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* A key that was sent before is suspect: that write may still land, after the next one. */
void
plinth_sync_api_mark(int64 mapping, Datum literals)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_dirty AS d (mapping_id, key, lane)"
		" SELECT DISTINCT $1, k, plinth._sync_lane(k, plinth._sync_lanes($1)) FROM unnest($2) AS k"
		" ON CONFLICT (mapping_id, md5(key)) DO UPDATE SET due_at = '-infinity', zombie_stage = 0,"
		" attempts = 0, sent_at = NULL, lane = excluded.lane,"
		" suspect = d.suspect OR d.zombie_stage > 0 OR d.sent_at IS NOT NULL",
		2,
		{INT8OID, TEXTARRAYOID},
		NULL};
	Datum values[2];

	values[0] = Int64GetDatum(mapping);
	values[1] = literals;
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT);
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
}

/* Whatever stopped it is looked at anew; a slot that was lost is made again. */
static void
resync_everything(const PlinthSyncTarget *target)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_states SET blocked = NULL, blocked_hint = NULL, blocked_at = NULL,"
		" resyncing = true, promoted = false WHERE mapping_id = $1",
		1,
		{INT8OID},
		NULL};

	/* First: a loss that is noticed only now blocks every mapping. */
	(void) plinth_decode_request_slot();
	add_tasks(target->id, target->relation);
	execute_for(&plan, target->id, SPI_OK_UPDATE);
}

PG_FUNCTION_INFO_V1(plinth_sync_resync);
Datum
plinth_sync_resync(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	ArrayType *keys = PG_ARGISNULL(1) ? NULL : PG_GETARG_ARRAYTYPE_P(1);
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(target.relation)))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("the table of sync mapping \"%s\" does not exist any more", name),
						errhint("SELECT plinth.sync_drop(%s);", quote_literal_cstr(name))));
	if (keys == NULL)
		resync_everything(&target);
	else
		plinth_sync_api_mark(target.id, canonical_keys(&target, keys));
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(plinth_sync_retry);
Datum
plinth_sync_retry(PG_FUNCTION_ARGS)
{
	static PlinthPlan find = {
		"SELECT l.mapping_id, l.key, m.owner::oid, m.name FROM plinth.sync_dead_letters l"
		" JOIN plinth.sync_mappings m ON m.id = l.mapping_id WHERE l.id = $1"
		" FOR UPDATE OF l FOR KEY SHARE OF m",
		1,
		{INT8OID},
		NULL};
	static PlinthPlan remove = {
		"DELETE FROM plinth.sync_dead_letters WHERE id = $1", 1, {INT8OID}, NULL};
	Oid caller = GetUserId();
	PlinthSyncApi api;
	HeapTuple tuple;
	TupleDesc desc;
	int64 mapping;
	Datum key;
	bool isnull;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("dead_letter must not be null"),
				 errhint("Pass an id from plinth.sync_dead_letters.")));
	plinth_sync_api_begin(&api);
	execute_for(&find, PG_GETARG_INT64(0), SPI_OK_SELECT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("dead letter %lld does not exist", (long long) PG_GETARG_INT64(0)),
						errhint("SELECT id FROM plinth.sync_dead_letters; lists yours.")));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	plinth_sync_api_require(caller, DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &isnull)),
							SPI_getvalue(tuple, desc, 4));
	mapping = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	key = SPI_getbinval(tuple, desc, 2, &isnull);
	plinth_sync_api_mark(
		mapping, PointerGetDatum(construct_array(&key, 1, TEXTOID, -1, false, TYPALIGN_INT)));
	execute_for(&remove, PG_GETARG_INT64(0), SPI_OK_DELETE);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

/*
 * Takes over what a server's mappings deliver to, whoever delivered before,
 * and makes both sides equal again.
 */
static void
adopt_mapping(int64 id, Oid relation)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_states AS s (mapping_id, adopting) VALUES ($1, true)"
		" ON CONFLICT (mapping_id) DO UPDATE SET blocked = NULL, blocked_hint = NULL,"
		" blocked_at = NULL, adopting = true, promoted = false, prepared = false, fence_epoch = s.fence_epoch + 1",
		1,
		{INT8OID},
		NULL};

	execute_for(&plan, id, SPI_OK_INSERT);
	add_tasks(id, relation);
}

/* Adopts the mappings of one server, or all of them (NULL).  As plinth_owner. */
static uint64
adopt_mappings(const char *server, Oid caller)
{
	static PlinthPlan plan = {"SELECT id, relation::oid, owner::oid, name FROM plinth.sync_mappings"
							  " WHERE server_name = $1 OR $1 IS NULL ORDER BY id FOR NO KEY UPDATE",
							  1,
							  {NAMEOID},
							  NULL};
	NameData name;
	Datum values[1];
	SPITupleTable *table;
	uint64 n;
	bool isnull;

	namestrcpy(&name, server == NULL ? "" : server);
	values[0] = NameGetDatum(&name);
	plinth_base_spi_execute(&plan, values, server == NULL ? "n" : NULL, false, SPI_OK_SELECT);
	table = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		plinth_sync_api_require(
			caller, DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 3, &isnull)),
			SPI_getvalue(table->vals[i], table->tupdesc, 4));
	/* First: a loss that is noticed only now blocks every mapping. */
	if (n > 0)
		(void) plinth_decode_request_slot();
	for (uint64 i = 0; i < n; i++)
		adopt_mapping(DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)),
					  DatumGetObjectId(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull)));
	return n;
}

PG_FUNCTION_INFO_V1(plinth_sync_adopt);
Datum
plinth_sync_adopt(PG_FUNCTION_ARGS)
{
	Oid caller = GetUserId();
	PlinthSyncApi api;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("server must not be null"),
						errhint("Pass the name of a server of mongodb_fdw.")));
	plinth_sync_api_begin(&api);
	plinth_sync_api_require_adopted();
	if (adopt_mappings(NameStr(*PG_GETARG_NAME(0)), caller) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no table is synced to server \"%s\"", NameStr(*PG_GETARG_NAME(0))),
				 errhint("SELECT DISTINCT server_name FROM plinth.sync_mappings; lists yours.")));
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}

/*
 * plinth.adopt(): binds the database, then adopts every mapping.  Other rooms
 * that deliver outside look at the binding alone.
 */
PG_FUNCTION_INFO_V1(plinth_sync_adopt_all);
Datum
plinth_sync_adopt_all(PG_FUNCTION_ARGS)
{
	static PlinthPlan bind = {"SELECT plinth._bind()", 0, {0}, NULL};
	Oid caller = GetUserId();
	PlinthSyncApi api;

	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&bind, NULL, NULL, false, SPI_OK_SELECT);
	(void) adopt_mappings(NULL, caller);
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}
