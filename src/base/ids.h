/*
 * ids.h
 *		Identifiers and their text forms, in plain C.
 *
 * Nothing here needs PostgreSQL: these files are unit-tested and fuzzed on
 * their own.
 */
#ifndef PLINTH_IDS_H
#define PLINTH_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * base64url without padding (RFC 4648 section 5).  Encoded size of n bytes,
 * without the terminating zero that plinth_base64url_encode adds.
 */
#define PLINTH_BASE64URL_LENGTH(n) (((n) *4 + 2) / 3)
extern void plinth_base64url_encode(const uint8_t *src, size_t len, char *dst);

/*
 * Decodes exactly len characters into dst (at least len * 3 / 4 bytes).
 * Returns the number of bytes, or -1 for a character outside the alphabet, an
 * impossible length or set bits behind the last byte (so that each value has
 * one form only).
 */
extern long plinth_base64url_decode(const char *src, size_t len, uint8_t *dst);

/*
 * A UUID version 7 (RFC 9562 section 5.7) from a Unix time in milliseconds,
 * 12 bits below a millisecond (0-4095, method 3) and 8 random bytes.
 */
extern void plinth_uuid_v7_build(uint64_t unix_ms, uint16_t sub_ms, const uint8_t random[8],
								 uint8_t out[16]);

/*
 * A ULID: 48 bits of Unix milliseconds and 80 random bits as 26 characters of
 * Crockford's base32; out takes 27 bytes with the terminating zero.
 */
extern void plinth_ulid_build(uint64_t unix_ms, const uint8_t random[10], char out[27]);

#endif /* PLINTH_IDS_H */
