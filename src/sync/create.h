/*
 * create.h
 *		A new mapping: what every kind of it has in common.
 *
 * The function of a kind reads its arguments into a PlinthSyncNew, then calls
 * open, check, its own checks, begin, insert, adds what else belongs to it,
 * and ends with end.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_CREATE_H
#define PLINTH_SYNC_CREATE_H

#include "sync/api_int.h"
#include "sync/check.h"

typedef struct PlinthSyncNew
{
	/* arguments; palloc'd */
	const char *kind; /* as in sync_mappings: "table", ... */
	Oid relation;
	char *server;
	char *collection;  /* NULL: the table's name */
	char *name;        /* likewise */
	char *field_names; /* "same" or "camelCase": fields.camel says the same */
	char *filter;      /* deparsed, or NULL */
	char *query;       /* likewise */
	char *on_existing; /* "error", "replace" or "keep" */
	bool snapshot;
	int lanes;     /* 0: one */
	char *indexes; /* JSON, or NULL */
	PlinthSyncFields fields;

	/* by open and check */
	Relation rel; /* locked against DDL until the transaction ends */
	Oid owner;    /* of the table, and so of the mapping */
	PlinthSyncKeyColumns key;
	ArrayType *key_columns;
} PlinthSyncNew;

/* Arguments that several kinds have, at these places; NULL means the default. */
extern void plinth_sync_new_relation(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int relation,
									 const char *name);
extern void plinth_sync_new_server(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int server);
/* field_names, fields, casts, id_cast, id_prefix: in this order. */
extern void plinth_sync_new_fields(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int first);
extern void plinth_sync_new_on_existing(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place);
extern void plinth_sync_new_snapshot(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place);
extern void plinth_sync_new_lanes(FunctionCallInfo fcinfo, PlinthSyncNew *arg, int place);
/* The first 13 arguments of functions that copy a table's own columns, as sync_table has them. */
extern void plinth_sync_new_of_table(FunctionCallInfo fcinfo, PlinthSyncNew *arg);
extern void plinth_sync_new_check_lanes(int lanes);
/* An ERROR where there is no room for all the workers of the mappings that there are now. */
extern void plinth_sync_new_require_workers(void);

/* Opens and locks the relation, which must be the caller's. */
extern void plinth_sync_new_open(PlinthSyncNew *arg);

/* Can a table's rows be copied, and by which key?  Fills key and key_columns. */
extern void plinth_sync_new_check_rows(PlinthSyncNew *arg);

/* Name, table, key, server, and that this database delivers at all. */
extern void plinth_sync_new_check(PlinthSyncNew *arg);

/* Both of these, for a table whose own columns are copied: its fields and its filter, too. */
extern void plinth_sync_new_check_table(PlinthSyncNew *arg);

/* As plinth_owner from here on: is there room for it? */
extern void plinth_sync_new_begin(PlinthSyncNew *arg, PlinthSyncApi *api);

/* Writes the mapping down; returns its id. */
extern int64 plinth_sync_new_insert(PlinthSyncNew *arg);

/* The workers that it needs; back to the caller's role. */
extern void plinth_sync_new_end(PlinthSyncNew *arg, PlinthSyncApi *api);

/* A name[]. */
extern ArrayType *plinth_sync_name_array(const char *const *names, int n);

#endif /* PLINTH_SYNC_CREATE_H */
