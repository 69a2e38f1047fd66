/*
 * shmem.c
 *		The one request for shared memory, in which each room declares a part.
 *
 * Parts are declared in _PG_init of the postmaster; every other process
 * inherits both the declarations and the pointers by fork.  After a crash the
 * postmaster creates shared memory anew and the startup hook runs again: it
 * sets every pointer and initialises every part, so nothing of the old
 * segment is left.
 */
#include "postgres.h"

#include "base/base.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define MAX_PARTS 32

static const PlinthShmemPart *parts[MAX_PARTS];
static int nparts = 0;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

void
plinth_base_shmem_declare(const PlinthShmemPart *part)
{
	if (nparts >= MAX_PARTS)
		elog(FATAL, "too many parts of shared memory");
	Assert((part->lwlocks > 0) == (part->locks != NULL));
	parts[nparts++] = part;
}

static void
request_shmem(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	for (int i = 0; i < nparts; i++)
	{
		RequestAddinShmemSpace(MAXALIGN(parts[i]->size()));
		if (parts[i]->lwlocks > 0)
			RequestNamedLWLockTranche(parts[i]->name, parts[i]->lwlocks);
	}
}

static void
startup_shmem(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	for (int i = 0; i < nparts; i++)
	{
		const PlinthShmemPart *part = parts[i];
		bool found;

		*part->pointer = ShmemInitStruct(part->name, part->size(), &found);
		if (part->lwlocks > 0)
			*part->locks = GetNamedLWLockTranche(part->name);
		if (!found)
			part->init(*part->pointer);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
plinth_base_shmem_init(void)
{
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}
