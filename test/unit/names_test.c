/* sources: src/identity/names.c */
/*
 * names_test.c
 *		What may be an e-mail address, and what a username.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/names.h"

typedef bool (*Predicate)(const char *name, size_t len);

static int count = 0;
static int failures = 0;

/* From memory of exactly that size, so that a sanitizer sees a byte too many being read. */
static void
check(Predicate valid, const char *name, size_t len, bool expected)
{
	char *copy = malloc(len ? len : 1);
	bool ok;

	memcpy(copy, name, len);
	ok = valid(copy, len) == expected;
	free(copy);
	count++;
	if (!ok)
		failures++;
	printf("%sok %d - %s%.*s%s\n", ok ? "" : "not ", count, expected ? "" : "not ",
		   (int) strcspn(name, "\n#"), name, strpbrk(name, "\n#") ? "..." : "");
}

static void
check_repeated(Predicate valid, const char *unit, int times, const char *tail, bool expected)
{
	char name[1024] = "";

	for (int i = 0; i < times; i++)
		strcat(name, unit);
	strcat(name, tail);
	check(valid, name, strlen(name), expected);
}

int
main(void)
{
	static const char *const emails[] = {"a@b",
										 "ann@example.com",
										 "Ann.Lee+tag@sub.example.co.uk",
										 "o'hara@example.com",
										 "!$%&*/=?^_`{|}~-@example.com",
										 "1@2.3",
										 "ann@xn--bcher-kva.example",
										 "m\xc3\xbcller@\xc3\xbcmlaut.example",
										 "ann@b\303\274cher.example",
										 "\xe7\x94\xa8\xe6\x88\xb7@\xe4\xbe\x8b.example"};
	static const char *const no_emails[] = {
		"",       "@",       "a",      "a@",      "@b",          "a@@b",        "a@b@c",
		".a@b",   "a.@b",    "a..b@c", "a@.b",    "a@b.",        "a@b..c",      "a@-b",
		"a@b-",   "a@b-.c",  "a@b_c",  "a b@c",   "a@b c",       "a@b\n",       "a\n@b",
		"a\t@b",  "\"a\"@b", "a(x)@b", "a,b@c",   "a:b@c",       "a;b@c",       "<a@b>",
		"a\\b@c", "a@[::1]", "a@b/c",  "a\x7f@b", "a\xc2\x85@b", "a\xc2\xa0@b", "a@b\xc2\x80"};
	static const char *const usernames[] = {"ab", "ANN", "a.b", "a_b", "a-b", "a..b", "1a", "99"};
	static const char *const no_usernames[] = {"",    "a",    "_a",  "a_",           "-a",
											   "a-",  ".a",   "a.",  "a b",          "a@b",
											   "a/b", "a\nb", "a%b", "m\xc3\xbcller"};

	for (size_t i = 0; i < sizeof(emails) / sizeof(*emails); i++)
		check(plinth_identity_email_valid, emails[i], strlen(emails[i]), true);
	for (size_t i = 0; i < sizeof(no_emails) / sizeof(*no_emails); i++)
		check(plinth_identity_email_valid, no_emails[i], strlen(no_emails[i]), false);
	check(plinth_identity_email_valid, "a\0b@c", 5, false);
	check(plinth_identity_email_valid, "a@b\0c", 5, false);
	check_repeated(plinth_identity_email_valid, "a", 64, "@b", true);
	check_repeated(plinth_identity_email_valid, "a", 65, "@b", false);
	check_repeated(plinth_identity_email_valid, "a@", 1,
				   "b123456789b123456789b123456789b123456789b123456789b1234567890123", false);
	check_repeated(plinth_identity_email_valid, "a@", 1,
				   "b123456789b123456789b123456789b123456789b123456789b123456789012", true);
	check_repeated(plinth_identity_email_valid, "a@b", 1, "", true);

	for (size_t i = 0; i < sizeof(usernames) / sizeof(*usernames); i++)
		check(plinth_identity_username_valid, usernames[i], strlen(usernames[i]), true);
	for (size_t i = 0; i < sizeof(no_usernames) / sizeof(*no_usernames); i++)
		check(plinth_identity_username_valid, no_usernames[i], strlen(no_usernames[i]), false);
	check(plinth_identity_username_valid, "a\0b", 3, false);
	check_repeated(plinth_identity_username_valid, "a", 64, "", true);
	check_repeated(plinth_identity_username_valid, "a", 65, "", false);

	printf("1..%d\n", count);
	return failures != 0;
}
