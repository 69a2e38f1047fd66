/*
 * internal.h
 *		What the files of room audit share among themselves.
 */
#ifndef PLINTH_AUDIT_INTERNAL_H
#define PLINTH_AUDIT_INTERNAL_H

#include "datatype/timestamp.h"

/*
 * Sees to it that an entry recorded at this time finds its partition.  Inside
 * an SPI connection, as plinth_owner.
 */
extern void plinth_audit_partition_ensure(TimestampTz recorded_at);

#endif /* PLINTH_AUDIT_INTERNAL_H */
