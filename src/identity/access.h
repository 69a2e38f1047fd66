/*
 * access.h
 *		What a list of roles and permissions comes to.
 *
 * Private to room identity.
 */
#ifndef PLINTH_IDENTITY_ACCESS_H
#define PLINTH_IDENTITY_ACCESS_H

/* Names in the order of strcmp. */
typedef struct PlinthNames
{
	int n;
	char **names;
} PlinthNames;

typedef struct PlinthAccess
{
	PlinthNames roles;       /* with all that they inherit */
	PlinthNames permissions; /* as granted, with "*" where they have one */
} PlinthAccess;

/*
 * What a context's list of roles comes to by now; kept by the backend, and
 * good until the next call.  No SPI connection of the caller's.
 */
extern const PlinthAccess *plinth_identity_access_of(const char *roles);

/* Whether a permission, as someone asks for it, is among those granted. */
extern bool plinth_identity_permits(const PlinthNames *granted, const char *permission);
extern bool plinth_identity_named(const PlinthNames *names, const char *name);

#endif /* PLINTH_IDENTITY_ACCESS_H */
