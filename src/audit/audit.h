/*
 * audit.h
 *		Audit entries, written in the transaction they speak of.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_AUDIT_H
#define PLINTH_AUDIT_H

#include "utils/jsonb.h"

/*
 * Writes an entry; who acts and from where comes from the request context.
 * resource and metadata may be NULL.  result is "success", "failure" or
 * "denied".  Needs a transaction that may write.
 */
extern void plinth_audit_record(const char *action, const char *resource, const char *result,
								Jsonb *metadata);

#endif /* PLINTH_AUDIT_H */
