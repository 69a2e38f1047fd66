/*
 * internal.h
 *		What the files of room session share among themselves.
 */
#ifndef PLINTH_SESSION_INTERNAL_H
#define PLINTH_SESSION_INTERNAL_H

#include "base/base.h"
#include "crypto/crypto.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/uuid.h"

/* Makes a token, and the hash that is stored of it. */
extern void plinth_session_token_make(char token[PLINTH_TOKEN_SIZE], uint8 hash[PLINTH_HASH_BYTES]);

/* The hash of a token; false when it has not the form of one. */
extern bool plinth_session_token_hash(const char *token, size_t len, uint8 hash[PLINTH_HASH_BYTES]);

/* A session that was found good. */
typedef struct PlinthSession
{
	pg_uuid_t id;
	pg_uuid_t user_id;
	TimestampTz expires_at;
	TimestampTz last_active_at;
	TimestampTz authenticated_at;
	int aal;
	char role[64];
	char tier[64];
	char *roles; /* as PlinthContext has them; palloc'd */
	bool has_impersonator;
	pg_uuid_t impersonator_id;
	bool noted; /* shared memory knows that it is in use */

	/* For those who keep it; not there when it was found in shared memory. */
	uint8 token_hash[PLINTH_HASH_BYTES];
	Interval idle_timeout; /* zero for none */
	TimestampTz good_until;
} PlinthSession;

/*
 * Looks a token up and checks all that can end a session; that is use of it.
 * Writes no page: works in READ ONLY transactions and on a standby.  No SPI
 * connection of the caller's.
 */
extern bool plinth_session_find(text *token, PlinthSession *session);

/* As above, by the session's id. */
extern bool plinth_session_find_by_id(const pg_uuid_t *id, PlinthSession *session);

/* What describes the device in the list of sessions; each may be NULL. */
typedef struct PlinthDevice
{
	text *fingerprint;
	text *type;
	text *user_agent;
	text *label;
} PlinthDevice;

/*
 * Takes it from four text arguments, of which fingerprint is number first;
 * PT400 for what is too long.  A user agent is cut.
 */
extern void plinth_session_device(FunctionCallInfo fcinfo, int first, PlinthDevice *device);

typedef struct PlinthSessionStart
{
	pg_uuid_t user_id;
	int aal;
	PlinthDevice device;

	/* Of an administrator who acts as the user; who may have no user themselves. */
	text *impersonation_reason;               /* NULL: it is the user */
	const pg_uuid_t *impersonator_id;         /* or NULL */
	const pg_uuid_t *impersonator_session_id; /* or NULL */
	TimestampTz expires_at;                   /* counts only then */
} PlinthSessionStart;

typedef struct PlinthNewSession
{
	pg_uuid_t id;
	char token[PLINTH_TOKEN_SIZE]; /* the caller's to wipe */
	TimestampTz expires_at;
} PlinthNewSession;

/*
 * Begins a session of a user whose identity the caller verified and whose row
 * it has locked.  PT403 for a device that is banned.  The caller writes the
 * audit entry.  No SPI connection of the
 * caller's.
 */
extern void plinth_session_start(const PlinthSessionStart *start, PlinthNewSession *session);

/* Is a device banned, for this user or for everybody?  As of now.  No SPI connection of the caller's. */
extern bool plinth_session_device_banned(const pg_uuid_t *user_id, const PlinthDevice *device);

/*
 * Ends a session, whoever asks; false when there is none that goes on.  The
 * caller sees to the audit entry.
 */
extern bool plinth_session_end(const pg_uuid_t *id, const char *reason);

/*
 * Who calls: whom a credential stands for (context.c).
 */
typedef struct PlinthCaller
{
	PlinthContext context; /* all but the address */
	PlinthSession session; /* where the context has one */
	char *limit_policy;    /* which an API key is under, or NULL */
} PlinthCaller;

/*
 * Takes a session's token, an access token of this database or of an issuer in
 * jwt_issuers, or an API key; false, or PT401, for what is none of these or not
 * good.  No SPI connection of the caller's.
 */
extern bool plinth_session_caller_find(text *credential, PlinthCaller *caller);

/* As above, for a session's token alone. */
extern bool plinth_session_caller_find_session(text *token, PlinthCaller *caller);

/* Whether two credentials stand for the same. */
extern bool plinth_session_caller_same(const PlinthCaller *a, const PlinthCaller *b);

/* Fixes the context, and takes the role, for the rest of the transaction. */
extern void plinth_session_caller_begin(const PlinthCaller *caller);

/* Refuses to run where the role could not be set; function: its name in SQL. */
extern void plinth_session_context_check(const char *function);

/* "name=; Path=/; ...": the value of Set-Cookie that takes the cookie away (cookie.c). */
extern char *plinth_session_cookie_none(void);

/*
 * Notes at commit that the session was in use, where shared memory does not
 * know; see touch.c.
 */
extern void plinth_session_touch(const PlinthSession *session);

/* "session:<uuid>", as audit entries name a session; palloc'd. */
extern char *plinth_session_resource(const pg_uuid_t *id);

#endif /* PLINTH_SESSION_INTERNAL_H */
