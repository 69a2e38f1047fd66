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

/*
 * A query for rows.  Each is a number, the key's columns and nfields fields;
 * what it points to, and the memory that take runs in, is gone when take is
 * left.  take ends the query by false.
 */
typedef struct PlinthSyncQuery
{
	PlinthSyncMapping *mapping;
	SPIPlanPtr plan;
	Oid relation; /* that it must read */
	int nfields;
	bool (*take)(void *arg, const Datum *values, const bool *nulls);
	void *arg;
} PlinthSyncQuery;
/*
 * read_rows.c: runs it with a parameter for each column of the key and, where
 * lasttype is valid, one of that (nulls may be NULL); false when take ended it.
 * SPI is connected, the owner is set.
 */
extern bool plinth_sync_query_rows(const PlinthSyncQuery *query, Datum *values, const bool *nulls,
								   Oid argtype, Oid lasttype);

/*
 * The same of the mapping's own table for some of its keys, as its owner: locks
 * it, connects SPI and ends that.  plan is made of sql where it is not yet;
 * text, for the rows' keys, lives as long as the query runs.
 */
extern void plinth_sync_query_keys(PlinthSyncQuery *query, SPIPlanPtr *plan, const char *sql,
								   const PlinthSyncKey *keys, int nkeys, StringInfo text);

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
/* Likewise where names or rights may be missing as well: then *poison is false. */
extern bool plinth_sync_query_tried(PlinthSyncRead function, void *arg, bool *poison);

/*
 * read.c: the keys of a page in their order, as literals in the batch's memory;
 * sets exhausted, and passed (share_int.h).
 */
extern List *plinth_sync_read_page_keys(PlinthSyncMapping *mapping, Oid relation, const char *after,
										int limit, PlinthSyncBatch *batch, StringInfo passed);
/* The key columns of a row as C strings in a row; an ERROR where one is NULL. */
extern void plinth_sync_read_row_key(PlinthSyncMapping *mapping, const Datum *values,
									 const bool *nulls, StringInfo key);
/* Which of the keys that were asked for a row is for. */
extern int plinth_sync_read_row_place(const Datum *values);
/* Keys as parameters: for each key column an array of texts. */
extern void plinth_sync_read_key_arrays(PlinthSyncMapping *mapping, const PlinthSyncKey *keys,
										int nkeys, Datum *arrays);
/*
 * read_absent.c: a key that fails though no row has it, or that is none of the
 * key's type (which was another one when it was marked), has no document
 * either: no _id could be made of it.
 */
extern bool plinth_sync_read_is_nothing(PlinthSyncMapping *mapping, PlinthSyncKey *key);
/* read_document.c: a page of a document mapping. */
extern void plinth_sync_read_page_documents(PlinthSyncMapping *mapping, Oid relation,
											const char *after, int limit, PlinthSyncBatch *batch);

/* mapping.c */
extern void plinth_sync_mapping_problem(PlinthSyncMapping *mapping, const char *what,
										const char *hint);
/* mapping_sql.c: for the queries that name keys. */
/* By its own columns, as SQL, and its filter or NULL. */
extern void plinth_sync_mapping_sql(PlinthSyncMapping *mapping, const char *columns,
									const char *filter);
/* "alias.column = the key's i-th part that was asked for"; palloc'd. */
extern char *plinth_sync_mapping_is_key(PlinthSyncMapping *mapping, const char *alias, int i);
/* The SQL of pages in the order of the key. */
extern void plinth_sync_mapping_pages(PlinthSyncMapping *mapping, const char *columns,
									  const char *filter);
/*
 * The head of a page that tells of each row whether it matches the old filter
 * and the mapping's: as PlinthSyncMatch.  It goes with the tail of keys_only.
 */
extern char *plinth_sync_mapping_changed_head(PlinthSyncMapping *mapping, const char *old_filter);
typedef enum PlinthSyncMatch
{
	PLINTH_SYNC_MATCH_BEGUN,
	PLINTH_SYNC_MATCH_ENDED,
	PLINTH_SYNC_MATCH_SAME
} PlinthSyncMatch;
/* SELECT a number and columns of t, by keys in arrays of text, up to the rows that t stands for. */
extern void plinth_sync_mapping_keys_head(PlinthSyncMapping *mapping, StringInfo sql,
										  const char *columns);

/* mapping_document.c: rows of sync_sources; SPI is connected. */
extern void plinth_sync_document_sources(PlinthSyncMapping *mapping);
/* What its query gives, as keys and fields, and the SQL by key. */
extern void plinth_sync_document_compile(PlinthSyncMapping *mapping);
/* ERRORs when the plan reads a table that is not known to be the query's. */
extern void plinth_sync_document_check(PlinthSyncMapping *mapping, SPIPlanPtr plan);

#endif /* PLINTH_SYNC_READ_INT_H */
