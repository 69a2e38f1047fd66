/*
 * sieve.h
 *		SIEVE eviction (Zhang et al., NSDI 2024) over entries named by index.
 *
 * Plain C: no PostgreSQL headers.
 *
 * A queue in the order of insertion, and a hand that goes from the oldest to
 * the newest and then begins anew.  What was used since the hand's last visit
 * is spared once; a use only sets a flag and moves nothing, so that readers
 * need no exclusive lock.  The caller locks: everything here but the flag is
 * for one process at a time.
 */
#ifndef PLINTH_CACHE_SIEVE_H
#define PLINTH_CACHE_SIEVE_H

#include <stddef.h>
#include <stdint.h>

#define PLINTH_SIEVE_NONE UINT32_MAX

typedef struct PlinthSieveNode
{
	uint32_t newer;
	uint32_t older;
} PlinthSieveNode;

typedef struct PlinthSieveQueue
{
	uint32_t newest;
	uint32_t oldest;
	uint32_t hand; /* the next to be looked at; NONE: the oldest */
	uint32_t count;
} PlinthSieveQueue;

/* Where the node and the flag of entry i are: base + i * stride + node, + visited. */
typedef struct PlinthSieveEntries
{
	char *base;
	size_t stride;
	size_t node;
	size_t visited; /* a uint8_t */
} PlinthSieveEntries;

extern void plinth_sieve_init(PlinthSieveQueue *queue);

/* Adds an entry as the newest, unvisited. */
extern void plinth_sieve_insert(const PlinthSieveEntries *entries, PlinthSieveQueue *queue,
								uint32_t entry);

/* Takes an entry out, wherever it is; the hand goes on behind it. */
extern void plinth_sieve_remove(const PlinthSieveEntries *entries, PlinthSieveQueue *queue,
								uint32_t entry);

/*
 * The entry to evict, or NONE when there is none; unmarks those it spares.  It
 * stays in the queue until the caller removes it.
 */
extern uint32_t plinth_sieve_victim(const PlinthSieveEntries *entries, PlinthSieveQueue *queue);

#endif /* PLINTH_CACHE_SIEVE_H */
