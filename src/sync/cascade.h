/*
 * cascade.h
 *		What the files of cascades share; private to the room.
 */
#ifndef PLINTH_SYNC_CASCADE_H
#define PLINTH_SYNC_CASCADE_H

/* "OPERATOR(schema.=)" of a type, palloc'd; 42883 for one without equality. */
extern char *plinth_sync_cascade_equals(Oid type);

/* ERROR where there is no such cascade (owner invalid), or where caller is no member of its owner. */
extern void plinth_sync_cascade_require(const char *name, Oid owner, Oid caller);

#endif /* PLINTH_SYNC_CASCADE_H */
