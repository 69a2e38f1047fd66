/*
 * hooks.h
 *		Hooks into statements about databases and extensions; private to this
 *		room.
 */
#ifndef PLINTH_WORKER_HOOKS_H
#define PLINTH_WORKER_HOOKS_H

extern void plinth_worker_hooks_init(void);

#endif /* PLINTH_WORKER_HOOKS_H */
