/*
 * document.c
 *		sync_document(): says that a query's rows are copied to a collection,
 *		one document for each row of a root table.
 *
 * The query is analyzed, kept and tried as the owner of the root, in a
 * restricted context, with the search_path of whoever called: names mean what
 * they mean to the caller, rights are the owner's.  Reading a table suffices;
 * it need not be the owner's.
 *
 * The tables of the query stay locked against DDL until the transaction ends.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

#include "sync/document_int.h"
#include "sync/read_int.h"

extern PGDLLEXPORT Datum plinth_sync_document(PG_FUNCTION_ARGS);

#define DOCUMENT "document"

Form_pg_attribute
plinth_sync_key_column(const PlinthSyncNew *arg, int i)
{
	return TupleDescAttr(RelationGetDescr(arg->rel), arg->key.attnums[i] - 1);
}

char *
plinth_sync_key_list(const PlinthSyncNew *arg)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < arg->key.nkeys; i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(plinth_sync_key_column(arg, i)->attname)));
	return text.data;
}

/* A column that is computed when it is read is not in the WAL at all. */
static void
check_stored(Relation rel, const PlinthSyncWay *way)
{
	for (int i = 0; i < way->ncolumns; i++)
	{
		Form_pg_attribute column = TupleDescAttr(RelationGetDescr(rel), way->columns[i] - 1);

		if (column->attgenerated != '\0' && column->attgenerated != ATTRIBUTE_GENERATED_STORED)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("generated column \"%s\" of table \"%s\" is not stored",
								   NameStr(column->attname), RelationGetRelationName(rel)),
							errhint("Make it STORED, or join by the columns that it is made of.")));
	}
}

List *
plinth_sync_paths_add(List *ways, PlinthSyncWay *way, PlinthSyncNew *arg)
{
	Relation rel;
	ListCell *lc;
	bool key = way->roots == NULL && way->relation == arg->relation && way->derived;

	for (int i = 0; key && i < way->ncolumns; i++)
		key = way->columns[i] == arg->key.attnums[i];
	if (key) /* the root's own key is marked anyhow */
		return ways;
	foreach (lc, ways)
	{
		PlinthSyncWay *other = lfirst(lc);

		if (other->relation == way->relation && other->ncolumns == way->ncolumns &&
			memcmp(other->columns, way->columns, sizeof(AttrNumber) * way->ncolumns) == 0 &&
			(other->roots == NULL) == (way->roots == NULL) &&
			(way->roots == NULL || strcmp(other->roots, way->roots) == 0))
			return ways;
	}
	rel = table_open(way->relation, AccessShareLock);
	check_stored(rel, way);
	plinth_sync_check_old(rel, way->columns, way->ncolumns);
	table_close(rel, NoLock);
	return lappend(ways, way);
}

/* Tables that only a SELECT of via reads decide over roots too. */
static void
check_given(List *given, List *ways, const PlinthSyncNew *arg)
{
	ListCell *i;
	ListCell *j;
	ListCell *k;

	foreach (i, given)
	{
		PlinthSyncWay *way = lfirst(i);

		foreach (j, way->reads)
		{
			bool known = lfirst_oid(j) == arg->relation;

			foreach (k, ways)
				known |= ((PlinthSyncWay *) lfirst(k))->relation == lfirst_oid(j);
			if (!known)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("via for \"%s\" reads table \"%s\", of which nothing is said",
								get_rel_name(way->relation), get_rel_name(lfirst_oid(j))),
						 errdetail("A change of it changes which documents are concerned."),
						 errhint("Name it in via as well.")));
		}
	}
}

static List *
relations_of(List *ways)
{
	List *relations = NIL;
	ListCell *lc;

	foreach (lc, ways)
		relations = lappend_oid(relations, ((PlinthSyncWay *) lfirst(lc))->relation);
	return relations;
}

/* The output columns that are the key, by name. */
static void
find_key(TupleDesc desc, const PlinthSyncNew *arg, PlinthSyncKeyColumns *key)
{
	key->nkeys = arg->key.nkeys;
	for (int i = 0; i < arg->key.nkeys; i++)
	{
		const char *name = NameStr(plinth_sync_key_column(arg, i)->attname);

		key->attnums[i] = InvalidAttrNumber;
		for (int j = 0; j < desc->natts; j++)
			if (strcmp(NameStr(TupleDescAttr(desc, j)->attname), name) == 0)
				key->attnums[i] = j + 1;
		if (key->attnums[i] == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("query does not return key column \"%s\"", name),
					 errhint("Select %s of %s: what the query returns for a key becomes the "
							 "document of that key.",
							 plinth_sync_key_list(arg), plinth_sync_relation_name(arg->rel))));
	}
}

/* Without the column document, whose fields are its own. */
static TupleDesc
only_key(TupleDesc desc, PlinthSyncKeyColumns *key)
{
	TupleDesc result = CreateTemplateTupleDesc(key->nkeys);

	for (int i = 0; i < key->nkeys; i++)
	{
		TupleDescCopyEntry(result, i + 1, desc, key->attnums[i]);
		key->attnums[i] = i + 1;
	}
	return result;
}

/* The output columns, and what becomes of them. */
static void
check_output(Query *query, const PlinthSyncNew *arg)
{
	TupleDesc desc = ExecCleanTypeFromTL(query->targetList);
	PlinthSyncKeyColumns key;

	for (int i = 0; i < desc->natts; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(NameStr(TupleDescAttr(desc, i)->attname),
					   NameStr(TupleDescAttr(desc, j)->attname)) == 0)
				ereport(ERROR, (errcode(ERRCODE_DUPLICATE_COLUMN),
								errmsg("query returns column \"%s\" twice",
									   NameStr(TupleDescAttr(desc, i)->attname)),
								errhint("Give each column a name of its own by AS.")));
	find_key(desc, arg, &key);
	if (desc->natts == key.nkeys + 1)
	{
		for (int i = 0; i < desc->natts; i++)
		{
			Oid type = TupleDescAttr(desc, i)->atttypid;

			if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), DOCUMENT) != 0)
				continue;
			if (getBaseType(type) != JSONBOID && (type == RECORDOID || !type_is_rowtype(type)))
				ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
								errmsg("column \"document\" is of type %s", format_type_be(type)),
								errhint("Make it jsonb or a composite type, whose fields become "
										"the document's; or give it another name.")));
			desc = only_key(desc, &key);
			break;
		}
	}
	plinth_sync_check_fields(desc, "the query", &key, &arg->fields);
}

static void
set_row_security(const char *value)
{
	(void) set_config_option("row_security", value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/* With policies in the query, tables that have some for this role are told by name. */
static void
become_owner(const PlinthSyncNew *arg, PlinthAsOwner *state)
{
	plinth_sync_query_as_role(arg->owner, state);
	set_row_security("on");
}

List *
plinth_sync_document_look(PlinthSyncNew *arg, Jsonb *via)
{
	PlinthAsOwner state;
	Query *query;
	List *given;
	List *ways;
	ListCell *lc;

	become_owner(arg, &state);
	query = plinth_sync_query_parse(arg->query, "query", InvalidOid);
	plinth_sync_query_check(query, "query", arg->owner);
	arg->query = plinth_sync_query_deparse(query);
	query = plinth_sync_query_parse(arg->query, "query as it is kept", InvalidOid);
	plinth_sync_query_check(query, "query", arg->owner);
	check_output(query, arg);

	given = plinth_sync_paths_given(via, arg);
	ways = plinth_sync_paths(query, arg, relations_of(given));
	ways = list_concat(ways, given);
	check_given(given, ways, arg);

	set_row_security("off");
	plinth_sync_query_try(arg->query, 0);
	foreach (lc, ways)
	{
		PlinthSyncWay *way = lfirst(lc);

		if (way->roots != NULL)
			plinth_sync_query_try(way->roots, way->ncolumns);
	}
	plinth_sync_document_note_columns(arg, query, ways);
	plinth_sync_query_as_before(&state);
	return ways;
}

void
plinth_sync_document_check_output(PlinthSyncNew *arg)
{
	PlinthAsOwner state;

	become_owner(arg, &state);
	check_output(plinth_sync_query_parse(arg->query, "query as it is kept", InvalidOid), arg);
	plinth_sync_query_as_before(&state);
}

static void
read_arguments(FunctionCallInfo fcinfo, PlinthSyncNew *arg)
{
	arg->kind = "document";
	arg->name = plinth_sync_api_text_required(fcinfo, 0, "name");
	plinth_sync_new_server(fcinfo, arg, 1);
	arg->collection = plinth_sync_api_text_required(fcinfo, 2, "collection");
	plinth_sync_new_relation(fcinfo, arg, 3, "root");
	arg->query = plinth_sync_api_text_required(fcinfo, 4, "query");
	plinth_sync_new_fields(fcinfo, arg, 6);
	plinth_sync_new_on_existing(fcinfo, arg, 11);
	plinth_sync_new_snapshot(fcinfo, arg, 12);
	plinth_sync_new_lanes(fcinfo, arg, 13);
	arg->indexes = plinth_sync_api_text(fcinfo, 14);
}

PG_FUNCTION_INFO_V1(plinth_sync_document);
Datum
plinth_sync_document(PG_FUNCTION_ARGS)
{
	PlinthSyncNew arg = {0};
	PlinthSyncApi api;
	List *ways;
	int64 id;

	read_arguments(fcinfo, &arg);
	plinth_sync_new_open(&arg);
	plinth_sync_new_check(&arg);
	ways = plinth_sync_document_look(&arg, PG_ARGISNULL(5) ? NULL : PG_GETARG_JSONB_P(5));

	plinth_sync_new_begin(&arg, &api);
	id = plinth_sync_new_insert(&arg);
	plinth_sync_document_store(id, ways);
	plinth_sync_new_end(&arg, &api);
	PG_RETURN_INT64(id);
}
