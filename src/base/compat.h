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
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "common/jsonapi.h"
#include "nodes/parsenodes.h"
#include "storage/proc.h"
#include "utils/acl.h"

#if PG_VERSION_NUM >= 160000
#include "parser/parse_relation.h"
#include "varatt.h"
#endif

/* 18 writes it before the declaration, and has no other. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* What a hook on ExecutorRun is called with; 18 no longer asks whether it is the only run. */
#if PG_VERSION_NUM >= 180000
#define PLINTH_EXECUTOR_RUN_PARAMETERS QueryDesc *query, ScanDirection direction, uint64 count
#define PLINTH_EXECUTOR_RUN_ARGUMENTS query, direction, count
#else
#define PLINTH_EXECUTOR_RUN_PARAMETERS                                                             \
	QueryDesc *query, ScanDirection direction, uint64 count, bool once
#define PLINTH_EXECUTOR_RUN_ARGUMENTS query, direction, count, once
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

/* Does this backend hold the lock?  17 may count stronger ones too. */
static inline bool
plinth_compat_lock_held_by_me(const LOCKTAG *tag, LOCKMODE mode)
{
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(tag, mode, false);
#else
	return LockHeldByMe(tag, mode);
#endif
}

/* May this role SET ROLE to that one?  16 tells it from membership. */
static inline bool
plinth_compat_can_set_role(Oid member, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return member_can_set_role(member, role);
#else
	return is_member_of_role(member, role);
#endif
}

/* Forbids RESET of a setting; 15 has no such flag. */
#if PG_VERSION_NUM >= 160000
#define PLINTH_GUC_NO_RESET GUC_NO_RESET
#else
#define PLINTH_GUC_NO_RESET 0
#endif
#include "access/xlog.h"
#include "replication/message.h"
#include "replication/reorderbuffer.h"
#include "replication/slot.h"

/* The columns of a table in a query that it reads, as in RTEPermissionInfo, where 16 has put them. */
static inline Bitmapset *
plinth_compat_selected_columns(Query *query, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	return getRTEPermissionInfo(query->rteperminfos, rte)->selectedCols;
#else
	return rte->selectedCols;
#endif
}

/* ---- logical decoding ---- */

/* 16 has rbtxn_get_toptxn(). */
static inline ReorderBufferTXN *
plinth_compat_toptxn(ReorderBufferTXN *txn)
{
	return txn->toptxn != NULL ? txn->toptxn : txn;
}

/* 17 did away with ReorderBufferTupleBuf. */
static inline HeapTuple
plinth_compat_oldtuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.oldtuple;
#else
	return change->data.tp.oldtuple != NULL ? &change->data.tp.oldtuple->tuple : NULL;
#endif
}

static inline HeapTuple
plinth_compat_newtuple(ReorderBufferChange *change)
{
#if PG_VERSION_NUM >= 170000
	return change->data.tp.newtuple;
#else
	return change->data.tp.newtuple != NULL ? &change->data.tp.newtuple->tuple : NULL;
#endif
}

/* ---- replication slots ---- */

/* 17 added failover and synced; before, failover is ignored. */
static inline void
plinth_compat_slot_create(const char *name, bool db_specific,
						  ReplicationSlotPersistency persistency, bool two_phase, bool failover)
{
#if PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, db_specific, persistency, two_phase, failover, false);
#else
	ReplicationSlotCreate(name, db_specific, persistency, two_phase);
#endif
}

/* 18 added error_if_invalid. */
static inline void
plinth_compat_slot_acquire(const char *name, bool nowait, bool error_if_invalid)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(name, nowait, error_if_invalid);
#else
	ReplicationSlotAcquire(name, nowait);
#endif
}

/* Was what the slot needs removed?  The caller holds ReplicationSlotControlLock and the mutex. */
static inline bool
plinth_compat_slot_invalidated(ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 160000
	return slot->data.invalidated != RS_INVAL_NONE;
#else
	return slot->data.invalidated_at != InvalidXLogRecPtr;
#endif
}

/* May a logical failover slot hand out what is before lsn?  17 brought failover slots. */
static inline bool
plinth_compat_standbys_caught_up(XLogRecPtr lsn)
{
#if PG_VERSION_NUM >= 170000
	return !MyReplicationSlot->data.failover || StandbySlotsHaveCaughtup(lsn, DEBUG1);
#else
	return true;
#endif
}

/* 15 has a function for each class; these are the classes that are asked about here. */
#if PG_VERSION_NUM < 160000
static inline bool
object_ownercheck(Oid classid, Oid objectid, Oid roleid)
{
	if (classid == DatabaseRelationId)
		return pg_database_ownercheck(objectid, roleid);
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

/* ---- JSON ---- */

/* What a semantic action returns: since 16, whether to go on. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType PlinthJsonAction;
#define PLINTH_JSON_NEXT return JSON_SUCCESS
#else
typedef void PlinthJsonAction;
#define PLINTH_JSON_NEXT return
#endif

/* 17 lets the caller bring the memory, and has const. */
static inline JsonLexContext *
plinth_compat_json_lexer(const char *json, size_t len, int encoding, bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, len, encoding, need_escapes);
#else
	return makeJsonLexContextCstringLen(unconstify(char *, json), len, encoding, need_escapes);
#endif
}

/* ---- WAL ---- */

/* 17 added flush. */
static inline XLogRecPtr
plinth_compat_log_message(const char *prefix, const char *message, size_t size, bool transactional,
						  bool flush)
{
#if PG_VERSION_NUM >= 170000
	return LogLogicalMessage(prefix, message, size, transactional, flush);
#else
	XLogRecPtr lsn = LogLogicalMessage(prefix, message, size, transactional);

	if (flush)
		XLogFlush(lsn);
	return lsn;
#endif
}

/* ---- query trees ---- */

/* What a column of a join, or in 18 of a grouping, stands for; NULL for other entries. */
static inline Expr *
plinth_compat_alias(RangeTblEntry *rte, AttrNumber column)
{
	if (rte->rtekind == RTE_JOIN)
		return (Expr *) list_nth(rte->joinaliasvars, column - 1);
#if PG_VERSION_NUM >= 180000
	if (rte->rtekind == RTE_GROUP)
		return (Expr *) list_nth(rte->groupexprs, column - 1);
#endif
	return NULL;
}

/* 16 remembers which outer joins may have made a column NULL. */
static inline void
plinth_compat_forget_joins(Var *var)
{
#if PG_VERSION_NUM >= 160000
	var->varnullingrels = NULL;
#endif
}

#endif /* PLINTH_COMPAT_H */
