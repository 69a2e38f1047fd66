/*
 * token_text.h
 *		The text of a token: a prefix that tells what it is for, and 256 bits in
 *		base64url.
 *
 * Included by crypto.h; nothing here needs PostgreSQL.
 */
#ifndef PLINTH_CRYPTO_TOKEN_TEXT_H
#define PLINTH_CRYPTO_TOKEN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLINTH_TOKEN_BYTES 32
#define PLINTH_TOKEN_PREFIX_LENGTH 4

/* With the terminating zero. */
#define PLINTH_TOKEN_SIZE 48

extern void plinth_token_write(const char *prefix, const uint8_t bits[PLINTH_TOKEN_BYTES],
							   char token[PLINTH_TOKEN_SIZE]);

/*
 * Reads a token; false for what is none, and bits are then not to be used.
 * Exactly what writing gives is read, so that bits have one token.
 */
extern bool plinth_token_read(const char *prefix, const char *token, size_t len,
							  uint8_t bits[PLINTH_TOKEN_BYTES]);

#endif /* PLINTH_CRYPTO_TOKEN_TEXT_H */
