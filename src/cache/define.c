/*
 * define.c
 *		Named caches, as each backend keeps their definitions.
 */
#include "postgres.h"

#include "cache/internal.h"

void
plinth_cache_init(void)
{
	plinth_cache_store_init();
	plinth_cache_pending_init();
}
