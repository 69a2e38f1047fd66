/*
 * store.c
 *		Sessions in shared memory: division, looking up.
 *
 * An entry holds what the tables said of a session: it is there for the
 * sessions that are good by then, and never says that there is none.  Its
 * memory is fixed; entries are found by the hash of their token, in one of 64
 * partitions, and by the session's id, through an index of its own.
 *
 * What is answered from memory must be what the tables would answer now.
 * Everything a session depends on belongs to a user (theirs, and the
 * impersonator's), and every user to a slot.  A transaction that changes
 * something of a user (triggers, change.c)
 *
 *	- at pre-commit puts the slot in flux, which may fail no more from there on;
 *	- once its rows are visible moves the slot to a new number of one sequence,
 *	  and ends the flux; on rollback it ends the flux only.
 *
 * A filler takes its ticket, the last number given, before it takes the
 * snapshot it reads by.  An entry is true if its slots are not in flux and have
 * not moved beyond its ticket: whoever committed unseen by that snapshot has
 * not moved the slot yet (and has it in flux since before it was visible), or
 * has moved it to a number above the ticket.  So a slow filler may put what it
 * read as late as it likes: nobody believes it.  The reader looks at the flux
 * before the number, the changer moves the number before it ends the flux.
 * That of its own changes the transaction reads in the tables, and whoever has
 * an xid fills nothing, since what it read may never commit.
 *
 * The same with epochs, the generations of base, for what is not of one user:
 * TRUNCATE, the roles' own definitions, the extension.  What ends by time is
 * compared with the clock at each look-up.
 *
 * When a session was in use stands in its entry, true or not, and is written to
 * the table now and then (flush.c).  An entry whose use is not written is not
 * evicted; without room, the table is read and its row updated at commit.
 *
 * Locks, in this order: a partition's (exclusive to fill, evict, forget), a
 * bucket's of the index by id, the one of texts.  None is held while anything
 * is read, and nothing under them fails.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "session/store.h"
#include "utils/timestamp.h"

StaticAssertDecl(PLINTH_SESSION_ENTRY_SIZE == 192, "docs/sessions.md says what a session takes");

/* Of one id there is more than one entry only after its token was changed by hand. */
#define MAX_SAME_ID 4

PlinthSessionStore *plinth_session_store = NULL;
static LWLockPadded *locks = NULL;

typedef union PaddedPartition
{
	PlinthSessionPartition partition;
	char pad[PG_CACHE_LINE_SIZE];
} PaddedPartition;

PlinthSessionPartition *
plinth_session_partition(uint32 number)
{
	PaddedPartition *partitions = plinth_session_at(plinth_session_store->partitions);

	return &partitions[number].partition;
}

LWLock *
plinth_session_partition_lock(uint32 number)
{
	return &locks[number].lock;
}

LWLock *
plinth_session_id_lock(uint32 bucket)
{
	return &locks[PLINTH_SESSION_PARTITIONS + bucket % PLINTH_SESSION_ID_LOCKS].lock;
}

LWLock *
plinth_session_text_lock(void)
{
	return &locks[PLINTH_SESSION_PARTITIONS + PLINTH_SESSION_ID_LOCKS].lock;
}

/* Hashes of tokens are random bits already. */
static uint32
bits_of(const uint8 *hash, int at)
{
	uint32 bits;

	memcpy(&bits, hash + at, sizeof(bits));
	return bits;
}

uint32
plinth_session_partition_of(const uint8 *hash)
{
	return bits_of(hash, 0) % PLINTH_SESSION_PARTITIONS;
}

uint32 *
plinth_session_bucket_of(uint32 partition, const uint8 *hash)
{
	uint32 *buckets = plinth_session_at(plinth_session_store->buckets);
	uint32 nbuckets = plinth_session_store->nbuckets;

	return &buckets[partition * nbuckets + (bits_of(hash, 4) & (nbuckets - 1))];
}

uint32
plinth_session_id_bucket_of(Oid database, const pg_uuid_t *id)
{
	return (uint32) hash_bytes_extended(id->data, UUID_LEN, database) &
		   (plinth_session_store->nids - 1);
}

uint32 *
plinth_session_id_head(uint32 bucket)
{
	return (uint32 *) plinth_session_at(plinth_session_store->ids) + bucket;
}

uint32
plinth_session_slot_of(Oid database, const pg_uuid_t *user_id)
{
	return (uint32) hash_bytes_extended(user_id->data, UUID_LEN, database) &
		   (plinth_session_store->nslots - 1);
}

uint64
plinth_session_epoch(void)
{
	uint64 sessions = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SESSION);
	uint64 identity = plinth_base_generation(MyDatabaseId, PLINTH_GEN_IDENTITY);

	/* Numbers of all generations are from one counter: the later one moves it. */
	return sessions == 0 ? 0 : Max(sessions, identity);
}

bool
plinth_session_store_usable(void)
{
	return plinth_session_store != NULL && !RecoveryInProgress();
}

/* -------------------------------------------------------------------------
 * Looking up
 * -------------------------------------------------------------------------
 */
uint32
plinth_session_lookup(uint32 partition, const uint8 *hash)
{
	uint32 number = *plinth_session_bucket_of(partition, hash);

	while (number != PLINTH_SESSION_NONE)
	{
		const PlinthSessionEntry *entry = plinth_session_entry(number);

		/* How long it takes tells of the hash, from which nobody finds a token. */
		if (entry->database == MyDatabaseId && memcmp(entry->hash, hash, PLINTH_HASH_BYTES) == 0)
			return number;
		number = entry->next;
	}
	return PLINTH_SESSION_NONE;
}

static bool
slot_is_still(uint32 number, uint64 ticket)
{
	PlinthSessionSlot *slot = plinth_session_slot(number);

	if (pg_atomic_read_u32(&slot->flux) != 0)
		return false;
	pg_read_barrier();
	return pg_atomic_read_u64(&slot->moved) <= ticket;
}

/* Is what it says of the session true? */
static bool
is_true(const PlinthSessionEntry *entry)
{
	return entry->ticket != 0 && slot_is_still(entry->user_slot, entry->ticket) &&
		   (!entry->has_impersonator || slot_is_still(entry->impersonator_slot, entry->ticket)) &&
		   entry->epoch == plinth_session_epoch() &&
		   entry->extension == plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
}

static void
copy_session(PlinthSessionEntry *entry, PlinthSession *session, char *roles)
{
	const PlinthSessionText *text = plinth_session_text(entry->text);
	Size role_size = strlen(text->text) + 1;

	session->id = entry->id;
	session->user_id = entry->user_id;
	session->expires_at = entry->expires_at;
	session->authenticated_at = entry->authenticated_at;
	session->last_active_at = (TimestampTz) pg_atomic_read_u64(&entry->last_active);
	session->idle_timeout.time = entry->idle;
	session->aal = entry->aal;
	session->has_impersonator = entry->has_impersonator;
	session->impersonator_id = entry->impersonator_id;
	memcpy(session->role, text->text, role_size);
	memcpy(session->tier, text->text + role_size, text->roles - role_size);
	memcpy(roles, text->text + text->roles, text->len - text->roles);
}

/* What an entry says; its partition is locked. */
static PlinthSessionFound
ask_entry(PlinthSessionEntry *entry, TimestampTz now, bool touch, PlinthSession *session,
		  char *roles)
{
	TimestampTz last_active = (TimestampTz) pg_atomic_read_u64(&entry->last_active);

	if (!is_true(entry) || entry->good_until <= now)
		return PLINTH_SESSION_UNKNOWN;
	if (entry->expires_at <= now || (entry->idle != 0 && last_active + entry->idle <= now))
		return PLINTH_SESSION_OVER;
	if (touch)
		plinth_session_advance(&entry->last_active, now);
	if (!entry->visited)
		entry->visited = 1;
	copy_session(entry, session, roles);
	return PLINTH_SESSION_GOOD;
}

int
plinth_session_lookup_id(const pg_uuid_t *id, uint32 *entries, int max)
{
	uint32 bucket = plinth_session_id_bucket_of(MyDatabaseId, id);
	LWLock *lock = plinth_session_id_lock(bucket);
	uint32 number;
	int n = 0;

	LWLockAcquire(lock, LW_SHARED);
	for (number = *plinth_session_id_head(bucket); number != PLINTH_SESSION_NONE && n < max;
		 number = plinth_session_entry(number)->next_id)
	{
		const PlinthSessionEntry *entry = plinth_session_entry(number);

		if (entry->database == MyDatabaseId && memcmp(&entry->id, id, UUID_LEN) == 0)
			entries[n++] = number;
	}
	LWLockRelease(lock);
	return n;
}

static PlinthSessionFound
find_by_id(const pg_uuid_t *id, TimestampTz now, bool touch, PlinthSession *session, char *roles)
{
	uint32 entries[MAX_SAME_ID];
	int n = plinth_session_lookup_id(id, entries, lengthof(entries));
	PlinthSessionFound found = PLINTH_SESSION_UNKNOWN;

	for (int i = 0; i < n && found == PLINTH_SESSION_UNKNOWN; i++)
	{
		uint32 partition = entries[i] / plinth_session_store->nentries;
		PlinthSessionEntry *entry = plinth_session_entry(entries[i]);

		LWLockAcquire(plinth_session_partition_lock(partition), LW_SHARED);
		if (entry->database == MyDatabaseId && memcmp(&entry->id, id, UUID_LEN) == 0)
			found = ask_entry(entry, now, touch, session, roles);
		LWLockRelease(plinth_session_partition_lock(partition));
	}
	return found;
}

PlinthSessionFound
plinth_session_store_find(const uint8 *hash, const pg_uuid_t *id, TimestampTz now, bool touch,
						  PlinthSession *session)
{
	PlinthSessionFound found = PLINTH_SESSION_UNKNOWN;
	char roles[PLINTH_SESSION_TEXT];
	uint32 partition;
	uint32 number;

	if (hash == NULL)
	{
		partition = plinth_session_id_bucket_of(MyDatabaseId, id) % PLINTH_SESSION_PARTITIONS;
		found = find_by_id(id, now, touch, session, roles);
	}
	else
	{
		partition = plinth_session_partition_of(hash);
		LWLockAcquire(plinth_session_partition_lock(partition), LW_SHARED);
		number = plinth_session_lookup(partition, hash);
		if (number != PLINTH_SESSION_NONE)
			found = ask_entry(plinth_session_entry(number), now, touch, session, roles);
		LWLockRelease(plinth_session_partition_lock(partition));
	}
	pg_atomic_fetch_add_u64(found != PLINTH_SESSION_UNKNOWN
								? &plinth_session_partition(partition)->hits
								: &plinth_session_partition(partition)->misses,
							1);
	if (found == PLINTH_SESSION_GOOD)
		session->roles = pstrdup(roles);
	return found;
}

/* -------------------------------------------------------------------------
 * Division of the memory
 * -------------------------------------------------------------------------
 */
static Size
memory_size(void)
{
	return (Size) plinth_setting_session_memory * 1024;
}

static uint32
bounded_power(Size value, Size low, Size high)
{
	return (uint32) pg_prevpower2_64(Min(Max(value, low), high));
}

/* What is where; all of it fits in plinth.session_memory. */
static void
divide(PlinthSessionStore *store)
{
	Size total = memory_size();
	Size at = CACHELINEALIGN(sizeof(PlinthSessionStore));

	store->partitions = at;
	at += PLINTH_SESSION_PARTITIONS * sizeof(PaddedPartition);
	store->nslots = bounded_power(total / 1024, 256, 1024 * 1024);
	store->slots = at;
	at = CACHELINEALIGN(at + store->nslots * sizeof(PlinthSessionSlot));
	store->ntexts = bounded_power(total / (32 * sizeof(PlinthSessionText)), 8, 65536);
	store->text_buckets = at;
	at = CACHELINEALIGN(at + store->ntexts * sizeof(uint32));
	store->texts = at;
	at = CACHELINEALIGN(at + store->ntexts * sizeof(PlinthSessionText));
	store->entries = at;
	store->nentries =
		(uint32) Min((total - at) / (PLINTH_SESSION_PARTITIONS *
									 (PLINTH_SESSION_ENTRY_SIZE + 2 * sizeof(uint32))),
					 PLINTH_SESSION_NONE / PLINTH_SESSION_PARTITIONS / 2);
	at += (Size) PLINTH_SESSION_PARTITIONS * store->nentries * PLINTH_SESSION_ENTRY_SIZE;
	store->nbuckets = pg_prevpower2_32(store->nentries);
	store->buckets = at;
	at += (Size) PLINTH_SESSION_PARTITIONS * store->nbuckets * sizeof(uint32);
	store->nids = PLINTH_SESSION_PARTITIONS * store->nbuckets;
	store->ids = at;
}

static void
init_partition(uint32 number)
{
	PlinthSessionPartition *partition = plinth_session_partition(number);
	uint32 *buckets = plinth_session_at(plinth_session_store->buckets);

	memset(partition, 0, sizeof(*partition));
	pg_atomic_init_u64(&partition->hits, 0);
	pg_atomic_init_u64(&partition->misses, 0);
	partition->free = PLINTH_SESSION_NONE;
	for (uint32 i = 0; i < plinth_session_store->nbuckets; i++)
		buckets[number * plinth_session_store->nbuckets + i] = PLINTH_SESSION_NONE;
}

static void
init_memory(void *ptr)
{
	PlinthSessionStore *store = ptr;

	/* Only what is small: entries are touched when they are first used. */
	memset(store, 0, sizeof(*store));
	divide(store);
	pg_atomic_init_u64(&store->sequence, 1);
	pg_atomic_init_u32(&store->pressed, 0);
	pg_atomic_init_u64(&store->lost, 0);
	for (uint32 i = 0; i < store->nslots; i++)
	{
		pg_atomic_init_u64(&plinth_session_slot(i)->moved, 0);
		pg_atomic_init_u32(&plinth_session_slot(i)->flux, 0);
	}
	for (uint32 i = 0; i < store->nids; i++)
		*plinth_session_id_head(i) = PLINTH_SESSION_NONE;
	for (uint32 i = 0; i < PLINTH_SESSION_PARTITIONS; i++)
		init_partition(i);
	plinth_session_texts_init();
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth sessions",
	.size = memory_size,
	.init = init_memory,
	.pointer = (void **) &plinth_session_store,
	.lwlocks = PLINTH_SESSION_PARTITIONS + PLINTH_SESSION_ID_LOCKS + 1,
	.locks = &locks,
};

void
plinth_session_store_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
