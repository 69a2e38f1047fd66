/*
 * driver.c
 *		The life of libmongoc in a worker.
 *
 * It is started at first use, after fork, with all signals masked.  There is
 * one mongoc_client_t at a time and no pool, hence no thread of the driver's.
 * After a failure the client is thrown away: a new one has no memory of
 * servers that it would not ask again for some seconds, and resolves SRV
 * names anew (by itself the driver would do that with a blocking call).
 */
#include "postgres.h"

#include <signal.h>

#include "base/base.h"
#include "mongo/client_int.h"

/* Warnings of the driver are for developers; what matters comes back as an error. */
static void
log_nothing(mongoc_log_level_t level, const char *domain, const char *message, void *arg)
{
}

static void
init_once(void)
{
	static bool done = false;
	sigset_t all;
	sigset_t old;

	if (done)
		return;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	/* Its counters in /dev/shm would stay behind after a kill -9. */
	setenv("MONGOC_DISABLE_SHM", "1", 1);
	mongoc_log_set_handler(log_nothing, NULL);
	mongoc_init();
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	done = true;
}

static mongoc_uri_t *
resolved_uri(PlinthMongoClient *client, PlinthMongoError *error)
{
	MongoLookup *lookup;
	mongoc_uri_t *uri;
	char *text;

	if (!client->uri.srv)
		return plinth_mongo_uri_build(client, client->uri.hosts, "", error);

	text = bson_strdup_printf("mongodb+srv://%s/%s?%s", client->uri.hosts, client->uri.path,
							  client->uri.query);
	lookup = plinth_mongo_resolve(client, MONGO_LOOKUP_SRV, text, 0, error);
	bson_free(text);
	if (lookup == NULL)
		return NULL;
	uri = plinth_mongo_uri_build(client, lookup->hosts,
								 lookup->options == NULL ? "" : lookup->options, error);
	plinth_mongo_lookup_free(lookup);
	return uri;
}

bool
plinth_mongo_driver_open(PlinthMongoClient *client, PlinthMongoError *error)
{
	mongoc_uri_t *uri;
	bson_error_t reason = {0};

	if (client->driver != NULL)
		return true;
	init_once();
	uri = resolved_uri(client, error);
	if (uri == NULL)
		return false;
	client->driver = mongoc_client_new_from_uri_with_error(uri, &reason);
	mongoc_uri_destroy(uri);
	if (client->driver == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, (int) reason.code, "%s", reason.message);
		return false;
	}
	mongoc_client_set_error_api(client->driver, MONGOC_ERROR_API_VERSION_2);
	mongoc_client_set_stream_initiator(client->driver, plinth_mongo_connect, client);
	return true;
}

void
plinth_mongo_driver_close(PlinthMongoClient *client)
{
	if (client->driver != NULL)
		mongoc_client_destroy(client->driver);
	client->driver = NULL;
}
