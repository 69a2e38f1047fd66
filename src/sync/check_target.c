/*
 * check_target.c
 *		Where documents may go: the server, and a collection that no other
 *		mapping writes.
 *
 * Two mappings to one collection would delete each other's documents.  Two
 * servers can name one MongoDB, so what is compared is where they lead: a host
 * in common, the same database and the same collection.  Two names of one
 * host cannot be told from here; those the fence tells, at the first write.
 */
#include "postgres.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/syscache.h"

#include "base/base.h"
#include "sync/check.h"

#define MAX_NAMESPACE_BYTES 120

static void
check_usage(ForeignServer *server, Oid role)
{
	if (object_aclcheck(ForeignServerRelationId, server->serverid, role, ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("role \"%s\" may not use foreign server \"%s\"",
							   GetUserNameFromId(role, false), server->servername),
						errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;",
								quote_identifier(server->servername),
								quote_identifier(GetUserNameFromId(role, false)))));
}

void
plinth_sync_check_server(const char *name, Oid caller, Oid owner)
{
	ForeignServer *server = GetForeignServerByName(name, true);

	if (server == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("foreign server \"%s\" does not exist", name),
						errhint("CREATE SERVER %s FOREIGN DATA WRAPPER mongodb_fdw OPTIONS (uri "
								"'mongodb://host', database '...');",
								quote_identifier(name))));
	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "mongodb_fdw") != 0)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("foreign server \"%s\" is not a server of mongodb_fdw", name),
						errhint("Name a server made by CREATE SERVER ... FOREIGN DATA WRAPPER "
								"mongodb_fdw.")));
	check_usage(server, caller);
	check_usage(server, owner);
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(owner),
							   ObjectIdGetDatum(server->serverid)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(server->serverid)))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("role \"%s\" has no user mapping for foreign server \"%s\"",
					GetUserNameFromId(owner, false), name),
			 errdetail("Documents are sent as the table's owner."),
			 errhint("CREATE USER MAPPING FOR %s SERVER %s; with OPTIONS (username '...', "
					 "password_file '...') where MongoDB asks for them.",
					 quote_identifier(GetUserNameFromId(owner, false)), quote_identifier(name))));
}

static const char *
server_option(ForeignServer *server, const char *name)
{
	ListCell *lc;

	foreach (lc, server->options)
	{
		DefElem *option = lfirst_node(DefElem, lc);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return "";
}

/*
 * The hosts of a connection string, in lower case and each with its port; for
 * mongodb+srv the name that is looked up.
 */
static List *
uri_hosts(const char *uri)
{
	bool srv = strncmp(uri, "mongodb+srv://", strlen("mongodb+srv://")) == 0;
	const char *start = strstr(uri, "://");
	char *authority;
	char *at;
	List *hosts = NIL;

	start = start == NULL ? uri : start + strlen("://");
	authority = pnstrdup(start, strcspn(start, "/?"));
	at = strrchr(authority, '@');
	for (char *host = strtok(at == NULL ? authority : at + 1, ","); host != NULL;
		 host = strtok(NULL, ","))
	{
		const char *bracket = strrchr(host, ']');
		bool port = strchr(bracket == NULL ? host : bracket, ':') != NULL;
		char *lower = str_tolower(host, strlen(host), C_COLLATION_OID);

		hosts = lappend(hosts, srv    ? psprintf("srv %s", lower)
							   : port ? lower
									  : psprintf("%s:27017", lower));
	}
	return hosts;
}

/* Do the two lead to one database of one MongoDB? */
static bool
same_database(ForeignServer *a, ForeignServer *b)
{
	List *hosts = uri_hosts(server_option(a, "uri"));
	List *others = uri_hosts(server_option(b, "uri"));
	ListCell *i;
	ListCell *j;

	if (a->serverid == b->serverid)
		return true;
	if (strcmp(server_option(a, "database"), server_option(b, "database")) != 0)
		return false;
	foreach (i, hosts)
		foreach (j, others)
			if (strcmp(lfirst(i), lfirst(j)) == 0)
				return true;
	return false;
}

static void
check_collection_name(ForeignServer *server, const char *collection)
{
	const char *reason = NULL;

	if (collection[0] == '\0')
		reason = "is empty";
	else if (strchr(collection, '$') != NULL)
		reason = "contains \"$\"";
	else if (collection[0] == '.')
		reason = "starts with \".\"";
	else if (strncmp(collection, "system.", strlen("system.")) == 0)
		reason = "starts with \"system.\"";
	else if (strcmp(collection, PLINTH_SYNC_FENCE_COLLECTION) == 0)
		reason = "is where this extension keeps its own documents";
	else if (strlen(server_option(server, "database")) + 1 + strlen(collection) >
			 MAX_NAMESPACE_BYTES)
		reason = "is too long";
	if (reason != NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_NAME),
						errmsg("collection name \"%s\" %s", collection, reason),
						errhint("Pass another name in the argument collection; with database and "
								"\".\" it may have %d bytes.",
								MAX_NAMESPACE_BYTES)));
}

void
plinth_sync_check_target(const char *server_name, const char *collection)
{
	static PlinthPlan plan = {
		"SELECT name, server_name FROM plinth.sync_mappings WHERE collection = $1 ORDER BY id",
		1,
		{TEXTOID},
		NULL};
	ForeignServer *server = GetForeignServerByName(server_name, false);
	Datum values[1];

	check_collection_name(server, collection);
	values[0] = CStringGetTextDatum(collection);
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char *name = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		char *other = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);
		ForeignServer *other_server = GetForeignServerByName(other, true);

		if (other_server != NULL && same_database(server, other_server))
			ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT),
							errmsg("collection \"%s\" is already written by sync mapping \"%s\"",
								   collection, name),
							errhint("Pass another name in the argument collection, or first SELECT "
									"plinth.sync_drop(%s);",
									quote_literal_cstr(name))));
	}
}
