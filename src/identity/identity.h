/*
 * identity.h
 *		Users and their credentials.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_IDENTITY_H
#define PLINTH_IDENTITY_H

extern void plinth_identity_init(void);

#endif /* PLINTH_IDENTITY_H */
