/*
 * token.c
 *		Session tokens.
 */
#include "postgres.h"

#include "session/internal.h"

#define TOKEN_PREFIX "pls_"

void
plinth_session_token_make(char token[PLINTH_TOKEN_SIZE], uint8 hash[PLINTH_HASH_BYTES])
{
	plinth_crypto_token_make(TOKEN_PREFIX, token, hash);
}

bool
plinth_session_token_hash(const char *token, size_t len, uint8 hash[PLINTH_HASH_BYTES])
{
	return plinth_crypto_token_hash(TOKEN_PREFIX, token, len, hash);
}
