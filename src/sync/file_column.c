/*
 * file_column.c
 *		sync_file(): a bytea column as files of a bucket.
 *
 * A trigger on the table writes what the column holds as a file, by the row's
 * key as its name, in the transaction that changes the row: so versions, their
 * grace and the order in which chunks and files come are those of any bucket.
 * The trigger knows its columns by plinth.file_columns alone, which only
 * sync_file writes: whoever makes such a trigger by hand reaches nothing.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "sync/create.h"
#include "sync/file_int.h"

#define ROWS_AT_ONCE 4

extern PGDLLEXPORT Datum plinth_sync_file_column(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum plinth_sync_file_changed(PG_FUNCTION_ARGS);

typedef struct FileColumn
{
	PlinthSyncBucket bucket;
	AttrNumber attnum;
	int nkeys;
	AttrNumber key[PLINTH_SYNC_MAX_KEYS];
	char *content_type;
} FileColumn;

/* A row's key as the name of its file. */
static char *
name_of(const FileColumn *column, HeapTuple tuple, TupleDesc desc)
{
	StringInfoData key;

	initStringInfo(&key);
	for (int i = 0; i < column->nkeys; i++)
	{
		char *text = SPI_getvalue(tuple, desc, column->key[i]);

		/* The key may have lost its constraint since. */
		if (text == NULL)
			ereport(ERROR, (errcode(ERRCODE_NOT_NULL_VIOLATION),
							errmsg("a row whose key is null has no name for its file"),
							errhint("Give it a key, or remove the bucket by "
									"plinth.file_bucket_drop().")));
		if (column->nkeys == 1)
			return text;
		appendBinaryStringInfo(&key, text, strlen(text) + 1);
	}
	return plinth_sync_key_literal(column->nkeys, key.data, key.len);
}

/* Between begin and end. */
static void
store_value(const FileColumn *column, char *name, Datum value)
{
	PlinthSyncFile file = {0};
	Size most = (Size) plinth_setting_sync_file_max * 1024;
	Size len = toast_raw_datum_size(value) - VARHDRSZ;
	bytea *data;

	if (len > most)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a value of %zu bytes is more than plinth.sync_file_max", len),
				 errhint("Raise the setting, or write large files by plinth.file_append().")));
	file.filename = name;
	file.content_type = column->content_type;
	data = DatumGetByteaPP(value);
	plinth_sync_file_store(&column->bucket, &file, data);
}

static AttrNumber
place_of(TupleDesc desc, const char *name)
{
	int place = SPI_fnumber(desc, name);

	if (place <= 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\", which plinth.sync_file() copies, was renamed or dropped", name),
			 errhint("Undo that, or remove the bucket by plinth.file_bucket_drop().")));
	return place;
}

/* By its name there may be a column of another type now. */
static AttrNumber
bytes_place_of(TupleDesc desc, const char *name)
{
	AttrNumber place = place_of(desc, name);

	if (getBaseType(SPI_gettypeid(desc, place)) != BYTEAOID)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("column \"%s\", which plinth.sync_file() copies, is not of type bytea any more",
					name),
			 errhint("Undo that, or remove the bucket by plinth.file_bucket_drop().")));
	return place;
}

/* Who had the table before would read what others write now. */
static void
check_owner(Oid relation, Oid owner)
{
	Relation rel = relation_open(relation, AccessShareLock);

	if (rel->rd_rel->relowner != owner)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table \"%s\", of which plinth.sync_file() copies a column, has another "
						"owner now",
						RelationGetRelationName(rel)),
				 errhint("Drop its triggers plinth_file and plinth_file_all, and call "
						 "plinth.sync_file() with a bucket of another name.")));
	relation_close(rel, NoLock);
}

/* The columns of a table that are files (FileColumn *), in rows of this shape; between begin and end. */
static List *
load_columns(Oid relation, TupleDesc shape)
{
	static PlinthPlan plan = {
		"SELECT c.bucket_id, c.column_name::text, c.key_columns, c.content_type, b.owner::oid"
		"  FROM plinth.file_columns AS c JOIN plinth.file_buckets AS b ON b.id = c.bucket_id"
		" WHERE c.relation = $1 ORDER BY c.bucket_id",
		1,
		{REGCLASSOID},
		NULL};
	Datum value = ObjectIdGetDatum(relation);
	List *columns = NIL;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		FileColumn *column = palloc0(sizeof(FileColumn));
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		Datum *names;

		check_owner(relation, DatumGetObjectId(SPI_getbinval(tuple, desc, 5, &isnull)));
		column->bucket.id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		column->bucket.no_user = true;
		column->attnum = bytes_place_of(shape, SPI_getvalue(tuple, desc, 2));
		deconstruct_array(DatumGetArrayTypeP(SPI_getbinval(tuple, desc, 3, &isnull)), NAMEOID,
						  NAMEDATALEN, false, TYPALIGN_CHAR, &names, NULL, &column->nkeys);
		for (int k = 0; k < column->nkeys; k++)
			column->key[k] = place_of(shape, NameStr(*DatumGetName(names[k])));
		column->content_type = SPI_getvalue(tuple, desc, 4);
		columns = lappend(columns, column);
	}
	return columns;
}

/* One column of a changed row; either tuple may be NULL. */
static void
copy_change(const FileColumn *column, TupleDesc desc, HeapTuple oldtuple, HeapTuple newtuple)
{
	Datum was = 0;
	Datum is = 0;
	bool was_null = true;
	bool is_null = true;
	char *old_name = NULL;
	char *name = NULL;

	if (oldtuple != NULL)
	{
		was = heap_getattr(oldtuple, column->attnum, desc, &was_null);
		old_name = name_of(column, oldtuple, desc);
	}
	if (newtuple != NULL)
	{
		is = heap_getattr(newtuple, column->attnum, desc, &is_null);
		name = name_of(column, newtuple, desc);
	}
	/* An unchanged TOAST value has its pointer unchanged. */
	if (old_name != NULL && name != NULL && strcmp(old_name, name) == 0 && was_null == is_null &&
		(is_null || datumIsEqual(was, is, false, -1)))
		return;
	if (!was_null && (is_null || strcmp(old_name, name) != 0))
		(void) plinth_sync_file_remove(&column->bucket, old_name);
	if (!is_null)
		store_value(column, name, is);
}

/* Every row is gone. */
static void
remove_all(const FileColumn *column)
{
	static PlinthPlan plan = {"UPDATE plinth.files SET hidden_at = clock_timestamp()"
							  " WHERE bucket_id = $1 AND hidden_at IS NULL",
							  1,
							  {INT8OID},
							  NULL};
	Datum id = Int64GetDatum(column->bucket.id);

	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_UPDATE);
}

PG_FUNCTION_INFO_V1(plinth_sync_file_changed);
Datum
plinth_sync_file_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	HeapTuple oldtuple = NULL;
	HeapTuple newtuple = NULL;
	PlinthSyncApi api;
	ListCell *lc;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(data->tg_event))
		ereport(
			ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("plinth._file_column_changed must be called as a trigger, AFTER the change")));
	if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
	{
		newtuple = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple;
		oldtuple = data->tg_trigtuple;
		if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
			oldtuple = NULL;
		if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
			newtuple = NULL;
	}
	plinth_sync_api_begin(&api);
	foreach (lc,
			 load_columns(RelationGetRelid(data->tg_relation), RelationGetDescr(data->tg_relation)))
	{
		if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
			copy_change(lfirst(lc), RelationGetDescr(data->tg_relation), oldtuple, newtuple);
		/* Who has the right TRIGGER may have it fire after other statements too. */
		else if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
			remove_all(lfirst(lc));
	}
	plinth_sync_api_end(&api);
	return PointerGetDatum(NULL);
}

static void
check_column(Relation rel, const char *name)
{
	AttrNumber attnum = get_attnum(RelationGetRelid(rel), name);

	if (attnum <= 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of table \"%s\" does not exist", name,
							   RelationGetRelationName(rel))));
	if (getBaseType(get_atttype(RelationGetRelid(rel), attnum)) != BYTEAOID)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("column \"%s\" is not of type bytea", name),
						errhint("Other types are copied by plinth.sync_table().")));
	if (rel->rd_rel->relkind != RELKIND_RELATION)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot copy files of partitioned table \"%s\"",
							   RelationGetRelationName(rel)),
						errhint("Call it for each of the partitions.")));
}

/* The bucket, and what the trigger is to know. */
static void
write_down(const PlinthSyncNew *arg, const char *bucket, const char *column,
		   const char *content_type)
{
	static PlinthPlan plan = {
		"WITH made AS (INSERT INTO plinth.file_buckets (name, owner) VALUES ($1, $2)"
		"              ON CONFLICT (name) DO NOTHING RETURNING id)"
		"INSERT INTO plinth.file_columns (bucket_id, relation, column_name, key_columns, content_type)"
		" SELECT id, $3, $4, $5, $6 FROM made",
		6,
		{TEXTOID, REGROLEOID, REGCLASSOID, NAMEOID, NAMEARRAYOID, TEXTOID},
		NULL};
	NameData column_name;
	Datum values[6] = {CStringGetTextDatum(bucket),
					   ObjectIdGetDatum(arg->owner),
					   ObjectIdGetDatum(arg->relation),
					   NameGetDatum(&column_name),
					   PointerGetDatum(arg->key_columns),
					   content_type != NULL ? CStringGetTextDatum(content_type) : (Datum) 0};
	PlinthSyncApi api;

	namestrcpy(&column_name, column);
	plinth_sync_api_begin(&api);
	plinth_base_spi_execute(&plan, values, content_type != NULL ? NULL : "     n", false,
							SPI_OK_INSERT);
	if (SPI_processed == 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("file bucket \"%s\" already exists", bucket),
						errhint("Pass another name in the argument bucket.")));
	plinth_sync_api_end(&api);
}

/* As the caller, who owns the table. */
static void
make_triggers(const char *name)
{
	SPI_connect();
	SPI_execute(
		psprintf("CREATE OR REPLACE TRIGGER plinth_file AFTER INSERT OR UPDATE OR DELETE ON %s"
				 " FOR EACH ROW EXECUTE FUNCTION plinth._file_column_changed()",
				 name),
		false, 0);
	SPI_execute(psprintf("CREATE OR REPLACE TRIGGER plinth_file_all AFTER TRUNCATE ON %s"
						 " FOR EACH STATEMENT EXECUTE FUNCTION plinth._file_column_changed()",
						 name),
				false, 0);
	SPI_execute(psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER plinth_file,"
						 " ENABLE ALWAYS TRIGGER plinth_file_all",
						 name),
				false, 0);
	SPI_finish();
}

/* Some rows that exist already. */
static void
copy_some(Oid relation, const char *bucket, SPITupleTable *rows, uint64 n)
{
	Oid caller = GetUserId();
	PlinthSyncBucket wanted;
	PlinthSyncApi api;
	ListCell *lc;

	plinth_sync_api_begin(&api);
	plinth_sync_file_bucket(bucket, caller, PLINTH_SYNC_FILE_OWN, &wanted);
	foreach (lc, load_columns(relation, rows->tupdesc))
	{
		const FileColumn *column = lfirst(lc);

		for (uint64 i = 0; column->bucket.id == wanted.id && i < n; i++)
			copy_change(column, rows->tupdesc, NULL, rows->vals[i]);
	}
	plinth_sync_api_end(&api);
}

/* All of them, few at a time; nobody else writes the table meanwhile. */
static void
copy_rows(Relation rel, const char *bucket)
{
	Portal portal;
	uint64 n;

	SPI_connect();
	portal = SPI_cursor_open_with_args(
		NULL, psprintf("SELECT * FROM ONLY %s", plinth_sync_relation_name(rel)), 0, NULL, NULL,
		NULL, false, 0);
	do
	{
		SPITupleTable *rows;

		SPI_cursor_fetch(portal, true, ROWS_AT_ONCE);
		rows = SPI_tuptable;
		n = SPI_processed;
		copy_some(RelationGetRelid(rel), bucket, rows, n);
		SPI_freetuptable(rows);
	} while (n > 0);
	SPI_cursor_close(portal);
	SPI_finish();
}

PG_FUNCTION_INFO_V1(plinth_sync_file_column);
Datum
plinth_sync_file_column(PG_FUNCTION_ARGS)
{
	PlinthSyncNew arg = {0};
	char *column;
	char *bucket;
	char *content_type;
	char *table;
	int64 id;

	plinth_sync_new_relation(fcinfo, &arg, 0, "relation");
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("column_name must not be null")));
	column = pstrdup(NameStr(*PG_GETARG_NAME(1)));
	plinth_sync_new_server(fcinfo, &arg, 2);
	bucket = plinth_sync_api_text(fcinfo, 3);
	arg.collection = plinth_sync_api_text(fcinfo, 4);
	content_type = plinth_sync_api_text(fcinfo, 5);
	plinth_sync_new_on_existing(fcinfo, &arg, 6);
	plinth_sync_new_open(&arg);
	check_column(arg.rel, column);
	plinth_sync_new_check_rows(&arg);
	if (bucket == NULL)
		bucket = psprintf("%s.%s", RelationGetRelationName(arg.rel), column);
	/* ALTER TABLE takes none that its caller has open. */
	table = plinth_sync_relation_name(arg.rel);
	relation_close(arg.rel, NoLock);
	make_triggers(table);
	arg.rel = relation_open(arg.relation, NoLock);
	write_down(&arg, bucket, column, content_type);
	copy_rows(arg.rel, bucket);
	id = plinth_sync_file_map(bucket, &arg);
	relation_close(arg.rel, NoLock);
	PG_RETURN_INT64(id);
}
