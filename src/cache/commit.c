/*
 * commit.c
 *		What becomes of a transaction's changes to the caches: reserve at
 *		pre-commit, publish after commit, discard on rollback.
 *
 * Which is for the most part the marking and moving of slots, as invalidate.c
 * argues.  A value that was set counts as an invalidation of its key, and is put
 * after that if its ticket still holds: none of its slots was in flux through
 * others, or had moved since its ticket, when this transaction marked it; and
 * nobody else marked or moved it from then to publish.  Slots that the
 * transaction does not mark itself are looked at only at publish.  What is put
 * then gets as its ticket the number of this publish, taken before that look,
 * so that whoever marks a slot after it moves it beyond.
 *
 * Two transactions that set one key at a time both lose their values: which of
 * them committed last is not known here.
 *
 * Reserve may fail only before it marks; publish and discard do not fail: they
 * allocate nothing.  A backend that dies by an ERROR or FATAL in between runs
 * discard; if it is killed, all shared memory begins anew.
 */
#include "postgres.h"

#include "access/transam.h"
#include "cache/pending.h"
#include "cache/store.h"
#include "common/hashfn.h"
#include "miscadmin.h"

/* A slot in flux through this transaction. */
typedef struct HeldSlot
{
	uint32 slot;
	char status; /* of simplehash */
	bool marked;
	bool others;   /* it was in flux through others when we marked it */
	uint64 before; /* where it stood */
	uint64 number; /* where we moved it */
} HeldSlot;

#define SH_PREFIX held
#define SH_ELEMENT_TYPE HeldSlot
#define SH_KEY_TYPE uint32
#define SH_KEY slot
#define SH_HASH_KEY(tb, key) hash_bytes_uint32(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static PlinthCacheKey
key_of(const PlinthCacheOpName *name)
{
	PlinthCacheKey key = {
		.cache = name->cache, .user = name->user, .key = name->bytes, .keylen = name->len};

	return key;
}

/* The slot that an operation moves. */
static uint32
slot_of(const PlinthCacheOpName *name)
{
	bool prefix = name->kind == PLINTH_CACHE_OP_PREFIX;

	if (name->kind == PLINTH_CACHE_OP_KEY)
	{
		PlinthCacheKey key = key_of(name);

		return plinth_cache_slot_of_key(&key);
	}
	if (name->kind == PLINTH_CACHE_OP_TAG)
		return plinth_cache_slot_of_tag(MyDatabaseId, name->cache, name->tag);
	if (name->all_users)
		return plinth_cache_slot_of_cache(MyDatabaseId, name->cache, prefix);
	return plinth_cache_slot_of_user(MyDatabaseId, name->cache, &name->user, prefix);
}

/* -------------------------------------------------------------------------
 * Reserve
 * -------------------------------------------------------------------------
 */
static void
mark_slots(void)
{
	held_iterator iterator;
	HeldSlot *held;
	uint64 number;

	plinth_cache_slots_lock();
	held_start_iterate(plinth_cache_pending->held, &iterator);
	while ((held = held_iterate(plinth_cache_pending->held, &iterator)) != NULL)
	{
		PlinthCacheSlot *slot = plinth_cache_slot(held->slot);

		if (held->marked)
			continue;
		held->others = pg_atomic_fetch_add_u32(&slot->flux, 1) != 0;
		held->before = pg_atomic_read_u64(&slot->moved);
		held->number = 0;
		held->marked = true;
	}
	/* Only when all are in flux: a later ticket must find that they are. */
	number = plinth_cache_sequence_next();
	held_start_iterate(plinth_cache_pending->held, &iterator);
	while ((held = held_iterate(plinth_cache_pending->held, &iterator)) != NULL)
	{
		if (held->number != 0)
			continue;
		held->number = number;
		plinth_cache_slot_move(held->slot, number);
	}
	plinth_cache_slots_unlock();
}

static void
reserve(void *arg)
{
	PlinthCachePending *p = plinth_cache_pending;
	PlinthCacheLevel *level = arg;
	PlinthCacheOp *op;

	if (RecoveryInProgress() || level->reserved)
		return; /* the first call reserves all that there is */
	if (p->held == NULL)
		p->held = held_create(p->context, 16, NULL);
	for (op = p->last; op != NULL; op = op->below)
	{
		HeldSlot *held;
		bool found;

		op->reserving = !op->level->reserved;
		if (!op->reserving)
			continue;
		held = held_insert(p->held, slot_of(op->name), &found);
		if (!found)
			held->marked = false;
	}

	/* Before anything is marked: whoever aborts from now on ends the flux. */
	for (level = p->level; level != NULL && !level->reserved; level = level->below)
		level->reserved = true;
	mark_slots();
	for (op = p->last; op != NULL; op = op->below)
	{
		const PlinthCacheOpName *name = op->name;

		if (!op->reserving)
			continue;
		if (name->kind == PLINTH_CACHE_OP_KEY)
		{
			PlinthCacheKey key = key_of(name);

			plinth_cache_store_delete(&key);
		}
		else if (name->kind == PLINTH_CACHE_OP_PREFIX)
			plinth_cache_store_delete_prefix(name->cache, name->all_users ? NULL : &name->user,
											 name->bytes, name->len);
	}
}

/* -------------------------------------------------------------------------
 * Publish
 * -------------------------------------------------------------------------
 */
/* Does a set value's ticket still hold?  The slots are locked. */
static bool
ticket_holds(const PlinthCacheOp *op)
{
	PlinthCacheKey key = key_of(op->name);
	uint32 slots[PLINTH_CACHE_FILL_SLOTS];
	int n = plinth_cache_slots_of_fill(&key, op->value.tags, op->value.ntags, slots);

	for (int i = 0; i < n; i++)
	{
		const HeldSlot *held = held_lookup(plinth_cache_pending->held, slots[i]);
		PlinthCacheSlot *slot = plinth_cache_slot(slots[i]);
		uint32 flux = pg_atomic_read_u32(&slot->flux);
		uint64 moved = pg_atomic_read_u64(&slot->moved);

		if (held == NULL
				? flux != 0 || moved > op->ticket
				: held->others || held->before > op->ticket || flux != 1 || moved != held->number)
			return false;
	}
	return true;
}

/* Ends the flux of all slots; the slots are locked. */
static void
release_slots(uint64 number)
{
	held_iterator iterator;
	HeldSlot *held;

	held_start_iterate(plinth_cache_pending->held, &iterator);
	while ((held = held_iterate(plinth_cache_pending->held, &iterator)) != NULL)
	{
		if (!held->marked)
			continue;
		if (number != 0)
			plinth_cache_slot_move(held->slot, number);
		pg_atomic_fetch_sub_u32(&plinth_cache_slot(held->slot)->flux, 1);
		held->marked = false;
	}
}

/* Publishes all levels; those whose turn would come later find nothing left. */
static void
publish(void *arg)
{
	PlinthCachePending *p = plinth_cache_pending;
	FullTransactionId xid = GetTopFullTransactionIdIfAny();
	uint64 number;

	if (p == NULL)
		return;
	if (p->held == NULL)
	{
		plinth_cache_pending_end();
		return;
	}
	for (PlinthCacheOp *op = p->last; op != NULL; op = op->below)
		op->publish = op->is_set && op->ticket != 0 && plinth_cache_op_stands(op);
	if (!FullTransactionIdIsValid(xid))
	{
		xid = ReadNextFullTransactionId();
		FullTransactionIdRetreat(&xid);
	}

	plinth_cache_slots_lock();
	for (int i = 0; i < p->ntouched; i++)
		plinth_cache_place_note(p->touched[i].cache, xid, p->touched[i].count);
	number = plinth_cache_sequence_next();
	for (PlinthCacheOp *op = p->last; op != NULL; op = op->below)
		op->publish = op->publish && ticket_holds(op);
	release_slots(number);
	plinth_cache_slots_unlock();

	/* What all of a cache had is void already; its memory is given back. */
	for (PlinthCacheOp *op = p->last; op != NULL; op = op->below)
	{
		if (op->name->kind == PLINTH_CACHE_OP_CLEAR && op->name->all_users)
			plinth_cache_store_delete_prefix(op->name->cache, NULL, "", 0);
	}
	for (PlinthCacheOp *op = p->last; op != NULL; op = op->below)
	{
		PlinthCacheKey key = key_of(op->name);

		if (op->publish)
			(void) plinth_cache_store_put(&key, &op->value, number, op->max_bytes);
	}
	plinth_cache_pending_end();
}

/* -------------------------------------------------------------------------
 * Discard
 * -------------------------------------------------------------------------
 */
static void
discard(void *arg)
{
	PlinthCacheLevel *level = arg;

	/* What was computed from changes that are undone must not be kept by a ticket from before. */
	if (plinth_cache_ticket_given && plinth_cache_usable())
	{
		plinth_cache_slots_lock();
		for (PlinthCacheOp *op = plinth_cache_pending->last; op != NULL && op->level == level;
			 op = op->below)
			plinth_cache_slot_move(slot_of(op->name), plinth_cache_sequence_next());
		plinth_cache_slots_unlock();
	}
	/* Once reserve began, only the whole transaction can abort. */
	if (level->reserved)
	{
		plinth_cache_slots_lock();
		release_slots(0);
		plinth_cache_slots_unlock();
	}
	plinth_cache_pending_pop(level);
}

const PlinthXactAction plinth_cache_commit_action = {
	.name = "caches",
	.reserve = reserve,
	.publish = publish,
	.discard = discard,
	.shared = true,
};
