/*
 * ids.c
 *		Building identifiers from a time and random bytes, in plain C.
 *
 * Where time and randomness come from is the caller's (idsql.c).
 */
#include "base/ids.h"

#include <string.h>

void
plinth_uuid_v7_build(uint64_t unix_ms, uint16_t sub_ms, const uint8_t random[8], uint8_t out[16])
{
	for (int i = 0; i < 6; i++)
		out[i] = (uint8_t) (unix_ms >> (8 * (5 - i)));
	out[6] = (uint8_t) (0x70 | ((sub_ms >> 8) & 0x0f));
	out[7] = (uint8_t) sub_ms;
	memcpy(out + 8, random, 8);
	out[8] = (uint8_t) ((out[8] & 0x3f) | 0x80);
}

void
plinth_ulid_build(uint64_t unix_ms, const uint8_t random[10], char out[27])
{
	static const char crockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
	uint32_t bits = 0;
	int nbits = 0;
	int o = 10;

	for (int i = 0; i < 10; i++)
		out[i] = crockford[(unix_ms >> (5 * (9 - i))) & 0x1f];
	out[0] = crockford[(unix_ms >> 45) & 0x07];
	for (int i = 0; i < 10; i++)
	{
		bits = (bits << 8 | random[i]) & 0xfff;
		nbits += 8;
		while (nbits >= 5)
		{
			nbits -= 5;
			out[o++] = crockford[(bits >> nbits) & 0x1f];
		}
	}
	out[o] = '\0';
}
