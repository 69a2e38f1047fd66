/*
 * count.c
 *		What became of the decisions on each policy, for plinth.stat_limits.
 *
 * A fixed array of slots in shared memory, found once for a policy by each
 * backend.  A slot has its counters in several stripes, each in a cache line
 * of its own, so that backends which decide on one policy do not all write to
 * one line.  Adding takes no lock; slots are given out and taken back under the
 * one lock.  A backend that still has the slot of a policy that was dropped may
 * count to the next owner's for a moment: these are statistics.
 */
#include "postgres.h"

#include "base/base.h"
#include "limits/internal.h"
#include "limits/table.h"
#include "miscadmin.h"

#define STRIPES 4
#define STRIPE_BYTES 64

typedef struct Stripe
{
	pg_atomic_uint64 counts[PLINTH_LIMITS_COUNTS];
	char pad[STRIPE_BYTES - PLINTH_LIMITS_COUNTS * sizeof(pg_atomic_uint64)];
} Stripe;

typedef struct Slot
{
	Oid database; /* InvalidOid: free */
	uint32 policy;
	Oid incarnation; /* of the extension; in the slot of limits without a policy */
} Slot;

typedef struct Counts
{
	uint32 nslots;
	Stripe *stripes; /* behind the slots; the same address in every process */
	Slot slots[FLEXIBLE_ARRAY_MEMBER];
} Counts;

static Counts *counts = NULL;
static LWLockPadded *locks = NULL;

static Stripe *
stripe_of(int slot, int stripe)
{
	return &counts->stripes[slot * STRIPES + stripe];
}

static int
find_slot(Oid database, uint32 policy)
{
	for (uint32 i = 0; i < counts->nslots; i++)
	{
		if (counts->slots[i].database == database && counts->slots[i].policy == policy)
			return i;
	}
	return -1;
}

static void
clear_slot(int slot)
{
	for (int s = 0; s < STRIPES; s++)
	{
		for (int i = 0; i < PLINTH_LIMITS_COUNTS; i++)
			pg_atomic_write_u64(&stripe_of(slot, s)->counts[i], 0);
	}
}

int
plinth_limits_count_slot(Oid database, uint32 policy)
{
	int slot;

	LWLockAcquire(&locks[0].lock, LW_SHARED);
	slot = find_slot(database, policy);
	LWLockRelease(&locks[0].lock);
	if (slot >= 0)
		return slot;

	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	slot = find_slot(database, policy);
	if (slot < 0)
	{
		slot = find_slot(InvalidOid, 0);
		if (slot >= 0)
		{
			clear_slot(slot);
			counts->slots[slot].database = database;
			counts->slots[slot].policy = policy;
			counts->slots[slot].incarnation = InvalidOid;
		}
	}
	LWLockRelease(&locks[0].lock);
	return slot;
}

int
plinth_limits_count_incarnation(Oid database, Oid incarnation)
{
	int slot = plinth_limits_count_slot(database, PLINTH_LIMITS_ADHOC);
	bool older;

	/* What this transaction has made may never have been. */
	if (slot < 0 || counts->slots[slot].incarnation == incarnation ||
		!OidIsValid(plinth_base_extension_committed()))
		return slot;

	/* One that has none yet is new: others may have begun to count already. */
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	older = OidIsValid(counts->slots[slot].incarnation) &&
			plinth_base_oid_is_older(counts->slots[slot].incarnation, incarnation);
	if (older || !OidIsValid(counts->slots[slot].incarnation))
		counts->slots[slot].incarnation = incarnation;
	LWLockRelease(&locks[0].lock);
	if (!older)
		return slot;
	plinth_limits_table_purge(database, PLINTH_LIMITS_ALL);
	return plinth_limits_count_incarnation(database, incarnation);
}

void
plinth_limits_count_add(int slot, PlinthLimitCount which)
{
	if (slot >= 0)
		pg_atomic_fetch_add_u64(&stripe_of(slot, MyProcPid % STRIPES)->counts[which], 1);
}

uint64
plinth_limits_count_read(int slot, PlinthLimitCount which)
{
	uint64 sum = 0;

	for (int s = 0; slot >= 0 && s < STRIPES; s++)
		sum += pg_atomic_read_u64(&stripe_of(slot, s)->counts[which]);
	return sum;
}

void
plinth_limits_count_purge(Oid database, int64 policy)
{
	LWLockAcquire(&locks[0].lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < counts->nslots; i++)
	{
		Slot *slot = &counts->slots[i];

		if (slot->database == database && plinth_limits_is_among(slot->policy, policy))
		{
			slot->database = InvalidOid;
			slot->policy = 0;
		}
	}
	LWLockRelease(&locks[0].lock);
}

static Size
slots_size(uint32 nslots)
{
	return CACHELINEALIGN(offsetof(Counts, slots) + nslots * sizeof(Slot));
}

/* A thirty-second of plinth.limits_memory: table.c leaves it. */
static uint32
number_of_slots(void)
{
	return (Size) plinth_setting_limits_memory * 1024 / 32 /
		   (sizeof(Slot) + STRIPES * sizeof(Stripe));
}

static Size
counts_size(void)
{
	uint32 nslots = number_of_slots();

	return slots_size(nslots) + (Size) nslots * STRIPES * sizeof(Stripe);
}

static void
counts_init(void *ptr)
{
	Counts *c = ptr;

	memset(ptr, 0, counts_size());
	c->nslots = number_of_slots();
	c->stripes = (Stripe *) ((char *) ptr + slots_size(c->nslots));
	for (uint32 i = 0; i < c->nslots * STRIPES; i++)
	{
		for (int j = 0; j < PLINTH_LIMITS_COUNTS; j++)
			pg_atomic_init_u64(&c->stripes[i].counts[j], 0);
	}
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth rate limit counts",
	.size = counts_size,
	.init = counts_init,
	.pointer = (void **) &counts,
	.lwlocks = 1,
	.locks = &locks,
};

void
plinth_limits_count_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
