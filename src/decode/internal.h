/*
 * internal.h
 *		What the files of this room share.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_DECODE_INTERNAL_H
#define PLINTH_DECODE_INTERNAL_H

#include "decode/decode.h"
#include "port/atomics.h"

#define PLINTH_DECODE_PLUGIN "plinth"
#define PLINTH_DECODE_SERVICE "decoder"

/* -------------------------------------------------------------------------
 * Consumers (consumer.c)
 * -------------------------------------------------------------------------
 */
#define PLINTH_DECODE_MAX_CONSUMERS 8
extern const PlinthDecodeConsumer *plinth_decode_consumers[PLINTH_DECODE_MAX_CONSUMERS];
extern int plinth_decode_nconsumers;

/* plinth_worker_transaction_begin and _end, with an active snapshot in between. */
extern bool plinth_decode_begin(void);
extern void plinth_decode_end(void);

/* Does any consumer want this database to be decoded?  Needs a transaction with a snapshot. */
extern bool plinth_decode_wanted(void);
/* Calls every consumer's slot_lost or slot_created; needs a transaction. */
extern void plinth_decode_tell_lost(const char *reason);
extern void plinth_decode_tell_created(uint64 slot_generation);

/* -------------------------------------------------------------------------
 * Shared state (status.c)
 * -------------------------------------------------------------------------
 */
typedef struct PlinthDecodeEntry
{
	pg_atomic_uint32 database; /* InvalidOid: free */
	pg_atomic_uint32 pid;
	pg_atomic_uint32 sleeping; /* the decoder wants to be woken by the next commit */
	pg_atomic_uint64 decoded;
	pg_atomic_uint64 confirmed;
	pg_atomic_uint64 generation;
	pg_atomic_uint64 slot_generation;
} PlinthDecodeEntry;

/* Finds or makes this database's entry and marks it as run by this process until it exits. */
extern PlinthDecodeEntry *plinth_decode_attach(void);
extern void plinth_decode_status_init(void);

/* -------------------------------------------------------------------------
 * Output plugin (plugin.c)
 * -------------------------------------------------------------------------
 */
/* Set in the decoder's own process only: everybody else is refused. */
extern bool plinth_decode_in_decoder;

/* -------------------------------------------------------------------------
 * What must be right with the server (require.c)
 * -------------------------------------------------------------------------
 */
typedef struct PlinthDecodeProblem
{
	int sqlerrcode;
	const char *message;
	const char *hint;
} PlinthDecodeProblem;

/* False, and problem filled (palloc'd), when logical decoding cannot work here. */
extern bool plinth_decode_possible(PlinthDecodeProblem *problem);

/* -------------------------------------------------------------------------
 * The slot and its recorded state (slot.c, slot_create.c)
 * -------------------------------------------------------------------------
 */
typedef enum PlinthSlotState
{
	PLINTH_SLOT_NONE,     /* there is none, nor need there be */
	PLINTH_SLOT_CREATING, /* a slot may exist but was never used */
	PLINTH_SLOT_READY,    /* it exists, or was lost and nobody noticed yet */
	PLINTH_SLOT_LOST,     /* it was lost; nobody asked for a new one */
	PLINTH_SLOT_RECREATE  /* it was lost, and a new one is asked for */
} PlinthSlotState;

typedef struct PlinthSlotRecord
{
	PlinthSlotState state;
	uint64 generation;
	NameData slot_name;
	char *reason; /* why it was lost, or NULL; palloc'd */
} PlinthSlotRecord;

typedef enum PlinthSlotHealth
{
	PLINTH_SLOT_ABSENT,
	PLINTH_SLOT_FOREIGN, /* somebody else's under our name */
	PLINTH_SLOT_INVALID, /* what it needs was removed */
	PLINTH_SLOT_HEALTHY
} PlinthSlotHealth;

/* The name of this database's slot. */
extern const char *plinth_decode_slot_name(void);
/* What the server has under that name; pid is who uses it, or 0. */
extern PlinthSlotHealth plinth_decode_slot_health(int *pid);

/* Reads what is recorded; needs a transaction. */
extern void plinth_decode_slot_read(PlinthSlotRecord *record);
/* Records that the slot is lost and tells the consumers; needs a transaction. */
extern void plinth_decode_slot_record_loss(PlinthSlotRecord *record, PlinthSlotHealth health);
/* Records a state; a new generation for CREATING (returned in record). */
extern void plinth_decode_slot_record(PlinthSlotRecord *record, PlinthSlotState state);

/*
 * Decoder: creates the slot as recorded under CREATING and leaves it acquired.
 * False when this worker is to stop or the extension has gone.
 */
extern bool plinth_decode_slot_create(PlinthSlotRecord *record);
/*
 * Coordinator, where plinth is not installed (any more): drops the slot that
 * is left over; false while somebody uses it.
 */
extern bool plinth_decode_slot_cleanup(void);
/* Decoder: drops this database's slot if there is one; it must not be acquired. */
extern void plinth_decode_slot_drop(void);

/* -------------------------------------------------------------------------
 * Reading WAL (reader.c)
 * -------------------------------------------------------------------------
 */
struct LogicalDecodingContext;

/* In a transaction of their own, so that the process still holds back VACUUM when it reads tables. */
extern struct LogicalDecodingContext *plinth_decode_reader_new(bool init);

/* Takes notice of what is flushed (and confirmed by standbys); true when there is more than was read. */
extern bool plinth_decode_reader_refresh(struct LogicalDecodingContext *ctx);

/* Reads and decodes one record; false when none is complete. */
extern bool plinth_decode_reader_next(struct LogicalDecodingContext *ctx);

/* -------------------------------------------------------------------------
 * The service (decoder.c)
 * -------------------------------------------------------------------------
 */
extern int plinth_decode_service_wanted(void);
extern void plinth_decode_service_main(int instance);

#endif /* PLINTH_DECODE_INTERNAL_H */
