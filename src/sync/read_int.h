/*
 * read_int.h
 *		What read.c asks of read_query.c.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_READ_INT_H
#define PLINTH_SYNC_READ_INT_H

#include "executor/spi.h"

#include "sync/sync_int.h"

/* Becomes the mapping's owner, and back; an ERROR in between needs no care. */
extern void plinth_sync_query_as_role(Oid role, PlinthAsOwner *state);
extern void plinth_sync_query_as_owner(PlinthSyncMapping *mapping, PlinthAsOwner *state);
extern void plinth_sync_query_as_before(PlinthAsOwner *state);

/*
 * Locks a table against DDL until the transaction ends; returns its qualified
 * name, which is name where that is given, or an ERROR.
 */
extern char *plinth_sync_query_lock(Oid relation, const char *name);

/* nargs parameters of one type and, where lasttype is valid, one of that; keep: beyond this transaction. */
extern SPIPlanPtr plinth_sync_query_prepare(const char *sql, int nargs, Oid argtype, Oid lasttype,
											bool keep);

/* ERRORs when the result's types are not those that the mapping was compiled for. */
extern void plinth_sync_query_check_types(PlinthSyncMapping *mapping, TupleDesc desc, int nfields);
/* ERRORs when what the plan reads is not this relation (any more). */
extern void plinth_sync_query_check_relation(PlinthSyncMapping *mapping, SPIPlanPtr plan,
											 Oid relation);

/*
 * Runs a read in a subtransaction; false with *error (palloc'd) when it failed
 * for what may be one row's fault.  Whatever else fails is raised.
 */
typedef void (*PlinthSyncRead)(void *arg);
extern bool plinth_sync_query_guarded(PlinthSyncRead function, void *arg, ErrorData **error);

#endif /* PLINTH_SYNC_READ_INT_H */
