/*
 * cache.h
 *		Named caches: shared memory before tables, consistent with transactions.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_CACHE_H
#define PLINTH_CACHE_H

extern void plinth_cache_init(void);

#endif /* PLINTH_CACHE_H */
