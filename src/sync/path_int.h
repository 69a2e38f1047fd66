/*
 * path_int.h
 *		Scopes, occurrences and edges: see path.c.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_PATH_INT_H
#define PLINTH_SYNC_PATH_INT_H

#include "sync/document_int.h"

/* A level of the query, each time that it is read: a WITH query once for each reference. */
typedef struct PlinthPathScope
{
	Query *query;
	struct PlinthPathScope *parent; /* what varlevelsup 1 means */
	bool recursive;                 /* WITH RECURSIVE: nothing is pushed into it */
	struct PlinthPathNode *nodes;   /* of the range table, by index - 1 */
	List *sublinks;                 /* PlinthPathSublink * of its expressions */
} PlinthPathScope;

/* What a range table entry stands for; both NULL for what has no rows of tables. */
typedef struct PlinthPathNode
{
	struct PlinthPathOccurrence *occurrence;
	PlinthPathScope *scope;
} PlinthPathNode;

typedef struct PlinthPathSublink
{
	SubLink *sublink;
	PlinthPathScope *scope;
} PlinthPathSublink;

/* A table, each time that it stands somewhere. */
typedef struct PlinthPathOccurrence
{
	int number; /* from 1; varno in conditions */
	Oid relation;
	int depth; /* steps from the root's own row; -1: no way is known */
	struct PlinthPathOccurrence *parent;
	List *conditions; /* Expr * that lead to parent */
} PlinthPathOccurrence;

/* A row of child matters only where condition holds with a row of parent that matters. */
typedef struct PlinthPathEdge
{
	PlinthPathOccurrence *child;
	PlinthPathOccurrence *parent;
	Expr *condition; /* varno: the occurrence's number */
} PlinthPathEdge;

typedef struct PlinthPaths
{
	List *scopes;      /* PlinthPathScope *, the outermost first */
	List *occurrences; /* PlinthPathOccurrence * */
	List *edges;       /* PlinthPathEdge * */
} PlinthPaths;

/* A column of a table that an expression of some scope is. */
typedef struct PlinthPathPlace
{
	PlinthPathOccurrence *occurrence;
	Expr *expr; /* a Var of the occurrence, perhaps with relabelings */
	int index;  /* which range table entry of that scope it came by; 0: of a scope around it */
	bool open;  /* a restriction of it can be pushed down to the table */
} PlinthPathPlace;

/* path_scope.c */
extern PlinthPathScope *plinth_sync_path_scopes(PlinthPaths *paths, Query *query);
/*
 * Where expr, an expression of scope, comes from: none when that is not
 * certain, several for the branches of a UNION.  equality: the operator that it
 * will be restricted by, or InvalidOid for another one.
 */
extern List *plinth_sync_path_places(PlinthPathScope *scope, Expr *expr, Oid equality);
/* The same of an output column of scope. */
extern List *plinth_sync_path_output(PlinthPathScope *scope, AttrNumber column, Oid equality);

/* path_roots.c */
extern PlinthSyncWay *plinth_sync_path_way(PlinthPathOccurrence *occurrence, PlinthSyncNew *arg);
/* Says which indexes the ways would want. */
extern void plinth_sync_path_advise(PlinthPaths *paths);

#endif /* PLINTH_SYNC_PATH_INT_H */
