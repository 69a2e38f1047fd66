/*
 * internal.h
 *		What the files of room identity share among themselves.
 */
#ifndef PLINTH_IDENTITY_INTERNAL_H
#define PLINTH_IDENTITY_INTERNAL_H

#include "base/base.h"
#include "fmgr.h"

#define PLINTH_PASSWORD_MAX 1024

/* The one form of an e-mail address or username that is stored and looked up: NFC. */
extern text *plinth_identity_normalize(text *name);

/*
 * May this be a password?  PT400, with the reason as detail, for one that is
 * too long, too short or known to others.  No SPI connection of the caller's.
 */
extern void plinth_identity_password_check(text *password);

/* As above, and its hash; palloc'd.  A copy of the argument is wiped. */
extern char *plinth_identity_password_hash(Datum argument);

/* A row of a status and of how long to wait. */
extern Datum plinth_identity_status_row(FunctionCallInfo fcinfo, const char *status,
										int64 retry_after);

/* An audit entry about a user, or nobody who is known; reason NULL: success. */
extern void plinth_identity_audit(const char *action, const pg_uuid_t *user_id, const char *reason);

/* Did the context's session begin, or step up, within plinth.recent_sign_in? */
extern bool plinth_identity_is_recent(const PlinthContext *context);

extern void plinth_identity_housekeeper_init(void);

/* Notes in shared memory that an API key is in use (api_key_used.c). */
extern void plinth_identity_api_key_used(const pg_uuid_t *id);
extern void plinth_identity_api_key_init(void);

#endif /* PLINTH_IDENTITY_INTERNAL_H */
