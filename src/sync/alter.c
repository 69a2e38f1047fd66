/*
 * alter.c
 *		sync_alter(): changes a mapping in place.
 *
 * It writes the mapping's row and nothing else.  The lane, which compares what
 * decides how documents look with what it was when the rows were last sent,
 * loads the new definition and sends what it changes, in this order: so no
 * page of that is made by the old one (lane_load.c, plinth._sync_settle).
 *
 * The query of documents is looked at as sync_document does.  Ways from changed
 * rows that stay keep their numbers, others get new ones (document_store.c), so
 * that a mark which is under way means what it meant or nothing; and as with a
 * new mapping a snapshot of all begins when the decoder knows them and those
 * who wrote before have ended.
 *
 * Which collection, server, table and _id a mapping has cannot be changed:
 * documents under the old ones would stand beside the new ones meanwhile.  A
 * trigger shares out anew what another number of lanes concerns.
 *
 * Rights: what code runs over the rows is for who owns the table to say, as in
 * sync_table, and has the rights of the mapping's owner, as whom it runs; whether the mapping is paused, and its name, for administrators too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "sync/api_int.h"
#include "sync/append_int.h"
#include "sync/document_int.h"
#include "sync/index_int.h"

extern PGDLLEXPORT Datum plinth_sync_alter(PG_FUNCTION_ARGS);

#define MAX_NAME_BYTES 200

/* Its arguments that a mapping keeps where they are not given, in the order of the function's. */
typedef enum Option
{
	COLUMNS,
	FIELD_NAMES,
	FIELDS,
	CASTS,
	FILTER,
	PAUSED,
	NAME,
	LANES,
	QUERY, /* the last of the function's arguments but one */
	NOPTIONS
} Option;

#define FIRST_ARGUMENT 1
#define RESET_ARGUMENT (FIRST_ARGUMENT + QUERY)
#define QUERY_ARGUMENT (RESET_ARGUMENT + 1)
#define VIA_ARGUMENT (QUERY_ARGUMENT + 1)
/* Those up to here decide what documents look like, and can be reset. */
#define LAST_OF_DOCUMENTS FILTER

static const char *const option_names[] = {
	[COLUMNS] = "columns", [FIELD_NAMES] = "field_names", [FIELDS] = "fields",  [CASTS] = "casts",
	[FILTER] = "filter",   [PAUSED] = "paused",           [NAME] = "rename_to", [LANES] = "lanes",
	[QUERY] = "query",
};

typedef struct Alter
{
	PlinthSyncTarget target;
	bool given[NOPTIONS];
	Datum values[NOPTIONS]; /* (Datum) 0 for NULL */
	Datum id_cast;
	Datum id_prefix;
	char *kind;
	Jsonb *via; /* NULL: not given */
	bool other_ways;
	List *ways; /* of another query: PlinthSyncWay * */
} Alter;

static void
read_reset(Alter *alter, ArrayType *reset)
{
	Datum *names;
	bool *nulls;
	int n;

	deconstruct_array(reset, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		char *name = nulls[i] ? pstrdup("NULL") : TextDatumGetCString(names[i]);
		int option = 0;

		while (option <= LAST_OF_DOCUMENTS && strcmp(option_names[option], name) != 0)
			option++;
		if (option > LAST_OF_DOCUMENTS)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("\"%s\" cannot be reset", name),
							errhint("Only columns, field_names, fields, casts and filter have a "
									"default to go back to.")));
		if (alter->given[option])
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("%s is both given and reset", name),
							errhint("Pass it in one of the two arguments.")));
		alter->given[option] = true;
		if (option == FIELD_NAMES)
			alter->values[option] = CStringGetTextDatum("same");
	}
}

static void
read_arguments(FunctionCallInfo fcinfo, Alter *alter)
{
	for (int i = 0; i < NOPTIONS; i++)
	{
		int argument = i == QUERY ? QUERY_ARGUMENT : FIRST_ARGUMENT + i;

		alter->given[i] = !PG_ARGISNULL(argument);
		if (alter->given[i])
			alter->values[i] = PG_GETARG_DATUM(argument);
	}
	if (!PG_ARGISNULL(VIA_ARGUMENT))
		alter->via = PG_GETARG_JSONB_P(VIA_ARGUMENT);
	if (!PG_ARGISNULL(RESET_ARGUMENT))
		read_reset(alter, PG_GETARG_ARRAYTYPE_P(RESET_ARGUMENT));
	if (alter->given[FIELD_NAMES])
	{
		char *value = TextDatumGetCString(alter->values[FIELD_NAMES]);

		if (strcmp(value, "same") != 0 && strcmp(value, "camelCase") != 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("invalid %s: \"%s\"", "field_names", value),
							errhint("Pass '%s' or '%s'.", "same", "camelCase")));
	}
	if (alter->given[LANES])
		plinth_sync_new_check_lanes(DatumGetInt32(alter->values[LANES]));
	if (alter->given[NAME])
	{
		char *value = TextDatumGetCString(alter->values[NAME]);

		if (value[0] == '\0' || strlen(value) > MAX_NAME_BYTES)
			ereport(ERROR, (errcode(ERRCODE_INVALID_NAME), errmsg("invalid name of a sync mapping"),
							errhint("A name has from 1 to %d bytes.", MAX_NAME_BYTES)));
	}
}

static bool
changes_documents(const Alter *alter)
{
	bool any = alter->given[QUERY] || alter->via != NULL;

	for (int i = 0; i <= LAST_OF_DOCUMENTS; i++)
		any |= alter->given[i];
	return any;
}

/* Locks the mapping, and fills in what is not given with what it has. */
static void
read_mapping(Alter *alter, const char *name)
{
	static PlinthPlan plan = {
		"SELECT columns, field_names, fields, casts, filter, paused, name,"
		" lanes, query, id_cast, id_prefix, kind FROM plinth.sync_mappings WHERE id = $1",
		1,
		{INT8OID},
		NULL};
	Oid caller = GetUserId();
	PlinthSyncApi api;
	Datum values[NOPTIONS + 3];
	Datum id;
	HeapTuple tuple;
	TupleDesc desc;

	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, true, &alter->target);
	id = Int64GetDatum(alter->target.id);
	plinth_base_spi_execute(&plan, &id, NULL, false, SPI_OK_SELECT);
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	for (int i = 0; i < lengthof(values); i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		MemoryContext old = MemoryContextSwitchTo(api.context);
		bool isnull;

		values[i] = SPI_getbinval(tuple, desc, i + 1, &isnull);
		values[i] =
			isnull ? (Datum) 0 : datumCopy(values[i], attribute->attbyval, attribute->attlen);
		MemoryContextSwitchTo(old);
	}
	plinth_sync_api_end(&api);
	for (int i = 0; i < NOPTIONS; i++)
	{
		if (!alter->given[i])
			alter->values[i] = values[i];
	}
	alter->id_cast = values[NOPTIONS];
	alter->id_prefix = values[NOPTIONS + 1];
	alter->kind = TextDatumGetCString(values[NOPTIONS + 2]);
}

/* What each kind of mapping has, and so can change. */
static void
check_kind(const Alter *alter)
{
	bool document = strcmp(alter->kind, "document") == 0;

	if (strcmp(alter->kind, "files") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("sync mapping \"%s\" is one of files", alter->target.name),
				 errhint("Make another mapping, to another collection, and drop this one.")));
	if (document && (alter->given[COLUMNS] || alter->given[FILTER]))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("sync mapping \"%s\" is one of a query", alter->target.name),
						errhint("Its query says which columns and rows there are: pass another "
								"one in the argument query.")));
	if (!document && (alter->given[QUERY] || alter->via != NULL))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("sync mapping \"%s\" is not one of a query", alter->target.name),
						errhint("Its columns are changed by the arguments columns, fields and "
								"casts, its rows by filter.")));
}

/* The table, which stays locked against DDL; what runs over its rows is the owner's to say. */
static Relation
open_table(const Alter *alter)
{
	Relation rel;

	rel = try_relation_open(alter->target.relation, ShareUpdateExclusiveLock);
	if (rel == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the table of sync mapping \"%s\" does not exist any more", alter->target.name),
			 errhint("SELECT plinth.sync_drop(%s);", quote_literal_cstr(alter->target.name))));
	if (!object_ownercheck(RelationRelationId, alter->target.relation, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));
	if (!has_privs_of_role(GetUserId(), alter->target.owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for sync mapping \"%s\"", alter->target.name),
						errhint("Its rows are read as role \"%s\": call this as a member of it.",
								GetUserNameFromId(alter->target.owner, false))));
	return rel;
}

/* The mapping as it is to be, as far as documents depend on it. */
static void
describe(const Alter *alter, Relation rel, PlinthSyncNew *arg)
{
	PlinthSyncFields *fields = &arg->fields;

	arg->relation = alter->target.relation;
	arg->rel = rel;
	arg->owner = alter->target.owner;
	arg->key.nkeys = alter->target.nkeys;
	memcpy(arg->key.attnums, alter->target.key_attnums, sizeof(AttrNumber) * arg->key.nkeys);
	for (int i = 0; i < arg->key.nkeys; i++)
	{
		if (!OidIsValid(get_atttype(arg->relation, arg->key.attnums[i])))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("a column of the mapping's key does not exist any more"),
							errhint("Drop the mapping by plinth.sync_drop(), and make it again.")));
	}
	fields->camel = strcmp(TextDatumGetCString(alter->values[FIELD_NAMES]), "camelCase") == 0;
	if (alter->values[FIELDS] != (Datum) 0)
		fields->fields = DatumGetJsonbP(alter->values[FIELDS]);
	if (alter->values[CASTS] != (Datum) 0)
		fields->casts = DatumGetJsonbP(alter->values[CASTS]);
	if (alter->id_cast != (Datum) 0)
		fields->id_cast = TextDatumGetCString(alter->id_cast);
	if (alter->id_prefix != (Datum) 0)
		fields->id_prefix = TextDatumGetCString(alter->id_prefix);
}

/* As sync_document asks; a query that stays is only looked at for its fields. */
static void
check_query(Alter *alter, PlinthSyncNew *arg)
{
	arg->query = TextDatumGetCString(alter->values[QUERY]);
	if (!alter->given[QUERY] && alter->via == NULL)
	{
		plinth_sync_document_check_output(arg);
		return;
	}
	alter->ways = plinth_sync_document_look(arg, alter->via);
	alter->other_ways = true;
	alter->values[QUERY] = CStringGetTextDatum(arg->query);
	alter->values[COLUMNS] = PointerGetDatum(arg->fields.columns);
}

/* As sync_table or sync_document asks, of the key that the mapping has. */
static void
check_documents(Alter *alter)
{
	PlinthSyncNew arg = {0};
	Relation rel;

	check_kind(alter);
	rel = open_table(alter);
	describe(alter, rel, &arg);
	if (strcmp(alter->kind, "document") == 0)
		check_query(alter, &arg);
	else
	{
		arg.fields.columns = (ArrayType *) DatumGetPointer(alter->values[COLUMNS]);
		plinth_sync_check_fields(RelationGetDescr(rel), plinth_sync_relation_name(rel), &arg.key,
								 &arg.fields);
		if (alter->given[FILTER] && alter->values[FILTER] != (Datum) 0)
			alter->values[FILTER] = CStringGetTextDatum(
				plinth_sync_check_filter(rel, TextDatumGetCString(alter->values[FILTER])));
	}
	relation_close(rel, NoLock);
}

static void
check_name_free(Datum name)
{
	static PlinthPlan plan = {
		"SELECT FROM plinth.sync_mappings WHERE name = $1", 1, {TEXTOID}, NULL};

	plinth_base_spi_execute(&plan, &name, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
						errmsg("sync mapping \"%s\" already exists", TextDatumGetCString(name)),
						errhint("Pass another name in the argument rename_to.")));
}

static void
write_mapping(Alter *alter)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_mappings SET columns = $2, field_names = $3, fields = coalesce($4, '{}'),"
		" casts = coalesce($5, '{}'), filter = $6, paused = $7, name = $8, lanes = $9, query = $10"
		" WHERE id = $1",
		10,
		{INT8OID, NAMEARRAYOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID, BOOLOID, TEXTOID, INT4OID,
		 TEXTOID},
		NULL};
	Datum values[1 + NOPTIONS];
	char nulls[2 + NOPTIONS] = {0};
	PlinthSyncApi api;

	values[0] = Int64GetDatum(alter->target.id);
	nulls[0] = ' ';
	for (int i = 0; i < NOPTIONS; i++)
	{
		values[i + 1] = alter->values[i];
		/* A boolean that is false is no NULL. */
		nulls[i + 1] = alter->values[i] == (Datum) 0 && i != PAUSED ? 'n' : ' ';
	}
	plinth_sync_api_begin(&api);
	if (alter->given[NAME] &&
		strcmp(TextDatumGetCString(alter->values[NAME]), alter->target.name) != 0)
		check_name_free(alter->values[NAME]);
	plinth_base_spi_execute(&plan, values, nulls, false, SPI_OK_UPDATE);
	if (alter->other_ways)
		plinth_sync_document_store(alter->target.id, alter->ways);
	if (changes_documents(alter))
	{
		plinth_sync_indexes_fit(alter->target.id);
		if (strcmp(alter->kind, "append") == 0)
			plinth_sync_append_expires_by_dates(alter->target.id);
	}
	if (alter->given[LANES])
		plinth_sync_new_require_workers();
	plinth_sync_api_end(&api);
}

PG_FUNCTION_INFO_V1(plinth_sync_alter);
Datum
plinth_sync_alter(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	Alter alter = {0};

	read_arguments(fcinfo, &alter);
	read_mapping(&alter, name);
	if (changes_documents(&alter))
		check_documents(&alter);
	write_mapping(&alter);
	PG_RETURN_VOID();
}
