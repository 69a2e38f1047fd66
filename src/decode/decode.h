/*
 * decode.h
 *		The one logical slot of a database, and who listens to it.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_DECODE_H
#define PLINTH_DECODE_H

#include "access/xlogdefs.h"
#include "access/htup.h"
#include "utils/relcache.h"

typedef enum PlinthDecodeChange
{
	PLINTH_DECODE_INSERT,
	PLINTH_DECODE_UPDATE,
	PLINTH_DECODE_DELETE
} PlinthDecodeChange;

/*
 * A consumer is called in the decoder process.  The callbacks marked
 * "decoding" run inside decoding, under a historic snapshot: catalogs only,
 * no SPI, no network, no waiting; memory must be bounded by the consumer
 * (spill to temporary files).  The others run between two WAL records, with
 * no transaction open except where it says so.
 *
 * Changes come by top-level transaction.  A transaction in progress may be
 * streamed in several pieces; what a rolled-back subtransaction did may be
 * reported (it is the consumer's to tolerate).  Each transaction ends in
 * exactly one commit or abort, or in neither when the decoder ends before.
 */
typedef struct PlinthDecodeConsumer
{
	const char *name;
	/*
	 * Does this database have anything for the consumer?  Inside a transaction
	 * with a snapshot, in the coordinator or the decoder.  While none says so
	 * there is no slot.  NULL: it listens, but is no reason to decode.
	 */
	bool (*wanted)(void);
	/*
	 * The slot is gone (dropped, invalidated, not restored): what was written
	 * since durable() will never be reported.  Inside the transaction that
	 * records the loss, once a loss and always before a new slot is created;
	 * in the decoder or in a backend.  May be NULL.
	 */
	void (*slot_lost)(const char *reason);
	/* A slot was created; inside the transaction that records it, before anything is decoded.  May be NULL. */
	void (*slot_created)(uint64 slot_generation);
	/* Once at start, before anything is decoded; may be NULL, as every callback after it. */
	void (*start)(void);
	/*
	 * (Re)load what is wanted, inside a transaction with a snapshot; called at
	 * start and when the sync or extension generation moved.
	 */
	void (*reload)(void);
	/* decoding: is anything of this table wanted?  relid is the table's own oid, or the one it rewrites. */
	bool (*wants)(Relation relation, Oid relid);
	/* decoding: old is NULL without an old tuple, new for DELETE. */
	void (*change)(TransactionId xid, Relation relation, Oid relid, PlinthDecodeChange kind,
				   HeapTuple oldtuple, HeapTuple newtuple);
	/* decoding */
	void (*truncate)(TransactionId xid, int nrelations, Relation relations[]);
	/* decoding: lsn is where the commit record starts. */
	void (*commit)(TransactionId xid, XLogRecPtr lsn);
	void (*abort)(TransactionId xid);
	/* decoding: a WAL message with the prefix "plinth"; transactional ones come with their xid. */
	void (*message)(TransactionId xid, XLogRecPtr lsn, bool transactional, Size size,
					const char *body);
	/*
	 * Hand over what is committed.  decoded: everything before it has been
	 * reported.  Returns false when the consumer has no room left and decoding
	 * is to pause (its latch is set when it has room again).
	 */
	bool (*drain)(XLogRecPtr decoded);
	/* The point below which nothing is needed again; the slot is confirmed up to the least of them. */
	XLogRecPtr (*durable)(void);
} PlinthDecodeConsumer;

extern void plinth_decode_consumer_declare(const PlinthDecodeConsumer *consumer);
extern void plinth_decode_init(void);

/* Shared state of a database's decoder, for other processes. */
typedef struct PlinthDecodeStatus
{
	XLogRecPtr decoded; /* everything before it was reported to the consumers */
	XLogRecPtr confirmed;
	uint64 generation; /* the sync generation its consumers loaded */
	/*
	 * Grows with each slot that is created, and is never used again in another
	 * copy or after DROP EXTENSION (it follows the clock); 0 while there is no
	 * usable slot, or before the decoder first ran since the server started.
	 */
	uint64 slot_generation;
	int pid; /* 0 while it does not run */
} PlinthDecodeStatus;
extern void plinth_decode_status(Oid database, PlinthDecodeStatus *status);

/*
 * ERRORs (55000, 53400; each with a hint) unless logical decoding can work
 * here: wal_level, output_plugin_libraries, and our slot or a free one.
 */
extern void plinth_decode_require(void);

/*
 * The generation of this database's slot, where it is recorded as ready and
 * there: what is written to the WAL from now on will be reported.  0 otherwise.
 * By what has committed by now; needs a transaction.
 */
extern uint64 plinth_decode_slot_ready(void);

/*
 * Asks for a new slot where the database's was lost; true when it was.  The
 * caller sees to what the loss made of its data: slot_lost was called by
 * then, in this transaction if not before.  Takes effect at commit.  In SQL:
 * plinth._decode_request_slot().
 */
extern bool plinth_decode_request_slot(void);

#endif /* PLINTH_DECODE_H */
