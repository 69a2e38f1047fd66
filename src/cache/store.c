/*
 * store.c
 *		The first level: entries in shared memory.
 */
#include "postgres.h"

#include "cache/internal.h"

void
plinth_cache_store_init(void)
{
}
