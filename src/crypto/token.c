/*
 * token.c
 *		Tokens: a prefix that tells what they are for, and 256 random bits in
 *		base64url.
 *
 * Only the plain BLAKE2b of the 32 bytes is stored: of a value with that much
 * entropy nobody finds the origin, and whoever reads the table has no token.
 */
#include "postgres.h"

#include "crypto/crypto.h"

void
plinth_crypto_token_make(const char *prefix, char token[PLINTH_TOKEN_SIZE],
						 uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 bits[PLINTH_TOKEN_BYTES];

	plinth_crypto_random(bits, sizeof(bits));
	plinth_crypto_hash(bits, sizeof(bits), hash);
	plinth_token_write(prefix, bits, token);
	plinth_crypto_wipe(bits, sizeof(bits));
}

bool
plinth_crypto_token_hash(const char *prefix, const char *token, size_t len,
						 uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 bits[PLINTH_TOKEN_BYTES];
	bool good = plinth_token_read(prefix, token, len, bits);

	if (good)
		plinth_crypto_hash(bits, sizeof(bits), hash);
	plinth_crypto_wipe(bits, sizeof(bits));
	return good;
}
