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

#include "datatype/timestamp.h"
#include "base/base.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

typedef enum PlinthAuthStatus
{
	PLINTH_AUTH_OK,
	PLINTH_AUTH_INVALID, /* no such user, no password, or another one: nobody learns which */
	PLINTH_AUTH_LOCKED,  /* too many tries; or the password was right, but the user is not active */
	PLINTH_AUTH_UNVERIFIED,  /* the password was right, but the e-mail address is not verified */
	PLINTH_AUTH_RATE_LIMITED /* too many tries */
} PlinthAuthStatus;

/* As SQL functions return it. */
extern const char *plinth_identity_status_name(PlinthAuthStatus status);

typedef struct PlinthAuth
{
	PlinthAuthStatus status;
	bool has_user; /* the identifier is a user's */
	pg_uuid_t user_id;
	int64 retry_after; /* microseconds, where waiting helps; else not above 0 */
} PlinthAuth;

/*
 * Verifies a password of the user with this e-mail address (it has an "@") or
 * username; an unknown one costs as much.  On OK the user's row is locked and
 * last_login_at set.  Counts as an attempt.  Needs a transaction that may
 * write, and no SPI connection of the caller's.
 */
extern PlinthAuth plinth_identity_authenticate(text *identifier, text *password);

/* As above by a token or a code that was mailed, which is good for one use. */
extern PlinthAuth plinth_identity_magic_link_take(text *token);
extern PlinthAuth plinth_identity_email_code_take(text *email, text *code);

/*
 * A try at a secret of an account that is named by a short text, which may be
 * one that does not exist: OK, LOCKED or RATE_LIMITED.  Counted at once and for
 * good (attempt.c).  What turns out to be right gives the tries back.
 */
typedef struct PlinthAttempt
{
	char *key;
	int64 retry_after;
} PlinthAttempt;
extern PlinthAuthStatus plinth_identity_attempt_begin(const char *account, PlinthAttempt *attempt);
extern void plinth_identity_attempt_good(const PlinthAttempt *attempt);

/* Names the account of an e-mail address or username, known or not; palloc'd. */
extern char *plinth_identity_account_key(text *name);

/* Asks a policy by address, where the client has one. */
extern bool plinth_identity_address_allowed(const char *policy, int64 *retry_after);

/*
 * SQL: may a user sign in, and go on with their sessions, at a time?  u is the
 * alias of plinth.users, now an expression.
 */
#define PLINTH_USER_ACTIVE(u, now)                                                                 \
	"(" u ".deleted_at IS NULL AND (" u ".status = 'active' OR " u ".status = 'banned' AND " u     \
	".banned_until <= " now "))"

/*
 * What is granted to a user, as a request context holds it: the role, the
 * roles of user_roles, that of the tier where there is one, and permissions of
 * their own as "+resource:action", sorted; palloc'd.  *until: when the first of
 * them ends, or infinity.  role and tier are those of plinth.users.  No SPI
 * connection of the caller's.
 */
extern char *plinth_identity_access(const pg_uuid_t *user_id, const char *role, const char *tier,
									TimestampTz *until);

/* Has this transaction changed what roles there are, inherit or permit?  Others must not see that yet. */
extern bool plinth_identity_roles_changed_here(void);

/*
 * The roles that such a list comes to, with all that they inherit, sorted; good
 * until the next call.  No SPI connection of the caller's.
 */
extern char **plinth_identity_role_names(const char *access, int *count);

/* Whether such a list comes to a permission by now.  No SPI connection of the caller's. */
extern bool plinth_identity_access_permits(const char *access, const char *permission);

/*
 * Who may administer users, sessions and roles: with a user in the context,
 * one who has this permission; else members of plinth_admin.  The second
 * ERRORs: PT401, PT403.
 */
#define PLINTH_PERMISSION_ADMIN "plinth:admin"
extern bool plinth_identity_is_admin(void);
extern void plinth_identity_require_admin(void);

/*
 * The context, whose user it must be who calls: PT401; PT403 for who
 * impersonates them, and for an API key.
 */
extern const PlinthContext *plinth_identity_require_self(void);

/*
 * PT403 unless the context's session began, or stepped up, within
 * plinth.recent_sign_in.  No SPI connection of the caller's.
 */
extern void plinth_identity_require_recent(const PlinthContext *context);
pg_noreturn extern void plinth_identity_refuse_old(void);

/*
 * The application's own key of a user, palloc'd; NULL where there is none.  No
 * SPI connection of the caller's.
 */
extern char *plinth_identity_user_key(const pg_uuid_t *user_id);

/*
 * Fills in who the user is, their roles, tier and key, at the lowest level of
 * assurance, for a context without a session; false for who may do nothing
 * now.  No SPI connection of the caller's.
 */
extern bool plinth_identity_user_context(const pg_uuid_t *user_id, PlinthContext *context);

/* Whom a verified token of an outside issuer names. */
typedef struct PlinthForeign
{
	const char *provider;
	const char *subject;
	bool by_user_key; /* the subject is the application's own key of a user */
	bool create;      /* one who is not known becomes a user */
	Jsonb *claims;
} PlinthForeign;

/* PT403 for one who is not known.  No SPI connection of the caller's. */
extern void plinth_identity_foreign_user(const PlinthForeign *who, pg_uuid_t *user_id);

/* An API key that is good, whatever its user is. */
typedef struct PlinthApiKey
{
	pg_uuid_t id;
	pg_uuid_t user_id;
	char *scopes;       /* sorted, comma-separated; NULL: no such limit */
	char *limit_policy; /* or NULL */
} PlinthApiKey;

/* Whether a text can only be meant for an API key. */
extern bool plinth_identity_api_key_shaped(text *key);

/*
 * Looks a key up, and notes that it is in use.  Writes no page: works in READ
 * ONLY transactions and on a standby.  No SPI connection of the caller's.
 */
extern bool plinth_identity_api_key_find(text *key, PlinthApiKey *found);

/* Writes when keys of this database were last used; how many rows that were. */
extern int64 plinth_identity_api_key_flush(void);

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
