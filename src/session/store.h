/*
 * store.h
 *		Sessions in shared memory: what a look-up found in the tables, for as long
 *		as nothing that it depends on has changed.
 *
 * Private to room session; store.c says how it is kept right.
 */
#ifndef PLINTH_SESSION_STORE_H
#define PLINTH_SESSION_STORE_H

#include "base/base.h"
#include "session/internal.h"

#define PLINTH_SESSION_PARTITIONS 64
#define PLINTH_SESSION_ID_LOCKS 16
#define PLINTH_SESSION_NONE PG_UINT32_MAX

/* Role, tier and roles of a session, each with its zero. */
#define PLINTH_SESSION_TEXT 1004

/*
 * Guarded by the lock of its partition, but: id, database and next_id are
 * read under the lock of the id's bucket as well, and change only under both;
 * visited and last_active are set under a shared lock.
 */
typedef struct PlinthSessionEntry
{
	uint8 hash[PLINTH_HASH_BYTES]; /* of the token */
	pg_uuid_t id;
	Oid database; /* InvalidOid: free */
	uint32 next;  /* of the same bucket, or of the free ones */
	uint32 next_id;
	uint32 user_slot;
	/* second cache line */
	uint64 ticket; /* 0: what follows is not known to be true */
	uint64 epoch;
	uint64 extension;
	TimestampTz expires_at;
	TimestampTz good_until; /* what else ends by time; then it is read anew */
	pg_atomic_uint64 last_active;
	TimestampTz written; /* last_active as the table has it */
	uint32 text;
	uint32 impersonator_slot;
	/* third cache line */
	pg_uuid_t user_id;
	pg_uuid_t impersonator_id;
	TimestampTz authenticated_at;
	int64 idle; /* us; 0 for never */
	uint8 aal;
	uint8 visited;
	bool has_impersonator;
} PlinthSessionEntry;

/* Of the machine's cache lines, which are half of what PostgreSQL takes them for. */
#define PLINTH_SESSION_ENTRY_SIZE TYPEALIGN(64, sizeof(PlinthSessionEntry))

/* Sessions of users whose number hashes alike are true or not together. */
typedef struct PlinthSessionSlot
{
	pg_atomic_uint64 moved; /* number of the last change that committed */
	pg_atomic_uint32 flux;  /* transactions that changed one and are committing */
} PlinthSessionSlot;

typedef struct PlinthSessionText
{
	uint32 refs; /* entries; 0: free */
	uint32 hash;
	uint32 next; /* of the same bucket, or of the free ones */
	uint16 len;
	uint16 roles; /* where in text; tier and role stand before */
	char text[PLINTH_SESSION_TEXT];
} PlinthSessionText;

typedef struct PlinthSessionPartition
{
	uint32 hand;
	uint32 free;
	uint32 fresh; /* entries from here on were never used */
	uint32 used;
	pg_atomic_uint64 hits;
	pg_atomic_uint64 misses;
	uint64 evicted;
	uint64 refused; /* found no entry to evict */
} PlinthSessionPartition;

typedef struct PlinthSessionStore
{
	uint32 nentries; /* of a partition */
	uint32 nbuckets; /* of a partition */
	uint32 nids;     /* buckets by id */
	uint32 nslots;
	uint32 ntexts;
	uint32 free_text;
	uint32 fresh_text;
	Size partitions; /* where things begin */
	Size buckets;
	Size ids;
	Size slots;
	Size text_buckets;
	Size texts;
	Size entries;
	pg_atomic_uint64 sequence; /* the last number given to a change */
	pg_atomic_uint32 pressed;  /* an entry could not be evicted: flush */
	pg_atomic_uint64 lost;     /* uses that were noted nowhere */
} PlinthSessionStore;

/* NULL when the server has no such memory. */
extern PlinthSessionStore *plinth_session_store;

extern void plinth_session_store_init(void);

/* ---- Looking up (store.c) ---- */

/* May this backend use the memory: not on a standby, which hears of no change. */
extern bool plinth_session_store_usable(void);

typedef enum PlinthSessionFound
{
	PLINTH_SESSION_UNKNOWN, /* look into the tables */
	PLINTH_SESSION_GOOD,
	PLINTH_SESSION_OVER
} PlinthSessionFound;

/* By the token's hash, or by the id when hash is NULL; touch: it is being used. */
extern PlinthSessionFound plinth_session_store_find(const uint8 *hash, const pg_uuid_t *id,
													TimestampTz now, bool touch,
													PlinthSession *session);

/* ---- Filling (store_fill.c) ---- */

/* Taken before the tables are read. */
typedef struct PlinthSessionTicket
{
	uint64 number; /* 0: nothing may be kept */
	uint64 epoch;
	uint64 extension;
} PlinthSessionTicket;
extern PlinthSessionTicket plinth_session_store_ticket(void);

/*
 * Keeps what was read, if it may be kept, and makes last_active_at the latest
 * of what is known.  False when there is no room for it.
 */
extern bool plinth_session_store_put(const PlinthSessionTicket *ticket, PlinthSession *session);

/* The session of a token's hash is being used; false when there is no entry. */
extern bool plinth_session_store_touch(const uint8 *hash, TimestampTz now);

/* Forgets one session, and when it was in use; of this database. */
extern void plinth_session_store_forget(const pg_uuid_t *id);

/* The table has this time now. */
extern void plinth_session_store_written(const pg_uuid_t *id, TimestampTz at);

/* When a session was last in use: the later of what the table has (written) and what memory knows. */
extern TimestampTz plinth_session_store_last_active(const pg_uuid_t *id, TimestampTz written);

extern void plinth_session_fill_init(void);

/* Interned texts (store_text.c): a reference to one; NONE when there is no room. */
extern void plinth_session_texts_init(void);
extern uint32 plinth_session_text_take(const PlinthSession *session);
extern void plinth_session_text_release(uint32 text);

/* ---- Changes (change.c) ---- */
extern void plinth_session_change_init(void);
extern uint32 plinth_session_slot_of(Oid database, const pg_uuid_t *user_id);

/* Set while last_active_at is written from memory: that is no change. */
extern bool plinth_session_writing;

/* Did this transaction change what sessions depend on?  Then it reads the tables. */
extern bool plinth_session_changed_here(void);

/* ---- Writing to the table (flush.c) ---- */
extern void plinth_session_flush_init(void);

/* ---- For the files of the store alone ---- */
static inline void *
plinth_session_at(Size offset)
{
	return (char *) plinth_session_store + offset;
}

static inline PlinthSessionEntry *
plinth_session_entry(uint32 number)
{
	char *entries = plinth_session_at(plinth_session_store->entries);

	return (PlinthSessionEntry *) (void *) (entries + number * PLINTH_SESSION_ENTRY_SIZE);
}

static inline PlinthSessionSlot *
plinth_session_slot(uint32 number)
{
	return (PlinthSessionSlot *) plinth_session_at(plinth_session_store->slots) + number;
}

static inline PlinthSessionText *
plinth_session_text(uint32 number)
{
	return (PlinthSessionText *) plinth_session_at(plinth_session_store->texts) + number;
}

extern PlinthSessionPartition *plinth_session_partition(uint32 number);
extern LWLock *plinth_session_partition_lock(uint32 number);
extern LWLock *plinth_session_id_lock(uint32 bucket);
extern LWLock *plinth_session_text_lock(void);

/* Which partition, and which chain's head in it, a token's hash has. */
extern uint32 plinth_session_partition_of(const uint8 *hash);
extern uint32 *plinth_session_bucket_of(uint32 partition, const uint8 *hash);

/* The number of an id's bucket, and the head of its chain. */
extern uint32 plinth_session_id_bucket_of(Oid database, const pg_uuid_t *id);
extern uint32 *plinth_session_id_head(uint32 bucket);

/* The entry of a token's hash in this database; the partition is locked. */
extern uint32 plinth_session_lookup(uint32 partition, const uint8 *hash);

/* Entries of an id that were there; up to max. */
extern int plinth_session_lookup_id(const pg_uuid_t *id, uint32 *entries, int max);

/* What moves when all of a database's sessions must be read anew. */
extern uint64 plinth_session_epoch(void);

/* Sets an atomic time unless it is later already. */
static inline void
plinth_session_advance(pg_atomic_uint64 *time, TimestampTz to)
{
	if ((TimestampTz) pg_atomic_read_u64(time) < to)
		pg_atomic_write_u64(time, (uint64) to);
}

#endif /* PLINTH_SESSION_STORE_H */
