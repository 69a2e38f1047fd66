/*
 * stream.c
 *		The driver's view of a socket: a mongoc_stream_t that waits by wait.c.
 *
 * One class serves plain and TLS connections, since the driver polls streams
 * of one class together.  Sockets are never blocking.
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "mongo/client_int.h"
#include "storage/fd.h"
#include "storage/latch.h"

#define STREAM_TYPE 1000 /* none of the driver's own */
#define POLL_SLICE_MS 50
/* Of small vectors so much goes at once. */
#define GATHER_BYTES 8192

typedef struct MongoStream
{
	mongoc_stream_t vtable; /* first: the driver's pointer is ours */
	PlinthMongoClient *client;
	int fd;
	MongoSsl *ssl; /* NULL without TLS */
	bool timed_out;
	bool would_block;
} MongoStream;

static int
stream_close(mongoc_stream_t *stream)
{
	MongoStream *self = (MongoStream *) stream;

	if (self->ssl != NULL)
		plinth_mongo_tls_free(self->ssl);
	self->ssl = NULL;
	if (self->fd >= 0)
	{
		close(self->fd);
		ReleaseExternalFD();
	}
	self->fd = -1;
	return 0;
}

static void
stream_destroy(mongoc_stream_t *stream)
{
	stream_close(stream);
	bson_free(stream);
}

static int
stream_flush(mongoc_stream_t *stream)
{
	return 0;
}

static int
stream_setsockopt(mongoc_stream_t *stream, int level, int name, void *value, mongoc_socklen_t len)
{
	return setsockopt(((MongoStream *) stream)->fd, level, name, value, len);
}

/* Bytes moved, 0 at the end of input, -1 with *want 0 for an error. */
static ssize_t
move_bytes(MongoStream *self, void *buffer, size_t len, bool writing, uint32 *want)
{
	ssize_t n;

	*want = 0;
	if (self->fd < 0 || self->client->cancelled)
	{
		errno = ECONNRESET;
		return -1;
	}
	if (self->ssl != NULL)
		return writing ? plinth_mongo_tls_write(self->ssl, buffer, len, want)
					   : plinth_mongo_tls_read(self->ssl, buffer, len, want);
	do
	{
		n = writing ? send(self->fd, buffer, len, MSG_NOSIGNAL) : recv(self->fd, buffer, len, 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		*want = writing ? WL_SOCKET_WRITEABLE : WL_SOCKET_READABLE;
	return n;
}

/*
 * Writes from the vectors' beginning, offset bytes into the first.  The driver
 * has a vector for each field of a header: one by one they would be a packet
 * that wakes the server, or a TLS record, each.
 */
static ssize_t
write_gathered(MongoStream *self, mongoc_iovec_t *iov, size_t iovcnt, size_t offset, uint32 *want)
{
	char gathered[GATHER_BYTES];
	size_t len = 0;

	if (iovcnt == 1 || iov[0].iov_len - offset >= sizeof(gathered))
		return move_bytes(self, (char *) iov[0].iov_base + offset, iov[0].iov_len - offset, true,
						  want);
	for (size_t i = 0; i < iovcnt && len < sizeof(gathered); i++)
	{
		size_t part = Min(iov[i].iov_len - offset, sizeof(gathered) - len);

		memcpy(gathered + len, (char *) iov[i].iov_base + offset, part);
		len += part;
		offset = 0;
	}
	return move_bytes(self, gathered, len, true, want);
}

/*
 * Moves bytes until the vectors are done, or, reading, until at least
 * min_bytes were and no more are there.  What the driver expects of the ends:
 * a timeout is -1 (timed_out), with no time given at all -1 (should_retry),
 * the end of input 0 or, when more was needed, -1.
 */
static ssize_t
move_vectors(MongoStream *self, mongoc_iovec_t *iov, size_t iovcnt, size_t min_bytes,
			 int32_t timeout_msec, bool writing)
{
	int64 deadline = self->client->endless && !writing && timeout_msec > 0
						 ? PG_INT64_MAX
						 : plinth_mongo_now() + Max(timeout_msec, 0);
	ssize_t total = 0;
	size_t index = 0;
	size_t offset = 0;

	self->timed_out = false;
	self->would_block = false;
	while (index < iovcnt)
	{
		uint32 want;
		ssize_t n;

		if (iov[index].iov_len <= offset)
		{
			offset -= iov[index++].iov_len;
			continue;
		}
		if (writing)
			n = write_gathered(self, iov + index, iovcnt - index, offset, &want);
		else
			n = move_bytes(self, (char *) iov[index].iov_base + offset, iov[index].iov_len - offset,
						   false, &want);
		if (n > 0)
		{
			total += n;
			offset += n;
			continue;
		}
		if (want == 0)
		{
			if (n == 0 && !writing && total >= min_bytes)
				return total;
			if (n == 0)
				errno = ECONNRESET;
			return -1;
		}
		if (!writing && total > 0 && total >= min_bytes)
			return total;
		if (timeout_msec == 0)
		{
			self->would_block = true;
			errno = EAGAIN;
			return total > 0 ? total : -1;
		}
		switch (plinth_mongo_wait_socket(self->client, self->fd, want, deadline))
		{
			case MONGO_WAIT_READY:
				break;
			case MONGO_WAIT_TIMEOUT:
				self->timed_out = true;
				errno = ETIMEDOUT;
				return -1;
			case MONGO_WAIT_CANCELLED:
				errno = ECONNRESET;
				return -1;
		}
	}
	return total;
}

static ssize_t
stream_writev(mongoc_stream_t *stream, mongoc_iovec_t *iov, size_t iovcnt, int32_t timeout_msec)
{
	return move_vectors((MongoStream *) stream, iov, iovcnt, 0, timeout_msec, true);
}

static ssize_t
stream_readv(mongoc_stream_t *stream, mongoc_iovec_t *iov, size_t iovcnt, size_t min_bytes,
			 int32_t timeout_msec)
{
	return move_vectors((MongoStream *) stream, iov, iovcnt, min_bytes, timeout_msec, false);
}

static bool
stream_check_closed(mongoc_stream_t *stream)
{
	MongoStream *self = (MongoStream *) stream;
	char byte;
	ssize_t n;

	if (self->fd < 0)
		return true;
	do
	{
		n = recv(self->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
}

/* Which of the streams are ready at this moment. */
static ssize_t
poll_now(mongoc_stream_poll_t *streams, struct pollfd *fds, size_t nstreams, int timeout)
{
	ssize_t ready = 0;

	for (size_t i = 0; i < nstreams; i++)
	{
		fds[i].fd = ((MongoStream *) streams[i].stream)->fd;
		fds[i].events = (short) streams[i].events;
		fds[i].revents = 0;
	}
	if (poll(fds, nstreams, timeout) < 0 && errno != EINTR)
		return -1;
	for (size_t i = 0; i < nstreams; i++)
	{
		MongoStream *self = (MongoStream *) streams[i].stream;

		streams[i].revents = fds[i].revents;
		if ((streams[i].events & POLLIN) && self->ssl != NULL &&
			plinth_mongo_tls_pending(self->ssl))
			streams[i].revents |= POLLIN;
		if (self->client->cancelled || self->fd < 0)
			streams[i].revents |= POLLHUP | POLLERR;
		if (streams[i].revents != 0)
			ready++;
	}
	return ready;
}

static ssize_t
stream_poll(mongoc_stream_poll_t *streams, size_t nstreams, int32_t timeout)
{
	int64 deadline = plinth_mongo_now() + (timeout < 0 ? MONGO_SOCKET_MARGIN_MS : timeout);
	struct pollfd *fds = bson_malloc0(nstreams * sizeof(struct pollfd));
	PlinthMongoClient *client = ((MongoStream *) streams[0].stream)->client;
	ssize_t ready;

	for (;;)
	{
		int64 left = deadline - plinth_mongo_now();

		ready = poll_now(streams, fds, nstreams, 0);
		if (ready != 0 || left <= 0)
			break;
		if (nstreams == 1)
		{
			uint32 events = (streams[0].events & POLLIN ? WL_SOCKET_READABLE : 0) |
							(streams[0].events & POLLOUT ? WL_SOCKET_WRITEABLE : 0);

			(void) plinth_mongo_wait_socket(client, fds[0].fd, events, deadline);
		}
		else
		{
			/* Several members at once: short slices between looks at the latch. */
			(void) poll(fds, nstreams, (int) Min(left, POLL_SLICE_MS));
			(void) plinth_mongo_wait_socket(client, PGINVALID_SOCKET, 0, 0);
		}
	}
	bson_free(fds);
	return ready;
}

static bool
stream_timed_out(mongoc_stream_t *stream)
{
	return ((MongoStream *) stream)->timed_out;
}

static bool
stream_should_retry(mongoc_stream_t *stream)
{
	return ((MongoStream *) stream)->would_block;
}

/* Takes over fd (counted as an external descriptor) and ssl. */
mongoc_stream_t *
plinth_mongo_stream_new(PlinthMongoClient *client, int fd, MongoSsl *ssl)
{
	MongoStream *self = bson_malloc0(sizeof(MongoStream));

	self->vtable.type = STREAM_TYPE;
	self->vtable.destroy = stream_destroy;
	self->vtable.failed = stream_destroy;
	self->vtable.close = stream_close;
	self->vtable.flush = stream_flush;
	self->vtable.writev = stream_writev;
	self->vtable.readv = stream_readv;
	self->vtable.setsockopt = stream_setsockopt;
	self->vtable.check_closed = stream_check_closed;
	self->vtable.poll = stream_poll;
	self->vtable.timed_out = stream_timed_out;
	self->vtable.should_retry = stream_should_retry;
	self->client = client;
	self->fd = fd;
	self->ssl = ssl;
	return &self->vtable;
}
