/*
 * keyfile.c
 *		Reads a file that holds a key, if nobody else can.
 *
 * The file is asked for as PostgreSQL asks for a private key of its own: it
 * belongs to the server's user, who alone can read it, or to root, and then
 * a group may read it.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto/crypto.h"
#include "storage/fd.h"

static void
check_permissions(int elevel, const char *name, int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		ereport(elevel, (errcode_for_file_access(), errmsg("could not look at %s: %m", name)));
	if (!S_ISREG(st.st_mode))
		ereport(elevel,
				(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("%s is not a regular file", name)));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		ereport(elevel, (errcode(ERRCODE_CONFIG_FILE_ERROR),
						 errmsg("%s must be owned by the server's user or root", name)));
	if ((st.st_uid == geteuid() && st.st_uid != 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(st.st_uid == 0 && (st.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
		ereport(elevel,
				(errcode(ERRCODE_CONFIG_FILE_ERROR), errmsg("%s can be read by others", name),
				 errhint("Its permissions should be u=rw (0600), or u=rw,g=r (0640) if it "
						 "is owned by root.")));
}

/* Reads up to size bytes; -1 on an error. */
static ssize_t
read_all(int fd, uint8 *buffer, size_t size)
{
	size_t total = 0;

	while (total < size)
	{
		ssize_t len = read(fd, buffer + total, size - total);

		if (len < 0)
			return -1;
		if (len == 0)
			break;
		total += len;
	}
	return total;
}

size_t
plinth_crypto_key_file_read(int elevel, const char *name, const char *path, const char *hint,
							uint8 *buffer, size_t size)
{
	uint8 beyond;
	ssize_t len;
	int fd;

	/* A pipe has no say in when this returns; the permissions tell that it is none. */
	fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);
	if (fd < 0)
		ereport(elevel, (errcode_for_file_access(), errmsg("could not open %s: %m", name),
						 hint != NULL ? errhint("%s", hint) : 0));
	check_permissions(elevel, name, fd);
	len = read_all(fd, buffer, size);
	if (len < 0)
		ereport(elevel, (errcode_for_file_access(), errmsg("could not read %s: %m", name)));
	if (len == size && read(fd, &beyond, 1) > 0)
	{
		sodium_memzero(buffer, size);
		ereport(elevel, (errcode(ERRCODE_CONFIG_FILE_ERROR),
						 errmsg("%s has more than %zu bytes", name, size)));
	}
	CloseTransientFile(fd);

	/* A newline at the end is an editor's, or openssl's. */
	while (len > 0 && (buffer[len - 1] == '\n' || buffer[len - 1] == '\r'))
		len--;
	return len;
}
