/*
 * file_int.h
 *		Files in chunks, and their copy in a GridFS bucket (docs/files.md).
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_FILE_INT_H
#define PLINTH_SYNC_FILE_INT_H

#include "sync/api_int.h"

#define PLINTH_SYNC_CHUNK_BYTES 261120

/* -------------------------------------------------------------------------
 * file_lane.c: the order of what is written of a bucket.
 * -------------------------------------------------------------------------
 */
/*
 * As plinth_mongo_write, for a mapping of a bucket: a file whose chunks are
 * not all there, and the deletion of a chunk whose file is, are held.
 */
extern PlinthMongoStatus plinth_sync_file_write(PlinthLane *lane, PlinthLaneMapping *mapping,
												PlinthMongoOp *ops, int nops,
												PlinthMongoError *error);
/* Keys in sync_dirty that were held: soon again.  Inside a transaction. */
extern void plinth_sync_file_hold(PlinthLaneMapping *mapping, char **literals, int n);
/* Has one been held so often that people should know?  Then it is told. */
extern void plinth_sync_file_tell_held(PlinthLaneMapping *mapping, int attempts);
/* Keys with marks from here on would be held, since chunks before it are owed; 0: none. */
extern XLogRecPtr plinth_sync_file_before(PlinthLane *lane, PlinthLaneMapping *mapping);
/* Would this task only be held? */
extern bool plinth_sync_file_waits(PlinthLane *lane, PlinthLaneMapping *mapping,
								   const PlinthSyncTask *task);
/* Versions on their way out: one step, now and then; true when there is more to do. */
extern bool plinth_sync_file_step(PlinthLane *lane, PlinthLaneMapping *mapping);

/* -------------------------------------------------------------------------
 * file_bucket.c: buckets, and who may do what in them.
 * -------------------------------------------------------------------------
 */
typedef enum PlinthSyncFileAccess
{
	PLINTH_SYNC_FILE_READ = 1,
	PLINTH_SYNC_FILE_WRITE,
	PLINTH_SYNC_FILE_OWN
} PlinthSyncFileAccess;

typedef struct PlinthSyncBucket
{
	int64 id;
	char *name;
	Oid owner;
	bool owned; /* by the caller */
	Datum user; /* whose names are meant */
	bool no_user;
} PlinthSyncBucket;

/* An ERROR where caller may not do that; between plinth_sync_api_begin and end. */
extern void plinth_sync_file_bucket(const char *name, Oid caller, PlinthSyncFileAccess access,
									PlinthSyncBucket *bucket);

/* -------------------------------------------------------------------------
 * file_put.c
 * -------------------------------------------------------------------------
 */
typedef struct PlinthSyncFile
{
	char id[25];
	char *filename;
	char *content_type; /* NULL: unknown */
	Jsonb *metadata;    /* NULL: none */
} PlinthSyncFile;

/* A whole version, which becomes the current one; between begin and end. */
extern void plinth_sync_file_store(const PlinthSyncBucket *bucket, PlinthSyncFile *file,
								   bytea *data);
/* Hides every version of a name; false when there is none. */
extern bool plinth_sync_file_remove(const PlinthSyncBucket *bucket, const char *filename);

/* -------------------------------------------------------------------------
 * file_sync.c
 * -------------------------------------------------------------------------
 */
/*
 * Has a bucket of the caller's copied; given tells server, collection, name and
 * on_existing.  Returns the mapping of its files.
 */
struct PlinthSyncNew;
extern int64 plinth_sync_file_map(const char *bucket, const struct PlinthSyncNew *given);

/* file_bucket.c: an ERROR for the roles of requests. */
extern void plinth_sync_file_refuse_owner(Oid role);

#endif /* PLINTH_SYNC_FILE_INT_H */
