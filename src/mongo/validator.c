/*
 * validator.c
 *		The options of mongodb_fdw's servers and user mappings.
 *
 * Options that make the server process read a file are for superusers and
 * members of pg_read_server_files; the validator sees the whole list at each
 * ALTER, so nobody else can point such a server somewhere else either.  No
 * message repeats an option's value.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "base/base.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "mongo/client_int.h"
#include "utils/acl.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_mongo_validator(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_mongo_validator);

typedef enum OptionKind
{
	OPTION_TEXT,
	OPTION_BOOL,
	OPTION_URI,
	OPTION_MECHANISM,
	OPTION_DATABASE,
	OPTION_FILE
} OptionKind;

typedef struct Option
{
	const char *name;
	Oid context;
	OptionKind kind;
	bool superuser; /* weakens what the connection promises */
} Option;

static const Option options[] = {
	{"uri", ForeignServerRelationId, OPTION_URI, false},
	{"database", ForeignServerRelationId, OPTION_DATABASE, false},
	{"tls", ForeignServerRelationId, OPTION_BOOL, false},
	{"tls_ca_file", ForeignServerRelationId, OPTION_FILE, false},
	{"tls_certificate_key_file", ForeignServerRelationId, OPTION_FILE, false},
	{"tls_allow_invalid_certificates", ForeignServerRelationId, OPTION_BOOL, true},
	{"tls_allow_invalid_hostnames", ForeignServerRelationId, OPTION_BOOL, true},
	{"auth_mechanism", ForeignServerRelationId, OPTION_MECHANISM, false},
	{"auth_source", ForeignServerRelationId, OPTION_TEXT, false},
	{"replica_set", ForeignServerRelationId, OPTION_TEXT, false},
	{"app_name", ForeignServerRelationId, OPTION_TEXT, false},
	{"username", UserMappingRelationId, OPTION_TEXT, false},
	{"password", UserMappingRelationId, OPTION_TEXT, false},
	{"password_file", UserMappingRelationId, OPTION_FILE, false}};

static void
unknown_option(const char *name, Oid context)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < lengthof(options); i++)
	{
		if (options[i].context == context)
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", options[i].name);
	}
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
					valid.len > 0 ? errhint("Valid options in this context are: %s", valid.data)
								  : errhint("There are no valid options in this context.")));
}

static void
bad_value(const char *name, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					errmsg("invalid value for option \"%s\"", name), errhint("%s", hint)));
}

static void
check_uri(const char *value)
{
	MongoUri uri;
	PlinthMongoError error;
	const char *hint;

	if (!plinth_mongo_uri_parse(value, &uri, &error, &hint))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("invalid value for option \"uri\": %s", error.message),
						hint == NULL ? 0 : errhint("%s", hint)));
	plinth_mongo_uri_free(&uri);
}

static void
check_database(const char *value)
{
	if (*value == '\0' || strlen(value) > 63 || strpbrk(value, "/\\. \"$*<>:|?") != NULL)
		bad_value("database", "A MongoDB database's name has at most 63 bytes and none of the "
							  "characters /\\. \"$*<>:|?.");
}

static void
check_file(const char *name, const char *value)
{
	if (!is_absolute_path(value))
		bad_value(name, "It must be an absolute path.");
	if (!superuser() && !has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied to set option \"%s\"", name),
						errdetail("Only superusers and roles with privileges of the "
								  "\"pg_read_server_files\" role may name a file on the server.")));
}

static void
check_option(const Option *option, DefElem *def)
{
	char *value;

	if (option->kind == OPTION_BOOL)
	{
		if (defGetBoolean(def) && option->superuser && !superuser())
			ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
							errmsg("permission denied to set option \"%s\"", option->name),
							errdetail("Only superusers may switch off the checks of "
									  "certificates.")));
		return;
	}
	value = defGetString(def);
	switch (option->kind)
	{
		case OPTION_URI:
			check_uri(value);
			break;
		case OPTION_MECHANISM:
			if (!plinth_mongo_auth_mechanism_known(value))
				bad_value(option->name, "It is SCRAM-SHA-256, SCRAM-SHA-1, PLAIN or MONGODB-X509.");
			break;
		case OPTION_DATABASE:
			check_database(value);
			break;
		case OPTION_FILE:
			check_file(option->name, value);
			break;
		default:
			if (*value == '\0' || strlen(value) > 1024)
				bad_value(option->name, "It has 1 to 1024 bytes.");
	}
}

static const Option *
find_option(const char *name, Oid context)
{
	for (int i = 0; i < lengthof(options); i++)
	{
		if (options[i].context == context && strcmp(options[i].name, name) == 0)
			return &options[i];
	}
	unknown_option(name, context);
	return NULL;
}

static void
require_option(bool given, const char *name)
{
	if (!given)
		ereport(ERROR, (errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
						errmsg("option \"%s\" is required", name)));
}

/* Called with the whole list that an object is about to have. */
Datum
plinth_mongo_validator(PG_FUNCTION_ARGS)
{
	List *list = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid context = PG_GETARG_OID(1);
	bool uri = false;
	bool database = false;
	bool password = false;
	bool password_file = false;
	ListCell *cell;

	/* A password, or a uri with one that is about to be refused. */
	plinth_base_hide_statement();
	foreach (cell, list)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		check_option(find_option(def->defname, context), def);
		uri |= strcmp(def->defname, "uri") == 0;
		database |= strcmp(def->defname, "database") == 0;
		password |= strcmp(def->defname, "password") == 0;
		password_file |= strcmp(def->defname, "password_file") == 0;
	}
	if (context == ForeignServerRelationId)
	{
		require_option(uri, "uri");
		require_option(database, "database");
	}
	if (password && password_file)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("options \"password\" and \"password_file\" exclude each other")));
	/* Workers that use the server look again. */
	if (context == ForeignServerRelationId || context == UserMappingRelationId)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	PG_RETURN_VOID();
}
