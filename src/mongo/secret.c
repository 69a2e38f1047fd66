/*
 * secret.c
 *		A password from a file, read by the worker each time it makes a client.
 *
 * Kept out of catalogs and dumps, and changed without any DDL.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mongo/client_int.h"
#include "storage/fd.h"

#define MAX_SECRET 1024

static ssize_t
read_some(const char *path, char *buffer, size_t size, PlinthMongoError *error)
{
	struct stat info;
	ssize_t total = 0;
	int fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);

	if (fd < 0)
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, errno,
							   "could not open password_file \"%s\": %m", path);
		return -1;
	}
	if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
	{
		plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
							   "password_file \"%s\" is not a regular file", path);
		total = -1;
	}
	while (total >= 0 && total < size)
	{
		ssize_t n = read(fd, buffer + total, size - total);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, errno,
								   "could not read password_file \"%s\": %m", path);
		if (n <= 0)
		{
			total = n < 0 ? -1 : total;
			break;
		}
		total += n;
	}
	CloseTransientFile(fd);
	return total;
}

char *
plinth_mongo_read_secret(const char *path, PlinthMongoError *error)
{
	char buffer[MAX_SECRET + 2];
	ssize_t len = read_some(path, buffer, sizeof(buffer) - 1, error);
	char *secret = NULL;

	if (len >= 0)
	{
		buffer[len] = '\0';
		len = strcspn(buffer, "\r\n");
		if (len == 0 || len > MAX_SECRET || !bson_utf8_validate(buffer, len, false))
			plinth_mongo_error_set(error, PLINTH_MONGO_CONFIG, 0,
								   "password_file \"%s\" must hold a password of 1 to %d bytes of "
								   "UTF-8 in its first line",
								   path, MAX_SECRET);
		else
			secret = bson_strndup(buffer, len);
	}
	explicit_bzero(buffer, sizeof(buffer));
	return secret;
}
