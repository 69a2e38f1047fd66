/*
 * pending.c
 *		What the running transaction does to the caches.
 */
#include "postgres.h"

#include "cache/internal.h"

void
plinth_cache_pending_init(void)
{
}
