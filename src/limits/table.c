/*
 * table.c
 *		The table of keys: fixed-size, in shared memory; decisions take no lock.
 *
 * Sets of eight entries of 32 bytes.  A key may stand in one of two sets, which
 * its hash tells, so that the table fills to nearly all of its room before any
 * key finds none.  Of the keyed SipHash of 128 bits 96 are kept, beside database
 * and policy in clear: that two of a million keys of one policy meet has a
 * chance below 10^-16, and nobody can look for two that do without the salt.
 *
 * An entry's whole state is its word (rate.c).  A decision loads the word, looks
 * whether the tags are its key's, computes, and puts the new word by
 * compare-and-swap.  Only who brings a key in, resets, removes, or decides on
 * several takes locks: the LWLocks of both sets' partitions, in their order.
 *
 * Why a swap never charges another key.  Who changes an entry's tags first
 * takes the word away (puts TAKEN, under the lock), so tags change only while
 * the word is TAKEN, which nobody swaps.  Call the time a key holds an entry
 * its tenure.  All words of a tenure are below all words of the next, for an entry
 * is given away at a time t only when its word is idle (below t's) and hold, the
 * second from which every word is idle that was ever lowered (by a reset), is
 * past; and the next tenure's words are not below t's.  So when a swap finds
 * the word that was loaded before the tags were read, the same tenure was there
 * all the time, and the tags were its own.  Within a tenure a word that comes
 * back is no matter: the word is all there is.  A decision that changes nothing
 * loads the word again after the tags, for the same reason.
 *
 * Hence only idle entries are ever evicted: forgetting them changes no decision.
 * Where there is none the caller answers by the policy's on_error.  What was
 * purged keeps its place until it would have been idle, by the same rule.
 *
 * A backend that is killed in the middle restarts the cluster, and shared
 * memory with it; nothing between TAKEN and the next word can raise an error or
 * be interrupted.
 */
#include "postgres.h"

#include <sodium.h>

#include "base/base.h"
#include "limits/internal.h"
#include "limits/table_int.h"
#include "miscadmin.h"

#define KEY_MAX_BYTES 1400

StaticAssertDecl(PLINTH_LIMITS_SALT_BYTES == crypto_shorthash_siphashx24_KEYBYTES,
				 "salt of another size than SipHash's key");

PlinthLimitTable *plinth_limits_table = NULL;
LWLockPadded *plinth_limits_table_locks = NULL;

uint64
plinth_limits_table_units(Oid incarnation, bool window, int64 limit, int64 period)
{
	uint64 parts[3] = {(uint64) incarnation << 1 | window, limit, period};
	uint8 out[crypto_shorthash_siphashx24_BYTES];
	uint64 units;

	crypto_shorthash_siphashx24(out, (const uint8 *) parts, sizeof(parts),
								plinth_limits_table->salt);
	memcpy(&units, out, sizeof(units));
	return units;
}

void
plinth_limits_table_key(PlinthLimitKey *key, Oid database, uint32 policy, uint64 units,
						const char *text, size_t len)
{
	uint8 in[sizeof(units) + KEY_MAX_BYTES];
	uint8 out[crypto_shorthash_siphashx24_BYTES];

	Assert(len <= KEY_MAX_BYTES);
	memcpy(in, &units, sizeof(units));
	memcpy(in + sizeof(units), text, len);
	crypto_shorthash_siphashx24(out, in, sizeof(units) + len, plinth_limits_table->salt);
	memcpy(&key->high, out, sizeof(key->high));
	memcpy(&key->low, out + sizeof(key->high), sizeof(key->low));
	key->database = database;
	key->policy = policy;
}

void
plinth_limits_table_sets(const PlinthLimitKey *key, uint32 sets[2])
{
	sets[0] = ((key->high >> 32) * plinth_limits_table->nsets) >> 32;
	sets[1] = ((key->high & 0xffffffff) * plinth_limits_table->nsets) >> 32;
}

static bool
is_of(const PlinthLimitEntry *entry, const PlinthLimitKey *key)
{
	return entry->high == key->high && entry->low == key->low && entry->database == key->database &&
		   entry->policy == key->policy;
}

/* The entry of a key and its word as it was before the tags were read; NULL when not found. */
static PlinthLimitEntry *
find(const PlinthLimitKey *key, uint64 *word)
{
	uint32 sets[2];

	plinth_limits_table_sets(key, sets);
	for (int s = 0; s < 2; s++)
	{
		for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
		{
			PlinthLimitEntry *entry =
				&plinth_limits_table->sets[sets[s]].entries[(key->low + i) % PLINTH_LIMITS_WAYS];

			/* A wrong first look costs no more than the slow way. */
			if (entry->high != key->high)
				continue;
			*word = pg_atomic_read_u64(&entry->word);
			pg_read_barrier();
			if (*word != PLINTH_RATE_TAKEN && is_of(entry, key))
				return entry;
		}
	}
	return NULL;
}

/* Decides without a lock; false when the key is not there, or somebody has taken its word. */
static bool
decide_found(PlinthLimitRequest *request, int64 now)
{
	for (;;)
	{
		uint64 word;
		PlinthLimitEntry *entry = find(&request->key, &word);

		if (entry == NULL)
			return false;
		request->decision = plinth_rate_decide(request->rate, word, now, request->cost);
		if (request->decision.word != word)
		{
			if (pg_atomic_compare_exchange_u64(&entry->word, &word, request->decision.word))
				return true;
		}
		else
		{
			pg_read_barrier();
			if (pg_atomic_read_u64(&entry->word) == word)
				return true;
		}
	}
}

/* Locks partitions, which are sorted here; returns how many there are without doubles. */
static int
lock_partitions(uint32 *partitions, int n)
{
	int distinct = 0;

	for (int i = 1; i < n; i++)
	{
		uint32 partition = partitions[i];
		int j = i;

		for (; j > 0 && partitions[j - 1] > partition; j--)
			partitions[j] = partitions[j - 1];
		partitions[j] = partition;
	}
	for (int i = 0; i < n; i++)
	{
		if (distinct == 0 || partitions[distinct - 1] != partitions[i])
			partitions[distinct++] = partitions[i];
	}
	for (int i = 0; i < distinct; i++)
		LWLockAcquire(&plinth_limits_table_locks[partitions[i]].lock, LW_EXCLUSIVE);
	return distinct;
}

static void
unlock_partitions(const uint32 *partitions, int n)
{
	for (int i = n - 1; i >= 0; i--)
		LWLockRelease(&plinth_limits_table_locks[partitions[i]].lock);
}

static void
partitions_of(const PlinthLimitKey *key, uint32 partitions[2])
{
	plinth_limits_table_sets(key, partitions);
	partitions[0] %= PLINTH_LIMITS_PARTITIONS;
	partitions[1] %= PLINTH_LIMITS_PARTITIONS;
}

/* May the entry be given to another key?  Needs its partition's lock. */
static bool
is_idle(PlinthLimitEntry *entry, uint64 idle, uint32 second)
{
	uint64 word = pg_atomic_read_u64(&entry->word);

	/* One that this decision has taken itself is above idle. */
	return word < idle && entry->hold <= second;
}

/*
 * Takes an entry for a key that is not there: an empty one or the one that is
 * idle the longest, in the set that has more of them.  NULL when there is
 * none.  Needs the locks; the word is TAKEN afterwards.
 */
static PlinthLimitEntry *
claim(PlinthLimitRequest *request, int64 now)
{
	uint64 idle = plinth_rate_idle(now);
	uint32 second = now / USECS_PER_SEC;
	uint32 sets[2];

	plinth_limits_table_sets(&request->key, sets);
	for (;;)
	{
		PlinthLimitEntry *best = NULL;
		int most = 0;
		uint64 word;

		for (int s = 0; s < 2; s++)
		{
			PlinthLimitEntry *oldest = NULL;
			int n = 0;

			for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
			{
				PlinthLimitEntry *entry =
					&plinth_limits_table->sets[sets[s]]
						 .entries[(request->key.low + i) % PLINTH_LIMITS_WAYS];

				if (!is_idle(entry, idle, second))
					continue;
				n++;
				if (oldest == NULL ||
					pg_atomic_read_u64(&entry->word) < pg_atomic_read_u64(&oldest->word))
					oldest = entry;
			}
			if (n > most)
			{
				most = n;
				best = oldest;
			}
		}
		if (best == NULL)
			return NULL;

		/* Its key may have been used just now, without a lock. */
		word = pg_atomic_read_u64(&best->word);
		if (word >= idle || !pg_atomic_compare_exchange_u64(&best->word, &word, PLINTH_RATE_TAKEN))
			continue;
		request->evicted = OidIsValid(best->database);
		best->high = request->key.high;
		best->low = request->key.low;
		best->database = request->key.database;
		best->policy = request->key.policy;
		best->hold = 0;
		return best;
	}
}

/* Gives a word back that was taken. */
static void
give_back(PlinthLimitEntry *entry, uint64 word)
{
	pg_write_barrier();
	pg_atomic_write_u64(&entry->word, word);
}

static void
answer_full(PlinthLimitRequest *request)
{
	request->full = true;
	memset(&request->decision, 0, sizeof(request->decision));
	request->decision.allowed = request->allow_when_full;
	if (!request->allow_when_full)
		request->decision.retry_after = USECS_PER_SEC;
}

/* As for a key of which nothing is used. */
static void
decide_absent(PlinthLimitRequest *request, int64 now)
{
	request->decision = plinth_rate_decide(request->rate, plinth_rate_empty(request->rate, now),
										   now, request->cost);
}

void
plinth_limits_table_decide(PlinthLimitRequest *request, int64 now)
{
	uint32 partitions[2];
	int n;

	request->full = request->evicted = false;
	if (decide_found(request, now))
		return;

	partitions_of(&request->key, partitions);
	n = lock_partitions(partitions, 2);
	if (!decide_found(request, now))
	{
		PlinthLimitEntry *entry;

		if (request->cost == 0)
			decide_absent(request, now);
		else if ((entry = claim(request, now)) == NULL)
			answer_full(request);
		else
		{
			decide_absent(request, now);
			give_back(entry, request->decision.word);
		}
	}
	unlock_partitions(partitions, n);
}

/*
 * Takes the word of a key, which it brings in where it is not there and is to
 * be charged; NULL when it is not to be, or finds no place.  Needs the locks.
 */
static PlinthLimitEntry *
take(PlinthLimitRequest *request, int64 now, uint64 *word)
{
	PlinthLimitEntry *entry = find(&request->key, word);

	if (entry != NULL)
		*word = pg_atomic_exchange_u64(&entry->word, PLINTH_RATE_TAKEN);
	else
	{
		*word = plinth_rate_empty(request->rate, now);
		if (request->cost == 0)
			return NULL;
		entry = claim(request, now);
		request->full = entry == NULL;
	}
	return entry;
}

bool
plinth_limits_table_decide_all(PlinthLimitRequest *requests, int n, int64 now)
{
	uint32 partitions[2 * PLINTH_LIMITS_MAX_TOGETHER];
	PlinthLimitEntry *entries[PLINTH_LIMITS_MAX_TOGETHER];
	uint64 words[PLINTH_LIMITS_MAX_TOGETHER];
	bool allowed = true;
	int nlocks;

	Assert(n <= PLINTH_LIMITS_MAX_TOGETHER);
	for (int i = 0; i < n; i++)
	{
		requests[i].full = requests[i].evicted = false;
		partitions_of(&requests[i].key, &partitions[2 * i]);
	}
	nlocks = lock_partitions(partitions, 2 * n);
	for (int i = 0; i < n; i++)
	{
		entries[i] = take(&requests[i], now, &words[i]);
		if (requests[i].full)
			answer_full(&requests[i]);
		else
			requests[i].decision =
				plinth_rate_decide(requests[i].rate, words[i], now, requests[i].cost);
		allowed = allowed && (requests[i].decision.allowed || requests[i].shadow);
	}
	for (int i = 0; i < n; i++)
	{
		if (entries[i] != NULL)
			give_back(entries[i], allowed ? requests[i].decision.word : words[i]);
		if (!allowed && !requests[i].full && requests[i].decision.allowed)
		{
			/* It would have been: nothing was consumed. */
			requests[i].decision = plinth_rate_decide(requests[i].rate, words[i], now, 0);
			requests[i].decision.allowed = true;
			requests[i].decision.retry_after = 0;
		}
	}
	unlock_partitions(partitions, nlocks);
	return allowed;
}

bool
plinth_limits_table_reset(const PlinthLimitKey *key, const PlinthRate *rate, int64 now)
{
	uint32 partitions[2];
	bool used = false;
	uint64 word;
	PlinthLimitEntry *entry;
	int n;

	partitions_of(key, partitions);
	n = lock_partitions(partitions, 2);
	entry = find(key, &word);
	if (entry != NULL)
	{
		uint64 empty = plinth_rate_empty(rate, now);

		word = pg_atomic_exchange_u64(&entry->word, PLINTH_RATE_TAKEN);
		used = word > empty;
		if (used)
			entry->hold = Max(entry->hold, plinth_rate_idle_at(word));
		give_back(entry, Min(word, empty));
	}
	unlock_partitions(partitions, n);
	return used;
}

const uint8 *
plinth_limits_table_salt(void)
{
	return plinth_limits_table->salt;
}

void
plinth_limits_table_salt_set(const uint8 *salt)
{
	memcpy(plinth_limits_table->salt, salt, PLINTH_LIMITS_SALT_BYTES);
}

static uint32
number_of_sets(void)
{
	Size bytes = (Size) plinth_setting_limits_memory * 1024 / 2 - offsetof(PlinthLimitTable, sets);

	return Min(bytes * 15 / 16 / sizeof(PlinthLimitSet), PG_UINT32_MAX);
}

static Size
table_size(void)
{
	return add_size(offsetof(PlinthLimitTable, sets),
					mul_size(number_of_sets(), sizeof(PlinthLimitSet)));
}

static void
table_init(void *ptr)
{
	PlinthLimitTable *new = ptr;

	memset(ptr, 0, table_size());
	plinth_limits_table = new;
	new->nsets = number_of_sets();
	randombytes_buf(new->salt, sizeof(new->salt));
	for (uint32 s = 0; s < new->nsets; s++)
	{
		for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
			pg_atomic_init_u64(&new->sets[s].entries[i].word, 0);
	}
	plinth_limits_save_load();
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth rate limits",
	.size = table_size,
	.init = table_init,
	.pointer = (void **) &plinth_limits_table,
	.lwlocks = PLINTH_LIMITS_PARTITIONS,
	.locks = &plinth_limits_table_locks,
};

static void
purge_database(Oid database)
{
	plinth_limits_table_purge(database, PLINTH_LIMITS_ALL);
}

void
plinth_limits_table_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
	plinth_base_database_on_purge(purge_database);
}
