/*
 * sink.c
 *		A MongoDB that acknowledges and drops: sync's own ceiling.
 *
 * Speaks enough of the wire protocol for a driver: OP_MSG, and OP_QUERY for
 * the first greeting.  Writes are counted and forgotten, finds are empty;
 * only collection plinth_sync, where the fences are, is kept and matched, or
 * sync would rightly refuse to go on.  A thread a connection.  Prints "port N"
 * and ends with its standard input.
 */
#include <arpa/inet.h>
#include <bson/bson.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FENCES "plinth_sync"
#define MAX_FENCES 1000
#define MAX_MESSAGE 48000000
#define OP_REPLY 1
#define OP_QUERY 2004
#define OP_MSG 2013

typedef struct Header
{
	int32_t length;
	int32_t request;
	int32_t response_to;
	int32_t opcode;
} Header;

static pthread_mutex_t fences_lock = PTHREAD_MUTEX_INITIALIZER;
static bson_t *fences[MAX_FENCES];
static int nfences = 0;

static bool
read_all(int fd, void *buffer, size_t len)
{
	for (size_t done = 0; done < len;)
	{
		ssize_t n = recv(fd, (char *) buffer + done, len - done, 0);

		if (n <= 0)
			return false;
		done += (size_t) n;
	}
	return true;
}

static bool
write_all(int fd, const void *buffer, size_t len)
{
	for (size_t done = 0; done < len;)
	{
		ssize_t n = send(fd, (const char *) buffer + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		done += (size_t) n;
	}
	return true;
}

static int32_t
count_of(bson_iter_t array)
{
	bson_iter_t item;
	int32_t count = 0;

	if (bson_iter_recurse(&array, &item))
	{
		while (bson_iter_next(&item))
			count++;
	}
	return count;
}

/* {"$exists": false} */
static bool
is_absence(const bson_iter_t *wanted)
{
	bson_iter_t inner;

	return BSON_ITER_HOLDS_DOCUMENT(wanted) && bson_iter_recurse(wanted, &inner) &&
		   bson_iter_find(&inner, "$exists") && !bson_iter_as_bool(&inner);
}

/* Does the fence have every field of the query, equal? */
static bool
matches(const bson_t *fence, const bson_t *query)
{
	bson_iter_t wanted;

	if (!bson_iter_init(&wanted, query))
		return false;
	while (bson_iter_next(&wanted))
	{
		bson_t left = BSON_INITIALIZER;
		bson_t right = BSON_INITIALIZER;
		bson_iter_t has;
		bool equal;

		if (!bson_iter_init_find(&has, fence, bson_iter_key(&wanted)))
		{
			if (is_absence(&wanted))
				continue;
			return false;
		}
		bson_append_iter(&left, "v", 1, &has);
		bson_append_iter(&right, "v", 1, &wanted);
		equal = bson_equal(&left, &right);
		bson_destroy(&left);
		bson_destroy(&right);
		if (!equal)
			return false;
	}
	return true;
}

static int
find_fence(const bson_t *query)
{
	for (int i = 0; i < nfences; i++)
	{
		if (matches(fences[i], query))
			return i;
	}
	return -1;
}

static bool
sub_document(bson_t *view, const bson_iter_t *iter)
{
	const uint8_t *data;
	uint32_t len;

	bson_iter_document(iter, &len, &data);
	return data != NULL && bson_init_static(view, data, len);
}

/* The fence with some fields set; one with dots in its name is kept as it is called. */
static bson_t *
set_fields(const bson_t *fence, const bson_iter_t *set)
{
	bson_t *next = bson_new();
	bson_t fields;
	bson_iter_t iter;
	bson_iter_t is_set;

	if (!sub_document(&fields, set))
		return next;
	bson_iter_init(&iter, fence);
	while (bson_iter_next(&iter))
	{
		if (!bson_iter_init_find(&is_set, &fields, bson_iter_key(&iter)))
			bson_append_iter(next, bson_iter_key(&iter), -1, &iter);
	}
	bson_concat(next, &fields);
	return next;
}

/* One element of a write to the fences; true when it counts. */
static bool
write_fence(const char *command, const bson_iter_t *item)
{
	bson_t op;
	bson_t query;
	bson_t update;
	bson_iter_t field;
	bson_t *next;
	int at;

	if (!sub_document(&op, item))
		return false;
	if (strcmp(command, "insert") == 0)
	{
		bson_t id = BSON_INITIALIZER;
		bool is_new;

		if (bson_iter_init_find(&field, &op, "_id"))
			bson_append_iter(&id, "_id", 3, &field);
		is_new = find_fence(&id) < 0 && nfences < MAX_FENCES;
		bson_destroy(&id);
		if (is_new)
			fences[nfences++] = bson_copy(&op);
		return is_new;
	}
	if (!bson_iter_init_find(&field, &op, "q") || !sub_document(&query, &field))
		return false;
	at = find_fence(&query);
	if (at < 0)
		return false;
	if (strcmp(command, "delete") == 0)
	{
		bson_destroy(fences[at]);
		fences[at] = fences[--nfences];
		return true;
	}
	if (!bson_iter_init_find(&field, &op, "u") || !sub_document(&update, &field))
		return false;
	next = bson_iter_init_find(&field, &update, "$set") ? set_fields(fences[at], &field)
														: bson_copy(&update);
	bson_destroy(fences[at]);
	fences[at] = next;
	return true;
}

static void
answer_fence_write(bson_t *reply, const char *command, bson_iter_t array)
{
	bson_iter_t item;
	int32_t n = 0;
	bool refused = false;

	pthread_mutex_lock(&fences_lock);
	if (bson_iter_recurse(&array, &item))
	{
		while (bson_iter_next(&item))
		{
			if (write_fence(command, &item))
				n++;
			else
				refused = true;
		}
	}
	pthread_mutex_unlock(&fences_lock);
	BSON_APPEND_INT32(reply, "n", n);
	if (refused && strcmp(command, "insert") == 0)
	{
		bson_t *errors = BCON_NEW("0", "{", "index", BCON_INT32(0), "code", BCON_INT32(11000),
								  "errmsg", BCON_UTF8("E11000 duplicate key error"), "}");

		BSON_APPEND_ARRAY(reply, "writeErrors", errors);
		bson_destroy(errors);
	}
}

/* {_id: {$in: […]}} over the fences; nothing of any other collection. */
static void
answer_find(bson_t *reply, const bson_t *command, bool of_fences)
{
	bson_t cursor;
	bson_t batch;
	bson_iter_t iter;
	bson_iter_t in;
	bson_iter_t item;

	BSON_APPEND_DOCUMENT_BEGIN(reply, "cursor", &cursor);
	BSON_APPEND_INT64(&cursor, "id", 0);
	BSON_APPEND_UTF8(&cursor, "ns", "sink.sink");
	BSON_APPEND_ARRAY_BEGIN(&cursor, "firstBatch", &batch);
	if (of_fences && bson_iter_init(&iter, command) &&
		bson_iter_find_descendant(&iter, "filter._id.$in", &in) && bson_iter_recurse(&in, &item) &&
		bson_iter_next(&item))
	{
		bson_t query = BSON_INITIALIZER;
		int at;

		bson_append_iter(&query, "_id", 3, &item);
		pthread_mutex_lock(&fences_lock);
		at = find_fence(&query);
		if (at >= 0)
			BSON_APPEND_DOCUMENT(&batch, "0", fences[at]);
		pthread_mutex_unlock(&fences_lock);
		bson_destroy(&query);
	}
	bson_append_array_end(&cursor, &batch);
	bson_append_document_end(reply, &cursor);
}

static void
answer_greeting(bson_t *reply)
{
	BSON_APPEND_BOOL(reply, "ismaster", true);
	BSON_APPEND_BOOL(reply, "isWritablePrimary", true);
	BSON_APPEND_INT32(reply, "maxBsonObjectSize", 16777216);
	BSON_APPEND_INT32(reply, "maxMessageSizeBytes", MAX_MESSAGE);
	BSON_APPEND_INT32(reply, "maxWriteBatchSize", 100000);
	BSON_APPEND_DATE_TIME(reply, "localTime", (int64_t) time(NULL) * 1000);
	BSON_APPEND_INT32(reply, "minWireVersion", 0);
	BSON_APPEND_INT32(reply, "maxWireVersion", 8);
}

/* sequence: how many documents came beside the command, or -1. */
static void
answer(bson_t *reply, const bson_t *command, int32_t sequence)
{
	static const char *const writes[][2] = {
		{"insert", "documents"}, {"update", "updates"}, {"delete", "deletes"}};
	bson_iter_t iter;
	bson_iter_t array;
	const char *name;
	bool of_fences;

	if (!bson_iter_init(&iter, command) || !bson_iter_next(&iter))
		return;
	name = bson_iter_key(&iter);
	of_fences = BSON_ITER_HOLDS_UTF8(&iter) && strcmp(bson_iter_utf8(&iter, NULL), FENCES) == 0;
	for (int i = 0; i < 3; i++)
	{
		if (strcmp(name, writes[i][0]) != 0)
			continue;
		if (sequence >= 0)
			BSON_APPEND_INT32(reply, "n", sequence);
		else if (!bson_iter_init_find(&array, command, writes[i][1]))
			BSON_APPEND_INT32(reply, "n", 0);
		else if (of_fences)
			answer_fence_write(reply, name, array);
		else
			BSON_APPEND_INT32(reply, "n", count_of(array));
	}
	if (strcasecmp(name, "ismaster") == 0 || strcmp(name, "hello") == 0)
		answer_greeting(reply);
	else if (strcmp(name, "find") == 0)
		answer_find(reply, command, of_fences);
	BSON_APPEND_DOUBLE(reply, "ok", 1.0);
}

/* The command in an OP_MSG, and how many documents its sequences hold. */
static bool
take_message(const char *body, size_t len, bson_t *command, int32_t *sequence)
{
	size_t at = 4;
	bool found = false;

	*sequence = -1;
	while (at + 5 <= len)
	{
		char kind = body[at++];
		int32_t size;
		size_t end;

		memcpy(&size, body + at, 4);
		end = at + (size_t) size;
		if (size < 5 || end > len)
			break;
		if (kind == 0)
			found = bson_init_static(command, (const uint8_t *) body + at, (size_t) size);
		else
		{
			at += 4 + strlen(body + at + 4) + 1;
			*sequence = *sequence < 0 ? 0 : *sequence;
			while (at < end)
			{
				memcpy(&size, body + at, 4);
				at += (size_t) size;
				(*sequence)++;
			}
		}
		at = end;
	}
	return found;
}

static bool
send_reply(int fd, const Header *request, const bson_t *reply)
{
	char head[64];
	size_t len = sizeof(Header);
	Header header = {0, 0, request->request, request->opcode == OP_MSG ? OP_MSG : OP_REPLY};

	if (request->opcode == OP_MSG)
	{
		/* no flags; a section of kind 0 */
		memset(head + len, 0, 5);
		len += 5;
	}
	else
	{
		int32_t rest[5] = {8, 0, 0, 0, 1};

		memcpy(head + len, rest, sizeof(rest));
		len += sizeof(rest);
	}
	header.length = (int32_t) (len + reply->len);
	memcpy(head, &header, sizeof(header));
	return write_all(fd, head, len) && write_all(fd, bson_get_data(reply), reply->len);
}

static void *
serve(void *arg)
{
	int fd = (int) (intptr_t) arg;
	char *body = malloc(MAX_MESSAGE);
	Header header;

	while (read_all(fd, &header, sizeof(header)) && header.length > (int) sizeof(header) &&
		   header.length < MAX_MESSAGE &&
		   read_all(fd, body, (size_t) header.length - sizeof(header)))
	{
		size_t len = (size_t) header.length - sizeof(header);
		bson_t command;
		bson_t reply = BSON_INITIALIZER;
		int32_t sequence = -1;
		bool good;

		if (header.opcode == OP_MSG)
			good = take_message(body, len, &command, &sequence);
		else
		{
			size_t at = 4 + strnlen(body + 4, len - 4) + 1 + 8;

			good = header.opcode == OP_QUERY && at < len &&
				   bson_init_static(&command, (const uint8_t *) body + at, len - at);
		}
		if (good)
			answer(&reply, &command, sequence);
		good = good && send_reply(fd, &header, &reply);
		bson_destroy(&reply);
		if (!good)
			break;
	}
	close(fd);
	free(body);
	return NULL;
}

static void *
accept_all(void *arg)
{
	int listener = (int) (intptr_t) arg;
	int one = 1;

	for (;;)
	{
		int fd = accept(listener, NULL, NULL);
		pthread_t thread;

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (pthread_create(&thread, NULL, serve, (void *) (intptr_t) fd) == 0)
			pthread_detach(thread);
	}
	return NULL;
}

int
main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t len = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t thread;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *) &address, len) != 0 || listen(listener, 16) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &len) != 0 ||
		pthread_create(&thread, NULL, accept_all, (void *) (intptr_t) listener) != 0)
	{
		perror("sink");
		return 1;
	}
	printf("port %d\n", ntohs(address.sin_port));
	fflush(stdout);
	while (getchar() != EOF)
		;
	return 0;
}
