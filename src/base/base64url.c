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

/* DIGIT and the value of a digit; 0 for what is none. */
#define DIGIT 0x40
static const uint8_t digits[256] = {
	['A'] = 64,  ['B'] = 65,  ['C'] = 66,  ['D'] = 67,  ['E'] = 68,  ['F'] = 69,  ['G'] = 70,
	['H'] = 71,  ['I'] = 72,  ['J'] = 73,  ['K'] = 74,  ['L'] = 75,  ['M'] = 76,  ['N'] = 77,
	['O'] = 78,  ['P'] = 79,  ['Q'] = 80,  ['R'] = 81,  ['S'] = 82,  ['T'] = 83,  ['U'] = 84,
	['V'] = 85,  ['W'] = 86,  ['X'] = 87,  ['Y'] = 88,  ['Z'] = 89,  ['a'] = 90,  ['b'] = 91,
	['c'] = 92,  ['d'] = 93,  ['e'] = 94,  ['f'] = 95,  ['g'] = 96,  ['h'] = 97,  ['i'] = 98,
	['j'] = 99,  ['k'] = 100, ['l'] = 101, ['m'] = 102, ['n'] = 103, ['o'] = 104, ['p'] = 105,
	['q'] = 106, ['r'] = 107, ['s'] = 108, ['t'] = 109, ['u'] = 110, ['v'] = 111, ['w'] = 112,
	['x'] = 113, ['y'] = 114, ['z'] = 115, ['0'] = 116, ['1'] = 117, ['2'] = 118, ['3'] = 119,
	['4'] = 120, ['5'] = 121, ['6'] = 122, ['7'] = 123, ['8'] = 124, ['9'] = 125, ['-'] = 126,
	['_'] = 127,
};

long
plinth_base64url_decode(const char *src, size_t len, uint8_t *dst)
{
	const uint8_t *in = (const uint8_t *) src;
	uint8_t *out = dst;
	size_t rest = len % 4;
	uint32_t bits = 0;
	uint8_t good = DIGIT;

	if (rest == 1)
		return -1;
	for (const uint8_t *end = in + len - rest; in < end; in += 4)
	{
		uint8_t a = digits[in[0]];
		uint8_t b = digits[in[1]];
		uint8_t c = digits[in[2]];
		uint8_t d = digits[in[3]];

		good &= a & b & c & d;
		bits = (uint32_t) (a & 0x3f) << 18 | (b & 0x3f) << 12 | (c & 0x3f) << 6 | (d & 0x3f);
		*out++ = (uint8_t) (bits >> 16);
		*out++ = (uint8_t) (bits >> 8);
		*out++ = (uint8_t) bits;
	}
	bits = 0;
	for (size_t i = 0; i < rest; i++)
	{
		good &= digits[in[i]];
		bits |= (uint32_t) (digits[in[i]] & 0x3f) << (18 - 6 * i);
	}
	for (size_t i = 1; i < rest; i++)
	{
		*out++ = (uint8_t) (bits >> 16);
		bits = (bits << 8) & 0xffffff;
	}
	return good == DIGIT && bits == 0 ? out - dst : -1;
}
