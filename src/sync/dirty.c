/*
 * dirty.c
 *		The keys of one mapping that are owed to MongoDB, in memory.
 *
 * Every key is in one of four lists: owed (oldest mark first), flying (taken:
 * its row is read, or about to be, and not acknowledged), acked (until the
 * fence has moved past it) or fenced (until what is written down of the fence
 * is on disk).  Invariants:
 *
 *	- An acknowledgement clears only marks made before the row was read: a key
 *	  that is marked while it flies, or later, is owed again.
 *	- A key is taken once every transaction that marked it is visible.
 *	- lsn of a key is that of its first mark not yet let go; owed is ordered by
 *	  it, so the least lsn that is still needed is at its head or in one of the
 *	  other lists.  Of acked and fenced, which may be long, the least that was put
 *	  in since they were empty is kept: no key of theirs has a lesser one.
 *
 * All of it belongs to one process and needs no lock.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "storage/procarray.h"
#include "utils/memutils.h"

#include "sync/sync_int.h"

typedef struct KeyRef
{
	const char *key;
	uint32 keylen;
	uint32 hash;
} KeyRef;

typedef struct HashEntry
{
	KeyRef ref; /* hash key */
	PlinthDirtyKey *dirty;
} HashEntry;

/* What a key takes, with its share of the hash table. */
#define KEY_BYTES(key) (sizeof(PlinthDirtyKey) + sizeof(HashEntry) + 32 + (key)->keylen)

/* Of two, of which either may be none. */
static XLogRecPtr
lesser(XLogRecPtr a, XLogRecPtr b)
{
	if (a == InvalidXLogRecPtr || b == InvalidXLogRecPtr)
		return Max(a, b);
	return Min(a, b);
}

static uint32
ref_hash(const void *key, Size keysize)
{
	return ((const KeyRef *) key)->hash;
}

static int
ref_match(const void *a, const void *b, Size keysize)
{
	const KeyRef *left = a;
	const KeyRef *right = b;

	if (left->keylen != right->keylen)
		return 1;
	return memcmp(left->key, right->key, left->keylen);
}

void
plinth_sync_dirty_init(PlinthDirtySet *set, MemoryContext parent)
{
	HASHCTL ctl = {0};

	set->context = AllocSetContextCreate(parent, "plinth dirty keys", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(KeyRef);
	ctl.entrysize = sizeof(HashEntry);
	ctl.hash = ref_hash;
	ctl.match = ref_match;
	ctl.hcxt = set->context;
	set->hash = hash_create("plinth dirty keys", 256, &ctl,
							HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	dlist_init(&set->owed);
	dlist_init(&set->flying);
	dlist_init(&set->acked);
	dlist_init(&set->fenced);
	set->nowed = set->nacked = set->nfenced = 0;
	set->acked_least = set->fenced_least = InvalidXLogRecPtr;
	set->bytes = 0;
}

static void
move_to_owed(PlinthDirtySet *set, PlinthDirtyKey *key, XLogRecPtr lsn)
{
	dlist_iter iter;

	key->lsn = lsn;
	set->nowed++;
	/* Nearly always the youngest; a key that comes back may be older. */
	dlist_reverse_foreach(iter, &set->owed)
	{
		PlinthDirtyKey *other = dlist_container(PlinthDirtyKey, node, iter.cur);

		if (other->lsn <= lsn)
		{
			dlist_insert_after(&other->node, &key->node);
			return;
		}
	}
	dlist_push_head(&set->owed, &key->node);
}

/*
 * A mark of another transaction.  Those of a row are visible in the order of
 * their commits, since each waits for its lock on the row; but a document is
 * made of many rows, and a commit that was decoded before may be visible later.
 */
static void
note_xid(PlinthDirtySet *set, PlinthDirtyKey *key, TransactionId xid)
{
	if (!TransactionIdIsValid(xid) || xid == key->xid)
		return;
	if (set->many_rows && TransactionIdIsValid(key->xid) && TransactionIdIsInProgress(key->xid))
	{
		MemoryContext old = MemoryContextSwitchTo(set->context);

		set->hidden = list_append_unique_oid(set->hidden, key->xid);
		key->entangled = true;
		MemoryContextSwitchTo(old);
	}
	key->xid = xid;
}

/* Are all transactions visible that were hidden behind others? */
static bool
none_hidden(PlinthDirtySet *set)
{
	ListCell *lc;

	foreach (lc, set->hidden)
	{
		if (!TransactionIdIsInProgress(lfirst_oid(lc)))
			set->hidden = foreach_delete_current (set->hidden, lc);
	}
	return set->hidden == NIL;
}

void
plinth_sync_dirty_mark(PlinthDirtySet *set, const PlinthSyncMark *mark, const char *key,
					   bool zombie)
{
	KeyRef ref;
	HashEntry *entry;
	PlinthDirtyKey *dirty;
	bool found;

	ref.key = key;
	ref.keylen = mark->keylen;
	ref.hash = hash_bytes((const unsigned char *) key, mark->keylen);
	entry = hash_search(set->hash, &ref, HASH_FIND, NULL);
	if (entry == NULL)
	{
		char *copy;

		dirty = MemoryContextAllocZero(set->context, sizeof(PlinthDirtyKey) + mark->keylen);
		copy = (char *) dirty + sizeof(PlinthDirtyKey);
		memcpy(copy, key, mark->keylen);
		dirty->key = ref.key = copy;
		dirty->keylen = ref.keylen;
		dirty->hash = ref.hash;
		dirty->seen_at = GetCurrentTimestamp();
		entry = hash_search(set->hash, &ref, HASH_ENTER, &found);
		entry->dirty = dirty;
		set->bytes += KEY_BYTES(dirty);
		dirty->xid = mark->xid;
		dirty->zombie = zombie;
		move_to_owed(set, dirty, mark->lsn);
		return;
	}

	dirty = entry->dirty;
	note_xid(set, dirty, mark->xid);
	dirty->zombie |= zombie;
	if (dirty->in_flight)
		dirty->again = true;
	else if (dirty->acked)
	{
		/* Its unfenced acknowledgement still needs the older lsn. */
		dlist_delete(&dirty->node);
		if (!dirty->fenced && --set->nacked == 0)
			set->acked_least = InvalidXLogRecPtr;
		if (dirty->fenced && --set->nfenced == 0)
			set->fenced_least = InvalidXLogRecPtr;
		dirty->acked = dirty->fenced = false;
		dirty->seen_at = GetCurrentTimestamp();
		move_to_owed(set, dirty, dirty->lsn);
	}
}

/* Since when keys wait for this transaction to be visible; invalid: for none. */
static void
note_unseen(PlinthDirtySet *set, TransactionId xid)
{
	if (xid == set->unseen)
		return;
	set->unseen = xid;
	set->unseen_since = GetCurrentTimestamp();
}

int
plinth_sync_dirty_take(PlinthDirtySet *set, PlinthDirtyKey **keys, int max)
{
	dlist_mutable_iter iter;
	TransactionId visible = InvalidTransactionId;
	TransactionId hidden = InvalidTransactionId;
	TransactionId entangled = InvalidTransactionId;
	int taken = 0;
	int passed = 0;

	dlist_foreach_modify (iter, &set->owed)
	{
		PlinthDirtyKey *key = dlist_container(PlinthDirtyKey, node, iter.cur);

		if (taken >= max || passed > 10 * max ||
			(set->before != InvalidXLogRecPtr && key->lsn >= set->before))
			break;
		/* A commit is decoded once flushed, but its rows may not be visible yet. */
		if (TransactionIdIsValid(key->xid) && key->xid != visible)
		{
			if (key->xid == hidden || TransactionIdIsInProgress(key->xid))
			{
				hidden = key->xid;
				passed++;
				continue;
			}
			visible = key->xid;
		}
		if (key->entangled && !none_hidden(set))
		{
			entangled = linitial_oid(set->hidden);
			passed++;
			continue;
		}
		key->entangled = false;
		dlist_delete(&key->node);
		set->nowed--;
		dlist_push_tail(&set->flying, &key->node);
		key->in_flight = true;
		keys[taken++] = key;
	}
	note_unseen(set, TransactionIdIsValid(hidden) ? hidden : entangled);
	return taken;
}

/* Out of flight; true when it was marked meanwhile. */
static bool
land(PlinthDirtyKey *key)
{
	bool again = key->again;

	Assert(key->in_flight);
	dlist_delete(&key->node);
	key->in_flight = false;
	key->again = false;
	return again;
}

static void
owe_again(PlinthDirtySet *set, PlinthDirtyKey *key)
{
	dlist_iter iter;

	set->nowed++;
	/* It was among the oldest, so its place is near the head, before those of its transaction. */
	dlist_foreach (iter, &set->owed)
	{
		PlinthDirtyKey *other = dlist_container(PlinthDirtyKey, node, iter.cur);

		if (other->lsn >= key->lsn)
		{
			dlist_insert_before(&other->node, &key->node);
			return;
		}
	}
	dlist_push_tail(&set->owed, &key->node);
}

void
plinth_sync_dirty_return(PlinthDirtySet *set, PlinthDirtyKey *key)
{
	(void) land(key);
	owe_again(set, key);
}

void
plinth_sync_dirty_ack(PlinthDirtySet *set, PlinthDirtyKey *key)
{
	if (land(key))
	{
		/* Its unfenced acknowledgement still needs the older lsn. */
		key->seen_at = GetCurrentTimestamp();
		owe_again(set, key);
		return;
	}
	key->acked = true;
	dlist_push_tail(&set->acked, &key->node);
	set->nacked++;
	set->acked_least = lesser(set->acked_least, key->lsn);
}

static void
remove_key(PlinthDirtySet *set, PlinthDirtyKey *key)
{
	KeyRef ref = {key->key, key->keylen, key->hash};

	hash_search(set->hash, &ref, HASH_REMOVE, NULL);
	set->bytes -= KEY_BYTES(key);
	pfree(key);
}

bool
plinth_sync_dirty_has(PlinthDirtySet *set, const char *key, uint32 keylen)
{
	KeyRef ref = {key, keylen, hash_bytes((const unsigned char *) key, keylen)};

	return hash_search(set->hash, &ref, HASH_FIND, NULL) != NULL;
}

void
plinth_sync_dirty_forget(PlinthDirtySet *set, PlinthDirtyKey *key)
{
	if (!land(key))
	{
		remove_key(set, key);
		return;
	}
	key->seen_at = GetCurrentTimestamp();
	owe_again(set, key);
}

void
plinth_sync_dirty_settle(PlinthDirtySet *set, PlinthDirtyKey **keys, int n, bool done)
{
	for (int i = n - 1; i >= 0; i--)
	{
		if (done)
			plinth_sync_dirty_forget(set, keys[i]);
		else
			plinth_sync_dirty_return(set, keys[i]);
	}
}

void
plinth_sync_dirty_fenced(PlinthDirtySet *set)
{
	while (!dlist_is_empty(&set->acked))
	{
		PlinthDirtyKey *key =
			dlist_container(PlinthDirtyKey, node, dlist_pop_head_node(&set->acked));

		key->fenced = true;
		dlist_push_tail(&set->fenced, &key->node);
	}
	set->nfenced += set->nacked;
	set->fenced_least = lesser(set->fenced_least, set->acked_least);
	set->nacked = 0;
	set->acked_least = InvalidXLogRecPtr;
}

void
plinth_sync_dirty_flushed(PlinthDirtySet *set)
{
	while (!dlist_is_empty(&set->fenced))
		remove_key(set, dlist_container(PlinthDirtyKey, node, dlist_pop_head_node(&set->fenced)));
	set->nfenced = 0;
	set->fenced_least = InvalidXLogRecPtr;
}

void
plinth_sync_dirty_unfenced(PlinthDirtySet *set)
{
	while (!dlist_is_empty(&set->acked))
	{
		PlinthDirtyKey *key =
			dlist_container(PlinthDirtyKey, node, dlist_pop_head_node(&set->acked));

		key->acked = false;
		key->zombie = true;
		move_to_owed(set, key, key->lsn);
	}
	set->nacked = 0;
	set->acked_least = InvalidXLogRecPtr;
}

XLogRecPtr
plinth_sync_dirty_least(PlinthDirtySet *set, bool owed_only)
{
	XLogRecPtr least = InvalidXLogRecPtr;
	dlist_iter iter;

	if (!dlist_is_empty(&set->owed))
		least = dlist_container(PlinthDirtyKey, node, set->owed.head.next)->lsn;
	dlist_foreach (iter, &set->flying)
		least = lesser(least, dlist_container(PlinthDirtyKey, node, iter.cur)->lsn);
	return owed_only ? least : lesser(least, lesser(set->acked_least, set->fenced_least));
}
