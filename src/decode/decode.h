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

/*
 * A consumer is called in the decoder process.  The callbacks marked
 * "decoding" run inside decoding, under a historic snapshot: catalogs only,
 * no SPI, no network, no waiting; memory must be bounded by the consumer
 * (spill to temporary files).  The others run between two WAL records, with
 * no transaction open.
 *
 * Changes come by top-level transaction.  A transaction in progress may be
 * streamed in several pieces; what a rolled-back subtransaction did may be
 * reported (it is the consumer's to tolerate).  Each transaction ends in
 * exactly one commit or abort, or in neither when the decoder ends before.
 */
typedef struct PlinthDecodeConsumer
{
	const char *name;
	/* Once at start, before anything is decoded. */
	void (*start)(void);
	/* (Re)load what is wanted; called when the sync or extension generation moved. */
	void (*reload)(void);
	/* decoding: is anything of this table wanted?  relid is the table's own oid, or the one it rewrites. */
	bool (*wants)(Relation relation, Oid relid);
	/* decoding: old is NULL without an old tuple, new for DELETE. */
	void (*change)(TransactionId xid, Relation relation, Oid relid, HeapTuple oldtuple,
				   HeapTuple newtuple, bool is_delete);
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
	XLogRecPtr decoded;			/* everything before it was reported to the consumers */
	XLogRecPtr confirmed;
	uint64 generation;			/* the sync generation its consumers loaded */
	uint64 slot_generation;		/* grows with each slot that is created; 0 without one */
	int pid;					/* 0 while it does not run */
} PlinthDecodeStatus;
extern void plinth_decode_status(Oid database, PlinthDecodeStatus *status);

#endif /* PLINTH_DECODE_H */
