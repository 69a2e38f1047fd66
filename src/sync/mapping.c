/*
 * mapping.c
 *		A mapping's row and the catalogs, compiled to what the engine runs.
 *
 * A mapping is loaded whole, into a context of its own, and loaded again when
 * the sync generation or the table's definition moves.  What makes it
 * impossible to run (table dropped, key column gone, rights lost) is told in
 * "problem" and never raised: one broken mapping must not stop the others.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "sync/append_int.h"
#include "sync/read_int.h"
#include "sync/via_int.h"

List *
plinth_sync_mapping_ids(const char *server, Oid owner)
{
	static PlinthPlan plan = {"SELECT id FROM plinth.sync_mappings"
							  " WHERE server_name = $1::name AND owner = $2 ORDER BY id",
							  2,
							  {TEXTOID, OIDOID},
							  NULL};
	MemoryContext caller = CurrentMemoryContext;
	List *ids = NIL;
	Datum values[2] = {CStringGetTextDatum(server), ObjectIdGetDatum(owner)};

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;
		int64 *id = MemoryContextAlloc(caller, sizeof(int64));
		MemoryContext old = MemoryContextSwitchTo(caller);

		*id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		ids = lappend(ids, id);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return ids;
}

/* A text column of the current SPI row, or NULL; in the mapping's context. */
static char *
column_text(MemoryContext context, int column)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);

	return value == NULL ? NULL : MemoryContextStrdup(context, value);
}

static Datum
column_datum(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

static void
take_row(PlinthSyncMapping *m, char **filter, char **id_cast, char **id_prefix)
{
	bool isnull;
	Datum value;

	m->name = column_text(m->context, 1);
	m->relation = DatumGetObjectId(column_datum(2, &isnull));
	m->owner = DatumGetObjectId(column_datum(3, &isnull));
	m->server = column_text(m->context, 4);
	m->collection = column_text(m->context, 5);
	m->on_existing = column_text(m->context, 6);
	m->paused = DatumGetBool(column_datum(7, &isnull));
	*filter = column_text(m->context, 8);
	*id_cast = column_text(m->context, 9);
	*id_prefix = column_text(m->context, 10);
	m->blocked = column_text(m->context, 11);
	m->stored_shape = column_text(m->context, 12);
	value = column_datum(13, &isnull);
	m->prepared = !isnull && DatumGetBool(value);
	value = column_datum(14, &isnull);
	m->adopting = !isnull && DatumGetBool(value);
	value = column_datum(15, &isnull);
	m->fence_lsn = isnull ? InvalidXLogRecPtr : DatumGetLSN(value);
	value = column_datum(16, &isnull);
	m->fence_epoch = isnull ? 1 : DatumGetInt64(value);
	value = column_datum(17, &isnull);
	m->slot_generation = isnull ? 0 : DatumGetInt64(value);
	value = column_datum(24, &isnull);
	m->bucket = isnull ? 0 : DatumGetInt64(value);
	m->reader = m->owner;
}

void
plinth_sync_mapping_problem(PlinthSyncMapping *m, const char *what, const char *hint)
{
	if (m->problem != NULL)
		return;
	m->problem = MemoryContextStrdup(m->context, what);
	m->problem_hint = MemoryContextStrdup(m->context, hint);
}

/* A bucket's rows are plinth's own; only the server is reached as the bucket's owner. */
static void
take_bucket(PlinthSyncMapping *m, Oid relowner)
{
	char *stem = pstrdup(m->collection);
	char *dot = strrchr(stem, '.');

	m->reader = relowner;
	m->chunks = dot != NULL && strcmp(dot, ".chunks") == 0;
	if (dot != NULL)
		*dot = '\0';
	m->bucket_other = MemoryContextAlloc(m->context, strlen(stem) + sizeof(".chunks"));
	sprintf(m->bucket_other, "%s%s", stem, m->chunks ? ".files" : ".chunks");
}

static void
check_rights(PlinthSyncMapping *m)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(m->relation));
	ForeignServer *server;
	Form_pg_class class;
	Oid relowner;

	if (!HeapTupleIsValid(tuple))
	{
		plinth_sync_mapping_problem(m, "the table was dropped",
									"Remove the mapping with plinth.sync_drop().");
		return;
	}
	class = (Form_pg_class) GETSTRUCT(tuple);
	m->only = class->relkind == RELKIND_RELATION ? "ONLY " : "";
	m->relation_name = MemoryContextStrdup(
		m->context, quote_qualified_identifier(get_namespace_name(class->relnamespace),
											   NameStr(class->relname)));
	relowner = class->relowner;
	ReleaseSysCache(tuple);

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(m->owner)))
	{
		plinth_sync_mapping_problem(m, "the mapping's owner was dropped",
									"Create the mapping again as the table's owner.");
		return;
	}
	if (m->bucket != 0)
		take_bucket(m, relowner);
	else if (!has_privs_of_role(m->owner, relowner))
		plinth_sync_mapping_problem(
			m, "the mapping's owner does not own the table any more",
			"Give the table back, or create the mapping again as its new owner.");
	server = GetForeignServerByName(m->server, true);
	if (server == NULL)
		plinth_sync_mapping_problem(m, "the server was dropped",
									"Create it again, or use plinth.sync_drop().");
	else if (!DatumGetBool(DirectFunctionCall3(
				 has_server_privilege_id_id, ObjectIdGetDatum(m->owner),
				 ObjectIdGetDatum(server->serverid), CStringGetTextDatum("USAGE"))))
		plinth_sync_mapping_problem(m, "the mapping's owner may not use the server any more",
									"GRANT USAGE ON FOREIGN SERVER to the mapping's owner.");
}

/* A filter names columns and functions, which may have other names by now. */
static void
check_filter(PlinthSyncMapping *m)
{
	PlinthAsOwner state;

	plinth_sync_query_as_owner(m, &state);
	SPI_freeplan(
		plinth_sync_query_prepare(m->absent_sql, m->nkeys, TEXTARRAYOID, InvalidOid, false));
	plinth_sync_query_as_before(&state);
}

/*
 * The mapping's columns as they are now.  Key columns are fields as well only
 * where they were asked for by name: _id holds them.  Without an idspec a key
 * column is missing.  Returns the fields' columns as SQL.
 */
static char *
load_columns(PlinthSyncMapping *m, const char *id_cast, const char *id_prefix)
{
	static PlinthPlan plan = {
		"SELECT a.attname::text, a.attnum, a.atttypid, a.atttypmod,"
		"       m.fields ->> a.attname, m.field_names, m.casts ->> a.attname,"
		"       coalesce(array_position(s.key_attnums, a.attnum),"
		"                array_position(m.key_columns, a.attname)),"
		"       m.query IS NULL AND"
		"       (a.attname = ANY (m.columns) OR m.fields ? a.attname::text"
		"        OR (m.columns IS NULL AND"
		"            NOT coalesce(a.attnum = ANY (s.key_attnums), a.attname = ANY (m.key_columns))))"
		"  FROM plinth.sync_mappings m LEFT JOIN plinth.sync_states s ON s.mapping_id = m.id"
		"  JOIN pg_catalog.pg_attribute a ON a.attrelid = m.relation AND a.attnum > 0"
		"   AND NOT a.attisdropped WHERE m.id = $1 ORDER BY a.attnum",
		1,
		{INT8OID},
		NULL};
	Datum id = Int64GetDatum(m->id);
	const char *id_names[PLINTH_SYNC_MAX_KEYS];
	int32 key_typmods[PLINTH_SYNC_MAX_KEYS];
	StringInfoData columns;
	MemoryContext old;
	int nkeys = 0;

	plinth_base_spi_execute(&plan, &id, NULL, true, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(m->context);
	initStringInfo(&columns);
	m->fields = palloc0(sizeof(PlinthMongoField *) * Max(SPI_processed, 1));
	m->field_types = palloc0(sizeof(Oid) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		char *name = SPI_getvalue(tuple, desc, 1);
		Oid type = DatumGetObjectId(SPI_getbinval(tuple, desc, 3, &isnull));
		int32 typmod = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
		char *field = SPI_getvalue(tuple, desc, 5);
		Datum place;
		bool wanted;

		if (field == NULL)
			field = strcmp(SPI_getvalue(tuple, desc, 6), "camelCase") == 0
						? plinth_sync_camel_case(name)
						: name;
		place = SPI_getbinval(tuple, desc, 8, &isnull);
		if (!isnull && DatumGetInt32(place) <= PLINTH_SYNC_MAX_KEYS)
		{
			int k = DatumGetInt32(place) - 1;

			m->key_names[k] = name;
			m->key_attnums[k] = DatumGetInt16(SPI_getbinval(tuple, desc, 2, &isnull));
			m->key_types[k] = type;
			key_typmods[k] = typmod;
			id_names[k] = field;
			nkeys++;
		}
		wanted = DatumGetBool(SPI_getbinval(tuple, desc, 9, &isnull)) && !isnull;
		if (wanted)
		{
			char *cast = SPI_getvalue(tuple, desc, 7);

			m->field_types[m->nfields] = type;
			m->fields[m->nfields++] = plinth_mongo_field(field, type, typmod, cast);
			appendStringInfo(&columns, ", t.%s", quote_identifier(name));
		}
	}
	if (nkeys > 0 && nkeys == m->nkeys)
		m->idspec =
			plinth_mongo_id_spec(m->nkeys, id_names, m->key_types, key_typmods, id_cast, id_prefix);
	MemoryContextSwitchTo(old);
	return columns.data;
}

static void
load_queries(PlinthSyncMapping *m, const char *filter, const char *id_cast, const char *id_prefix)
{
	const char *columns = load_columns(m, id_cast, id_prefix);

	if (m->idspec == NULL)
		plinth_sync_mapping_problem(
			m, "a key column was dropped",
			"Create the mapping again with plinth.sync_drop() and plinth.sync_table().");
	else if (m->query != NULL)
		plinth_sync_document_compile(m);
	else
	{
		plinth_sync_mapping_sql(m, columns, filter);
		if (filter != NULL)
			check_filter(m);
	}
}

/* Loading what cannot be run must not fail: the reason is kept instead. */
static void
compile(PlinthSyncMapping *m, const char *filter, const char *id_cast, const char *id_prefix)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY ()
		;
	{
		check_rights(m);
		if (m->problem == NULL)
			load_queries(m, filter, id_cast, id_prefix);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH ()
		;
	{
		ErrorData *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
			ReThrowError(error);
		if (m->query != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			plinth_sync_mapping_problem(
				m, psprintf("its query cannot be used: %s", error->message),
				"Undo what was renamed, dropped or replaced (it goes on by itself then), or give it "
				"another query by plinth.sync_alter(name, query => ...).");
		else if (m->absent_sql == NULL)
			plinth_sync_mapping_problem(
				m, error->message, error->hint != NULL ? error->hint : "See plinth.sync_mappings.");
		else if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			plinth_sync_mapping_problem(
				m, psprintf("its filter cannot be used: %s", error->message),
				"Undo what was renamed or dropped, or make the mapping again by "
				"plinth.sync_drop() and plinth.sync_table(). It goes on by itself then.");
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
}

PlinthSyncMapping *
plinth_sync_mapping_load(MemoryContext parent, int64 id)
{
	static PlinthPlan plan = {
		"SELECT m.name, m.relation::oid, m.owner::oid, m.server_name::text, m.collection,"
		"       m.on_existing, m.paused, m.filter, m.id_cast, m.id_prefix, s.blocked, s.shape,"
		"       s.prepared, s.adopting, s.fence_lsn, s.fence_epoch, s.slot_generation,"
		"       plinth._sync_shape(m.id), cardinality(m.key_columns), s.resyncing,"
		"       plinth._sync_is_keyed(m.relation, s.key_attnums), plinth._sync_unseen(m.relation),"
		"       m.query, m.bucket_id, s.promoted"
		"  FROM plinth.sync_mappings m LEFT JOIN plinth.sync_states s ON s.mapping_id = m.id"
		" WHERE m.id = $1",
		1,
		{INT8OID},
		NULL};
	MemoryContext context =
		AllocSetContextCreate(parent, "plinth sync mapping", ALLOCSET_SMALL_SIZES);
	PlinthSyncMapping *m = MemoryContextAllocZero(context, sizeof(PlinthSyncMapping));
	Datum value = Int64GetDatum(id);
	char *filter;
	char *id_cast;
	char *id_prefix;
	Datum flag;
	bool isnull;

	m->context = context;
	m->id = id;
	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, true, SPI_OK_SELECT);
	if (SPI_processed == 0)
	{
		SPI_finish();
		MemoryContextDelete(context);
		return NULL;
	}
	take_row(m, &filter, &id_cast, &id_prefix);
	m->filter = filter;
	m->shape = column_text(m->context, 18);
	m->nkeys = DatumGetInt32(column_datum(19, &isnull));
	flag = column_datum(20, &isnull);
	m->resyncing = !isnull && DatumGetBool(flag);
	flag = column_datum(25, &isnull);
	m->promoted = !isnull && DatumGetBool(flag);
	if (strcmp(SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 22), "") != 0)
		plinth_sync_mapping_problem(
			m,
			"the table, or a partition, is UNLOGGED or foreign now: its changes are not in the WAL",
			"ALTER TABLE … SET LOGGED, or detach it; everything is sent again then.");
	if (!DatumGetBool(column_datum(21, &isnull)) && !isnull)
		plinth_sync_mapping_problem(
			m, "no unique index without WHERE on columns that are NOT NULL holds the key any more",
			"Give the table its key back, or create the mapping again.");
	m->query = column_text(m->context, 23);
	if (m->query != NULL)
		plinth_sync_document_sources(m);
	plinth_sync_append_load(m);
	compile(m, filter, id_cast, id_prefix);
	SPI_finish();
	return m;
}

void
plinth_sync_mapping_free(PlinthSyncMapping *mapping)
{
	if (mapping->keys_plan != NULL)
		SPI_freeplan(mapping->keys_plan);
	if (mapping->absent_plan != NULL)
		SPI_freeplan(mapping->absent_plan);
	for (int i = 0; i < 2; i++)
	{
		if (mapping->page_plan[i] != NULL)
			SPI_freeplan(mapping->page_plan[i]);
	}
	for (int i = 0; i < mapping->nvias; i++)
	{
		if (mapping->vias[i].plan != NULL)
			SPI_freeplan(mapping->vias[i].plan);
	}
	MemoryContextDelete(mapping->context);
}
