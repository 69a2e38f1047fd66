/*
 * child.h
 *		A process that this one keeps: how it is started, watched and stopped;
 *		private to this room.
 */
#ifndef PLINTH_WORKER_CHILD_H
#define PLINTH_WORKER_CHILD_H

#include "postmaster/bgworker.h"
#include "worker/registry.h"

typedef struct PlinthWorkerChild
{
	Oid database;
	int service;
	int instance;
	int entry;                      /* -1: none */
	BackgroundWorkerHandle *handle; /* NULL: not started by this process, or ended */
} PlinthWorkerChild;

extern void plinth_worker_child_init(PlinthWorkerChild *child, Oid database, int service,
									 int instance);
/* False: held, or no room; its entry says which where it has one. */
extern bool plinth_worker_child_start(PlinthWorkerChild *child);
/* Is it running, or may it still start? */
extern bool plinth_worker_child_alive(PlinthWorkerChild *child);
extern void plinth_worker_child_stop(PlinthWorkerChild *child);
/* Gives its entry back; it must not be alive. */
extern void plinth_worker_child_forget(PlinthWorkerChild *child);

#endif /* PLINTH_WORKER_CHILD_H */
