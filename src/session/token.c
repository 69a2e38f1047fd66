/*
 * token.c
 *		Session tokens: "pls_" and 256 random bits in base64url.
 *
 * Only the plain BLAKE2b of the 32 bytes is stored: of a value with that much
 * entropy nobody finds the origin, and whoever reads the table has no token.
 */
#include "postgres.h"

#include "base/base.h"
#include "session/internal.h"

#define TOKEN_PREFIX "pls_"
#define TOKEN_PREFIX_LENGTH 4
#define TOKEN_BYTES 32
#define TOKEN_LENGTH (TOKEN_PREFIX_LENGTH + PLINTH_BASE64URL_LENGTH(TOKEN_BYTES))

StaticAssertDecl(TOKEN_LENGTH + 1 == PLINTH_TOKEN_SIZE, "size of a token");

void
plinth_session_token_make(char token[PLINTH_TOKEN_SIZE], uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 random[TOKEN_BYTES];

	plinth_crypto_random(random, sizeof(random));
	plinth_crypto_hash(random, sizeof(random), hash);
	memcpy(token, TOKEN_PREFIX, TOKEN_PREFIX_LENGTH);
	plinth_base64url_encode(random, sizeof(random), token + TOKEN_PREFIX_LENGTH);
	plinth_crypto_wipe(random, sizeof(random));
}

bool
plinth_session_token_hash(const char *token, size_t len, uint8 hash[PLINTH_HASH_BYTES])
{
	uint8 random[TOKEN_BYTES];
	bool good;

	if (len != TOKEN_LENGTH || memcmp(token, TOKEN_PREFIX, TOKEN_PREFIX_LENGTH) != 0)
		return false;
	good = plinth_base64url_decode(token + TOKEN_PREFIX_LENGTH, len - TOKEN_PREFIX_LENGTH,
								   random) == TOKEN_BYTES;
	if (good)
		plinth_crypto_hash(random, sizeof(random), hash);
	plinth_crypto_wipe(random, sizeof(random));
	return good;
}
