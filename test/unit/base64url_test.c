/* sources: src/base/base64url.c */
/*
 * base64url_test.c
 *		RFC 4648's vectors, and what must not decode.
 */
#include <stdio.h>
#include <string.h>

#include "base/ids.h"
#include "tap.h"

static void
check_pair(const char *bytes, size_t len, const char *text)
{
	char encoded[64];
	uint8_t decoded[64];
	char name[128];

	plinth_base64url_encode((const uint8_t *) bytes, len, encoded);
	snprintf(name, sizeof(name), "\"%s\" is encoded", text);
	check(strcmp(encoded, text) == 0 && strlen(encoded) == PLINTH_BASE64URL_LENGTH(len), name);
	snprintf(name, sizeof(name), "\"%s\" is decoded", text);
	check(plinth_base64url_decode(text, strlen(text), decoded) == (long) len &&
			  memcmp(decoded, bytes, len) == 0,
		  name);
}

static void
check_refused(const char *text, size_t len, const char *why)
{
	uint8_t decoded[64];

	check(plinth_base64url_decode(text, len, decoded) == -1, why);
}

int
main(void)
{
	uint8_t all[256];
	char text[PLINTH_BASE64URL_LENGTH(256) + 1];
	uint8_t back[256];
	bool same = true;

	/* RFC 4648 section 10, without the padding */
	check_pair("", 0, "");
	check_pair("f", 1, "Zg");
	check_pair("fo", 2, "Zm8");
	check_pair("foo", 3, "Zm9v");
	check_pair("foob", 4, "Zm9vYg");
	check_pair("fooba", 5, "Zm9vYmE");
	check_pair("foobar", 6, "Zm9vYmFy");

	/* The two characters in which it differs from base64 (section 9's example and more) */
	check_pair("\x14\xfb\x9c\x03\xd9\x7e", 6, "FPucA9l-");
	check_pair("\xff\xff\xfe", 3, "___-");
	check_pair("\0\0", 2, "AAA");

	check_refused("Zg==", 4, "padding is refused");
	check_refused("Z", 1, "a length that no bytes have is refused");
	check_refused("Zm9vY", 5, "also behind whole groups");
	check_refused("Zh", 2, "set bits behind one byte are refused");
	check_refused("Zm9", 3, "set bits behind two bytes are refused");
	check_refused("Zm+v", 4, "+ of base64 is refused");
	check_refused("Zm/v", 4, "/ of base64 is refused");
	check_refused("Zm v", 4, "a space is refused");
	check_refused("Zm\0v", 4, "a zero byte is refused");
	check_refused("Zm\xc3v", 4, "a byte above 127 is refused");

	for (int i = 0; i < 256; i++)
		all[i] = (uint8_t) i;
	for (size_t len = 0; len <= 256; len++)
	{
		plinth_base64url_encode(all, len, text);
		same = same && strlen(text) == PLINTH_BASE64URL_LENGTH(len) &&
			   plinth_base64url_decode(text, strlen(text), back) == (long) len &&
			   memcmp(all, back, len) == 0;
	}
	check(same, "every length up to 256 comes back");

	return tap_done();
}
