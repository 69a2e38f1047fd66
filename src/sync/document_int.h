/*
 * document_int.h
 *		What the files that make a mapping of a query share.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_DOCUMENT_INT_H
#define PLINTH_SYNC_DOCUMENT_INT_H

#include "nodes/parsenodes.h"
#include "sync/create.h"
#include "utils/array.h"

/* A row of sync_sources. */
typedef struct PlinthSyncWay
{
	Oid relation;
	int ncolumns;
	AttrNumber *columns;
	char *roots; /* NULL: the columns are the root's key */
	bool derived;
	List *reads;     /* OIDs of the tables that roots reads */
	ArrayType *used; /* columns of the table that anything reads; NULL: whole rows */
} PlinthSyncWay;

/* -------------------------------------------------------------------------
 * document_query.c: text to query and back.  As the owner of the root.
 * -------------------------------------------------------------------------
 */

/*
 * The one SELECT that text is, views expanded; argument names it in errors.
 * With rowtype $1 is a row of that table.
 */
extern Query *plinth_sync_query_parse(const char *text, const char *argument, Oid rowtype);

/* The range table entries that this level reads, by index: others are left over from views. */
extern Bitmapset *plinth_sync_query_used(Query *query);

/* Its text, every name qualified; plain tables are read without children that may inherit later. */
extern char *plinth_sync_query_deparse(Query *query);

/* The changed row's column as a parameter of roots, a text: added to the way unless it is there. */
extern Node *plinth_sync_way_param(PlinthSyncWay *way, AttrNumber column, Oid type, Oid collation);

/* Can it be run as the current role?  An ERROR otherwise. */
extern void plinth_sync_query_try(const char *text, int nparams);

/* -------------------------------------------------------------------------
 * document_check.c: what a query may contain.
 * -------------------------------------------------------------------------
 */

/* ERROR for what makes a document depend on more than rows whose changes are known. */
extern void plinth_sync_query_check(Query *query, const char *argument, Oid owner);

/* -------------------------------------------------------------------------
 * path.c, path_scope.c, path_roots.c: which rows concern which documents.
 * -------------------------------------------------------------------------
 */

/* PlinthSyncWay * for each table, except those whose OIDs are in given. */
extern List *plinth_sync_paths(Query *query, PlinthSyncNew *arg, List *given);

/* path_given.c: the same from the argument via. */
extern List *plinth_sync_paths_given(Jsonb *via, PlinthSyncNew *arg);

/* The i-th column of the root's key. */
extern Form_pg_attribute plinth_sync_key_column(const PlinthSyncNew *arg, int i);

/* "id" or "a, b": the root's key columns. */
extern char *plinth_sync_key_list(const PlinthSyncNew *arg);

/* document.c: adds a way unless it is there, and checks that its columns are in old tuples. */
extern List *plinth_sync_paths_add(List *ways, PlinthSyncWay *way, PlinthSyncNew *arg);

/* -------------------------------------------------------------------------
 * document.c, document_store.c: a mapping's query as a whole, new or altered.
 * -------------------------------------------------------------------------
 */

/*
 * Looks at arg->query, which becomes the text that is kept, as the owner of the
 * root; returns the ways from changed rows.  The root's columns that it reads
 * become arg->fields.columns.
 */
extern List *plinth_sync_document_look(PlinthSyncNew *arg, Jsonb *via);

/* Do arg->fields fit the kept query? */
extern void plinth_sync_document_check_output(PlinthSyncNew *arg);

/* Which columns of the root and of the ways' tables does anything read? */
extern void plinth_sync_document_note_columns(PlinthSyncNew *arg, Query *query, List *ways);

/*
 * Makes the ways those of the mapping.  One that it had keeps its number, as
 * marks that are under way carry it; a new one gets a number that none had.
 * SPI is connected, as plinth_owner.
 */
extern void plinth_sync_document_store(int64 mapping, List *ways);

#endif /* PLINTH_SYNC_DOCUMENT_INT_H */
