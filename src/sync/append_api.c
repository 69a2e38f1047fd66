/*
 * append_api.c
 *		sync_append(): says that a table's new rows are added to a collection.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "sync/append_int.h"
#include "sync/create.h"
#include "sync/index_int.h"

extern PGDLLEXPORT Datum plinth_sync_append(PG_FUNCTION_ARGS);

/* How the collection is kept from growing without end. */
typedef struct Bounds
{
	char *field; /* of the documents: a date */
	int64 seconds;
	int64 bytes; /* 0: not capped */
	int64 documents;
} Bounds;

static int64
positive(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		return 0;
	if (PG_GETARG_INT64(argument) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be above 0", name),
				 errhint("Pass NULL for a collection that is not capped.")));
	return PG_GETARG_INT64(argument);
}

static int64
interval_seconds(const Interval *interval)
{
	double seconds = interval->day * 86400.0 + interval->time / (double) USECS_PER_SEC;

	if (interval->month != 0 || !(seconds >= 1 && seconds <= PG_INT32_MAX))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("expire_after must be from 1 second to %d days",
							   PG_INT32_MAX / SECS_PER_DAY),
						errhint("Write it in days or less: months differ in length.")));
	return (int64) floor(seconds);
}

static void
read_bounds(FunctionCallInfo fcinfo, Bounds *bounds)
{
	bounds->field = plinth_sync_api_text(fcinfo, 14);
	bounds->seconds = PG_ARGISNULL(15) ? 0 : interval_seconds(PG_GETARG_INTERVAL_P(15));
	bounds->bytes = positive(fcinfo, 16, "capped_bytes");
	bounds->documents = positive(fcinfo, 17, "capped_documents");
	if ((bounds->field == NULL) != (bounds->seconds == 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("expire_field and expire_after go together"),
						errhint("Pass the documents' field that says when they were made, and "
								"how long after that they are to go.")));
	if (bounds->documents > 0 && bounds->bytes == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("capped_documents needs capped_bytes"),
						errhint("MongoDB bounds a capped collection by bytes, and by documents "
								"within these.")));
	if (bounds->seconds > 0 && bounds->bytes > 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("documents of a capped collection do not expire"),
						errhint("Pass expire_after or capped_bytes, not both.")));
}

static void
read_arguments(FunctionCallInfo fcinfo, PlinthSyncNew *arg)
{
	arg->kind = "append";
	plinth_sync_new_of_table(fcinfo, arg);
	if (strcmp(arg->on_existing, "replace") == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a collection that is appended to is not replaced"),
						errhint("Pass 'keep' to add to what is there, or 'error'.")));
	arg->indexes = plinth_sync_api_text(fcinfo, 13);
}

/* Only dates expire: that a TTL index is on something else MongoDB does not say. */
static void
check_expires(int64 id, const char *field)
{
	static PlinthPlan plan = {
		"SELECT coalesce(m.fields ->> a.attname, a.attname::text),"
		"       m.field_names = 'camelCase' AND NOT m.fields ? a.attname::text"
		"  FROM plinth.sync_mappings m JOIN pg_catalog.pg_attribute a"
		"    ON a.attrelid = m.relation AND a.attnum > 0 AND NOT a.attisdropped"
		" WHERE m.id = $1 AND (m.casts ->> a.attname IN ('date', 'micros') OR"
		"       (NOT m.casts ? a.attname::text AND"
		"        a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)))",
		1,
		{INT8OID},
		NULL};
	Datum value = Int64GetDatum(id);

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		bool isnull;

		if (DatumGetBool(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull)))
			name = plinth_sync_camel_case(name);
		if (strcmp(name, field) == 0)
			return;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("expire_field \"%s\" is no date of the documents", field),
					errhint("Name the field of a column of type timestamptz, timestamp or date, "
							"as it is called in the documents.")));
}

void
plinth_sync_append_expires_by_dates(int64 mapping)
{
	static PlinthPlan plan = {
		"SELECT k.key FROM plinth.sync_indexes AS i, json_object_keys(coalesce(i.definition -> 'keys', i.definition -> 'key')) AS k (key)"
		" WHERE i.mapping_id = $1 AND i.definition ->> 'expireAfterSeconds' IS NOT NULL AND i.state <> 'dropping'",
		1,
		{INT8OID},
		NULL};
	Datum value = Int64GetDatum(mapping);
	SPITupleTable *found;
	uint64 n;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	found = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		check_expires(mapping, SPI_getvalue(found->vals[i], found->tupdesc, 1));
}

static void
store_bounds(int64 id, const Bounds *bounds)
{
	static PlinthPlan plan = {"UPDATE plinth.sync_mappings SET capped_bytes = nullif($2, 0),"
							  "       capped_documents = nullif($3, 0) WHERE id = $1",
							  3,
							  {INT8OID, INT8OID, INT8OID},
							  NULL};
	Datum values[3] = {Int64GetDatum(id), Int64GetDatum(bounds->bytes),
					   Int64GetDatum(bounds->documents)};
	StringInfoData json;

	if (bounds->bytes > 0)
		plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
	if (bounds->seconds == 0)
		return;
	check_expires(id, bounds->field);
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"keys\": {");
	escape_json(&json, bounds->field);
	appendStringInfo(&json, ": 1}, \"expireAfterSeconds\": " INT64_FORMAT "}", bounds->seconds);
	plinth_sync_indexes_declare(id, "", true, json.data);
}

PG_FUNCTION_INFO_V1(plinth_sync_append);
Datum
plinth_sync_append(PG_FUNCTION_ARGS)
{
	PlinthSyncNew arg = {0};
	Bounds bounds = {0};
	PlinthSyncApi api;
	int64 id;

	read_arguments(fcinfo, &arg);
	read_bounds(fcinfo, &bounds);
	plinth_sync_new_check_table(&arg);

	plinth_sync_new_begin(&arg, &api);
	id = plinth_sync_new_insert(&arg);
	store_bounds(id, &bounds);
	plinth_sync_new_end(&arg, &api);
	PG_RETURN_INT64(id);
}
