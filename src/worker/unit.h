/*
 * unit.h
 *		Services that live and die together; private to this room.
 */
#ifndef PLINTH_WORKER_UNIT_H
#define PLINTH_WORKER_UNIT_H

#include "worker/registry.h"

/* How many instances of each service. */
typedef struct PlinthWorkerCounts
{
	int n[PLINTH_MAX_SERVICES];
} PlinthWorkerCounts;

/* Says what is to run in this database; takes effect in the next step. */
extern void plinth_worker_units_want(const PlinthWorkerCounts *counts);
/* Starts all of them anew. */
extern void plinth_worker_units_restart(void);
/* Starts and stops what is due; returns for how long nothing will be. */
extern long plinth_worker_units_step(void);
/* Does nothing run, nor may it still start? */
extern bool plinth_worker_units_idle(void);

#endif /* PLINTH_WORKER_UNIT_H */
