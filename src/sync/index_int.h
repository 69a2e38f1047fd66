/*
 * index_int.h
 *		The indexes that are declared with mappings.
 *
 * Private to the room.  Include after "postgres.h".
 */
#ifndef PLINTH_SYNC_INDEX_INT_H
#define PLINTH_SYNC_INDEX_INT_H

/*
 * index_api.c: declares indexes of a mapping's collection (or of one whose name
 * is that and suffix, such as ".files"), from JSON text as
 * plinth_mongo_indexes_parse takes it (NULL: none), to be made in the
 * background; those that are declared already are declared anew.  checked:
 * their fields must be fields of the mapping's columns, where it has no query.  SPI is connected, as
 * plinth_owner (in plinth_sync_api_begin and end).
 */
extern void plinth_sync_indexes_declare(int64 mapping, const char *suffix, bool checked,
										const char *json);

/* An ERROR (42703) where a declared index is on a field that the mapping's documents have no more; likewise. */
extern void plinth_sync_indexes_fit(int64 mapping);

/* Is an index that is to be built before rows are sent neither built nor failed?  Inside a transaction. */
extern bool plinth_sync_indexes_pending(int64 mapping);
/* The collection was taken over: its indexes are looked at anew.  Inside a transaction. */
extern void plinth_sync_indexes_doubt(int64 mapping);

/* index_worker.c: the service that makes MongoDB's indexes what is declared. */
extern int plinth_sync_indexes_wanted(void);
extern void plinth_sync_indexes_main(int place);

#endif /* PLINTH_SYNC_INDEX_INT_H */
