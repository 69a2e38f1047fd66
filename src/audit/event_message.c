/*
 * event_message.c
 *		What an audit event is in the WAL: a header with a keyed hash, then the
 *		entry's columns as a tuple.
 *
 * Nothing of a message is read before its hash was verified, but its length.
 * The format is that of one minor version of PostgreSQL on one machine: WAL is
 * read where it was written, or on its standbys.
 *
 * An event is stored under the id that it was made with, so a copy of the
 * message stores nothing while that entry is there.  For when the entry's
 * partition was dropped, the message says where the WAL ended as it was
 * written: a copy that comes much later is none.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "access/xlog.h"
#include "audit/internal.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Begins every message; the last byte is the format's version. */
#define MAGIC "PlAudEv\1"
#define MAGIC_BYTES 8

/* Metadata, and more than all other columns together. */
#define MAX_BYTES (PLINTH_AUDIT_MAX_METADATA + 8192)

/* WAL between what a session knew to be the end and its message: of others that were faster. */
#define MAX_DISTANCE (UINT64CONST(1) << 30)

typedef struct MessageHeader
{
	char magic[MAGIC_BYTES];
	uint8 mac[PLINTH_HASH_BYTES]; /* of all that follows */
	XLogRecPtr written_after;
} MessageHeader;

#define MAC_OFFSET offsetof(MessageHeader, written_after)

StaticAssertDecl(sizeof(MessageHeader) == MAXALIGN(sizeof(MessageHeader)),
				 "the tuple behind the header must be aligned");

static TupleDesc
description(void)
{
	static const Oid types[] = {PLINTH_AUDIT_TYPES};
	static TupleDesc desc = NULL;

	if (desc == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		TupleDesc made = CreateTemplateTupleDesc(PLINTH_AUDIT_NCOLUMNS);

		for (int i = 0; i < PLINTH_AUDIT_NCOLUMNS; i++)
			TupleDescInitEntry(made, (AttrNumber) (i + 1), NULL, types[i], -1, 0);
		desc = made;
		MemoryContextSwitchTo(old);
	}
	return desc;
}

bool
plinth_audit_message_is_event(const char *body, Size size)
{
	return size >= MAGIC_BYTES && memcmp(body, MAGIC, MAGIC_BYTES) == 0;
}

char *
plinth_audit_message_build(const PlinthAuditKey *key, PlinthAuditRow *row, Size *size)
{
	HeapTuple tuple = heap_form_tuple(description(), row->values, row->nulls);
	char *body = palloc(sizeof(MessageHeader) + tuple->t_len);
	MessageHeader *header = (MessageHeader *) body;

	*size = sizeof(MessageHeader) + tuple->t_len;
	memcpy(header->magic, MAGIC, MAGIC_BYTES);
	memcpy(body + sizeof(MessageHeader), tuple->t_data, tuple->t_len);
	plinth_audit_message_renew(key, body, *size);
	heap_freetuple(tuple);
	return body;
}

void
plinth_audit_message_renew(const PlinthAuditKey *key, char *body, Size size)
{
	MessageHeader *header = (MessageHeader *) body;

	header->written_after = GetXLogInsertRecPtr();
	plinth_crypto_mac(key->bytes, body + MAC_OFFSET, size - MAC_OFFSET, header->mac);
}

const char *
plinth_audit_message_refuse(const PlinthAuditKey *key, XLogRecPtr lsn, const char *body, Size size)
{
	MessageHeader header;
	uint8 mac[PLINTH_HASH_BYTES];

	if (size < sizeof(MessageHeader) + SizeofHeapTupleHeader)
		return "too short";
	if (size > MAX_BYTES)
		return "too long";
	memcpy(&header, body, sizeof(header));
	plinth_crypto_mac(key->bytes, body + MAC_OFFSET, size - MAC_OFFSET, mac);
	if (!plinth_crypto_equal(mac, header.mac, sizeof(mac)))
		return "not written by audit_event in this database";
	if (header.written_after > lsn || lsn - header.written_after > MAX_DISTANCE)
		return "a copy of an earlier one";
	return NULL;
}

void
plinth_audit_message_open(const char *body, Size size, PlinthAuditRow *row)
{
	HeapTupleData tuple;

	memset(&tuple, 0, sizeof(tuple));
	tuple.t_len = size - sizeof(MessageHeader);
	tuple.t_data = (HeapTupleHeader) (unconstify(char *, body) + sizeof(MessageHeader));
	heap_deform_tuple(&tuple, description(), row->values, row->nulls);
	row->n = PLINTH_AUDIT_NCOLUMNS;
	row->id = *DatumGetUUIDP(row->values[0]);
	row->recorded_at = DatumGetTimestampTz(row->values[1]);
}
