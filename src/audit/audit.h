/*
 * audit.h
 *		Audit entries, written in the transaction they speak of, and events,
 *		which outlive it.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_AUDIT_H
#define PLINTH_AUDIT_H

#include "utils/jsonb.h"
#include "utils/uuid.h"

/*
 * An entry.  Actor, session and address come from the request context; where
 * there is none yet (signing up, signing in), from what is given here.
 */
typedef struct PlinthAuditEntry
{
	const char *action;
	const char *resource;        /* or NULL */
	const char *result;          /* "success", "failure" or "denied" */
	Jsonb *metadata;             /* or NULL */
	const pg_uuid_t *user_id;    /* who acts, when no context says it; or NULL */
	const pg_uuid_t *session_id; /* or NULL */
	const char *user_agent;      /* or NULL */
} PlinthAuditEntry;

/*
 * Writes an entry and returns its id.  Needs a transaction that may write, and
 * no SPI connection of the caller's.
 */
extern pg_uuid_t plinth_audit_write(const PlinthAuditEntry *entry);

/*
 * As plinth_audit_write, for what somebody tries who may not be who they say:
 * where events are enabled the entry outlives a rollback (attempt.c).
 */
extern pg_uuid_t plinth_audit_attempt(const PlinthAuditEntry *entry);

/*
 * Writes an entry; who acts and from where comes from the request context.
 * resource and metadata may be NULL.  result is "success", "failure" or
 * "denied".  Needs a transaction that may write.
 */
extern void plinth_audit_record(const char *action, const char *resource, const char *result,
								Jsonb *metadata);

/* Declares the consumer of audit events; called in _PG_init. */
extern void plinth_audit_init(void);

/* {"reason": reason} as metadata; palloc'd. */
extern Jsonb *plinth_audit_reason(const char *reason);

#endif /* PLINTH_AUDIT_H */
