/*
 * service.h
 *		What the service and the functions that it runs share.
 */
#ifndef PLINTH_CACHE_SERVICE_H
#define PLINTH_CACHE_SERVICE_H

#include "cache/define.h"

/*
 * Runs the warming query of a cache; how many rows it had, and how many of them
 * memory refused (warm.c).
 */
extern int64 plinth_cache_warm_run(const PlinthCacheDef *def, int64 *refused);

extern void plinth_cache_service_init(void);

#endif /* PLINTH_CACHE_SERVICE_H */
