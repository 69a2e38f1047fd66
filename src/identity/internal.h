/*
 * internal.h
 *		What the files of room identity share among themselves.
 */
#ifndef PLINTH_IDENTITY_INTERNAL_H
#define PLINTH_IDENTITY_INTERNAL_H

#define PLINTH_PASSWORD_MAX 1024

/* The one form of an e-mail address or username that is stored and looked up: NFC. */
extern text *plinth_identity_normalize(text *name);

/* May this be a password?  PT400 for one that is too long or too short. */
extern void plinth_identity_password_check(text *password);

/* Notes in shared memory that an API key is in use (api_key_used.c). */
extern void plinth_identity_api_key_used(const pg_uuid_t *id);
extern void plinth_identity_api_key_init(void);

#endif /* PLINTH_IDENTITY_INTERNAL_H */
