/*
 * compat.h
 *		The one place that knows which PostgreSQL is being built against.
 *
 * Inline wrappers carry the newest signature; nothing outside this file tests
 * PG_VERSION_NUM.
 */
#ifndef PLINTH_COMPAT_H
#define PLINTH_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "plinth needs PostgreSQL 15 or later"
#endif

#endif /* PLINTH_COMPAT_H */
