/* sources: src/crypto/token_text.c src/base/base64url.c */
/*
 * token_test.c
 *		Which texts are tokens.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/token_text.h"

static int count = 0;
static int failures = 0;

/* From memory of exactly that size, so that a sanitizer sees a byte too many being read. */
static void
check(const char *what, const char *token, size_t len, bool expected)
{
	uint8_t bits[PLINTH_TOKEN_BYTES];
	char *copy = malloc(len ? len : 1);
	bool ok;

	memcpy(copy, token, len);
	ok = plinth_token_read("pls_", copy, len, bits) == expected;
	free(copy);
	failures += !ok;
	printf("%sok %d - %s\n", ok ? "" : "not ", ++count, what);
}

int
main(void)
{
	uint8_t bits[PLINTH_TOKEN_BYTES];
	char token[PLINTH_TOKEN_SIZE];
	char changed[2 * PLINTH_TOKEN_SIZE];

	memset(bits, 0xa5, sizeof(bits));
	plinth_token_write("pls_", bits, token);
	check("what was written", token, strlen(token), true);
	check("nothing", "", 0, false);
	check("the prefix alone", token, PLINTH_TOKEN_PREFIX_LENGTH, false);
	check("one byte less", token, strlen(token) - 1, false);
	check("with its zero", token, strlen(token) + 1, false);
	snprintf(changed, sizeof(changed), "%sA", token);
	check("one byte more", changed, strlen(changed), false);
	snprintf(changed, sizeof(changed), "plk_%s", token + PLINTH_TOKEN_PREFIX_LENGTH);
	check("another prefix", changed, strlen(changed), false);
	snprintf(changed, sizeof(changed), "PLS_%s", token + PLINTH_TOKEN_PREFIX_LENGTH);
	check("a prefix in capitals", changed, strlen(changed), false);

	/* 43 digits have two bits more than 32 bytes: only one of four last digits is right. */
	for (const char *digit =
			 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. ";
		 *digit != '\0'; digit++)
	{
		char what[] = "the last digit ?";

		strcpy(changed, token);
		changed[strlen(changed) - 1] = *digit;
		what[sizeof(what) - 2] = *digit;
		memset(bits, 0, sizeof(bits));
		if (plinth_token_read("pls_", changed, strlen(changed), bits))
		{
			char again[PLINTH_TOKEN_SIZE];

			plinth_token_write("pls_", bits, again);
			check(what, changed, strlen(changed), strcmp(again, changed) == 0);
		}
		else
			check(what, changed, strlen(changed), false);
	}
	printf("1..%d\n", count);
	return failures != 0;
}
