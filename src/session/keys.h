/*
 * keys.h
 *		What the files about signing keys share.
 */
#ifndef PLINTH_SESSION_KEYS_H
#define PLINTH_SESSION_KEYS_H

#include "session/jose.h"

/* What the private parts are sealed for, and in which context. */
#define PLINTH_SEAL_PURPOSE "plinth signing key 1"
extern char *plinth_session_key_context(const char *kid, PlinthJoseAlg alg);

/* A key from a file in plinth.signing_key_directory; ERRORs when there is none. */
extern PlinthJoseKey *plinth_session_key_from_file(PlinthJoseAlg alg, const char *file);

#endif /* PLINTH_SESSION_KEYS_H */
