/*
 * bcrypt.c
 *		Passwords that other systems hashed with bcrypt, verified by libxcrypt.
 *
 * bcrypt looks at the first 72 bytes only.  A hash is of one form: prefix,
 * cost, 22 characters of salt and 31 of hash; $2x$, a broken one, is none of
 * them.
 */
#include "postgres.h"

#include <crypt.h>
#include <ctype.h>
#include <sodium.h>

#include "crypto/crypto.h"
#include "crypto/internal.h"

#define HASH_LENGTH 60
#define PASSWORD_BYTES 72

int
plinth_crypto_bcrypt_cost(const char *hash)
{
	static const char alphabet[] =
		"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

	if (strlen(hash) != HASH_LENGTH || hash[0] != '$' || hash[1] != '2' ||
		strchr("aby", hash[2]) == NULL || hash[3] != '$' || !isdigit((unsigned char) hash[4]) ||
		!isdigit((unsigned char) hash[5]) || hash[6] != '$' ||
		strspn(hash + 7, alphabet) != HASH_LENGTH - 7)
		return 0;
	return (hash[4] - '0') * 10 + (hash[5] - '0');
}

bool
plinth_crypto_bcrypt_verify(const char *hash, const char *password, size_t len)
{
	struct crypt_data data = {0};
	char phrase[PASSWORD_BYTES + 1] = {0};
	const char *made;
	bool fits;

	memcpy(phrase, password, Min(len, PASSWORD_BYTES));
	made = crypt_rn(phrase, hash, &data, sizeof(data));
	fits =
		made != NULL && strlen(made) == HASH_LENGTH && sodium_memcmp(made, hash, HASH_LENGTH) == 0;
	sodium_memzero(&data, sizeof(data));
	sodium_memzero(phrase, sizeof(phrase));
	return fits;
}
