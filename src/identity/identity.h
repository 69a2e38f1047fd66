/*
 * identity.h
 *		Users and their credentials.
 *
 * Whoever changes a user's credentials or ends all of their sessions locks
 * the row in plinth.users first (FOR NO KEY UPDATE), as signing in does.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_IDENTITY_H
#define PLINTH_IDENTITY_H

#include "utils/uuid.h"

typedef enum PlinthAuthStatus
{
	PLINTH_AUTH_OK,
	PLINTH_AUTH_INVALID, /* no such user, no password, or another one: nobody learns which */
	PLINTH_AUTH_LOCKED   /* the password was right, but the user is locked or banned */
} PlinthAuthStatus;

typedef struct PlinthAuth
{
	PlinthAuthStatus status;
	bool has_user; /* the identifier is a user's */
	pg_uuid_t user_id;
} PlinthAuth;

/*
 * Verifies a password of the user with this e-mail address (it has an "@") or
 * username; an unknown one costs as much.  On OK the user's row is locked and
 * last_login_at set.  Needs a transaction that may write, and no SPI
 * connection of the caller's.
 */
extern PlinthAuth plinth_identity_authenticate(text *identifier, text *password);

/*
 * SQL: may a user sign in, and go on with their sessions, at a time?  u is the
 * alias of plinth.users, now an expression.
 */
#define PLINTH_USER_ACTIVE(u, now)                                                                 \
	"(" u ".deleted_at IS NULL AND (" u ".status = 'active' OR " u ".status = 'banned' AND " u     \
	".banned_until <= " now "))"

/* "user:<uuid>", as audit entries name a user; palloc'd. */
extern char *plinth_identity_resource(const pg_uuid_t *user_id);

/*
 * A text argument that is a secret, without a copy where there need not be
 * one; wipe it with plinth_identity_secret_wipe, which wipes only a copy.
 */
extern text *plinth_identity_secret(Datum argument);
extern void plinth_identity_secret_wipe(text *secret, Datum argument);

extern void plinth_identity_init(void);

#endif /* PLINTH_IDENTITY_H */
