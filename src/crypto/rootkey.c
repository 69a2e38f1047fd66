/*
 * rootkey.c
 *		The root key, which is kept outside the database.
 *
 * The postmaster reads plinth.root_key_file once, as it starts; backends have
 * the key by fork.  What is kept is the BLAKE2b hash of the file's contents,
 * in memory that is locked, left out of core dumps, guarded on both sides and
 * read-only.  So the file may hold bytes, hexadecimal digits or base64: it is
 * never decoded, only measured.
 *
 * Each purpose has a key of its own, BLAKE2b of its name under the root key.
 */
#include "postgres.h"

#include <ctype.h>
#include <sodium.h>
#include <unistd.h>

#include "base/base.h"
#include "crypto/crypto.h"
#include "crypto/internal.h"
#include "miscadmin.h"

#define MAX_FILE_SIZE 4096
#define HINT_MAKE "Make one with: openssl rand -hex 32 > FILE; chmod 600 FILE."

/* NULL: none is configured. */
static uint8 *root_key = NULL;

/* The process that locked root_key: locks are not inherited by fork. */
static pid_t locked_by = 0;

/* Whether that many characters carry 256 bits, as far as the alphabet tells. */
static bool
long_enough(const uint8 *data, size_t len)
{
	bool hex = true;
	bool base64 = true;

	for (size_t i = 0; i < len; i++)
	{
		hex = hex && isxdigit(data[i]);
		base64 = base64 && (isalnum(data[i]) || strchr("+/-_=", data[i]) != NULL) && data[i] != 0;
	}
	return len >= (hex ? 64 : base64 ? 43 : 32);
}

void
plinth_crypto_root_key_load(void)
{
	const char *path = plinth_setting_root_key_file;
	uint8 buffer[MAX_FILE_SIZE];
	size_t len;

	if (path[0] == '\0')
		return;

	len = plinth_crypto_key_file_read(FATAL, psprintf("root key file \"%s\"", path), path,
									  HINT_MAKE, buffer, sizeof(buffer));
	if (!long_enough(buffer, len))
	{
		sodium_memzero(buffer, sizeof(buffer));
		ereport(FATAL, (errcode(ERRCODE_CONFIG_FILE_ERROR),
						errmsg("root key file \"%s\" is too short", path),
						errdetail("It needs 32 bytes, as they are, in hexadecimal or in base64."),
						errhint(HINT_MAKE)));
	}

	root_key = sodium_malloc(crypto_generichash_KEYBYTES);
	if (root_key == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not lock memory for the root key")));
	locked_by = getpid();
	crypto_generichash(root_key, crypto_generichash_KEYBYTES, buffer, len,
					   (const uint8 *) "plinth root key 1", strlen("plinth root key 1"));
	sodium_mprotect_readonly(root_key);
	sodium_memzero(buffer, sizeof(buffer));
}

bool
plinth_crypto_has_root_key(void)
{
	return root_key != NULL;
}

void
plinth_crypto_derive_key(const char *purpose, uint8 key[PLINTH_HASH_BYTES])
{
	if (root_key == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("no root key is configured"),
						errhint("Set \"plinth.root_key_file\" and restart the server.")));
	if (locked_by != getpid())
	{
		/* A limit on locked memory is no reason to fail: swap is the administrator's. */
		(void) sodium_mlock(root_key, crypto_generichash_KEYBYTES);
		locked_by = getpid();
	}
	crypto_generichash(key, PLINTH_HASH_BYTES, (const uint8 *) purpose, strlen(purpose), root_key,
					   crypto_generichash_KEYBYTES);
}
