/*
 * invalidate.c
 *		Slots, sequence numbers and tickets: what keeps the first level from
 *		giving out what a committed transaction invalidated.
 *
 * The argument, for an invalidator I, a filler F and a reader R.  Every number
 * comes from one counter.
 *
 *	reserve   I, at pre-commit: flux + 1 in its slots; then a number N1, to which
 *	          the slots move; then it removes the entries of its keys and prefixes.
 *	commit    I's xid leaves the running transactions: snapshots taken from now
 *	          on see its rows.
 *	publish   I, after that: a number N2, to which the slots move; then flux - 1.
 *	          On abort only flux - 1: what is there is still right.
 *	ticket    F: T is the counter.  Then it takes a snapshot and computes.
 *	put       F: under its partition's lock: no slot in flux, none beyond T.  The
 *	          entry keeps T.
 *	get       R: the entry counts only while none of its slots is beyond its T.
 *
 * Claim: R, whose statement began after I's commit, gets no value that F
 * computed without I's rows.  Suppose it does.  R's get is after reserve, so T is
 * at least N1 (for what reserve removes: or the put was after the removal, hence,
 * by the partition's lock, after flux + 1).  Then put found no flux though it
 * came after flux + 1, so it came after I's flux - 1, and found the slots at N2
 * or beyond.  So T is at least N2: F took its ticket after I's commit, its
 * snapshot came later still and sees I's rows.  Contradiction.
 *
 * "Its snapshot came later still" is what plinth_cache_ticket_take answers for,
 * where the caller does not take a new one.  The value may come from any
 * snapshot this backend is using: the active one, those of statements further
 * out (a function called from a query), those of open cursors.  All of them must
 * see every transaction that has published an invalidation of the cache so far.
 * That is so for a snapshot
 *	(a) before whose xmin lies the largest xid that ever published (a transaction
 *		without an xid counts as the youngest xid given out when it published); or
 *	(b) whose list of running transactions is that of a snapshot taken now.
 * (a) for the oldest of all follows from the backend's own xmin, at no cost.  The
 * others are found through the heap that links all registered snapshots.  Not
 * found are those that are in use but not registered: of a CALL or DO, and of an
 * expression of PL/pgSQL; what a ticket is good for is said accordingly: values
 * that a statement computes which begins after it, or the one which takes it.
 * What the transaction itself invalidated needs the like: the snapshots must
 * see its commands.
 *
 * Tickets pass through clients' hands.  The counter begins somewhere else at each
 * start of the server, and one that lies outside of what was counted since is no
 * good: neither one kept from before a restart, nor one of another server.
 *
 * Counter and slots move under the slots' lock, but for the counter's use in
 * pending.c; they are read without it.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/transam.h"
#include "cache/pending.h"
#include "cache/store.h"
#include "common/hashfn.h"
#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

/* What is hashed into slots; padded by hand, for it is hashed as bytes. */
typedef struct SlotName
{
	Oid database;
	int32 cache;
	uint32 kind;
	uint32 tag;
	pg_uuid_t user;
} SlotName;

enum
{
	KIND_KEY,
	KIND_TAG,
	KIND_USER,
	KIND_USER_PREFIX,
	KIND_CACHE,
	KIND_CACHE_PREFIX
};

static uint64
hash_name(Oid database, int32 cache, uint32 kind, uint32 tag, const pg_uuid_t *user)
{
	SlotName name = {.database = database, .cache = cache, .kind = kind, .tag = tag};

	if (user != NULL)
		name.user = *user;
	return hash_bytes_extended((const unsigned char *) &name, sizeof(name),
							   plinth_cache_store->seed);
}

uint64
plinth_cache_key_hash(const PlinthCacheKey *key)
{
	return hash_bytes_extended((const unsigned char *) key->key, key->keylen,
							   hash_name(MyDatabaseId, key->cache, KIND_KEY, 0, &key->user));
}

uint32
plinth_cache_tag_hash(const char *tag, int len)
{
	return hash_bytes((const unsigned char *) tag, len);
}

/* -------------------------------------------------------------------------
 * Slots: first those of keys, then as many of tags and users, then of caches,
 * apart, so that a busy key does not void what shares its slot by chance.
 * -------------------------------------------------------------------------
 */
static uint32
slot_of_mark(uint64 hash)
{
	return plinth_cache_store->nslots + (hash & (plinth_cache_store->nslots - 1));
}

uint32
plinth_cache_slot_of_key(const PlinthCacheKey *key)
{
	return plinth_cache_key_hash(key) & (plinth_cache_store->nslots - 1);
}

uint32
plinth_cache_slot_of_tag(Oid database, int32 cache, uint32 tag)
{
	return slot_of_mark(hash_name(database, cache, KIND_TAG, tag, NULL));
}

uint32
plinth_cache_slot_of_user(Oid database, int32 cache, const pg_uuid_t *user, bool prefix)
{
	return slot_of_mark(hash_name(database, cache, prefix ? KIND_USER_PREFIX : KIND_USER, 0, user));
}

uint32
plinth_cache_slot_of_cache(Oid database, int32 cache, bool prefix)
{
	uint64 hash = hash_name(database, cache, prefix ? KIND_CACHE_PREFIX : KIND_CACHE, 0, NULL);

	return 2 * plinth_cache_store->nslots + (hash & (plinth_cache_store->ncacheslots - 1));
}

int
plinth_cache_slots_of_entry(Oid database, int32 cache, const pg_uuid_t *user, const uint32 *tags,
							int ntags, uint32 *slots)
{
	int n = 0;

	slots[n++] = plinth_cache_slot_of_cache(database, cache, false);
	slots[n++] = plinth_cache_slot_of_user(database, cache, user, false);
	for (int i = 0; i < ntags; i++)
		slots[n++] = plinth_cache_slot_of_tag(database, cache, tags[i]);
	return n;
}

int
plinth_cache_slots_of_fill(const PlinthCacheKey *key, const uint32 *tags, int ntags, uint32 *slots)
{
	int n = plinth_cache_slots_of_entry(MyDatabaseId, key->cache, &key->user, tags, ntags, slots);

	slots[n++] = plinth_cache_slot_of_key(key);
	slots[n++] = plinth_cache_slot_of_cache(MyDatabaseId, key->cache, true);
	slots[n++] = plinth_cache_slot_of_user(MyDatabaseId, key->cache, &key->user, true);
	return n;
}

bool
plinth_cache_slots_unmoved(const uint32 *slots, int n, int64 ticket)
{
	for (int i = 0; i < n; i++)
	{
		if (pg_atomic_read_u64(&plinth_cache_slot(slots[i])->moved) > (uint64) ticket)
			return false;
	}
	return true;
}

bool
plinth_cache_slots_still(const uint32 *slots, int n, int64 ticket)
{
	for (int i = 0; i < n; i++)
	{
		if (pg_atomic_read_u32(&plinth_cache_slot(slots[i])->flux) != 0)
			return false;
	}
	/* Publish moves a slot before it ends the flux: look in the other order. */
	pg_read_barrier();
	return plinth_cache_slots_unmoved(slots, n, ticket);
}

void
plinth_cache_slot_move(uint32 slot, uint64 number)
{
	pg_atomic_uint64 *moved = &plinth_cache_slot(slot)->moved;

	if (pg_atomic_read_u64(moved) < number)
		pg_atomic_write_u64(moved, number);
}

uint64
plinth_cache_sequence_next(void)
{
	return pg_atomic_add_fetch_u64(&plinth_cache_store->sequence, 1);
}

/* -------------------------------------------------------------------------
 * Tickets
 * -------------------------------------------------------------------------
 */
/* The next node of a pairing heap, the root first; NULL at the end. */
static pairingheap_node *
next_node(pairingheap_node *node)
{
	if (node->first_child != NULL)
		return node->first_child;
	while (node->next_sibling == NULL)
	{
		pairingheap_node *up = node->prev_or_parent;

		/* Back over elder siblings to the parent. */
		while (up != NULL && up->first_child != node)
		{
			node = up;
			up = node->prev_or_parent;
		}
		if (up == NULL)
			return NULL;
		node = up;
	}
	return node->next_sibling;
}

/* Do two snapshots see the same transactions as completed? */
static bool
same_view(const SnapshotData *a, const SnapshotData *b)
{
	return a->xmin == b->xmin && a->xmax == b->xmax && a->xcnt == b->xcnt &&
		   (a->xcnt == 0 || memcmp(a->xip, b->xip, a->xcnt * sizeof(TransactionId)) == 0);
}

typedef bool (*SnapshotTest)(const SnapshotData *snapshot, const void *arg);

/* Does a test hold for every snapshot that is in use? */
static bool
snapshots_all(SnapshotTest test, const void *arg)
{
	Snapshot registered;
	pairingheap_node *node;
	bool all = true;

	/* Of the catalogs' snapshot no value is made. */
	InvalidateCatalogSnapshot();
	registered = RegisterSnapshot(GetActiveSnapshot());
	node = &registered->ph_node;
	while (node->prev_or_parent != NULL)
		node = node->prev_or_parent;
	for (; all && node != NULL; node = next_node(node))
		all = test(pairingheap_container(SnapshotData, ph_node, node), arg);
	UnregisterSnapshot(registered);
	return all;
}

/* What a snapshot must see. */
typedef struct Needed
{
	TransactionId last_xid;
	CommandId own_command;
	Snapshot latest;
} Needed;

static bool
suffices(const SnapshotData *snapshot, const void *arg)
{
	const Needed *needed = arg;

	return snapshot->snapshot_type == SNAPSHOT_MVCC && !snapshot->takenDuringRecovery &&
		   (needed->own_command == InvalidCommandId || snapshot->curcid > needed->own_command) &&
		   (TransactionIdPrecedes(needed->last_xid, snapshot->xmin) ||
			same_view(snapshot, needed->latest));
}

/* Does every snapshot that is in use see what published invalidations belong to? */
static bool
snapshots_suffice(TransactionId last_xid, CommandId own_command)
{
	Needed needed = {last_xid, own_command, GetLatestSnapshot()};

	return snapshots_all(suffices, &needed);
}

static bool
is_like(const SnapshotData *snapshot, const void *arg)
{
	return snapshot->snapshot_type == SNAPSHOT_MVCC && same_view(snapshot, arg);
}

bool
plinth_cache_snapshots_agree(void)
{
	return snapshots_all(is_like, GetActiveSnapshot());
}

bool
plinth_cache_ticket_known(int64 ticket)
{
	return ticket >= (int64) plinth_cache_store->first &&
		   ticket <= (int64) pg_atomic_read_u64(&plinth_cache_store->sequence);
}

int64
plinth_cache_ticket_take(int32 cache, bool fresh_snapshot)
{
	PlinthCacheView view;
	uint32 place;
	TransactionId last_xid;
	CommandId own_command = plinth_cache_pending_command(cache);
	int64 ticket;

	if (!plinth_cache_usable() || IsolationUsesXactSnapshot() || IsInParallelMode())
		return 0;
	place = plinth_cache_place_find(cache);
	if (place == PLINTH_CACHE_NONE)
		return 0;

	plinth_cache_lock(0, LW_SHARED, &view);
	ticket = plinth_cache_place_is(place, cache)
				 ? (int64) pg_atomic_read_u64(&plinth_cache_store->sequence)
				 : 0;
	/* A publisher notes its xid before it takes its number. */
	pg_memory_barrier();
	last_xid = (TransactionId) pg_atomic_read_u64(&plinth_cache_place(place)->last_xid);
	plinth_cache_unlock(0);

	if (ticket == 0 || fresh_snapshot)
		return ticket;
	if (!ActiveSnapshotSet())
		return 0;
	if (own_command == InvalidCommandId && TransactionIdIsValid(MyProc->xmin) &&
		TransactionIdPrecedes(last_xid, MyProc->xmin) && !GetActiveSnapshot()->takenDuringRecovery)
		return ticket;
	return snapshots_suffice(last_xid, own_command) ? ticket : 0;
}
