/*
 * index_api.c
 *		sync_index() and sync_index_drop(), and the indexes that are declared
 *		with a mapping.
 *
 * All of it only writes to sync_indexes; index_worker.c does it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "sync/api_int.h"
#include "sync/index_int.h"

extern PGDLLEXPORT Datum plinth_sync_index(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_index_drop(PG_FUNCTION_ARGS);

/* The fields that a mapping's documents have, C strings; NIL where only its query knows. */
static List *
list_fields(int64 mapping)
{
	static PlinthPlan plan = {
		"SELECT coalesce(m.fields ->> a.attname, a.attname::text),"
		"       m.field_names = 'camelCase' AND NOT m.fields ? a.attname::text,"
		"       m.casts ->> a.attname = 'micros'"
		"  FROM plinth.sync_mappings m JOIN pg_catalog.pg_attribute a"
		"    ON a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped"
		" WHERE m.id = $1 AND m.query IS NULL AND (a.attname = ANY (m.columns) OR m.fields ? a.attname::text"
		"       OR (m.columns IS NULL AND a.attname <> ALL (m.key_columns)))"
		" ORDER BY a.attnum",
		1,
		{INT8OID},
		NULL};
	Datum value = Int64GetDatum(mapping);
	List *fields = NIL;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		char *field = SPI_getvalue(tuple, desc, 1);
		bool isnull;

		if (DatumGetBool(SPI_getbinval(tuple, desc, 2, &isnull)))
			field = plinth_sync_camel_case(field);
		fields = lappend(fields, field);
		if (DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull)) && !isnull)
			fields = lappend(fields, psprintf("%sMicros", field));
	}
	return fields == NIL ? NIL : lcons("_id", fields);
}

static bool
has_field(List *fields, const char *name)
{
	ListCell *lc;

	foreach (lc, fields)
	{
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

static void
check_fields(const PlinthMongoIndex *index, List *fields)
{
	StringInfoData all;
	ListCell *lc;

	initStringInfo(&all);
	foreach (lc, fields)
		appendStringInfo(&all, "%s%s", all.len > 0 ? ", " : "", (char *) lfirst(lc));
	for (int i = 0; fields != NIL && i < index->nfields; i++)
	{
		if (!has_field(fields, index->fields[i]))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("index \"%s\" is on field \"%s\", which the documents do not have",
							index->name, index->fields[i]),
					 errhint("They have: %s.", all.data)));
	}
}

/* Declared anew, it is looked at anew. */
static void
store(int64 mapping, const char *suffix, const PlinthMongoIndex *index, bool rebuild)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_indexes AS i"
		"       (mapping_id, suffix, name, definition, build, rebuild)"
		" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (mapping_id, suffix, name) DO UPDATE"
		" SET definition = excluded.definition, build = excluded.build, state = 'waiting',"
		"     reason = NULL, hint = NULL, attempts = 0, due_at = '-infinity',"
		"     rebuild = excluded.rebuild",
		6,
		{INT8OID, TEXTOID, TEXTOID, JSONOID, TEXTOID, BOOLOID},
		NULL};
	Datum values[6] = {Int64GetDatum(mapping),
					   CStringGetTextDatum(suffix),
					   CStringGetTextDatum(index->name),
					   CStringGetTextDatum(index->json),
					   CStringGetTextDatum(index->after ? "after" : "before"),
					   BoolGetDatum(rebuild)};

	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_INSERT);
}

void
plinth_sync_indexes_declare(int64 mapping, const char *suffix, bool checked, const char *json)
{
	int n;
	PlinthMongoIndex **indexes;
	List *fields;

	if (json == NULL)
		return;
	indexes = plinth_mongo_indexes_parse(json, &n);
	fields = checked ? list_fields(mapping) : NIL;
	for (int i = 0; i < n; i++)
	{
		check_fields(indexes[i], fields);
		store(mapping, suffix, indexes[i], false);
	}
}

bool
plinth_sync_indexes_pending(int64 mapping)
{
	static PlinthPlan plan = {"SELECT FROM plinth.sync_indexes WHERE mapping_id = $1"
							  " AND build = 'before' AND state IN ('waiting', 'building') LIMIT 1",
							  1,
							  {INT8OID},
							  NULL};
	Datum value = Int64GetDatum(mapping);
	bool pending;

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	pending = SPI_processed > 0;
	SPI_finish();
	return pending;
}

void
plinth_sync_indexes_doubt(int64 mapping)
{
	static PlinthPlan plan = {"UPDATE plinth.sync_indexes SET due_at = '-infinity', attempts = 0"
							  " WHERE mapping_id = $1",
							  1,
							  {INT8OID},
							  NULL};
	Datum value = Int64GetDatum(mapping);

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_UPDATE);
	SPI_finish();
}

void
plinth_sync_indexes_fit(int64 mapping)
{
	static PlinthPlan plan = {
		"SELECT definition FROM plinth.sync_indexes WHERE mapping_id = $1 AND suffix = ''"
		"   AND state <> 'dropping' ORDER BY name",
		1,
		{INT8OID},
		NULL};
	Datum value = Int64GetDatum(mapping);
	List *fields = list_fields(mapping);
	SPITupleTable *found;
	uint64 n;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	found = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		int one;
		PlinthMongoIndex **index =
			plinth_mongo_indexes_parse(SPI_getvalue(found->vals[i], found->tupdesc, 1), &one);

		check_fields(index[0], fields);
	}
}

PG_FUNCTION_INFO_V1(plinth_sync_index);
Datum
plinth_sync_index(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	char *json = plinth_sync_api_text_required(fcinfo, 1, "index");
	bool rebuild = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;
	PlinthMongoIndex **indexes;
	int n;

	indexes = plinth_mongo_indexes_parse(json, &n);
	if (n != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("index must be one declaration, not %d", n),
						errhint("Call plinth.sync_index() once for each index.")));
	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	check_fields(indexes[0], list_fields(target.id));
	store(target.id, "", indexes[0], rebuild);
	plinth_sync_api_end(&api);
	PG_RETURN_TEXT_P(cstring_to_text(indexes[0]->name));
}

PG_FUNCTION_INFO_V1(plinth_sync_index_drop);
Datum
plinth_sync_index_drop(PG_FUNCTION_ARGS)
{
	static PlinthPlan forget = {
		"DELETE FROM plinth.sync_indexes WHERE mapping_id = $1 AND suffix = '' AND name = $2",
		2,
		{INT8OID, TEXTOID},
		NULL};
	static PlinthPlan drop = {
		"UPDATE plinth.sync_indexes SET state = 'dropping', reason = NULL, hint = NULL,"
		"       attempts = 0, due_at = '-infinity', rebuild = false"
		" WHERE mapping_id = $1 AND suffix = '' AND name = $2",
		2,
		{INT8OID, TEXTOID},
		NULL};
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	char *index = plinth_sync_api_text_required(fcinfo, 1, "index");
	bool forgets = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Oid caller = GetUserId();
	PlinthSyncTarget target;
	PlinthSyncApi api;
	Datum values[2];

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &target);
	values[0] = Int64GetDatum(target.id);
	values[1] = CStringGetTextDatum(index);
	plinth_base_spi_execute(forgets ? &forget : &drop, values, NULL, false, 0);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sync mapping \"%s\" declares no index \"%s\"", name, index),
				 errhint("SELECT name, index FROM plinth.stat_sync_indexes; lists yours. An index "
						 "that was not declared here is not dropped from here.")));
	plinth_sync_api_end(&api);
	PG_RETURN_VOID();
}
