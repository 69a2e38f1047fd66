/*
 * sieve.c
 *		SIEVE eviction over entries named by index; see sieve.h.
 *
 * The flag may be shared by several queues over the same entries, and is set
 * by readers with a relaxed store; here it is read and cleared while nobody
 * else may use the entry.
 */
#include "cache/sieve.h"

static PlinthSieveNode *
node_of(const PlinthSieveEntries *entries, uint32_t entry)
{
	return (PlinthSieveNode *) (void *) (entries->base + entry * entries->stride + entries->node);
}

static uint8_t *
flag_of(const PlinthSieveEntries *entries, uint32_t entry)
{
	return (uint8_t *) entries->base + entry * entries->stride + entries->visited;
}

void
plinth_sieve_init(PlinthSieveQueue *queue)
{
	queue->newest = PLINTH_SIEVE_NONE;
	queue->oldest = PLINTH_SIEVE_NONE;
	queue->hand = PLINTH_SIEVE_NONE;
	queue->count = 0;
}

void
plinth_sieve_insert(const PlinthSieveEntries *entries, PlinthSieveQueue *queue, uint32_t entry)
{
	PlinthSieveNode *node = node_of(entries, entry);

	node->newer = PLINTH_SIEVE_NONE;
	node->older = queue->newest;
	if (queue->newest != PLINTH_SIEVE_NONE)
		node_of(entries, queue->newest)->newer = entry;
	else
		queue->oldest = entry;
	queue->newest = entry;
	queue->count++;
	*flag_of(entries, entry) = 0;
}

void
plinth_sieve_remove(const PlinthSieveEntries *entries, PlinthSieveQueue *queue, uint32_t entry)
{
	PlinthSieveNode *node = node_of(entries, entry);

	if (queue->hand == entry)
		queue->hand = node->newer;
	if (node->newer != PLINTH_SIEVE_NONE)
		node_of(entries, node->newer)->older = node->older;
	else
		queue->newest = node->older;
	if (node->older != PLINTH_SIEVE_NONE)
		node_of(entries, node->older)->newer = node->newer;
	else
		queue->oldest = node->newer;
	queue->count--;
}

uint32_t
plinth_sieve_victim(const PlinthSieveEntries *entries, PlinthSieveQueue *queue)
{
	uint32_t entry = queue->hand;

	if (queue->count == 0)
		return PLINTH_SIEVE_NONE;
	for (;;)
	{
		if (entry == PLINTH_SIEVE_NONE)
			entry = queue->oldest;
		if (*flag_of(entries, entry) == 0)
			break;
		*flag_of(entries, entry) = 0;
		entry = node_of(entries, entry)->newer;
	}
	queue->hand = entry;
	return entry;
}
