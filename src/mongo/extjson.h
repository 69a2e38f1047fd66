/*
 * extjson.h
 *		Extended JSON between text and BSON.  Private to room mongo.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_EXTJSON_H
#define PLINTH_EXTJSON_H

#include "mongo/bson_int.h"

typedef enum ExtJsonKind
{
	EXTJSON_OBJECT,
	EXTJSON_ARRAY,
	EXTJSON_STRING,
	EXTJSON_NUMBER,
	EXTJSON_TRUE,
	EXTJSON_FALSE,
	EXTJSON_NULL
} ExtJsonKind;

/* A value as it stands in the text; strings are UTF-8, may hold NULs and end with one more. */
typedef struct ExtJson
{
	ExtJsonKind kind;
	struct ExtJson *parent; /* NULL: the document */
	struct ExtJson *first;  /* objects and arrays: what is in it, in its order */
	struct ExtJson *last;
	struct ExtJson *next;
	int count;
	int number; /* its place in its parent, from 0 */
	char *name; /* in an object */
	int namelen;
	char *text; /* strings and numbers */
	int len;
} ExtJson;

/* extjson_parse.c: the tree of a text in the database's encoding; 22P02 for what is no JSON, 54000 for too much of it. */
extern ExtJson *plinth_mongo_extjson_parse(const char *text, size_t len);

/* extjson_bson.c: appends the members of an object to a document of that level (1: the outermost). */
extern void plinth_mongo_extjson_append(bson_t *bson, const ExtJson *object, int depth);
/* 22P02 for a value that Extended JSON does not allow, naming the place where it stands. */
pg_noreturn extern void plinth_mongo_extjson_refuse(const ExtJson *node, const char *expected);

/*
 * extjson_value.c: appends what a wrapper such as {"$oid": …} stands for;
 * false when the object is none.  depth: of the document that it is appended to.
 */
extern bool plinth_mongo_extjson_wrapper(bson_t *bson, const char *key, int keylen,
										 const ExtJson *object, int depth);
/* A JSON number: Int32, Int64 or Double, the first that holds it. */
extern void plinth_mongo_extjson_number(bson_t *bson, const char *key, int keylen,
										const ExtJson *node);

/* extjson_write.c: the text of bytes from anyone, palloc'd, in the database's encoding; 22P03, 54000, 22P05. */
extern char *plinth_mongo_extjson_write(const uint8 *data, uint32 len, bool canonical);

#endif /* PLINTH_EXTJSON_H */
