/*
 * api_int.h
 *		What the functions that people call have in common.
 *
 * They run with the rights of their caller: who may do what is decided for
 * the invoking role, and only then do they write this extension's tables as
 * plinth_owner.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_API_INT_H
#define PLINTH_SYNC_API_INT_H

#include "fmgr.h"
#include "sync/sync_int.h"

/* Writing plinth's tables as plinth_owner, by SPI. */
typedef struct PlinthSyncApi
{
	PlinthAsOwner owner;
	MemoryContext context; /* the caller's, which outlives the SPI connection */
} PlinthSyncApi;
extern void plinth_sync_api_begin(PlinthSyncApi *api);
extern void plinth_sync_api_end(PlinthSyncApi *api);

/* A mapping as its row says; palloc'd. */
typedef struct PlinthSyncTarget
{
	int64 id;
	char *name;
	Oid relation;
	Oid owner;
	int nkeys;
	AttrNumber key_attnums[PLINTH_SYNC_MAX_KEYS];
} PlinthSyncTarget;

/*
 * Finds a mapping and, with lock, keeps it from being dropped until the
 * transaction ends.  An ERROR when it does not exist, or when caller is neither its owner nor an
 * administrator.  Between begin and end.
 */
extern void plinth_sync_api_target(const char *name, Oid caller, bool lock,
								   PlinthSyncTarget *target);

/* An ERROR unless role is a member of owner, of plinth_admin, or a superuser. */
extern void plinth_sync_api_require(Oid role, Oid owner, const char *name);

/* An ERROR where this database is a copy that has not been adopted. */
extern void plinth_sync_api_require_adopted(void);

/* Marks keys (a text[] of array literals) to be written; between begin and end. */
extern void plinth_sync_api_mark(int64 mapping, Datum literals);

/* The argument as a C string; NULL when it is NULL. */
extern char *plinth_sync_api_text(FunctionCallInfo fcinfo, int argument);

/* As above, but NULL is an ERROR that names the argument. */
extern char *plinth_sync_api_text_required(FunctionCallInfo fcinfo, int argument, const char *name);

#endif /* PLINTH_SYNC_API_INT_H */
