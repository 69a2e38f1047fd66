/*
 * token.c
 *		Tokens: a prefix that tells what they are for, and 256 random bits in
 *		base64url.
 *
 * Only the plain BLAKE2b of the 32 bytes is stored: of a value with that much
 * entropy nobody finds the origin, and whoever reads the table has no token.
 */
#include "postgres.h"

#include "base/base.h"
#include "crypto/crypto.h"

#define TOKEN_BYTES 32
#define RANDOM_LENGTH PLINTH_BASE64URL_LENGTH(TOKEN_BYTES)

StaticAssertDecl(PLINTH_TOKEN_PREFIX_LENGTH + RANDOM_LENGTH + 1 == PLINTH_TOKEN_SIZE,
				 "size of a token");

void
plinth_crypto_token_make(const char *prefix, char token[PLINTH_TOKEN_SIZE],
						 uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 random[TOKEN_BYTES];

	plinth_crypto_random(random, sizeof(random));
	plinth_crypto_hash(random, sizeof(random), hash);
	memcpy(token, prefix, PLINTH_TOKEN_PREFIX_LENGTH);
	plinth_base64url_encode(random, sizeof(random), token + PLINTH_TOKEN_PREFIX_LENGTH);
	plinth_crypto_wipe(random, sizeof(random));
}

bool
plinth_crypto_token_hash(const char *prefix, const char *token, size_t len,
						 uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 random[TOKEN_BYTES];
	bool good;

	if (len != PLINTH_TOKEN_SIZE - 1 || memcmp(token, prefix, PLINTH_TOKEN_PREFIX_LENGTH) != 0)
		return false;
	good = plinth_base64url_decode(token + PLINTH_TOKEN_PREFIX_LENGTH, RANDOM_LENGTH, random) ==
		   TOKEN_BYTES;
	if (good)
		plinth_crypto_hash(random, sizeof(random), hash);
	plinth_crypto_wipe(random, sizeof(random));
	return good;
}
