/*
 * session.h
 *		Sessions and the beginning of a request context.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_SESSION_H
#define PLINTH_SESSION_H

extern void plinth_session_init(void);

#endif /* PLINTH_SESSION_H */
