/*
 * verify_int.h
 *		Between the two halves of sync_verify(): the backend, which talks to no
 *		network, and the worker, which compares.
 *
 * They share a segment: a header, and a queue from the worker to the backend.
 * A message is a kind and its fields, each a C string that may be absent.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_VERIFY_INT_H
#define PLINTH_SYNC_VERIFY_INT_H

#include "lib/stringinfo.h"
#include "storage/shm_mq.h"
#include "sync/wait_int.h"

typedef struct PlinthVerifyHeader
{
	Oid database;
	int64 mapping;
} PlinthVerifyHeader;

#define PLINTH_VERIFY_QUEUE_OFFSET MAXALIGN(sizeof(PlinthVerifyHeader))
#define PLINTH_VERIFY_QUEUE_SIZE 65536

typedef enum PlinthVerifyMessage
{
	PLINTH_VERIFY_DIFFERENCE = 'D', /* key literal, difference, document id */
	PLINTH_VERIFY_ERROR = 'E',      /* SQLSTATE, message, detail, hint */
	PLINTH_VERIFY_UNDECLARED = 'U', /* collection, name of an index that is not declared */
	PLINTH_VERIFY_DONE = 'C'
} PlinthVerifyMessage;

#define PLINTH_VERIFY_MAX_FIELDS 4

/* The worker's side of a run. */
typedef struct PlinthVerify
{
	int64 id; /* of the mapping */
	PlinthSyncMapping *mapping;
	char *shape; /* of the table when it began */
	PlinthMongoClient *client;
	shm_mq_handle *queue; /* NULL in a run by itself */
	struct PlinthVerifyRun *run_by_itself;
	struct PlinthVerifyCandidate *suspects; /* to be looked at again */
	int nsuspects;
	MemoryContext suspects_context;
	PlinthSyncWait wait;     /* for the mapping's lanes */
	TimestampTz stuck_at;    /* since when its lane delivers nothing; 0: it does */
	TimestampTz answered_at; /* when MongoDB did last; 0: never */
	MemoryContext run;       /* lives as long as the run */
	MemoryContext page;      /* reset with each page */
} PlinthVerify;

/* verify_worker.c */
extern void plinth_sync_verify_settle_session(void);
/* Both passes; what differs is sent as it is found. */
extern void plinth_sync_verify_compare(PlinthVerify *verify);
extern PGDLLEXPORT void plinth_sync_verify_main(Datum arg);
/* A transaction of the worker's; the current memory context stays current. */
extern void plinth_sync_verify_begin(PlinthVerify *verify);
extern void plinth_sync_verify_end(PlinthVerify *verify);
/* Waits until all that is committed is delivered. */
extern void plinth_sync_verify_catch_up(PlinthVerify *verify);
/*
 * Of something that was read: false when it could be, true when it is to be
 * tried again, since MongoDB is away for a moment; else an ERROR.
 */
extern bool plinth_sync_verify_again(PlinthVerify *verify, PlinthMongoStatus status,
									 const PlinthMongoError *error);
/* An ERROR unless status is OK. */
extern void plinth_sync_verify_check(PlinthVerify *verify, PlinthMongoStatus status,
									 const PlinthMongoError *error);
/* Sends a message, to whoever runs it; ends the process when nobody listens any more. */
extern void plinth_sync_verify_send(PlinthVerify *verify, PlinthVerifyMessage kind, int nfields,
									const char *const *fields);

/* schedule.c: a difference that a run by itself has found (fields as of PLINTH_VERIFY_DIFFERENCE). */
extern void plinth_sync_schedule_found(PlinthVerify *verify, const char *const *fields);

/* verify_compare.c: what differs, reported as it is found. */
extern void plinth_sync_verify_rows(PlinthVerify *verify);
extern void plinth_sync_verify_documents(PlinthVerify *verify);

/* verify_indexes.c: indexes that are not as declared. */
extern void plinth_sync_verify_indexes(PlinthVerify *verify);

/* verify_recheck.c */
typedef enum PlinthVerifyKind
{
	PLINTH_VERIFY_NONE, /* no row, or no document */
	PLINTH_VERIFY_DOCUMENT,
	PLINTH_VERIFY_POISON /* a row that cannot become a document */
} PlinthVerifyKind;

/* What one side has for an _id: enough to tell whether two are the same. */
typedef struct PlinthVerifyState
{
	PlinthVerifyKind kind;
	uint64 digest[2];
} PlinthVerifyState;

typedef struct PlinthVerifyCandidate
{
	const char *literal;   /* the key; NULL where no row of ours could have the _id */
	PlinthBson id;         /* {"_id": value}; no data for a row that has none */
	PlinthVerifyState row; /* as it was read last */
	PlinthVerifyState document;
} PlinthVerifyCandidate;

extern PlinthVerifyState plinth_sync_verify_state(PlinthBson document);
extern bool plinth_sync_verify_same(const PlinthVerifyState *a, const PlinthVerifyState *b);
/*
 * For each of ids the document of documents that has it; no data where there
 * is none.  found has n places.
 */
extern void plinth_sync_verify_match(const PlinthBson *ids, int n, PlinthBson *documents,
									 int ndocuments, PlinthBson *found);
/* Sets aside what differs at first sight (copied); at times it settles what there is. */
extern void plinth_sync_verify_suspect(PlinthVerify *verify,
									   const PlinthVerifyCandidate *candidates, int n);
/* Waits for what is under way, looks again, and reports what still differs. */
extern void plinth_sync_verify_settle(PlinthVerify *verify);

#endif /* PLINTH_SYNC_VERIFY_INT_H */
