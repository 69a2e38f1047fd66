/*
 * event_consumer.c
 *		The consumer in the decoder that stores audit events.
 *
 * While records are decoded, messages that are authentic gather in memory, at
 * most as many as the decoder reads between two drains, each of bounded size.
 * drain stores them all, so the slot is never held for anything but the flush
 * of that commit, which the WAL writer does within moments.
 *
 * durable: commits are told in the order of their LSNs.  Of those that are not
 * flushed yet the earliest (waiting) and the last (latest) are known; the slot
 * stays below what the earliest stored.
 *
 * Messages that are no events of ours are counted and never stored; the log and
 * the entries themselves say so, once a minute at most.
 *
 * Where the slot is lost, events were lost with it: an entry says so, and a new
 * slot is asked for at once, since there is nothing that somebody could repair.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "audit/internal.h"
#include "base/base.h"
#include "decode/decode.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#define REPORT_MS 60000

typedef struct Stored
{
	XLogRecPtr decoded; /* all events before it are stored by */
	XLogRecPtr commit;  /* the commit that ends here; invalid for none */
} Stored;

static bool enabled = false;
static PlinthAuditKey key;
static MemoryContext queue_context = NULL;
static List *queue = NIL;
static XLogRecPtr last_decoded = InvalidXLogRecPtr;
static XLogRecPtr settled = InvalidXLogRecPtr;
static Stored waiting = {0};
static Stored latest = {0};

/* What was refused since it was last reported. */
static int64 nrefused = 0;
static const char *refused_reason = NULL;
static XLogRecPtr refused_lsn = InvalidXLogRecPtr;
static TimestampTz reported_at = 0;

static bool
events_wanted(void)
{
	return plinth_audit_events_enabled();
}

static void
events_start(void)
{
	queue_context =
		AllocSetContextCreate(TopMemoryContext, "plinth audit events", ALLOCSET_DEFAULT_SIZES);
	plinth_audit_events_look();
}

static void
events_reload(void)
{
	PlinthAuditKeyState state;

	enabled = false;
	if (!plinth_audit_events_enabled())
		return;
	plinth_audit_key_make();
	state = plinth_audit_key_read(&key);
	enabled = state == PLINTH_AUDIT_KEY_READY;
	if (state == PLINTH_AUDIT_KEY_NO_ROOT)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("audit events of database %u that are still in the WAL are passed over",
						MyDatabaseId),
				 errdetail("They were written under a root key, and none is configured.")));
}

static void
events_message(TransactionId xid, XLogRecPtr lsn, bool transactional, Size size, const char *body)
{
	const char *reason;
	PlinthAuditEvent *event;
	MemoryContext old;
	char *copy;

	if (!enabled || !plinth_audit_message_is_event(body, size))
		return;
	reason = transactional ? "part of a transaction"
						   : plinth_audit_message_refuse(&key, lsn, body, size);
	if (reason != NULL)
	{
		if (nrefused++ == 0)
		{
			refused_reason = reason;
			refused_lsn = lsn;
		}
		return;
	}

	old = MemoryContextSwitchTo(queue_context);
	copy = palloc(size);
	memcpy(copy, body, size);
	event = palloc(sizeof(PlinthAuditEvent));
	event->lsn = lsn;
	event->body = copy;
	event->size = size;
	queue = lappend(queue, event);
	MemoryContextSwitchTo(old);
}

static void
add_member(JsonbParseState **state, const char *name, JsonbValue *value)
{
	JsonbValue member = {.type = jbvString};

	member.val.string.val = unconstify(char *, name);
	member.val.string.len = strlen(name);
	pushJsonbValue(state, WJB_KEY, &member);
	pushJsonbValue(state, WJB_VALUE, value);
}

static Jsonb *
refused_metadata(void)
{
	JsonbParseState *state = NULL;
	JsonbValue value;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	value.type = jbvNumeric;
	value.val.numeric = int64_to_numeric(nrefused);
	add_member(&state, "messages", &value);
	value.type = jbvString;
	value.val.string.val = psprintf("%X/%X", LSN_FORMAT_ARGS(refused_lsn));
	value.val.string.len = strlen(value.val.string.val);
	add_member(&state, "first_lsn", &value);
	value.val.string.val = unconstify(char *, refused_reason);
	value.val.string.len = strlen(refused_reason);
	add_member(&state, "first_reason", &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* Fills an entry about messages that were refused; false when none is due. */
static bool
report_refused(PlinthAuditEntry *entry)
{
	TimestampTz now;

	if (nrefused == 0)
		return false;
	now = GetCurrentTimestamp();
	if (reported_at != 0 && !TimestampDifferenceExceeds(reported_at, now, REPORT_MS))
		return false;
	reported_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
			 errmsg("plinth refused " INT64_FORMAT " WAL messages that pretend to be audit events",
					nrefused),
			 errdetail("The first, at %X/%X of database %u: %s.", LSN_FORMAT_ARGS(refused_lsn),
					   MyDatabaseId, refused_reason)));
	entry->action = "plinth.audit_event_refused";
	entry->result = "denied";
	entry->metadata = refused_metadata();
	nrefused = 0;
	return true;
}

static bool
events_drain(XLogRecPtr decoded)
{
	if (enabled)
	{
		MemoryContext old = MemoryContextSwitchTo(queue_context);
		PlinthAuditEntry own = {0};
		bool refused = report_refused(&own);
		XLogRecPtr commit = plinth_audit_events_store(queue, refused ? &own : NULL);

		MemoryContextSwitchTo(old);
		if (!XLogRecPtrIsInvalid(commit))
		{
			latest.decoded = decoded;
			latest.commit = commit;
			if (XLogRecPtrIsInvalid(waiting.commit))
				waiting = latest;
		}
	}
	queue = NIL;
	MemoryContextReset(queue_context);
	last_decoded = decoded;
	return true;
}

static XLogRecPtr
events_durable(void)
{
	if (!XLogRecPtrIsInvalid(waiting.commit) && GetFlushRecPtr(NULL) >= waiting.commit)
	{
		settled = waiting.decoded;
		if (latest.commit > waiting.commit)
			waiting = latest;
		else
			waiting.commit = InvalidXLogRecPtr;
	}
	if (XLogRecPtrIsInvalid(waiting.commit))
		settled = last_decoded;
	return settled;
}

static void
events_slot_lost(const char *reason)
{
	if (!plinth_audit_events_enabled())
		return;
	plinth_audit_record("plinth.audit_events_lost", NULL, "failure", plinth_audit_reason(reason));
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("audit events of database %u were lost", MyDatabaseId),
			 errdetail("Those that were not stored yet: %s.", reason),
			 errhint("See max_slot_wal_keep_size if the slot was invalidated. A new one is "
					 "being made.")));
	(void) plinth_decode_request_slot();
}

static const PlinthDecodeConsumer consumer = {
	.name = "audit",
	.wanted = events_wanted,
	.slot_lost = events_slot_lost,
	.start = events_start,
	.reload = events_reload,
	.message = events_message,
	.drain = events_drain,
	.durable = events_durable,
};

void
plinth_audit_init(void)
{
	plinth_decode_consumer_declare(&consumer);
}
