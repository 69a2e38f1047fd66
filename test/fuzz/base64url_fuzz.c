/* sources: src/base/base64url.c */
/*
 * base64url_fuzz.c
 *		What decodes must encode to the same text, and stay in its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "base/ids.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *bytes = malloc(size * 3 / 4 + (size == 0));
	long len = plinth_base64url_decode((const char *) data, size, bytes);

	if (len >= 0)
	{
		char *text = malloc(PLINTH_BASE64URL_LENGTH(len) + 1);

		plinth_base64url_encode(bytes, len, text);
		if (strlen(text) != size || memcmp(text, data, size) != 0)
			abort();
		free(text);
	}
	free(bytes);
	return 0;
}
