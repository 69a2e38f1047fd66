/*
 * watch.h
 *		What watch.c (making watches) and watched.c (their triggers) share.
 */
#ifndef PLINTH_CACHE_WATCH_H
#define PLINTH_CACHE_WATCH_H

#include "cache/define.h"
#include "nodes/nodes.h"
#include "utils/relcache.h"

/* The expression of a watch over a table's columns, as text, or an ERROR. */
extern Node *plinth_cache_watch_parse(Relation rel, const char *what, const char *text);

#endif /* PLINTH_CACHE_WATCH_H */
