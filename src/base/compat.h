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

#include "storage/proc.h"

#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* The local transaction id: another in each top-level transaction of a backend. */
static inline LocalTransactionId
plinth_compat_lxid(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProc->vxid.lxid;
#else
	return MyProc->lxid;
#endif
}

/* Forbids RESET of a setting; 15 has no such flag. */
#if PG_VERSION_NUM >= 160000
#define PLINTH_GUC_NO_RESET GUC_NO_RESET
#else
#define PLINTH_GUC_NO_RESET 0
#endif

#endif /* PLINTH_COMPAT_H */
