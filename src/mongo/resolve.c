/*
 * resolve.c
 *		Names to addresses, without ever blocking this process.
 *
 * getaddrinfo and SRV lookups answer neither signals nor procsignal barriers,
 * so each runs in a thread with all signals masked, while this process waits
 * for the pipe that the thread closes when it is done.  A thread cannot be
 * stopped: a lookup that outlasts its caller stays in a short list, the next
 * caller for the same name waits for that one instead of starting another,
 * and when the list is full of lookups that hang, new names are refused.
 *
 * The thread touches only its own job, and no PostgreSQL function.
 */
#include "postgres.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/base.h"
#include "mongo/client_int.h"
#include "storage/fd.h"
#include "storage/latch.h"

#define MAX_PENDING 8

typedef struct Job
{
	MongoLookupKind kind;
	char *name; /* a host, or a whole mongodb+srv uri */
	char port[8];
	int read_fd;  /* ours; readable (at its end) when the job is done */
	int write_fd; /* the thread's */
	MongoLookup *result;
} Job;

static Job *pending[MAX_PENDING];

void
plinth_mongo_lookup_free(MongoLookup *lookup)
{
	if (lookup == NULL)
		return;
	if (lookup->addresses != NULL)
		freeaddrinfo(lookup->addresses);
	free(lookup->hosts);
	free(lookup->options);
	free(lookup);
}

static void
lookup_host(Job *job)
{
	struct addrinfo hints = {0};

	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG;
	job->result->gai_error = getaddrinfo(job->name, job->port, &hints, &job->result->addresses);
}

/* "host:port,host:port" of the records that the driver found. */
static char *
join_hosts(const mongoc_host_list_t *hosts)
{
	size_t size = 1;
	char *joined;

	for (const mongoc_host_list_t *host = hosts; host != NULL; host = host->next)
		size += strlen(host->host_and_port) + 1;
	joined = calloc(1, size);
	for (const mongoc_host_list_t *host = hosts; host != NULL && joined != NULL; host = host->next)
	{
		if (joined[0] != '\0')
			strcat(joined, ",");
		strcat(joined, host->host_and_port);
	}
	return joined;
}

/* The driver does the lookup when it makes a client. */
static void
lookup_srv(Job *job)
{
	bson_error_t error = {0};
	mongoc_uri_t *uri = mongoc_uri_new_with_error(job->name, &error);
	mongoc_client_t *driver =
		uri == NULL ? NULL : mongoc_client_new_from_uri_with_error(uri, &error);

	if (driver == NULL)
		strlcpy(job->result->message, error.message, sizeof(job->result->message));
	else
	{
		const mongoc_uri_t *found = mongoc_client_get_uri(driver);
		const char *set = mongoc_uri_get_replica_set(found);
		const char *source = mongoc_uri_get_auth_source(found);
		bool balanced = mongoc_uri_get_option_as_bool(found, MONGOC_URI_LOADBALANCED, false);
		size_t size = 64 + (set == NULL ? 0 : strlen(set)) + (source == NULL ? 0 : strlen(source));

		job->result->hosts = join_hosts(mongoc_uri_get_hosts(found));
		job->result->options = calloc(1, size);
		if (job->result->options != NULL)
			(snprintf)(job->result->options, size, "%s%s%s%s%s",
					   set == NULL ? "" : "&replicaSet=", set == NULL ? "" : set,
					   source == NULL ? "" : "&authSource=", source == NULL ? "" : source,
					   balanced ? "&loadBalanced=true" : "");
	}
	if (driver != NULL)
		mongoc_client_destroy(driver);
	if (uri != NULL)
		mongoc_uri_destroy(uri);
}

static void *
run_job(void *arg)
{
	Job *job = arg;
	int write_fd = job->write_fd;

	if (job->kind == MONGO_LOOKUP_HOST)
		lookup_host(job);
	else
		lookup_srv(job);
	/* From here on the job is the main thread's. */
	close(write_fd);
	return NULL;
}

static void
free_job(Job *job)
{
	if (job->read_fd >= 0)
	{
		close(job->read_fd);
		ReleaseExternalFD();
	}
	plinth_mongo_lookup_free(job->result);
	free(job->name);
	free(job);
}

static bool
is_done(Job *job)
{
	struct pollfd fd = {.fd = job->read_fd, .events = POLLIN};

	return poll(&fd, 1, 0) > 0;
}

/* A running job for the same name, else a free place (made by dropping finished jobs), else -1. */
static int
find_place(MongoLookupKind kind, const char *name, const char *port, bool *running)
{
	int place = -1;

	*running = false;
	for (int i = 0; i < MAX_PENDING; i++)
	{
		if (pending[i] != NULL && pending[i]->kind == kind && strcmp(pending[i]->name, name) == 0 &&
			strcmp(pending[i]->port, port) == 0)
		{
			*running = true;
			return i;
		}
		if (pending[i] != NULL && is_done(pending[i]))
		{
			free_job(pending[i]);
			pending[i] = NULL;
		}
		if (pending[i] == NULL)
			place = i;
	}
	return place;
}

static bool
start_thread(Job *job)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all;
	sigset_t old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attributes, run_job, job);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc == 0;
}

static Job *
start_job(MongoLookupKind kind, const char *name, const char *port)
{
	Job *job = calloc(1, sizeof(Job));
	int fds[2];

	if (job == NULL)
		return NULL;
	job->kind = kind;
	job->read_fd = -1;
	strlcpy(job->port, port, sizeof(job->port));
	job->name = strdup(name);
	job->result = calloc(1, sizeof(MongoLookup));
	if (job->name == NULL || job->result == NULL || !AcquireExternalFD())
	{
		free_job(job);
		return NULL;
	}
	if (pipe2(fds, O_CLOEXEC) != 0)
	{
		ReleaseExternalFD();
		free_job(job);
		return NULL;
	}
	job->read_fd = fds[0];
	job->write_fd = fds[1];
	if (!start_thread(job))
	{
		close(fds[1]);
		free_job(job);
		return NULL;
	}
	return job;
}

/* What to call it in messages: a mongodb+srv uri is reduced to its name. */
static const char *
display_name(PlinthMongoClient *client, MongoLookupKind kind, const char *name)
{
	return kind == MONGO_LOOKUP_SRV ? client->uri.hosts : name;
}

MongoLookup *
plinth_mongo_resolve(PlinthMongoClient *client, MongoLookupKind kind, const char *name, int port,
					 PlinthMongoError *error)
{
	char service[8];
	bool running;
	int place;
	MongoLookup *result;
	MongoWait wait;
	const char *display = display_name(client, kind, name);

	snprintf(service, sizeof(service), "%d", port);
	place = find_place(kind, name, service, &running);
	if (place >= 0 && !running)
		pending[place] = start_job(kind, name, service);
	if (place < 0 || pending[place] == NULL)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_DNS, 0,
							   place < 0 ? "could not look up \"%s\": too many lookups hang"
										 : "could not start looking up \"%s\"",
							   display);
		return NULL;
	}

	wait = plinth_mongo_wait_socket(client, pending[place]->read_fd, WL_SOCKET_READABLE,
									plinth_mongo_now() + plinth_setting_sync_connect_timeout);
	if (wait != MONGO_WAIT_READY)
	{
		plinth_mongo_error_set(
			error, wait == MONGO_WAIT_CANCELLED ? PLINTH_MONGO_CANCELLED : PLINTH_MONGO_DNS, 0,
			"looking up \"%s\" did not end within %d ms", display,
			plinth_setting_sync_connect_timeout);
		return NULL;
	}

	result = pending[place]->result;
	pending[place]->result = NULL;
	free_job(pending[place]);
	pending[place] = NULL;
	if (result->gai_error != 0 || (kind == MONGO_LOOKUP_SRV && result->hosts == NULL))
	{
		plinth_mongo_error_set(
			error, PLINTH_MONGO_DNS, result->gai_error, "could not look up \"%s\": %s", display,
			kind == MONGO_LOOKUP_SRV ? result->message : gai_strerror(result->gai_error));
		plinth_mongo_lookup_free(result);
		return NULL;
	}
	return result;
}
