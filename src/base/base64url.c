/*
 * base64url.c
 *		base64url without padding (RFC 4648 section 5), in plain C.
 *
 * Decoding accepts exactly what encoding gives, so that no two texts stand
 * for the same bytes.  It is not constant-time: compare what was decoded.
 */
#include "base/ids.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void
plinth_base64url_encode(const uint8_t *src, size_t len, char *dst)
{
	uint32_t bits = 0;
	int nbits = 0;

	for (size_t i = 0; i < len; i++)
	{
		bits = (bits << 8 | src[i]) & 0xffff;
		nbits += 8;
		while (nbits >= 6)
		{
			nbits -= 6;
			*dst++ = alphabet[(bits >> nbits) & 0x3f];
		}
	}
	if (nbits > 0)
		*dst++ = alphabet[(bits << (6 - nbits)) & 0x3f];
	*dst = '\0';
}

static int
digit_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '-')
		return 62;
	if (c == '_')
		return 63;
	return -1;
}

long
plinth_base64url_decode(const char *src, size_t len, uint8_t *dst)
{
	uint32_t bits = 0;
	int nbits = 0;
	long written = 0;

	if (len % 4 == 1)
		return -1;
	for (size_t i = 0; i < len; i++)
	{
		int value = digit_value(src[i]);

		if (value < 0)
			return -1;
		bits = (bits << 6 | (uint32_t) value) & 0x3fff;
		nbits += 6;
		if (nbits >= 8)
		{
			nbits -= 8;
			dst[written++] = (uint8_t) (bits >> nbits);
		}
	}
	if ((bits & ((1u << nbits) - 1)) != 0)
		return -1;
	return written;
}
