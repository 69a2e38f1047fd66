/*
 * sync.h
 *		The copy of rows to MongoDB: state, not events (docs/sync.md).
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_H
#define PLINTH_SYNC_H

extern void plinth_sync_init(void);

#endif /* PLINTH_SYNC_H */
