/*
 * check.h
 *		What can be synced: the rules that sync_table asks before a mapping is
 *		written, each an ERROR with the hint that mends it.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_CHECK_H
#define PLINTH_SYNC_CHECK_H

#include "utils/jsonb.h"
#include "utils/relcache.h"

#define PLINTH_SYNC_FENCE_COLLECTION "plinth_sync"

/* The columns that make _id. */
typedef struct PlinthSyncKeyColumns
{
	int nkeys;
	AttrNumber attnums[INDEX_MAX_KEYS];
} PlinthSyncKeyColumns;

/* "schema.table", quoted where needed; palloc'd. */
extern char *plinth_sync_relation_name(Relation rel);

/*
 * Is this a table that can be synced as owner: ordinary or partitioned,
 * permanent, nobody's system table, without children and without policies
 * that would hide rows from its reader?  rel must be locked.
 */
extern void plinth_sync_check_relation(Relation rel, Oid owner);

/*
 * Finds the key whose old values are in the WAL of each UPDATE and DELETE, of
 * every partition too.
 */
extern void plinth_sync_check_key(Relation rel, PlinthSyncKeyColumns *key);

/* Are these columns of updated and deleted rows in the WAL as they were, of every partition too? */
extern void plinth_sync_check_old(Relation rel, const AttrNumber *columns, int ncolumns);

/* What becomes of the columns; JSON objects may be NULL for none. */
typedef struct PlinthSyncFields
{
	ArrayType *columns; /* name[], or NULL for every column */
	bool camel;         /* field_names is camelCase */
	Jsonb *fields;      /* column -> field name */
	Jsonb *casts;       /* column -> cast */
	const char *id_cast;
	const char *id_prefix;
} PlinthSyncFields;

/*
 * Columns exist, field names are valid and distinct, casts fit their types.
 * of names what the columns are of, for messages.
 */
extern void plinth_sync_check_fields(TupleDesc desc, const char *of,
									 const PlinthSyncKeyColumns *key,
									 const PlinthSyncFields *fields);

/*
 * Checks a filter against the table and returns it deparsed with every name
 * qualified, so that it means the same under any search_path and settings.
 */
extern char *plinth_sync_check_filter(Relation rel, const char *filter);

/*
 * The server is ours, and caller and owner may use it.
 */
extern void plinth_sync_check_server(const char *server, Oid caller, Oid owner);

/*
 * The collection has a valid name and is no other mapping's target, under
 * whatever server name.  Needs an SPI connection as plinth_owner, and a lock
 * on sync_mappings that keeps others from adding one.
 */
extern void plinth_sync_check_target(const char *server, const char *collection);

#endif /* PLINTH_SYNC_CHECK_H */
