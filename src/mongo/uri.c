/*
 * uri.c
 *		Connection strings: what is allowed in them, and what the driver gets.
 *
 * Everyone who may look at pg_foreign_server sees a server's uri, so
 * credentials in it are refused.  Options that name files, carry secrets, or
 * would undo what this room promises about time and write concern are not
 * taken from it either.
 */
#include "postgres.h"

#include <ctype.h>

#include "base/base.h"
#include "lib/stringinfo.h"
#include "mongo/client_int.h"

#define MAX_URI 4096

typedef enum UriOption
{
	URI_PASS,     /* given to the driver */
	URI_TLS,      /* understood here */
	URI_MAJORITY, /* allowed as "majority" only, which is what happens anyway */
	URI_IGNORED   /* part of usual connection strings, without effect here */
} UriOption;

static const struct
{
	const char *name;
	UriOption kind;
} uri_options[] = {{"appname", URI_PASS},
				   {"authmechanism", URI_PASS},
				   {"authsource", URI_PASS},
				   {"compressors", URI_PASS},
				   {"directconnection", URI_PASS},
				   {"heartbeatfrequencyms", URI_PASS},
				   {"loadbalanced", URI_PASS},
				   {"replicaset", URI_PASS},
				   {"srvmaxhosts", URI_PASS},
				   {"srvservicename", URI_PASS},
				   {"zlibcompressionlevel", URI_PASS},
				   {"ssl", URI_TLS},
				   {"tls", URI_TLS},
				   {"w", URI_MAJORITY},
				   {"retryreads", URI_IGNORED},
				   {"retrywrites", URI_IGNORED}};

bool
plinth_mongo_auth_mechanism_known(const char *mechanism)
{
	return strcmp(mechanism, "SCRAM-SHA-1") == 0 || strcmp(mechanism, "SCRAM-SHA-256") == 0 ||
		   strcmp(mechanism, "PLAIN") == 0 || strcmp(mechanism, "MONGODB-X509") == 0;
}

void
plinth_mongo_uri_free(MongoUri *uri)
{
	bson_free(uri->hosts);
	bson_free(uri->path);
	bson_free(uri->query);
	memset(uri, 0, sizeof(*uri));
}

static bool
refuse(PlinthMongoError *error, const char **hint, const char *why, const char *advice)
{
	plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0, "%s", why);
	*hint = advice;
	return false;
}

/* One name=value of the query. */
static bool
take_option(MongoUri *uri, StringInfo query, const char *name, const char *value,
			PlinthMongoError *error, const char **hint)
{
	char why[256];

	for (int i = 0; i < lengthof(uri_options); i++)
	{
		if (pg_strcasecmp(uri_options[i].name, name) != 0)
			continue;
		switch (uri_options[i].kind)
		{
			case URI_PASS:
				if (strcmp(uri_options[i].name, "authmechanism") == 0 &&
					!plinth_mongo_auth_mechanism_known(value))
					return refuse(error, hint, "authentication mechanism in uri is not supported",
								  "Use SCRAM-SHA-256, SCRAM-SHA-1, PLAIN or MONGODB-X509.");
				appendStringInfo(query, "%s%s=%s", query->len > 0 ? "&" : "", name, value);
				return true;
			case URI_TLS:
				if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
					return refuse(error, hint, "option \"tls\" in uri must be true or false", NULL);
				uri->tls_given = true;
				uri->tls = strcmp(value, "true") == 0;
				return true;
			case URI_MAJORITY:
				if (strcmp(value, "majority") != 0)
					return refuse(error, hint, "option \"w\" in uri must be majority",
								  "Leave it out: plinth always waits for the majority.");
				return true;
			case URI_IGNORED:
				return true;
		}
	}
	snprintf(why, sizeof(why), "option \"%.64s\" is not allowed in uri", name);
	return refuse(
		error, hint, why,
		"Allowed are appName, authMechanism, authSource, compressors, directConnection, "
		"heartbeatFrequencyMS, loadBalanced, replicaSet, retryReads, retryWrites, srvMaxHosts, srvServiceName, "
		"tls, w and zlibCompressionLevel; files and certificates are options of the "
		"server, timeouts are settings.");
}

static bool
parse_query(const char *text, MongoUri *uri, PlinthMongoError *error, const char **hint)
{
	StringInfoData query;
	char *copy = bson_strdup(text);
	char *rest = copy;
	char *pair;
	bool good = true;

	initStringInfo(&query);
	while (good && (pair = strsep(&rest, "&")) != NULL)
	{
		char *value = strchr(pair, '=');

		if (*pair == '\0')
			continue;
		if (value == NULL)
			good = refuse(error, hint, "option without a value in uri", NULL);
		else
		{
			*value++ = '\0';
			good = take_option(uri, &query, pair, value, error, hint);
		}
	}
	bson_free(copy);
	uri->query = bson_strdup(query.data);
	pfree(query.data);
	return good;
}

/* Lets the driver look at the whole, with what it does not need left out. */
static bool
driver_accepts(const MongoUri *uri, PlinthMongoError *error, const char **hint)
{
	char *text = bson_strdup_printf("%s%s/%s?%s", uri->srv ? "mongodb+srv://" : "mongodb://",
									uri->hosts, uri->path, uri->query);
	bson_error_t reason = {0};
	mongoc_uri_t *parsed = mongoc_uri_new_with_error(text, &reason);

	bson_free(text);
	if (parsed == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, (int) reason.code, "%s", reason.message);
		*hint = "It looks like mongodb://host:port/ or mongodb+srv://name/.";
		return false;
	}
	mongoc_uri_destroy(parsed);
	return true;
}

static bool
check_text(const char *text, PlinthMongoError *error, const char **hint)
{
	if (strlen(text) > MAX_URI)
		return refuse(error, hint, "uri is too long", NULL);
	if (!bson_utf8_validate(text, strlen(text), false))
		return refuse(error, hint, "uri is not valid UTF-8", NULL);
	for (const char *c = text; *c != '\0'; c++)
	{
		if ((unsigned char) *c <= ' ' || *c == 0x7f)
			return refuse(error, hint, "uri contains a space or a control character", NULL);
	}
	if (strchr(text, '@') != NULL)
		return refuse(
			error, hint, "user name and password are not allowed in uri",
			"Put them into a user mapping: CREATE USER MAPPING FOR ... SERVER ... OPTIONS "
			"(username '...', password_file '...').");
	return true;
}

/* name, name:port, [address], [address]:port or a socket's path in %2F form. */
static bool
is_host(const char *host)
{
	const char *set = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_%";
	size_t len;

	if (*host == '[')
	{
		len = strspn(host + 1, "0123456789abcdefABCDEF:.");
		if (len == 0 || host[len + 1] != ']')
			return false;
		host += len + 2;
	}
	else
	{
		len = strspn(host, set);
		if (len == 0 || len > 253)
			return false;
		host += len;
	}
	if (*host == '\0')
		return true;
	if (*host++ != ':')
		return false;
	len = strspn(host, "0123456789");
	return len > 0 && len <= 5 && host[len] == '\0' && atoi(host) > 0 && atoi(host) <= 65535;
}

static bool
check_hosts(const MongoUri *uri, PlinthMongoError *error, const char **hint)
{
	char *copy = bson_strdup(uri->hosts);
	char *rest = copy;
	char *host;
	bool good = true;

	while (good && (host = strsep(&rest, ",")) != NULL)
		good = is_host(host);
	bson_free(copy);
	if (!good)
		return refuse(error, hint, "host in uri is not a name or address with an optional port",
					  NULL);
	if (uri->srv && strpbrk(uri->hosts, ",:%[") != NULL)
		return refuse(error, hint, "uri with mongodb+srv:// takes one name and no port", NULL);
	return true;
}

bool
plinth_mongo_uri_parse(const char *text, MongoUri *uri, PlinthMongoError *error, const char **hint)
{
	size_t hosts;
	size_t path;

	memset(uri, 0, sizeof(*uri));
	*hint = NULL;
	if (!check_text(text, error, hint))
		return false;
	if (strncmp(text, "mongodb://", 10) == 0)
		text += 10;
	else if (strncmp(text, "mongodb+srv://", 14) == 0)
	{
		text += 14;
		uri->srv = true;
	}
	else
		return refuse(error, hint, "uri does not begin with mongodb:// or mongodb+srv://", NULL);

	hosts = strcspn(text, "/?");
	uri->hosts = bson_strndup(text, hosts);
	text += hosts;
	if (*text == '/')
		text++;
	path = strcspn(text, "?");
	uri->path = bson_strndup(text, path);
	text += path;
	if (hosts == 0)
	{
		plinth_mongo_uri_free(uri);
		return refuse(error, hint, "uri names no host", NULL);
	}
	if (!check_hosts(uri, error, hint) ||
		!parse_query(*text == '?' ? text + 1 : text, uri, error, hint) ||
		!driver_accepts(uri, error, hint))
	{
		plinth_mongo_uri_free(uri);
		return false;
	}
	return true;
}

static bool
set_credentials(PlinthMongoClient *client, mongoc_uri_t *uri)
{
	return (client->username == NULL || mongoc_uri_set_username(uri, client->username)) &&
		   (client->password == NULL || mongoc_uri_set_password(uri, client->password)) &&
		   (client->auth_source == NULL || mongoc_uri_set_auth_source(uri, client->auth_source)) &&
		   (client->auth_mechanism == NULL ||
			mongoc_uri_set_auth_mechanism(uri, client->auth_mechanism));
}

static bool
set_options(PlinthMongoClient *client, mongoc_uri_t *uri)
{
	int connect_ms = plinth_setting_sync_connect_timeout;

	if (client->app_name != NULL)
	{
		if (!mongoc_uri_set_appname(uri, client->app_name))
			return false;
	}
	else if (mongoc_uri_get_appname(uri) == NULL)
		(void) mongoc_uri_set_appname(uri, "plinth");
	return (client->replica_set == NULL ||
			mongoc_uri_set_option_as_utf8(uri, MONGOC_URI_REPLICASET, client->replica_set)) &&
		   mongoc_uri_set_option_as_int32(uri, MONGOC_URI_CONNECTTIMEOUTMS, connect_ms) &&
		   mongoc_uri_set_option_as_int32(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, connect_ms) &&
		   mongoc_uri_set_option_as_int32(uri, MONGOC_URI_SOCKETTIMEOUTMS,
										  plinth_setting_sync_timeout + MONGO_SOCKET_MARGIN_MS) &&
		   mongoc_uri_set_option_as_bool(uri, MONGOC_URI_SERVERSELECTIONTRYONCE, true) &&
		   mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYWRITES, false) &&
		   mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYREADS, false);
}

mongoc_uri_t *
plinth_mongo_uri_build(PlinthMongoClient *client, const char *hosts, const char *options,
					   PlinthMongoError *error)
{
	/* What the TXT record of an SRV name says comes first, so that the uri's own options win. */
	char *text = bson_strdup_printf("mongodb://%s/%s?%s%s%s", hosts, client->uri.path,
									options[0] == '&' ? options + 1 : options,
									options[0] != '\0' && client->uri.query[0] != '\0' ? "&" : "",
									client->uri.query);
	bson_error_t reason = {0};
	mongoc_uri_t *uri = mongoc_uri_new_with_error(text, &reason);

	bson_free(text);
	if (uri == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, (int) reason.code, "%s", reason.message);
		return NULL;
	}
	if (!set_credentials(client, uri) || !set_options(client, uri))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
							   "the driver did not accept an option of the server or user mapping");
		mongoc_uri_destroy(uri);
		return NULL;
	}
	return uri;
}
