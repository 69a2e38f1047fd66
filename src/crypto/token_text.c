/*
 * token_text.c
 *		The text of a token, in plain C.
 */
#include "crypto/token_text.h"

#include <string.h>

#include "base/ids.h"

#define BITS_LENGTH PLINTH_BASE64URL_LENGTH(PLINTH_TOKEN_BYTES)

_Static_assert(PLINTH_TOKEN_PREFIX_LENGTH + BITS_LENGTH + 1 == PLINTH_TOKEN_SIZE,
			   "size of a token");

void
plinth_token_write(const char *prefix, const uint8_t bits[PLINTH_TOKEN_BYTES],
				   char token[PLINTH_TOKEN_SIZE])
{
	memcpy(token, prefix, PLINTH_TOKEN_PREFIX_LENGTH);
	plinth_base64url_encode(bits, PLINTH_TOKEN_BYTES, token + PLINTH_TOKEN_PREFIX_LENGTH);
}

bool
plinth_token_read(const char *prefix, const char *token, size_t len,
				  uint8_t bits[PLINTH_TOKEN_BYTES])
{
	return len == PLINTH_TOKEN_SIZE - 1 && memcmp(token, prefix, PLINTH_TOKEN_PREFIX_LENGTH) == 0 &&
		   plinth_base64url_decode(token + PLINTH_TOKEN_PREFIX_LENGTH, BITS_LENGTH, bits) ==
			   PLINTH_TOKEN_BYTES;
}
