/* sources: src/identity/names.c */
/*
 * names_fuzz.c
 *		What is accepted keeps what others rely on: one "@" in an e-mail address
 *		and none in a username, no byte below a space, bounded lengths.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "identity/names.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t
count_byte(const uint8_t *data, size_t size, uint8_t byte)
{
	size_t n = 0;

	for (size_t i = 0; i < size; i++)
		n += data[i] == byte;
	return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool email = plinth_identity_email_valid((const char *) data, size);
	bool username = plinth_identity_username_valid((const char *) data, size);

	if (email && (size > PLINTH_EMAIL_MAX || count_byte(data, size, '@') != 1))
		abort();
	if (username && (size > PLINTH_USERNAME_MAX || count_byte(data, size, '@') != 0))
		abort();
	for (size_t i = 0; (email || username) && i < size; i++)
	{
		if (data[i] <= ' ' || data[i] == 0x7f)
			abort();
	}
	return 0;
}
