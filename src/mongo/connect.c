/*
 * connect.c
 *		From a host of the uri to a connected stream; called by the driver.
 */
#include "postgres.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/base.h"
#include "mongo/client_int.h"
#include "storage/fd.h"
#include "storage/latch.h"

static int
open_socket(int family, PlinthMongoError *error)
{
	int fd;

	if (!AcquireExternalFD())
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_UNREACHABLE, 0, "too many open files");
		return -1;
	}
	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_UNREACHABLE, errno,
							   "could not create socket: %m");
		ReleaseExternalFD();
	}
	return fd;
}

static void
close_socket(int fd)
{
	close(fd);
	ReleaseExternalFD();
}

static void
set_options(int fd, int family)
{
	int on = 1;
#ifdef TCP_KEEPIDLE
	int idle_s = 60;
	int interval_s = 15;
	int probes = 4;
#endif

	if (family == AF_UNIX)
		return;
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
#ifdef TCP_KEEPIDLE
	/* An index that is built sends nothing for hours, and nor does a server that has gone. */
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
#endif
}

/* A connected descriptor, or -1. */
static int
connect_address(PlinthMongoClient *client, const struct sockaddr *address, socklen_t len,
				const char *display, int64 deadline, PlinthMongoError *error)
{
	int fd = open_socket(address->sa_family, error);
	int failure = 0;
	socklen_t size = sizeof(failure);

	if (fd < 0)
		return -1;
	set_options(fd, address->sa_family);
	if (connect(fd, address, len) != 0)
	{
		failure = errno;
		if (failure == EINPROGRESS || failure == EINTR || failure == EAGAIN)
		{
			switch (plinth_mongo_wait_socket(client, fd, WL_SOCKET_WRITEABLE, deadline))
			{
				case MONGO_WAIT_READY:
					if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
						failure = errno;
					break;
				case MONGO_WAIT_TIMEOUT:
					failure = ETIMEDOUT;
					break;
				case MONGO_WAIT_CANCELLED:
					plinth_mongo_error_set(error, PLINTH_MONGO_CANCELLED, 0, "cancelled");
					close_socket(fd);
					return -1;
			}
		}
	}
	if (failure != 0)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_UNREACHABLE, failure,
							   "could not connect to \"%s\": %s", display, strerror(failure));
		close_socket(fd);
		return -1;
	}
	return fd;
}

static int
connect_unix(PlinthMongoClient *client, const char *path, int64 deadline, PlinthMongoError *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0, "socket path \"%s\" is too long",
							   path);
		return -1;
	}
	strcpy(address.sun_path, path);
	return connect_address(client, (struct sockaddr *) &address, sizeof(address), path, deadline,
						   error);
}

static int
connect_host(PlinthMongoClient *client, const mongoc_host_list_t *host, int64 deadline,
			 PlinthMongoError *error)
{
	MongoLookup *lookup =
		plinth_mongo_resolve(client, MONGO_LOOKUP_HOST, host->host, host->port, error);
	int fd = -1;
	int left = 0;

	if (lookup == NULL)
		return -1;
	for (struct addrinfo *address = lookup->addresses; address != NULL; address = address->ai_next)
		left++;
	for (struct addrinfo *address = lookup->addresses; address != NULL && fd < 0;
		 address = address->ai_next, left--)
	{
		int64 now = plinth_mongo_now();

		/* Each address gets its share of the time. */
		fd = connect_address(client, address->ai_addr, address->ai_addrlen, host->host_and_port,
							 now + Max(0, deadline - now) / left, error);
		if (client->cancelled)
			break;
	}
	plinth_mongo_lookup_free(lookup);
	return fd;
}

mongoc_stream_t *
plinth_mongo_connect(const mongoc_uri_t *uri, const mongoc_host_list_t *host, void *user_data,
					 bson_error_t *error)
{
	PlinthMongoClient *client = user_data;
	PlinthMongoError reason;
	int64 deadline = plinth_mongo_now() + plinth_setting_sync_connect_timeout;
	MongoSsl *ssl = NULL;
	int fd;

	plinth_mongo_error_clear(&reason);
	fd = host->family == AF_UNIX ? connect_unix(client, host->host, deadline, &reason)
								 : connect_host(client, host, deadline, &reason);
	if (fd >= 0 && client->tls.enabled)
	{
		ssl = plinth_mongo_tls_connect(client, fd, host->host, deadline, &reason);
		if (ssl == NULL)
		{
			close_socket(fd);
			fd = -1;
		}
	}
	if (fd < 0)
	{
		/*
		 * Not NULL: where the driver lost a known server's connection and
		 * makes another at once, it holds a mutex that it takes again when it
		 * is told so here, and waits for itself for ever.  A stream that is
		 * closed fails at its first use, when that is over.
		 */
		client->connect_error = reason;
		return plinth_mongo_stream_new(client, -1, NULL);
	}
	client->connections++;
	return plinth_mongo_stream_new(client, fd, ssl);
}
