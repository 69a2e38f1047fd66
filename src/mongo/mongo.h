/*
 * mongo.h
 *		MongoDB as the other rooms see it: servers, a client, BSON.
 *
 * mongo is the only room that includes mongoc.h; here documents are bytes and
 * errors are PlinthMongoError, never a longjmp through the driver.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_MONGO_H
#define PLINTH_MONGO_H

typedef enum PlinthMongoStatus
{
	PLINTH_MONGO_OK,
	PLINTH_MONGO_UNREACHABLE, /* no server, connection lost or timed out: what was sent may still land */
	PLINTH_MONGO_DNS,         /* the name did not resolve (in time) */
	PLINTH_MONGO_TLS,
	PLINTH_MONGO_AUTH,          /* wrong credentials or missing rights */
	PLINTH_MONGO_CONFIG,        /* uri, options or password file */
	PLINTH_MONGO_NOT_PRIMARY,   /* stepping down, recovering: nothing was written */
	PLINTH_MONGO_WRITE_CONCERN, /* written, not (yet) by the majority: may be lost or may land */
	PLINTH_MONGO_DUPLICATE_KEY, /* E11000 */
	PLINTH_MONGO_TOO_LARGE,     /* over 16,777,216 bytes */
	PLINTH_MONGO_BAD_DOCUMENT, /* this document can never be stored (name, depth, encoding, validator) */
	PLINTH_MONGO_CANCELLED, /* this worker is to stop */
	PLINTH_MONGO_HELD,      /* not sent: something else must be written first */
	PLINTH_MONGO_OTHER      /* answered with another error; retried */
} PlinthMongoStatus;

typedef struct PlinthMongoError
{
	PlinthMongoStatus status;
	int code;          /* the server's, or 0 */
	char message[512]; /* no secret in it; may name host and index */
} PlinthMongoError;

/* A short name for logs and views: "unreachable", "auth", ... */
extern const char *plinth_mongo_status_name(PlinthMongoStatus status);
/* May the very same write succeed later without anyone changing the document? */
extern bool plinth_mongo_status_is_transient(PlinthMongoStatus status);
/* Can a write that ended so still land later (a zombie)? */
extern bool plinth_mongo_status_is_unknown(PlinthMongoStatus status);

extern void plinth_mongo_init(void);

/* -------------------------------------------------------------------------
 * Client.  One at a time in a process; only in workers, never in a backend.
 * No call raises an ERROR for what the network or the server does; each
 * watches this worker's latch and returns PLINTH_MONGO_CANCELLED when the
 * worker is to stop, within a second.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthMongoClient PlinthMongoClient;

/*
 * Reads a mongodb_fdw server's options and the user mapping of userid (or
 * PUBLIC's), and makes a client; needs a transaction, does no network I/O.
 * NULL with error filled (CONFIG) when options are missing or wrong.  The
 * client is malloc'd; close it with plinth_mongo_close.
 */
extern PlinthMongoClient *plinth_mongo_open(const char *server_name, Oid userid,
											PlinthMongoError *error);
extern void plinth_mongo_close(PlinthMongoClient *client);

/* How many connections this client has made so far: a change means a reconnect. */
extern uint64 plinth_mongo_connections(PlinthMongoClient *client);

extern PlinthMongoStatus plinth_mongo_ping(PlinthMongoClient *client, PlinthMongoError *error);

/* BSON documents are plain bytes: length-prefixed, validated by their maker. */
typedef struct PlinthBson
{
	uint8 *data;
	uint32 len;
} PlinthBson;

typedef enum PlinthMongoOpKind
{
	PLINTH_MONGO_DELETE,  /* deleteOne {_id: …} */
	PLINTH_MONGO_REPLACE, /* replaceOne {_id: …}, upsert */
	PLINTH_MONGO_INSERT   /* insertOne */
} PlinthMongoOpKind;

typedef struct PlinthMongoOp
{
	PlinthMongoOpKind kind;
	PlinthBson id;          /* a document {"_id": value} */
	PlinthBson document;    /* with the same _id first; empty for DELETE */
	PlinthMongoError error; /* out: status PLINTH_MONGO_OK when acknowledged */
} PlinthMongoOp;

/*
 * Writes a batch to one collection, unordered, at most one op per _id, in one
 * command for each kind (deletes, then replaces, then inserts), with write
 * concern majority and maxTimeMS; several commands when 100,000 ops or 16 MB
 * would be exceeded.  Each op's outcome is in its error.  Returns OK when
 * every command was answered (ops may still have failed one by one);
 * otherwise the first failure of a command as a whole, which is also the
 * outcome of each op that was in it and PLINTH_MONGO_UNREACHABLE's-kind
 * "not sent" ops have code -1.
 */
extern PlinthMongoStatus plinth_mongo_write(PlinthMongoClient *client, const char *collection,
											PlinthMongoOp *ops, int nops, PlinthMongoError *error);

/*
 * Inserts documents (ops of kind INSERT) in their order.  One whose _id is there
 * already counts as acknowledged, whatever is in it; another that fails is told
 * in its error, and those behind it are inserted all the same.  Otherwise as
 * plinth_mongo_write.
 */
extern PlinthMongoStatus plinth_mongo_append(PlinthMongoClient *client, const char *collection,
											 PlinthMongoOp *ops, int nops, PlinthMongoError *error);

/*
 * Makes a capped collection of so many bytes and, where not 0, documents,
 * unless it is there.  capped is false where one is there that is not capped.
 */
extern PlinthMongoStatus plinth_mongo_make_capped(PlinthMongoClient *client, const char *collection,
												  int64 bytes, int64 documents, bool *capped,
												  PlinthMongoError *error);

/*
 * Something to do while the server works: the next plinth_mongo_write or _append runs
 * work once, as soon as it waits for an answer (not at all when it never
 * does).  work may run transactions but not use this client; what it raises is
 * raised by plinth_mongo_write when the driver has been left.
 */
typedef void (*PlinthMongoWork)(void *arg);
extern void plinth_mongo_meanwhile(PlinthMongoClient *client, PlinthMongoWork work, void *arg);

/*
 * Who holds the value for which a unique index refused op (its error is
 * DUPLICATE_KEY): holder becomes {"_id": value} of that document, palloc'd, or
 * empty when nobody does any more.  Not OK when it cannot be told.
 */
extern PlinthMongoStatus plinth_mongo_conflict_holder(PlinthMongoClient *client,
													  const char *collection,
													  const PlinthMongoOp *op, PlinthBson *holder,
													  PlinthMongoError *error);

/*
 * Finds at most limit documents in _id order with _id greater than after
 * (a {"_id": value} document; empty data for the start), whole or only their
 * _id.  Results are palloc'd.  What goes on behind the last of the call before
 * takes from the cursor that it left open, and so may miss what has been
 * inserted since.
 */
extern PlinthMongoStatus plinth_mongo_scan(PlinthMongoClient *client, const char *collection,
										   PlinthBson after, bool ids_only, int limit,
										   PlinthBson **documents, int *ndocuments,
										   PlinthMongoError *error);

/* Finds the documents with these _ids (in any order); results are palloc'd. */
extern PlinthMongoStatus plinth_mongo_find(PlinthMongoClient *client, const char *collection,
										   const PlinthBson *ids, int nids, PlinthBson **documents,
										   int *ndocuments, PlinthMongoError *error);

/*
 * gridfs.c: of ops on a bucket's files, which must wait since not all of their
 * chunks are there; of ops that delete chunks, which must wait since their file
 * still is.  held has nops places.
 */
extern PlinthMongoStatus plinth_mongo_gridfs_incomplete(PlinthMongoClient *client,
														const char *chunks,
														const PlinthMongoOp *ops, int nops,
														bool *held, PlinthMongoError *error);
extern PlinthMongoStatus plinth_mongo_gridfs_in_use(PlinthMongoClient *client, const char *files,
													const char *chunks, const PlinthMongoOp *ops,
													int nops, bool *held, PlinthMongoError *error);

/*
 * The fence: one document in collection plinth_sync, keyed by the collection
 * it guards.  Where several lanes write it, each but the first has a place of
 * its own in it.
 */
#define PLINTH_MONGO_FENCE_LANES 16
typedef struct PlinthMongoFence
{
	uint64 system_identifier;
	uint32 database; /* OID */
	uint32 timeline;
	uint64 slot_generation;
	uint64 lsn;
	uint64 epoch;
	uint32 hold_ms; /* how long its writer relies on it before it moves it again; 0: not known */
	uint32 longest_hold_ms;                    /* of all its lanes; only as read */
	uint64 lane_lsn[PLINTH_MONGO_FENCE_LANES]; /* of lanes from 1 on, 0: none; only as read */
} PlinthMongoFence;

/* found is false when there is none. */
extern PlinthMongoStatus plinth_mongo_fence_read(PlinthMongoClient *client, const char *collection,
												 PlinthMongoFence *fence, bool *found,
												 PlinthMongoError *error);

/*
 * Moves the fence only where it equals expected in every field but the lanes'
 * places (expected NULL: only where there is none).  moved tells.  Those
 * places stay as long as the writer, its timeline and its epoch do.
 */
extern PlinthMongoStatus plinth_mongo_fence_move(PlinthMongoClient *client, const char *collection,
												 const PlinthMongoFence *expected,
												 const PlinthMongoFence *fence, bool *moved,
												 PlinthMongoError *error);
/*
 * Moves one lane's place only, from one lsn (0: there is none) to another, and
 * only where writer, timeline and epoch are fence's.
 */
extern PlinthMongoStatus plinth_mongo_fence_lane_move(PlinthMongoClient *client,
													  const char *collection, int lane,
													  const PlinthMongoFence *fence, uint64 from,
													  uint64 lsn, bool *moved,
													  PlinthMongoError *error);

/* -------------------------------------------------------------------------
 * Indexes.
 * -------------------------------------------------------------------------
 */

/* A declared index; palloc'd. */
typedef struct PlinthMongoIndex
{
	PlinthBson spec; /* {"key": …, "name": …, …} as createIndexes takes it */
	char *name;
	char *json; /* the same as text: to be kept, and parsed again */
	bool after; /* to be built after the rows that exist are sent */
	int nfields;
	char **fields; /* of the documents, that it looks at: the first names of its paths */
} PlinthMongoIndex;

/*
 * Reads declarations from JSON text, an array of objects or one object:
 * {"keys": {"a": 1, "b": -1}, "name": …, "unique": true, …}, options as
 * createIndex takes them and "when": "before" or "after".  ERRORs: 22023 and
 * 42710 for what is wrong or named twice, 54000 for too much.
 */
extern PlinthMongoIndex **plinth_mongo_indexes_parse(const char *json, int *n);

/* Which of n indexes, as the server lists them, has the name; -1 for none. */
extern int plinth_mongo_index_find(const PlinthBson *indexes, int n, const char *name);
/* The name of an index as the server lists it; palloc'd, NULL for none. */
extern char *plinth_mongo_index_name(PlinthBson index);
/*
 * What an index of the server's has otherwise than declared, for people;
 * palloc'd, NULL where nothing.  What servers add or write otherwise does not
 * count.
 */
extern char *plinth_mongo_index_difference(PlinthBson declared, PlinthBson found);

/*
 * By an index that lets documents expire: will this one have gone in so many
 * seconds from now?  False for other indexes.
 */
extern bool plinth_mongo_index_expires(PlinthBson index, PlinthBson document, int64 seconds);

/*
 * Indexes are built by a patient client only: it waits for an answer for as
 * long as the server takes, whatever plinth.sync_timeout is.
 */
extern void plinth_mongo_be_patient(PlinthMongoClient *client);
/*
 * Creates an index unless it is there; error's status is OTHER, DUPLICATE_KEY
 * or BAD_DOCUMENT where the server refuses it, with the server's reason.
 * Makes the collection where there is none.  For collections that are empty or
 * new any client will do.
 */
extern PlinthMongoStatus plinth_mongo_index_create(PlinthMongoClient *client,
												   const char *collection, PlinthBson spec,
												   PlinthMongoError *error);
/* Drops an index; OK where there is none. */
extern PlinthMongoStatus plinth_mongo_index_drop(PlinthMongoClient *client, const char *collection,
												 const char *name, PlinthMongoError *error);
/* The indexes of a collection but that of _id; palloc'd.  None where there is no collection. */
extern PlinthMongoStatus plinth_mongo_index_list(PlinthMongoClient *client, const char *collection,
												 PlinthBson **indexes, int *nindexes,
												 PlinthMongoError *error);

/* -------------------------------------------------------------------------
 * BSON <-> datum.  These raise ERRORs: 54000 (too large, too deep), 22xxx.
 * -------------------------------------------------------------------------
 */

/* A compiled conversion of one column; allocated in the current context. */
typedef struct PlinthMongoField PlinthMongoField;

/*
 * cast: NULL for the type's own, or one of "string", "int", "long", "double",
 * "decimal", "bool", "date", "objectId", "uuid", "binary", "json" (text that
 * holds JSON), "micros" (a timestamp as Date, and its microseconds within the
 * millisecond in a sibling field name + "Micros").  22023 for a cast that the
 * type cannot take.
 */
extern PlinthMongoField *plinth_mongo_field(const char *name, Oid type, int32 typmod,
											const char *cast);

/*
 * A jsonb object, json object or composite whose members become fields of the
 * document itself; 22023 for any other type.
 */
extern PlinthMongoField *plinth_mongo_field_spread(Oid type);

/*
 * How a row's key becomes _id: one column by itself (with a prefix: as text),
 * several as a sub-document.  cast as above, only "string", "objectId",
 * "int", "long", "uuid"; every choice is injective: timestamps, and numerics
 * over 34 digits, become text.  Allocated in the current context.
 */
typedef struct PlinthMongoIdSpec PlinthMongoIdSpec;
extern PlinthMongoIdSpec *plinth_mongo_id_spec(int nkeys, const char *const *names,
											   const Oid *types, const int32 *typmods,
											   const char *cast, const char *prefix);

/* {"_id": value} from key values; palloc'd. */
extern PlinthBson plinth_mongo_id_encode(const PlinthMongoIdSpec *spec, const Datum *values);

/*
 * The key's text values (as the types' input functions take them) from a
 * document's _id; false when no row of ours could have it.  texts has nkeys
 * places, palloc'd.
 */
extern bool plinth_mongo_id_decode(const PlinthMongoIdSpec *spec, PlinthBson document,
								   char **texts);

/* {"_id": value} of any document; palloc'd. */
extern PlinthBson plinth_mongo_id_of(PlinthBson document);

/*
 * A digest of a document's fields, in whatever order they stand: there are servers
 * that keep the order of an older document.  That of fields within fields counts.
 */
extern void plinth_mongo_digest(PlinthBson document, uint64 digest[2]);

/* Are two ids of the same value (numbers compare as MongoDB compares them)? */
extern bool plinth_mongo_id_equal(PlinthBson a, PlinthBson b);

/* The whole document: _id first, then the fields in order; NULLs are kept.  palloc'd. */
extern PlinthBson plinth_mongo_document(const PlinthMongoIdSpec *spec, const Datum *keyvalues,
										PlinthMongoField *const *fields, int nfields,
										const Datum *values, const bool *nulls);

/* Relaxed extended JSON for people and logs; palloc'd. */
extern char *plinth_mongo_to_json(PlinthBson document);

#endif /* PLINTH_MONGO_H */
