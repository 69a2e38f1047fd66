/*
 * internal.h
 *		What the files of room audit share among themselves.
 */
#ifndef PLINTH_AUDIT_INTERNAL_H
#define PLINTH_AUDIT_INTERNAL_H

#include "access/htup.h"
#include "access/xlogdefs.h"
#include "audit/audit.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/pg_list.h"

/* -------------------------------------------------------------------------
 * Entries (record.c)
 * -------------------------------------------------------------------------
 */
/* The columns that an entry is made with, wherever it comes from. */
#define PLINTH_AUDIT_NCOLUMNS 15
#define PLINTH_AUDIT_COLUMNS                                                                       \
	"id, recorded_at, action, resource, result, actor_user_id, actor_user_key, session_id, "       \
	"impersonator_id, api_key_id, address, user_agent, db_role, application_name, metadata"
#define PLINTH_AUDIT_VALUES "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15"
#define PLINTH_AUDIT_TYPES                                                                         \
	UUIDOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, UUIDOID, TEXTOID, UUIDOID, UUIDOID,        \
		UUIDOID, INETOID, TEXTOID, NAMEOID, TEXTOID, JSONBOID

#define PLINTH_AUDIT_MAX_METADATA 65536

typedef struct PlinthAuditRow
{
	pg_uuid_t id;
	TimestampTz recorded_at;
	int n;
	Datum values[PLINTH_AUDIT_NCOLUMNS];
	bool nulls[PLINTH_AUDIT_NCOLUMNS];
} PlinthAuditRow;

/* An entry made now, with who acts and from where; its values are palloc'd. */
extern void plinth_audit_row_fill(PlinthAuditRow *row, const PlinthAuditEntry *entry);

/* Writes it into plinth.audit_entries; as plinth_audit_write. */
extern void plinth_audit_row_insert(PlinthAuditRow *row);

/*
 * Reads and checks action, resource, result and metadata, a function's first
 * arguments.  own: may the action be one of plinth's own?
 */
extern void plinth_audit_arguments(FunctionCallInfo fcinfo, bool own, PlinthAuditEntry *entry);

/*
 * Sees to it that an entry recorded at this time finds its partition.  Inside
 * an SPI connection, as plinth_owner.
 */
extern void plinth_audit_partition_ensure(TimestampTz recorded_at);

/* -------------------------------------------------------------------------
 * The key of events (event_key.c)
 * -------------------------------------------------------------------------
 */
typedef enum PlinthAuditKeyState
{
	PLINTH_AUDIT_KEY_OFF,     /* nobody enabled events */
	PLINTH_AUDIT_KEY_NO_SLOT, /* there is no slot to keep them, or no key for it yet */
	PLINTH_AUDIT_KEY_NO_ROOT, /* it was made under a root key, and none is configured */
	PLINTH_AUDIT_KEY_READY
} PlinthAuditKeyState;

typedef struct PlinthAuditKey
{
	uint8 bytes[32];
} PlinthAuditKey;

/* Are events enabled in this database?  Needs a transaction. */
extern bool plinth_audit_events_enabled(void);

/*
 * The key for this database and the slot that it has now, as committed by
 * now; needs a transaction.
 */
extern PlinthAuditKeyState plinth_audit_key_read(PlinthAuditKey *key);

/* Decoder: makes the slot's key where it has none. */
extern void plinth_audit_key_make(void);

/* -------------------------------------------------------------------------
 * The message that an event is in the WAL (event_message.c)
 * -------------------------------------------------------------------------
 */
/* Is this, by its first bytes, meant to be an event? */
extern bool plinth_audit_message_is_event(const char *body, Size size);

/* An entry as a message; palloc'd. */
extern char *plinth_audit_message_build(const PlinthAuditKey *key, PlinthAuditRow *row, Size *size);

/* Makes a message that was kept one of now. */
extern void plinth_audit_message_renew(const PlinthAuditKey *key, char *body, Size size);

/*
 * Why a message that ends at lsn is not an event written in this database
 * under this key, or NULL when it is one.  Looks at nothing but the message.
 */
extern const char *plinth_audit_message_refuse(const PlinthAuditKey *key, XLogRecPtr lsn,
											   const char *body, Size size);

/*
 * The entry of a message that was not refused; it points into body, which must
 * be MAXALIGNed.  Needs a transaction.
 */
extern void plinth_audit_message_open(const char *body, Size size, PlinthAuditRow *row);

/* -------------------------------------------------------------------------
 * Writing events (event.c)
 * -------------------------------------------------------------------------
 */
/* Makes sure that there is a key to write with.  Needs a transaction. */
extern PlinthAuditKeyState plinth_audit_key_find(TimestampTz now);

/* The message of an entry, under the key that was found; palloc'd. */
extern char *plinth_audit_event_build(PlinthAuditRow *row, Size *size);

/* Writes a message into the WAL.  renew: it was built some time ago. */
extern void plinth_audit_event_send(char *body, Size size, bool renew, bool flush);

/* -------------------------------------------------------------------------
 * Storing events (event_store.c)
 * -------------------------------------------------------------------------
 */
typedef struct PlinthAuditEvent
{
	XLogRecPtr lsn; /* InvalidXLogRecPtr for the decoder's own */
	const char *body;
	Size size;
	PlinthAuditRow row; /* of body, once it was opened */
} PlinthAuditEvent;

/*
 * Decoder, in no transaction: stores events (PlinthAuditEvent *, with their
 * body), each at most once, and an entry of the decoder's own (or NULL); when
 * it is time, tries again those that could not be stored.  Allocates in the
 * current memory context.  Returns the end of its commit, which is not flushed
 * yet; InvalidXLogRecPtr where it wrote nothing.  ERRORs only where not even
 * audit_pending can be written.
 */
extern XLogRecPtr plinth_audit_events_store(List *events, const PlinthAuditEntry *own);

/* Decoder, at its start: there may be pending events. */
extern void plinth_audit_events_look(void);

#endif /* PLINTH_AUDIT_INTERNAL_H */
