/*
 * pending.c
 *		What the running transaction does to the caches, and how it sees it.
 *
 * A journal of operations, and a hash table from names (a key, a prefix, a tag,
 * all of a cache, the last two of a user or of all) to the last operation of
 * each.  A reader in the transaction finds the last operation on its key, and
 * whether a wider one came after it; nothing is applied, so that undoing a
 * savepoint is taking its operations off the journal's end.
 *
 * The journal is divided in levels, each of one subtransaction, begun anew
 * whenever another subtransaction than the last one's writes; base keeps one
 * action for each and discards them last first, so levels come off in the
 * order of a stack.  Within a level an operation replaces the last one of its
 * name in place.
 *
 * Values and names are copied into a context below the transaction's: how many
 * there are is the client's affair.
 */
#include "postgres.h"

#include "cache/pending.h"
#include "cache/store.h"
#include "common/hashfn.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PlinthCachePending *plinth_cache_pending = NULL;

typedef struct NameEntry
{
	const PlinthCacheOpName *name;
	PlinthCacheOp *last;
	char status;
} NameEntry;

static uint32
name_hash(const PlinthCacheOpName *name)
{
	uint32 hash = hash_bytes((const unsigned char *) name->bytes, name->len);

	hash = hash_combine(hash, hash_bytes((const unsigned char *) &name->user, UUID_LEN));
	return hash_combine(hash, name->tag ^ (uint32) name->cache << 3 ^ (uint32) name->kind << 1 ^
								  (uint32) name->all_users);
}

static bool
name_equal(const PlinthCacheOpName *a, const PlinthCacheOpName *b)
{
	return a->kind == b->kind && a->cache == b->cache && a->all_users == b->all_users &&
		   a->tag == b->tag && a->len == b->len && memcmp(&a->user, &b->user, UUID_LEN) == 0 &&
		   memcmp(a->bytes, b->bytes, a->len) == 0;
}

#define SH_PREFIX names
#define SH_ELEMENT_TYPE NameEntry
#define SH_KEY_TYPE const PlinthCacheOpName *
#define SH_KEY name
#define SH_HASH_KEY(tb, key) name_hash(key)
#define SH_EQUAL(tb, a, b) name_equal(a, b)
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static PlinthCacheOp *
last_of(const PlinthCacheOpName *name)
{
	NameEntry *entry = names_lookup(plinth_cache_pending->names, name);

	return entry == NULL ? NULL : entry->last;
}

static PlinthCacheOpName
key_name(const PlinthCacheKey *key)
{
	PlinthCacheOpName name = {.kind = PLINTH_CACHE_OP_KEY,
							  .cache = key->cache,
							  .user = key->user,
							  .bytes = key->key,
							  .len = key->keylen};

	return name;
}

static PlinthCacheOpName
wide_name(PlinthCacheOpKind kind, int32 cache, const pg_uuid_t *user)
{
	PlinthCacheOpName name = {
		.kind = kind, .cache = cache, .all_users = user == NULL, .bytes = "", .len = 0};

	if (user != NULL)
		name.user = *user;
	return name;
}

/* -------------------------------------------------------------------------
 * Writing
 * -------------------------------------------------------------------------
 */
static void
begin_pending(void)
{
	MemoryContext context =
		AllocSetContextCreate(TopTransactionContext, "plinth pending caches", ALLOCSET_SMALL_SIZES);
	PlinthCachePending *p = MemoryContextAllocZero(context, sizeof(PlinthCachePending));

	p->context = context;
	p->names = names_create(context, 16, NULL);
	p->maxtouched = 4;
	p->touched = MemoryContextAlloc(context, p->maxtouched * sizeof(PlinthCacheTouched));
	plinth_cache_pending = p;
}

/* The level to write into. */
static PlinthCacheLevel *
current_level(void)
{
	PlinthCachePending *p = plinth_cache_pending;
	PlinthCacheLevel *level = p->level;

	if (level != NULL && level->subid == GetCurrentSubTransactionId() && !level->reserved)
		return level;
	level = MemoryContextAllocZero(p->context, sizeof(PlinthCacheLevel));
	level->subid = GetCurrentSubTransactionId();
	level->below = p->level;
	plinth_base_xact_add(&plinth_cache_commit_action, level);
	p->level = level;
	return level;
}

/* What the transaction did to a cache, or NULL. */
static PlinthCacheTouched *
find_touched(int32 cache)
{
	PlinthCachePending *p = plinth_cache_pending;

	for (int i = 0; p != NULL && i < p->ntouched; i++)
	{
		if (p->touched[i].cache == cache)
			return &p->touched[i];
	}
	return NULL;
}

static PlinthCacheTouched *
touch_cache(int32 cache)
{
	PlinthCachePending *p = plinth_cache_pending;
	PlinthCacheTouched *touched = find_touched(cache);

	if (touched != NULL)
		return touched;
	if (p->ntouched == p->maxtouched)
	{
		p->touched = repalloc(p->touched, 2 * p->maxtouched * sizeof(PlinthCacheTouched));
		p->maxtouched *= 2;
	}
	touched = &p->touched[p->ntouched++];
	touched->cache = cache;
	touched->command = InvalidCommandId;
	touched->count = 0;
	return touched;
}

/* A name as the journal keeps it: with a copy of its bytes behind it. */
static PlinthCacheOpName *
keep_name(const PlinthCacheOpName *name)
{
	PlinthCacheOpName *kept =
		MemoryContextAlloc(plinth_cache_pending->context, sizeof(PlinthCacheOpName) + name->len);

	*kept = *name;
	memcpy(kept + 1, name->bytes, name->len);
	kept->bytes = (char *) (kept + 1);
	return kept;
}

/* A new operation at the journal's end, or the one of this level that it replaces. */
static PlinthCacheOp *
make_op(const PlinthCacheOpName *name)
{
	PlinthCachePending *p;
	PlinthCacheLevel *level;
	PlinthCacheOp *op;
	NameEntry *entry;
	bool found;

	if (plinth_cache_pending == NULL)
		begin_pending();
	p = plinth_cache_pending;
	level = current_level();
	op = last_of(name);
	if (op != NULL && op->level == level)
	{
		if (op->is_set)
			pfree((void *) op->value.data);
		op->is_set = false;
	}
	else
	{
		const PlinthCacheOpName *kept = op != NULL ? op->name : keep_name(name);
		PlinthCacheOp *before = op;

		op = MemoryContextAllocZero(p->context, sizeof(PlinthCacheOp));
		entry = names_insert(p->names, kept, &found);
		op->name = kept;
		op->before = before;
		op->number = before != NULL ? before->number : 0;
		op->level = level;
		op->below = p->last;
		p->last = op;
		entry->last = op;
		if (name->kind == PLINTH_CACHE_OP_PREFIX)
		{
			op->below_prefix = p->last_prefix;
			p->last_prefix = op;
		}
	}
	op->order = ++p->order;
	return op;
}

static void
add_invalidation(const PlinthCacheOpName *name)
{
	PlinthCacheOp *op = make_op(name);
	PlinthCacheTouched *touched = touch_cache(name->cache);

	op->number = plinth_cache_sequence_next();
	touched->command = GetCurrentCommandId(false);
	touched->count++;
}

void
plinth_cache_pending_delete(const PlinthCacheKey *key)
{
	PlinthCacheOpName name = key_name(key);

	add_invalidation(&name);
}

void
plinth_cache_pending_prefix(int32 cache, const pg_uuid_t *user, const char *prefix, int len)
{
	PlinthCacheOpName name = wide_name(PLINTH_CACHE_OP_PREFIX, cache, user);

	name.bytes = prefix;
	name.len = len;
	add_invalidation(&name);
}

void
plinth_cache_pending_tag(int32 cache, uint32 tag)
{
	PlinthCacheOpName name = wide_name(PLINTH_CACHE_OP_TAG, cache, NULL);

	name.tag = tag;
	add_invalidation(&name);
}

void
plinth_cache_pending_clear(int32 cache, const pg_uuid_t *user)
{
	PlinthCacheOpName name = wide_name(PLINTH_CACHE_OP_CLEAR, cache, user);

	add_invalidation(&name);
}

/* -------------------------------------------------------------------------
 * Reading
 * -------------------------------------------------------------------------
 */
/* Keeps the later of two, by order; both may be NULL. */
static const PlinthCacheOp *
later(const PlinthCacheOp *a, const PlinthCacheOp *b)
{
	return a == NULL || (b != NULL && b->order > a->order) ? b : a;
}

/* The last operation wider than a key that is about this one, or NULL. */
static const PlinthCacheOp *
last_wide(int32 cache, const pg_uuid_t *user, const char *key, int keylen, const uint32 *tags,
		  int ntags)
{
	PlinthCacheOpName name = wide_name(PLINTH_CACHE_OP_CLEAR, cache, NULL);
	const PlinthCacheOp *last = last_of(&name);

	name = wide_name(PLINTH_CACHE_OP_CLEAR, cache, user);
	last = later(last, last_of(&name));
	for (int i = 0; i < ntags; i++)
	{
		name = wide_name(PLINTH_CACHE_OP_TAG, cache, NULL);
		name.tag = tags[i];
		last = later(last, last_of(&name));
	}
	for (const PlinthCacheOp *op = plinth_cache_pending->last_prefix; op != NULL;
		 op = op->below_prefix)
	{
		const PlinthCacheOpName *prefix = op->name;

		if (prefix->cache == cache && prefix->len <= keylen &&
			(prefix->all_users || memcmp(&prefix->user, user, UUID_LEN) == 0) &&
			memcmp(prefix->bytes, key, prefix->len) == 0)
			last = later(last, op);
	}
	return last;
}

bool
plinth_cache_op_stands(const PlinthCacheOp *op)
{
	const PlinthCacheOpName *name = op->name;
	const PlinthCacheOp *wide;

	if (last_of(name) != op)
		return false;
	wide = last_wide(name->cache, &name->user, name->bytes, name->len, op->value.tags,
					 op->value.ntags);
	return wide == NULL || wide->order < op->order;
}

/* The operation that set the value which stands, or NULL. */
static PlinthCacheOp *
standing_set(const PlinthCacheKey *key)
{
	PlinthCacheOpName name = key_name(key);
	PlinthCacheOp *op = last_of(&name);

	return op != NULL && op->is_set && plinth_cache_op_stands(op) ? op : NULL;
}

bool
plinth_cache_pending_get(const PlinthCacheKey *key, bool *found, PlinthCacheValue *value)
{
	PlinthCacheOpName name;
	const PlinthCacheOp *op;

	*found = false;
	if (plinth_cache_pending == NULL)
		return false;
	name = key_name(key);
	op = last_of(&name);
	if (op == NULL)
		return last_wide(key->cache, &key->user, key->key, key->keylen, NULL, 0) != NULL;
	op = standing_set(key);
	if (op != NULL && op->value.expires_at > GetCurrentTimestamp())
	{
		*found = true;
		*value = op->value;
	}
	return true;
}

bool
plinth_cache_pending_touch(const PlinthCacheKey *key, TimestampTz stale_at, TimestampTz expires_at)
{
	PlinthCacheOp *op = plinth_cache_pending != NULL ? standing_set(key) : NULL;

	if (op == NULL)
		return false;
	op->value.stale_at = stale_at;
	op->value.expires_at = expires_at;
	return true;
}

bool
plinth_cache_pending_touches(const PlinthCacheKey *key, const uint32 *tags, int ntags)
{
	PlinthCacheOpName name;

	if (plinth_cache_pending == NULL)
		return false;
	name = key_name(key);
	return last_of(&name) != NULL ||
		   last_wide(key->cache, &key->user, key->key, key->keylen, tags, ntags) != NULL;
}

CommandId
plinth_cache_pending_command(int32 cache)
{
	const PlinthCacheTouched *touched = find_touched(cache);

	return touched != NULL ? touched->command : InvalidCommandId;
}

int64
plinth_cache_pending_count(int32 cache)
{
	const PlinthCacheTouched *touched = find_touched(cache);

	return touched != NULL ? touched->count : 0;
}

bool
plinth_cache_pending_outdated(const PlinthCacheKey *key, const PlinthCacheValue *value,
							  int64 ticket)
{
	uint32 slots[PLINTH_CACHE_FILL_SLOTS];
	int n = plinth_cache_slots_of_fill(key, value->tags, value->ntags, slots);
	PlinthCacheOpName name = key_name(key);
	const PlinthCacheOp *op;

	if (!plinth_cache_ticket_known(ticket) || !plinth_cache_slots_unmoved(slots, n, ticket))
		return true;
	if (plinth_cache_pending == NULL)
		return false;
	op = last_of(&name);
	if (op != NULL && op->number > ticket)
		return true;
	op = last_wide(key->cache, &key->user, key->key, key->keylen, value->tags, value->ntags);
	return op != NULL && op->number > ticket;
}

bool
plinth_cache_pending_set(const PlinthCacheKey *key, const PlinthCacheValue *value, int64 ticket,
						 int64 max_bytes)
{
	PlinthCacheOpName name = key_name(key);
	PlinthCacheOp *op;
	char *data;

	if (ticket != 0 && plinth_cache_pending_outdated(key, value, ticket))
		return false;

	data = MemoryContextAllocHuge(TopTransactionContext, Max(value->size, 1));
	if (value->size > 0)
		memcpy(data, value->data, value->size);
	op = make_op(&name);
	(void) touch_cache(key->cache);
	op->value = *value;
	op->value.data = data;
	op->is_set = true;
	op->ticket = ticket;
	op->max_bytes = max_bytes;
	return true;
}

/* -------------------------------------------------------------------------
 * Undoing
 * -------------------------------------------------------------------------
 */
void
plinth_cache_pending_pop(PlinthCacheLevel *level)
{
	PlinthCachePending *p = plinth_cache_pending;

	Assert(p->level == level);
	while (p->last != NULL && p->last->level == level)
	{
		PlinthCacheOp *op = p->last;

		p->last = op->below;
		if (op->name->kind == PLINTH_CACHE_OP_PREFIX)
			p->last_prefix = op->below_prefix;
		if (op->is_set)
			pfree((void *) op->value.data);
		if (op->before != NULL)
			names_lookup(p->names, op->name)->last = op->before;
		else
		{
			names_delete(p->names, op->name);
			pfree((void *) op->name);
		}
		pfree(op);
	}
	p->level = level->below;
	if (p->level == NULL)
		plinth_cache_pending_end();
}

void
plinth_cache_pending_end(void)
{
	MemoryContextDelete(plinth_cache_pending->context);
	plinth_cache_pending = NULL;
}

/* The memory goes with the transaction, also where an ERROR left no action to say so. */
bool plinth_cache_ticket_given = false;

static void
end_of_transaction(bool committed, bool wrote)
{
	plinth_cache_pending = NULL;
	plinth_cache_ticket_given = false;
}

void
plinth_cache_pending_init(void)
{
	plinth_base_xact_on_end(end_of_transaction);
}
