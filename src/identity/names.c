/*
 * names.c
 *		What may be an e-mail address and a username, in plain C.
 */
#include "identity/names.h"

#include <string.h>

#define LOCAL_MAX 64
#define LABEL_MAX 63
#define USERNAME_MIN 2

static bool
is_alnum(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* A character of an atom; bytes from 0x80 on are parts of UTF-8. */
static bool
is_atom(unsigned char c)
{
	return is_alnum(c) || c >= 0x80 || (c != '\0' && strchr("!#$%&'*+/=?^_`{|}~-", c) != NULL);
}

/* C1 control characters (U+0080 to U+009F) and the no-break space, in UTF-8. */
static bool
has_unicode_control(const char *s, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++)
	{
		if ((unsigned char) s[i] == 0xC2 && (unsigned char) s[i + 1] <= 0xA0)
			return true;
	}
	return false;
}

/* Atoms joined by single dots. */
static bool
is_dot_atom(const char *s, size_t len)
{
	bool after_dot = true;

	for (size_t i = 0; i < len; i++)
	{
		if (s[i] == '.')
		{
			if (after_dot)
				return false;
			after_dot = true;
		}
		else if (is_atom((unsigned char) s[i]))
			after_dot = false;
		else
			return false;
	}
	return len > 0 && !after_dot;
}

/* Labels joined by single dots; a hyphen stands only inside a label. */
static bool
is_domain(const char *s, size_t len)
{
	size_t start = 0;

	for (size_t i = 0; i <= len; i++)
	{
		unsigned char c;

		if (i == len || s[i] == '.')
		{
			if (i == start || i - start > LABEL_MAX || s[start] == '-' || s[i - 1] == '-')
				return false;
			start = i + 1;
			continue;
		}
		c = (unsigned char) s[i];
		if (!is_alnum(c) && c != '-' && c < 0x80)
			return false;
	}
	return true;
}

bool
plinth_identity_email_valid(const char *email, size_t len)
{
	const char *at;
	size_t local;

	if (len > PLINTH_EMAIL_MAX || has_unicode_control(email, len))
		return false;
	at = memchr(email, '@', len);
	if (at == NULL)
		return false;
	local = at - email;
	return local <= LOCAL_MAX && is_dot_atom(email, local) && is_domain(at + 1, len - local - 1);
}

bool
plinth_identity_username_valid(const char *username, size_t len)
{
	if (len < USERNAME_MIN || len > PLINTH_USERNAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) username[i];

		if (!is_alnum(c) && c != '.' && c != '_' && c != '-')
			return false;
	}
	return is_alnum((unsigned char) username[0]) && is_alnum((unsigned char) username[len - 1]);
}
