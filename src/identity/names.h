/*
 * names.h
 *		What may be an e-mail address and a username, in plain C.
 *
 * Private to room identity; nothing here needs PostgreSQL.
 */
#ifndef PLINTH_IDENTITY_NAMES_H
#define PLINTH_IDENTITY_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#define PLINTH_EMAIL_MAX 254
#define PLINTH_USERNAME_MAX 64

/*
 * The form of an address as people have it (RFC 5321's lengths, the dot-atom
 * of RFC 5322, RFC 6531's characters beyond ASCII): no quotes, comments,
 * spaces, control characters or address literals.  Whether mail arrives there
 * is another matter.
 */
extern bool plinth_identity_email_valid(const char *email, size_t len);

/* 2 to 64 of A-Z, a-z, 0-9, ".", "_", "-"; a letter or digit at both ends. */
extern bool plinth_identity_username_valid(const char *username, size_t len);

#endif /* PLINTH_IDENTITY_NAMES_H */
