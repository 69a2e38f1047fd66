/* sources: src/crypto/token_text.c src/base/base64url.c */
/* seconds: 60 */
/*
 * token_fuzz.c
 *		What is read as a token is what writing its bits gives, byte for byte.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/token_text.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const char *prefix, const char *text, size_t size)
{
	uint8_t bits[PLINTH_TOKEN_BYTES];
	char again[PLINTH_TOKEN_SIZE];

	if (!plinth_token_read(prefix, text, size, bits))
		return;
	plinth_token_write(prefix, bits, again);
	if (size != PLINTH_TOKEN_SIZE - 1 || memcmp(again, text, size) != 0)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[PLINTH_TOKEN_SIZE];

	check("pls_", (const char *) data, size);
	/* The prefix is right, and the length: what is decoded is the input. */
	memcpy(text, "pls_", PLINTH_TOKEN_PREFIX_LENGTH);
	memset(text + PLINTH_TOKEN_PREFIX_LENGTH, 'A', sizeof(text) - PLINTH_TOKEN_PREFIX_LENGTH);
	if (size > PLINTH_TOKEN_SIZE - 1 - PLINTH_TOKEN_PREFIX_LENGTH)
		size = PLINTH_TOKEN_SIZE - 1 - PLINTH_TOKEN_PREFIX_LENGTH;
	memcpy(text + PLINTH_TOKEN_PREFIX_LENGTH, data, size);
	check("pls_", text, PLINTH_TOKEN_SIZE - 1);
	return 0;
}
