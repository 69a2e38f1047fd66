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

#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "storage/proc.h"
#include "utils/acl.h"

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

/* 15 has a function for each class; these are the classes that are asked about here. */
#if PG_VERSION_NUM < 160000
static inline bool
object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	Assert(classid == RelationRelationId);
	return pg_class_ownercheck(objectid, roleid);
}

static inline AclResult
object_aclcheck(Oid classid, Oid objectid, Oid roleid, AclMode mode)
{
	Assert(classid == ForeignServerRelationId);
	return pg_foreign_server_aclcheck(objectid, roleid, mode);
}
#endif

#endif /* PLINTH_COMPAT_H */
