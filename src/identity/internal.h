/*
 * internal.h
 *		What the files of room identity share among themselves.
 */
#ifndef PLINTH_IDENTITY_INTERNAL_H
#define PLINTH_IDENTITY_INTERNAL_H

#define PLINTH_PASSWORD_MAX 1024

/* The one form of an e-mail address or username that is stored and looked up: NFC. */
extern text *plinth_identity_normalize(text *name);

#endif /* PLINTH_IDENTITY_INTERNAL_H */
