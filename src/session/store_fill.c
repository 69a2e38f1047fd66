/*
 * store_fill.c
 *		Sessions in shared memory: filling, evicting, forgetting; see store.c.
 *
 * Eviction is CLOCK: a hand goes round the entries of a partition and spares
 * once what was used since it came by, and those whose last use is not in the
 * table yet, unless by so little that it may be forgotten: no more than what a
 * crash may forget, and no more than a tenth of the idle timeout.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "session/store.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

PGDLLEXPORT Datum plinth_session_last_active(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_last_active);

/* How many entries the hand passes at most in search of a victim. */
#define MAX_STEPS 128

PlinthSessionTicket
plinth_session_store_ticket(void)
{
	PlinthSessionTicket ticket = {0};

	if (!plinth_session_store_usable() || IsInParallelMode() ||
		TransactionIdIsValid(GetTopTransactionIdIfAny()))
		return ticket;
	ticket.epoch = plinth_session_epoch();
	if (ticket.epoch == 0)
	{
		plinth_base_generation_bump(MyDatabaseId, PLINTH_GEN_SESSION);
		ticket.epoch = plinth_session_epoch();
	}
	ticket.extension = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	if (ticket.epoch != 0 && ticket.extension != 0)
		ticket.number = pg_atomic_read_u64(&plinth_session_store->sequence);

	/* What is read next must not be older than the ticket. */
	pg_memory_barrier();
	return ticket;
}

/* -------------------------------------------------------------------------
 * Taking entries out
 * -------------------------------------------------------------------------
 */
/* Takes an entry out of both chains; its partition is locked exclusively. */
static void
remove_entry(uint32 number)
{
	PlinthSessionEntry *entry = plinth_session_entry(number);
	uint32 partition = number / plinth_session_store->nentries;
	uint32 bucket = plinth_session_id_bucket_of(entry->database, &entry->id);
	uint32 *link;

	for (link = plinth_session_bucket_of(partition, entry->hash); *link != number;
		 link = &plinth_session_entry(*link)->next)
		;
	*link = entry->next;

	LWLockAcquire(plinth_session_id_lock(bucket), LW_EXCLUSIVE);
	for (link = plinth_session_id_head(bucket); *link != number;
		 link = &plinth_session_entry(*link)->next_id)
		;
	*link = entry->next_id;
	entry->database = InvalidOid;
	LWLockRelease(plinth_session_id_lock(bucket));

	plinth_session_text_release(entry->text);
	entry->text = PLINTH_SESSION_NONE;
	entry->next = plinth_session_partition(partition)->free;
	plinth_session_partition(partition)->free = number;
	plinth_session_partition(partition)->used--;
}

/* By how much the last use that is known may be later than the table's, for it to be forgotten. */
static int64
tolerance(const PlinthSessionEntry *entry)
{
	int64 interval = (int64) plinth_setting_session_flush_interval * 1000;

	return entry->idle == 0 ? interval : Min(interval, entry->idle / 10);
}

static bool
may_forget(PlinthSessionEntry *entry)
{
	return (TimestampTz) pg_atomic_read_u64(&entry->last_active) - entry->written <=
			   tolerance(entry) ||
		   entry->extension != plinth_base_generation(entry->database, PLINTH_GEN_EXTENSION);
}

/* Asks for what is not written to be, and for the worker that does it. */
static void
press(void)
{
	if (pg_atomic_exchange_u32(&plinth_session_store->pressed, 1) != 0)
		return;
	plinth_worker_wake(MyDatabaseId, "session", -1);
	plinth_worker_wake(MyDatabaseId, "coordinator", -1);
}

/* Makes room in a partition that is full. */
static bool
evict(uint32 number)
{
	PlinthSessionPartition *partition = plinth_session_partition(number);
	uint32 n = plinth_session_store->nentries;
	bool unwritten = false;

	for (uint32 step = 0; step < Min(2 * n, MAX_STEPS); step++)
	{
		uint32 candidate = number * n + partition->hand;
		PlinthSessionEntry *entry = plinth_session_entry(candidate);

		partition->hand = (partition->hand + 1) % n;
		if (entry->visited)
			entry->visited = 0;
		else if (may_forget(entry))
		{
			remove_entry(candidate);
			partition->evicted++;
			return true;
		}
		else
			unwritten = true;
	}
	if (unwritten)
		press();
	partition->refused++;
	return false;
}

/* -------------------------------------------------------------------------
 * Putting entries in
 * -------------------------------------------------------------------------
 */
static uint32
new_entry(uint32 number)
{
	PlinthSessionPartition *partition = plinth_session_partition(number);
	uint32 entry = partition->free;

	if (plinth_session_store->nentries == 0)
		return PLINTH_SESSION_NONE;
	if (entry == PLINTH_SESSION_NONE && partition->fresh < plinth_session_store->nentries)
	{
		entry = number * plinth_session_store->nentries + partition->fresh++;
		pg_atomic_init_u64(&plinth_session_entry(entry)->last_active, 0);
	}
	else
	{
		if (entry == PLINTH_SESSION_NONE && !evict(number))
			return PLINTH_SESSION_NONE;
		entry = partition->free;
		partition->free = plinth_session_entry(entry)->next;
	}
	partition->used++;
	return entry;
}

/* Adds an entry about which nothing is known to be true yet. */
static uint32
add_entry(uint32 partition, const PlinthSession *session)
{
	uint32 number = new_entry(partition);
	PlinthSessionEntry *entry;
	uint32 *head;
	uint32 bucket;

	if (number == PLINTH_SESSION_NONE)
		return number;
	entry = plinth_session_entry(number);
	head = plinth_session_bucket_of(partition, session->token_hash);
	memcpy(entry->hash, session->token_hash, PLINTH_HASH_BYTES);
	entry->next = *head;
	entry->ticket = 0;
	entry->extension = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	entry->idle = session->idle_timeout.time;
	entry->text = PLINTH_SESSION_NONE;
	entry->visited = 0;
	entry->written = session->last_active_at;
	pg_atomic_write_u64(&entry->last_active, (uint64) session->last_active_at);

	bucket = plinth_session_id_bucket_of(MyDatabaseId, &session->id);
	LWLockAcquire(plinth_session_id_lock(bucket), LW_EXCLUSIVE);
	entry->id = session->id;
	entry->database = MyDatabaseId;
	entry->next_id = *plinth_session_id_head(bucket);
	*plinth_session_id_head(bucket) = number;
	LWLockRelease(plinth_session_id_lock(bucket));
	*head = number;
	return number;
}

static void
fill_entry(PlinthSessionEntry *entry, const PlinthSessionTicket *ticket,
		   const PlinthSession *session, uint32 text)
{
	plinth_session_text_release(entry->text);
	entry->text = text;
	entry->user_id = session->user_id;
	entry->user_slot = plinth_session_slot_of(MyDatabaseId, &session->user_id);
	entry->has_impersonator = session->has_impersonator;
	entry->impersonator_id = session->impersonator_id;
	entry->impersonator_slot = plinth_session_slot_of(MyDatabaseId, &session->impersonator_id);
	entry->epoch = ticket->epoch;
	entry->extension = ticket->extension;
	entry->expires_at = session->expires_at;
	entry->good_until = session->good_until;
	entry->authenticated_at = session->authenticated_at;
	entry->idle = session->idle_timeout.time;
	entry->aal = (uint8) session->aal;
	entry->ticket = ticket->number;
}

bool
plinth_session_store_put(const PlinthSessionTicket *ticket, PlinthSession *session)
{
	uint32 partition = plinth_session_partition_of(session->token_hash);
	LWLock *lock = plinth_session_partition_lock(partition);
	uint32 text = PLINTH_SESSION_NONE;
	uint32 number;

	/* Days and months of an idle timeout are as long as a time zone says: not for here. */
	if (ticket->number != 0 && session->idle_timeout.day == 0 && session->idle_timeout.month == 0)
		text = plinth_session_text_take(session);

	LWLockAcquire(lock, LW_EXCLUSIVE);
	number = plinth_session_lookup(partition, session->token_hash);
	if (number != PLINTH_SESSION_NONE &&
		memcmp(&plinth_session_entry(number)->id, &session->id, UUID_LEN) != 0)
	{
		remove_entry(number);
		number = PLINTH_SESSION_NONE;
	}
	if (number == PLINTH_SESSION_NONE)
		number = add_entry(partition, session);
	if (number != PLINTH_SESSION_NONE)
	{
		PlinthSessionEntry *entry = plinth_session_entry(number);

		entry->written = Max(entry->written, session->last_active_at);
		plinth_session_advance(&entry->last_active, session->last_active_at);
		if (text != PLINTH_SESSION_NONE && ticket->number >= entry->ticket)
		{
			fill_entry(entry, ticket, session, text);
			text = PLINTH_SESSION_NONE;
		}
		session->last_active_at = (TimestampTz) pg_atomic_read_u64(&entry->last_active);
	}
	LWLockRelease(lock);
	plinth_session_text_release(text);
	return number != PLINTH_SESSION_NONE;
}

bool
plinth_session_store_touch(const uint8 *hash, TimestampTz now)
{
	uint32 partition = plinth_session_partition_of(hash);
	uint32 number;

	LWLockAcquire(plinth_session_partition_lock(partition), LW_SHARED);
	number = plinth_session_lookup(partition, hash);
	if (number != PLINTH_SESSION_NONE)
		plinth_session_advance(&plinth_session_entry(number)->last_active, now);
	LWLockRelease(plinth_session_partition_lock(partition));
	return number != PLINTH_SESSION_NONE;
}

/* -------------------------------------------------------------------------
 * Forgetting
 * -------------------------------------------------------------------------
 */
/* Calls something for each entry of an id, its partition locked. */
static void
for_each_of_id(const pg_uuid_t *id, LWLockMode mode, void (*visit)(uint32 number, TimestampTz *at),
			   TimestampTz *at)
{
	uint32 entries[4];
	int n = plinth_session_lookup_id(id, entries, lengthof(entries));

	for (int i = 0; i < n; i++)
	{
		LWLock *lock = plinth_session_partition_lock(entries[i] / plinth_session_store->nentries);
		PlinthSessionEntry *entry = plinth_session_entry(entries[i]);

		LWLockAcquire(lock, mode);
		if (entry->database == MyDatabaseId && memcmp(&entry->id, id, UUID_LEN) == 0)
			visit(entries[i], at);
		LWLockRelease(lock);
	}
}

static void
visit_forget(uint32 number, TimestampTz *at)
{
	remove_entry(number);
}

void
plinth_session_store_forget(const pg_uuid_t *id)
{
	if (plinth_session_store_usable())
		for_each_of_id(id, LW_EXCLUSIVE, visit_forget, NULL);
}

static void
visit_written(uint32 number, TimestampTz *at)
{
	PlinthSessionEntry *entry = plinth_session_entry(number);

	entry->written = Max(entry->written, *at);
}

static void
visit_last_active(uint32 number, TimestampTz *at)
{
	*at = Max(*at, (TimestampTz) pg_atomic_read_u64(&plinth_session_entry(number)->last_active));
}

void
plinth_session_store_written(const pg_uuid_t *id, TimestampTz at)
{
	if (plinth_session_store_usable())
		for_each_of_id(id, LW_EXCLUSIVE, visit_written, &at);
}

TimestampTz
plinth_session_store_last_active(const pg_uuid_t *id, TimestampTz written)
{
	if (plinth_session_store_usable() && !plinth_session_changed_here())
		for_each_of_id(id, LW_SHARED, visit_last_active, &written);
	return written;
}

/* plinth._session_last_active(session_id, written). */
Datum
plinth_session_last_active(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(
		plinth_session_store_last_active(PG_GETARG_UUID_P(0), PG_GETARG_TIMESTAMPTZ(1)));
}

static void
purge_database(Oid database)
{
	if (plinth_session_store == NULL)
		return;
	for (uint32 p = 0; p < PLINTH_SESSION_PARTITIONS; p++)
	{
		uint32 first = p * plinth_session_store->nentries;

		LWLockAcquire(plinth_session_partition_lock(p), LW_EXCLUSIVE);
		for (uint32 i = 0; i < plinth_session_partition(p)->fresh; i++)
		{
			if (plinth_session_entry(first + i)->database == database)
				remove_entry(first + i);
		}
		LWLockRelease(plinth_session_partition_lock(p));
	}
}

void
plinth_session_fill_init(void)
{
	plinth_base_database_on_purge(purge_database);
}
