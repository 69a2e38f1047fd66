/*
 * client.c
 *		From CREATE SERVER and CREATE USER MAPPING to a client.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "mongo/client_int.h"
#include "utils/syscache.h"

static void
wipe(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	bson_free(secret);
}

/* A copy in UTF-8 that outlives memory contexts. */
static char *
keep(DefElem *def)
{
	char *text = defGetString(def);
	int len;
	char *utf8 = plinth_mongo_to_utf8(text, strlen(text), &len);

	return bson_strndup(utf8, len);
}

/* The options of userid's mapping, else of PUBLIC's, else none. */
static List *
mapping_options(Oid userid, Oid server)
{
	HeapTuple tuple =
		SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid), ObjectIdGetDatum(server));
	List *result = NIL;
	Datum value;
	bool isnull;

	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		result = untransformRelOptions(value);
	ReleaseSysCache(tuple);
	return result;
}

static bool
take_uri(PlinthMongoClient *client, DefElem *def, PlinthMongoError *error)
{
	const char *hint;
	char *text = keep(def);
	bool good = plinth_mongo_uri_parse(text, &client->uri, error, &hint);

	bson_free(text);
	return good;
}

static bool
take_server_option(PlinthMongoClient *client, DefElem *def, PlinthMongoError *error)
{
	const char *name = def->defname;

	if (strcmp(name, "uri") == 0)
		return take_uri(client, def, error);
	if (strcmp(name, "database") == 0)
		client->database = keep(def);
	else if (strcmp(name, "tls_ca_file") == 0)
		client->tls.ca_file = keep(def);
	else if (strcmp(name, "tls_certificate_key_file") == 0)
		client->tls.certificate_key_file = keep(def);
	else if (strcmp(name, "tls_allow_invalid_certificates") == 0)
		client->tls.allow_invalid_certificates = defGetBoolean(def);
	else if (strcmp(name, "tls_allow_invalid_hostnames") == 0)
		client->tls.allow_invalid_hostnames = defGetBoolean(def);
	else if (strcmp(name, "auth_mechanism") == 0)
		client->auth_mechanism = keep(def);
	else if (strcmp(name, "auth_source") == 0)
		client->auth_source = keep(def);
	else if (strcmp(name, "replica_set") == 0)
		client->replica_set = keep(def);
	else if (strcmp(name, "app_name") == 0)
		client->app_name = keep(def);
	return true;
}

static bool
take_mapping_option(PlinthMongoClient *client, DefElem *def, PlinthMongoError *error)
{
	if (strcmp(def->defname, "username") == 0)
		client->username = keep(def);
	else if (strcmp(def->defname, "password") == 0)
		client->password = keep(def);
	else if (strcmp(def->defname, "password_file") == 0)
	{
		client->password = plinth_mongo_read_secret(defGetString(def), error);
		return client->password != NULL;
	}
	return true;
}

/* The server's own tls option wins over the uri's; SRV names mean TLS, as the standard has it. */
static void
decide_tls(PlinthMongoClient *client, List *options)
{
	ListCell *cell;

	client->tls.enabled = client->uri.tls_given ? client->uri.tls
												: client->uri.srv || client->tls.ca_file != NULL ||
													  client->tls.certificate_key_file != NULL;
	foreach (cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "tls") == 0)
			client->tls.enabled = defGetBoolean(def);
	}
}

static bool
take_options(PlinthMongoClient *client, List *server, List *mapping, PlinthMongoError *error)
{
	ListCell *cell;

	foreach (cell, server)
	{
		if (!take_server_option(client, lfirst_node(DefElem, cell), error))
			return false;
	}
	foreach (cell, mapping)
	{
		if (!take_mapping_option(client, lfirst_node(DefElem, cell), error))
			return false;
	}
	if (client->uri.hosts == NULL || client->database == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
							   "options \"uri\" and \"database\" are required");
		return false;
	}
	if (client->password != NULL && client->username == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
							   "the user mapping has a password but no username");
		return false;
	}
	decide_tls(client, server);
	return true;
}

PlinthMongoClient *
plinth_mongo_open(const char *server_name, Oid userid, PlinthMongoError *error)
{
	ForeignServer *server = GetForeignServerByName(server_name, true);
	PlinthMongoClient *client;
	mongoc_uri_t *uri = NULL;

	plinth_mongo_error_clear(error);
	if (server == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0, "server \"%s\" does not exist",
							   server_name);
		return NULL;
	}
	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "mongodb_fdw") != 0)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
							   "server \"%s\" does not belong to mongodb_fdw", server_name);
		return NULL;
	}

	client = bson_malloc0(sizeof(PlinthMongoClient));
	if (take_options(client, server->options, mapping_options(userid, server->serverid), error))
	{
		/* Not kept: it only shows whether the driver takes all of it. */
		uri = plinth_mongo_uri_build(client, client->uri.srv ? "srv.invalid" : client->uri.hosts,
									 "", error);
	}
	if (uri == NULL)
	{
		plinth_mongo_close(client);
		return NULL;
	}
	mongoc_uri_destroy(uri);
	return client;
}

void
plinth_mongo_close(PlinthMongoClient *client)
{
	if (client == NULL)
		return;
	if (client->driver != NULL)
	{
		plinth_mongo_enter(client);
		plinth_mongo_driver_close(client);
		plinth_mongo_leave(client);
	}
	plinth_mongo_scan_forget(client);
	plinth_mongo_uri_free(&client->uri);
	wipe(client->password);
	bson_free(client->database);
	bson_free(client->username);
	bson_free(client->auth_mechanism);
	bson_free(client->auth_source);
	bson_free(client->replica_set);
	bson_free(client->app_name);
	bson_free(client->tls.ca_file);
	bson_free(client->tls.certificate_key_file);
	bson_free(client);
}

uint64
plinth_mongo_connections(PlinthMongoClient *client)
{
	return client->connections;
}
