/*
 * sync_int.h
 *		What the files of room sync share; private to the room.
 *
 * Who does what:
 *	 decoder process	collect*.c (changed keys by transaction), targets.c, spool.c, channel.c
 *	 lane process		lane.c (the loop), share.c, turns.c, mapping*.c, dirty.c, via.c,
 *						store.c, read*.c, apply.c, conflict.c, fence.c, tasks.c, watch.c
 *	 verifier process	schedule.c, verify_*.c
 *	 any backend		api*.c, alter.c, wait.c, stat.c, verify.c
 */
#ifndef PLINTH_SYNC_INT_H
#define PLINTH_SYNC_INT_H

#include "base/base.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "mongo/mongo.h"
#include "nodes/pg_list.h"
#include "portability/instr_time.h"
#include "storage/itemptr.h"
#include "storage/dsm.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "sync/shared_int.h"

#define PLINTH_SYNC_MAX_KEYS 16

/* -------------------------------------------------------------------------
 * spool.c: a queue of bytes in bounded memory; what does not fit waits in a
 * temporary file.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthSpool PlinthSpool;
extern PlinthSpool *plinth_sync_spool_create(MemoryContext context, Size memory);
extern void plinth_sync_spool_free(PlinthSpool *spool);
extern void plinth_sync_spool_push(PlinthSpool *spool, const void *record, uint32 len);
/* The next record without taking it: valid until the next call; NULL when empty. */
extern const char *plinth_sync_spool_peek(PlinthSpool *spool, uint32 *len);
extern void plinth_sync_spool_next(PlinthSpool *spool);
extern Size plinth_sync_spool_memory(PlinthSpool *spool);
/* From now on everything pushed goes to the file, and what is in memory too. */
extern void plinth_sync_spool_spill(PlinthSpool *spool);

/* -------------------------------------------------------------------------
 * channel.c: from the decoder to each lane, over shm_mq.
 *
 * A mark says: this key of this mapping was changed by that transaction,
 * whose commit record starts at lsn.  Keys are nkeys C strings, one after
 * another, each with its terminating zero.
 * -------------------------------------------------------------------------
 */
typedef enum PlinthSyncMarkKind
{
	PLINTH_SYNC_MARK_KEY = 'K',
	PLINTH_SYNC_MARK_VIA = 'V',      /* a row that leads to roots: source and values */
	PLINTH_SYNC_MARK_SWEEP = 'S',    /* keys may have gone without a trace: sweep */
	PLINTH_SYNC_MARK_ALL = 'A',      /* nor is it known which came: send everything again */
	PLINTH_SYNC_MARK_PROGRESS = 'P', /* everything before lsn has been sent */
} PlinthSyncMarkKind;

typedef struct PlinthSyncMark
{
	int64 mapping;
	XLogRecPtr lsn;
	TransactionId xid;
	uint32 keylen;
	uint8 kind;
	uint8 lane; /* which lane it goes to */
} PlinthSyncMark;

/* Decoder: makes the segment and publishes it; once. */
extern void plinth_sync_channel_create(PlinthSyncDatabase *db);
/* Decoder: false when the lane's queue is full just now; ERROR when the lane has gone. */
extern bool plinth_sync_channel_send(int lane, const PlinthSyncMark *mark, const char *key);
/* Decoder: pushes out what was gathered; false when not everything could be. */
extern bool plinth_sync_channel_flush(int lane);
/* Lane: waits until the decoder is there; false when this worker is to stop. */
extern bool plinth_sync_channel_attach(PlinthSyncDatabase *db, int lane);
/* Lane: false when nothing is there just now.  key is valid until the next call.  ERROR when the decoder has gone. */
extern bool plinth_sync_channel_receive(PlinthSyncMark *mark, const char **key);

/* collect.c: the consumer in the decoder. */
extern void plinth_sync_collect_init(void);

/* -------------------------------------------------------------------------
 * mapping.c, mapping_document.c: a mapping as compiled from its row and the
 * catalogs.
 * -------------------------------------------------------------------------
 */

typedef struct PlinthSyncMapping
{
	MemoryContext context; /* holds all of it */
	int64 id;
	char *name;
	Oid relation;
	Oid owner;
	char *server;
	char *collection;
	char *on_existing;
	bool paused;
	bool append;        /* only grows */
	int64 capped_bytes; /* 0: not capped */
	int64 capped_documents;
	int nexpiry; /* TTL indexes that are declared */
	PlinthBson *expiry;
	int lanes; /* how many write it; 0 where it is loaded by none of them */
	int share; /* what is read here is the keys of this one of them; all keys where there is one */
	char *query;  /* of a document mapping; NULL: the table's rows are the documents */
	char *filter; /* or NULL */
	int nvias;
	struct PlinthSyncVia *vias; /* via_int.h */
	char *vias_text;            /* all that the decoder knows of them */
	int64 bucket;               /* of plinth's own files; 0: none */

	/* from sync_states */
	char *blocked;      /* NULL: free to go */
	char *stored_shape; /* NULL: its rows were never sent */
	bool prepared;
	bool adopting;
	bool resyncing;
	bool promoted;        /* resyncing by itself: only where the fence is our own past's */
	XLogRecPtr fence_lsn; /* 0: none */
	uint64 fence_epoch;
	uint64 slot_generation; /* 0: none */

	/* compiled */
	char *problem; /* why it cannot be run: table dropped, key gone, rights; or NULL */
	char *problem_hint;
	char *relation_name; /* quoted, qualified */
	Oid reader;          /* who reads the rows: the owner, or plinth_owner its files */
	bool chunks;         /* a bucket's chunks, not its files */
	char *bucket_other;  /* the bucket's other collection */
	const char *only;    /* "ONLY " for an ordinary table: children that inherit are not synced */
	char *shape;
	int nkeys;
	char *key_names[PLINTH_SYNC_MAX_KEYS];
	AttrNumber key_attnums[PLINTH_SYNC_MAX_KEYS];
	Oid key_types[PLINTH_SYNC_MAX_KEYS];
	FmgrInfo key_outputs[PLINTH_SYNC_MAX_KEYS]; /* set at first use */
	int nfields;
	PlinthMongoField **fields;
	Oid *field_types;
	PlinthMongoIdSpec *idspec;
	char *keys_sql;   /* $1..$n: text[] of each key column */
	char *absent_sql; /* as keys_sql, without the fields */
	/*
	 * A page is head [keys_only], the table's name, tail [cursor][keys_only]:
	 * without and with a cursor $1..$n (text); a last $ is the limit.  With
	 * keys_only without fields and filter.
	 */
	char *page_head[2];
	char *page_tail[2][2];
	SPIPlanPtr keys_plan;
	SPIPlanPtr absent_plan;
	SPIPlanPtr page_plan[2];
} PlinthSyncMapping;

/* Loads one mapping (inside a transaction with SPI not connected); NULL when it does not exist. */
extern PlinthSyncMapping *plinth_sync_mapping_load(MemoryContext parent, int64 id);
extern void plinth_sync_mapping_free(PlinthSyncMapping *mapping);
/* The ids of an owner's mappings to a server: a palloc'd List of int64 *. */
extern List *plinth_sync_mapping_ids(const char *server, Oid owner);
/* field_name.c: snake_case to camelCase; palloc'd. */
extern char *plinth_sync_camel_case(const char *name);

/* -------------------------------------------------------------------------
 * key.c: keys as texts.
 * -------------------------------------------------------------------------
 */
/* nkeys C strings in a row <-> an array literal, as the tables hold it; palloc'd. */
extern char *plinth_sync_key_literal(int nkeys, const char *key, uint32 keylen);
extern char *plinth_sync_key_parse(int nkeys, const char *literal, uint32 *keylen);

/* -------------------------------------------------------------------------
 * read.c: the rows' current state as documents.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthSyncKey
{
	const char *key; /* nkeys C strings */
	uint32 keylen;
	bool done; /* out: false when the batch was full before it */
	/* out: why this row cannot become a document (palloc'd), or NULL */
	char *poison;
	int poison_code; /* its SQLSTATE as MAKE_SQLSTATE packs it */
} PlinthSyncKey;

typedef struct PlinthSyncOp
{
	PlinthMongoOp op;
	int key;       /* index into the keys it came from; -1 for a page */
	char *literal; /* page: the row's key as an array literal */
} PlinthSyncOp;

/* Where the keys of a batch come from: memory, sync_dirty, a page of a snapshot. */
typedef enum PlinthSyncSource
{
	PLINTH_SYNC_FROM_MEMORY,
	PLINTH_SYNC_FROM_TABLE,
	PLINTH_SYNC_FROM_PAGE,
	PLINTH_SYNC_SOURCES
} PlinthSyncSource;

typedef struct PlinthSyncBatch
{
	PlinthSyncSource source;
	MemoryContext context; /* documents live here */
	PlinthSyncOp *ops;
	int nops;
	int maxops;
	Size bytes;
	bool exhausted;  /* page: no row comes after these */
	char *last_key;  /* page: array literal of the last row read, poison included */
	List *poison;    /* page: PlinthSyncKey * of rows that cannot become documents */
	List *respelled; /* array literals of other lanes' keys that rows were found under */
	bool cut;        /* one key alone, and the server closed the connection once more */
	bool unusable;   /* page: the old filter cannot be asked any more, and nothing was read */
} PlinthSyncBatch;

extern PlinthSyncBatch *plinth_sync_batch_create(MemoryContext parent);
extern void plinth_sync_batch_free(PlinthSyncBatch *batch);
extern PlinthSyncOp *plinth_sync_batch_add(PlinthSyncBatch *batch, PlinthMongoOpKind kind, int key);
/* Back to its first nops ops. */
extern void plinth_sync_batch_cut(PlinthSyncBatch *batch, int nops);

/*
 * Reads the rows of these keys under a fresh snapshot as the mapping's owner:
 * a REPLACE for each row found (and a DELETE of the old _id where it differs
 * from the key's), a DELETE for each that is not there or does not match the
 * filter.  Stops early at plinth.sync_batch_bytes.  Inside a transaction;
 * ERRORs only for what concerns the whole mapping.
 */
extern void plinth_sync_read_keys(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys,
								  PlinthSyncBatch *batch);

/* The key that an _id was made from, palloc'd; false for one that no row of ours could have. */
extern bool plinth_sync_read_id(PlinthSyncMapping *mapping, PlinthBson id, PlinthSyncKey *key);

/* Which of these keys have no row (that matches the filter), or one that spells its key otherwise. */
extern void plinth_sync_read_absent(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys,
									bool *absent);

/*
 * Reads the next rows after a key (an array literal; NULL: from the start) of the table or of one partition (relation).
 * With old_filter only those are told that match one of it and the mapping's filter: a DELETE for what does not match any more.
 */
extern void plinth_sync_read_page(PlinthSyncMapping *mapping, Oid relation, const char *old_filter,
								  const char *after, int limit, PlinthSyncBatch *batch);

/* -------------------------------------------------------------------------
 * dirty.c: keys owed, in memory, oldest first.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthDirtyKey
{
	const char *key; /* first: the hash key, with keylen and hash */
	uint32 keylen;
	uint32 hash;
	dlist_node node;   /* in owed (oldest lsn first), flying, acked or fenced */
	XLogRecPtr lsn;    /* of the first mark not acknowledged */
	TransactionId xid; /* of the last mark that has one */
	TimestampTz seen_at;
	bool entangled; /* marked by one that may be visible later than xid */
	bool in_flight;
	bool again;  /* marked while in flight */
	bool acked;  /* in acked, waits for the fence; or in fenced */
	bool fenced; /* in fenced: waits for the fence to be written down */
	bool zombie; /* an earlier write of it may still land */
} PlinthDirtyKey;

typedef struct PlinthDirtySet
{
	MemoryContext context;
	HTAB *hash;
	dlist_head owed;
	dlist_head flying;
	dlist_head acked;
	dlist_head fenced;
	long nowed;
	long nacked;
	long nfenced;
	XLogRecPtr acked_least; /* 0: none */
	XLogRecPtr fenced_least;
	Size bytes;
	bool many_rows;       /* a key stands for more than one row */
	List *hidden;         /* transactions behind entangled keys, as Oids */
	XLogRecPtr before;    /* none of this commit or a later one is taken; 0: any is */
	TransactionId unseen; /* behind keys that were not taken, since it was not visible; 0: none */
	TimestampTz unseen_since;
} PlinthDirtySet;

extern void plinth_sync_dirty_init(PlinthDirtySet *set, MemoryContext parent);
extern void plinth_sync_dirty_mark(PlinthDirtySet *set, const PlinthSyncMark *mark, const char *key,
								   bool zombie);
/* Gathers at most max owed keys whose transactions are visible, and marks them in flight. */
extern int plinth_sync_dirty_take(PlinthDirtySet *set, PlinthDirtyKey **keys, int max);
/* Back to owed, its marks unchanged; of several the last first, so that they keep their order. */
extern void plinth_sync_dirty_return(PlinthDirtySet *set, PlinthDirtyKey *key);
/* Acknowledged: waits for the fence, or owed again when it was marked meanwhile. */
extern void plinth_sync_dirty_ack(PlinthDirtySet *set, PlinthDirtyKey *key);
extern bool plinth_sync_dirty_has(PlinthDirtySet *set, const char *key, uint32 keylen);
extern void plinth_sync_dirty_forget(PlinthDirtySet *set, PlinthDirtyKey *key);
/* Forgets keys that were dealt with elsewhere, or returns them. */
extern void plinth_sync_dirty_settle(PlinthDirtySet *set, PlinthDirtyKey **keys, int n, bool done);
/* The fence moved: what was acknowledged is done.  Or the connection broke: it is owed again. */
extern void plinth_sync_dirty_fenced(PlinthDirtySet *set);
/* What is written down of the fence is on disk: what was done leaves memory. */
extern void plinth_sync_dirty_flushed(PlinthDirtySet *set);
extern void plinth_sync_dirty_unfenced(PlinthDirtySet *set);
/* The least lsn still needed; 0 when none. */
extern XLogRecPtr plinth_sync_dirty_least(PlinthDirtySet *set, bool owed_only);

/* -------------------------------------------------------------------------
 * The lane.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthSyncTask
{
	int64 id;
	bool sweep;
	Oid relation;
	char *old_filter;     /* snapshot: only rows that match one of it and the new; NULL: all */
	char *cursor_key;     /* snapshot: fenced up to here; NULL: from the start */
	char *ahead_key;      /* snapshot: acknowledged up to here */
	char *sent_key;       /* snapshot: written down before it is sent */
	char *suspect_until;  /* snapshot: what was sent before a crash ends here */
	PlinthBson cursor_id; /* sweep */
	int64 done;           /* rows or documents, fenced */
	int64 ahead;
	bool waited;   /* for those who wrote before the decoder knew the mapping */
	List *lockers; /* VirtualTransactionId *: those who are waited for */
	bool finished; /* everything written; goes with the next fence */
} PlinthSyncTask;

typedef struct PlinthLaneMapping
{
	PlinthSyncMapping *def;
	int64 id;
	uint64 loaded_generation; /* generation at which it was first seen */
	PlinthDirtySet dirty;
	PlinthDirtySet via;               /* marks of rows that lead to roots (via.c) */
	bool via_stored;                  /* some are in sync_via */
	struct OwedBatch *owed_ahead;     /* read, to be written next; or NULL */
	struct SnapshotPage *page_ahead;  /* likewise */
	struct StoredBatch *stored_ahead; /* likewise, while a lot is written */
	int stored_lot;                   /* keys to take from sync_dirty at once */
	List *tasks;                      /* PlinthSyncTask *, in order */
	TimestampTz page_due;             /* no page of a snapshot before */
	uint64 barrier; /* generation that every lane must have seen before this one writes; 0: none */
	bool foreign;   /* keys in memory may be another lane's */
	bool stored_stray;      /* rows of lanes that there are not any more are in sync_dirty */
	uint32 handed;          /* lanes (bits) to tell when the transaction has committed */
	XLogRecPtr share_fence; /* this lane's place in the fence, where it is not the first; 0: none */
	MemoryContext tasks_context;
	bool stored_owed;       /* rows with stage 0 are in sync_dirty */
	bool stored_any;        /* rows of any stage are */
	TimestampTz stored_due; /* the earliest due_at among them */
	bool dead;              /* rows are in sync_dead_letters */
	bool verified_fence;    /* since the last connect */
	PlinthMongoFence fence; /* as MongoDB last told or acknowledged */
	instr_time fenced_at;   /* when we began to move it there; zero: not since the last connect */
	bool taken;             /* the fence is ours, and whoever had it is waited for */
	bool taken_sweep;       /* then: what is not ours is to go */
	TimestampTz quiet_until;
	TimestampTz file_step_at; /* a bucket's files: when file_lane.c looks at them next */
	bool fence_due;           /* something was acknowledged since */
	TimestampTz retry_at;     /* this mapping alone waits until then */
	int failures;
	struct
	{
		int n;   /* how often in a row the server closed the connection over its documents */
		int max; /* then: so many keys at once; 0: as many as set */
	} cuts[PLINTH_SYNC_SOURCES];
	TimestampTz cut_at;
	bool cut_passed;      /* others of its documents were taken since that began */
	bool indexes_pending; /* a snapshot does not begin before these are made */
	bool shape_stale;
	bool look_due;        /* its definition may have changed without a sign */
	XLogRecPtr sweep_lsn; /* of the first mark to sweep that is not a task yet, or 0 */
	List *sweep_xids;     /* whose marks those are, as Oids */
	bool sweep_all;       /* not only to sweep: everything again */
	PlinthSyncStat stat;
	struct PlinthSyncWatch *watch; /* of watch.c */
} PlinthLaneMapping;

typedef struct PlinthLane
{
	int index;
	PlinthSyncDatabase *db;
	PlinthSyncLane *shared;
	MemoryContext context;
	char server[NAMEDATALEN];
	Oid owner;
	int share;
	uint64 handed;         /* shared->handed when it last looked */
	int turn;              /* whose snapshot or lot from sync_dirty is next */
	TimestampTz pages_due; /* while changes wait, no page of any snapshot before */
	List *mappings;        /* PlinthLaneMapping * */
	uint64 generation;
	bool shapes_stale;
	XLogRecPtr progress;  /* of the last progress mark */
	XLogRecPtr start_lsn; /* end of WAL when this lane started: what comes before is redelivered */
	PlinthMongoClient *client;
	uint64 connections;
	bool connected;
	bool client_stale;  /* options may have changed */
	uint32 server_hash; /* of the server's OID, as its invalidations tell it */
	int failures;
	TimestampTz retry_at; /* the server waits until then; 0: not waiting */
	TimestampTz last_checkpoint;
	TimestampTz last_stats;
	TimestampTz look_at; /* when a mapping's definition is to be looked at next */
	int look_next;       /* which */
	uint64 looking;      /* look_asked when those that may have changed were looked at */
	bool catalog_moved;  /* something was invalidated since */
	TimestampTz last_log;
	char last_logged[PLINTH_SYNC_MESSAGE_LEN];
	long acked;            /* since the last checkpoint */
	XLogRecPtr fenced_lsn; /* where the last fence is written down, until that is on disk; or 0 */
	bool full;             /* no marks are taken until keys leave memory */
	bool gone;             /* the extension is */
} PlinthLane;

extern void plinth_sync_lane_main(int instance);
extern int plinth_sync_lane_wanted(void);

/*
 * Runs work in a transaction of its own.  An ERROR is that mapping's failure:
 * told, and tried again later; without a mapping it is raised.  False when
 * work did not commit.
 */
typedef void (*PlinthLaneWork)(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg);
extern bool plinth_sync_lane_run(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthLaneWork work,
								 void *arg);
/*
 * The transaction that is open need not be flushed when it commits: nothing
 * that a crash may not forget depends on it, or something flushed follows.
 */
extern void plinth_sync_lane_commit_lazily(void);
/* lane_load.c: (re)loads the lane's mappings, tasks and counts. */
extern void plinth_sync_lane_load(PlinthLane *lane);
extern void plinth_sync_lane_settle(PlinthLane *lane);
extern PlinthLaneMapping *plinth_sync_lane_mapping(PlinthLane *lane, int64 id);
/* May it be written now? */
extern bool plinth_sync_lane_ready(PlinthLaneMapping *mapping);

/* room.c: the memory of keys, and the WAL that is kept for them. */
extern Size plinth_sync_room_used(PlinthLane *lane);
extern Size plinth_sync_room_limit(void);
/* Moves to sync_dirty what cannot be written now, or not fast enough. */
extern void plinth_sync_room_make(PlinthLane *lane);
/* Most of what fills the memory waits for the next fence. */
extern bool plinth_sync_room_needs_fence(PlinthLane *lane);

/* A row of sync_dirty that is taken. */
typedef struct PlinthSyncTakenRow
{
	ItemPointerData place;
	int stage;
	int attempts;
	bool suspect;
	bool yield; /* another lane's document waits for a unique value that this one's may have */
} PlinthSyncTakenRow;

typedef struct PlinthSyncTaken
{
	PlinthSyncKey *keys;
	PlinthSyncTakenRow *rows; /* of the keys */
	int nkeys;
	int passed_on; /* others' keys that were met on the way */
} PlinthSyncTaken;

typedef enum PlinthSyncTake
{
	PLINTH_SYNC_TAKE_ANY,
	PLINTH_SYNC_TAKE_UNTRIED,
	PLINTH_SYNC_TAKE_TRIED, /* of those that failed before */
} PlinthSyncTake;

/* A text[]. */
extern Datum plinth_sync_store_texts(char **texts, int n);
/*
 * estimate.c: a table and its partitions, and about how many rows they have.
 * Nothing is locked or waited for, and what goes meanwhile is no error.
 */
extern List *plinth_sync_relation_family(Oid relation);
extern int64 plinth_sync_estimate_rows(Oid relation);

/* store.c, state.c: the tables; each inside a transaction of the caller's. */
/* A statement with a mapping's id and some of its keys; nothing is done without keys. */
extern void plinth_sync_store_run(PlinthPlan *plan, PlinthLaneMapping *mapping, char **literals,
								  int n);
extern void plinth_sync_store_keys(PlinthLaneMapping *mapping, char **literals, int n,
								   int zombie_stage);
/* Owed, and not known to have been sent. */
extern void plinth_sync_store_list(PlinthLaneMapping *mapping, List *literals);
/* Keys taken from memory, with what is known of their zombies. */
extern void plinth_sync_store_owed(PlinthLaneMapping *mapping, PlinthDirtyKey **keys, int n);
/* Takes at most max keys that are due, into the caller's memory. */
extern void plinth_sync_store_take(PlinthLaneMapping *mapping, PlinthSyncTake which, int max,
								   PlinthSyncTaken *taken);
/* Acknowledged: away with them, or later once more. */
extern void plinth_sync_store_done(PlinthLaneMapping *mapping, char **literals,
								   PlinthSyncTakenRow **rows, int n);
extern void plinth_sync_store_dead(PlinthLaneMapping *mapping, const char *literal,
								   const char *status, int code, const char *reason);
extern void plinth_sync_store_undead(PlinthLaneMapping *mapping, char **literals, int n);
extern void plinth_sync_store_counts(PlinthLaneMapping *mapping);
extern void plinth_sync_store_block(PlinthLaneMapping *mapping, const char *reason,
									const char *hint);
extern void plinth_sync_store_prepared(PlinthLaneMapping *mapping);
extern void plinth_sync_store_fenced(PlinthLaneMapping *mapping);
extern bool plinth_sync_store_task(PlinthLaneMapping *mapping, PlinthSyncTask *task);
extern void plinth_sync_store_task_total(PlinthSyncTask *task, int64 total);
/* Where they are of a later definition than the lane's, it writes nothing until it has loaded that. */
extern void plinth_sync_store_tasks_load(PlinthLaneMapping *mapping);
extern void plinth_sync_store_sweep(PlinthLaneMapping *mapping, bool everything);
extern void plinth_sync_store_later(PlinthLaneMapping *mapping, char **literals, int n);
/* Sent from elsewhere, without an answer: owed, suspect, and tried again later. */
extern void plinth_sync_store_cut(PlinthLaneMapping *mapping, char *literal);
/* Has the lane that holds a unique value let go of it; and what came of that. */
extern void plinth_sync_store_ask(PlinthLaneMapping *mapping, char *literal);
extern void plinth_sync_store_yielded(PlinthLaneMapping *mapping, char **literals, int n);
extern void plinth_sync_store_move_strays(PlinthLaneMapping *mapping);
extern void plinth_sync_store_unsent(PlinthLaneMapping *mapping, char **literals, int n);
extern void plinth_sync_store_foreign(PlinthLaneMapping *mapping, PlinthBson *ids, int n);
extern bool *plinth_sync_store_are_foreign(PlinthLaneMapping *mapping, PlinthBson *ids, int n);

/* apply.c: writing; no transaction is open while it talks to MongoDB. */

/*
 * Writes a batch; conflicts of unique values are settled, what can never be
 * written is told in the ops' errors.  False when the server failed as a
 * whole (reported already); *unknown tells whether the batch may still land.
 */
extern bool plinth_sync_apply(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthSyncBatch *batch,
							  bool *unknown);
/* One batch of keys from memory; true when there was anything to do. */
extern bool plinth_sync_apply_owed(PlinthLane *lane, PlinthLaneMapping *mapping);
/* What was read ahead of its turn is not to be written: its keys are owed as before. */
extern void plinth_sync_apply_drop(PlinthLaneMapping *mapping);
/* The worst of what the ops of each key came to: a palloc'd array of nkeys. */
extern const PlinthMongoError **plinth_sync_apply_outcomes(PlinthSyncBatch *batch, int nkeys);
/* Will it never succeed, after so many attempts? */
extern bool plinth_sync_apply_never(const PlinthMongoError *error, int attempts);
/* Tells of a write that is tried again later. */
extern void plinth_sync_apply_note(PlinthLaneMapping *mapping, const PlinthMongoError *error);
/* A dead letter; inside a transaction. */
extern void plinth_sync_apply_bury(PlinthLaneMapping *mapping, const char *literal,
								   const PlinthSyncKey *key, const PlinthMongoError *error);

/* stored.c: a lot of keys from sync_dirty; true when there was anything to do. */
extern bool plinth_sync_apply_stored(PlinthLane *lane, PlinthLaneMapping *mapping);
extern bool plinth_sync_stored_due(PlinthLaneMapping *mapping);
extern void plinth_sync_stored_drop(PlinthLaneMapping *mapping);

/* conflict.c: a unique index of the collection refused op; settles it or leaves the error. */
extern void plinth_sync_settle_conflict(PlinthLane *lane, PlinthLaneMapping *mapping,
										PlinthMongoOp *op);
/* The code of an error that says that another lane was asked to let a unique value go. */
#define PLINTH_SYNC_ASKED (-2)
/*
 * Another lane asked for the unique values that this key's document holds: it
 * is deleted where it is out of date.  False when that could not be done.
 */
extern bool plinth_sync_yield(PlinthLane *lane, PlinthLaneMapping *mapping,
							  const PlinthSyncKey *key, bool *yielded);

/* fence.c */
extern bool plinth_sync_connect(PlinthLane *lane);
extern void plinth_sync_disconnect(PlinthLane *lane);
/* True when the mapping's collection is ours to write. */
extern bool plinth_sync_check_fence(PlinthLane *lane, PlinthLaneMapping *mapping);
/*
 * Before every write: false when the collection may have become another's, or
 * the server failed.  Asks the server only where the fence was not moved lately.
 */
extern bool plinth_sync_fence_hold(PlinthLane *lane, PlinthLaneMapping *mapping);
/* Moves the fences, then writes down what they cover; false when the server failed. */
extern bool plinth_sync_checkpoint(PlinthLane *lane);
/* Lets go what the last fence covers once that is on disk; with wait it sees to that. */
extern void plinth_sync_checkpoint_finish(PlinthLane *lane, bool wait);

/* tasks.c: the first task that is not finished; NULL for none. */
extern PlinthSyncTask *plinth_sync_task_next(PlinthLaneMapping *mapping);
/* One step of the mapping's first task; true when there was anything to do. */
extern bool plinth_sync_task_step(PlinthLane *lane, PlinthLaneMapping *mapping);
/* What was acknowledged since the last fence may be lost: back to it. */
extern void plinth_sync_task_rewind(PlinthLaneMapping *mapping);
/* The page that was read ahead is not to be written. */
extern void plinth_sync_task_drop(PlinthLaneMapping *mapping);

#endif /* PLINTH_SYNC_INT_H */
