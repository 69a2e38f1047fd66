/*
 * table_scan.c
 *		What goes over all of the table of keys: forgetting, counting, saving.
 *
 * Partition by partition, each under its lock, so that nobody's word is taken
 * and tags stand still; words go on changing.
 */
#include "postgres.h"

#include "base/base.h"
#include "limits/internal.h"
#include "limits/table_int.h"

void
plinth_limits_table_purge(Oid database, int64 policy)
{
	if (plinth_limits_table == NULL || !OidIsValid(database))
		return;
	for (int p = 0; p < PLINTH_LIMITS_PARTITIONS; p++)
	{
		LWLockAcquire(&plinth_limits_table_locks[p].lock, LW_EXCLUSIVE);
		for (uint32 s = p; s < plinth_limits_table->nsets; s += PLINTH_LIMITS_PARTITIONS)
		{
			for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
			{
				PlinthLimitEntry *entry = &plinth_limits_table->sets[s].entries[i];
				uint64 word;

				if (entry->database != database || !plinth_limits_is_among(entry->policy, policy))
					continue;
				word = pg_atomic_exchange_u64(&entry->word, PLINTH_RATE_TAKEN);
				entry->database = InvalidOid;
				entry->policy = 0;
				entry->high = 0;
				entry->low = 0;
				pg_write_barrier();
				pg_atomic_write_u64(&entry->word, word);
			}
		}
		LWLockRelease(&plinth_limits_table_locks[p].lock);
	}
	plinth_limits_count_purge(database, policy);
}

void
plinth_limits_table_visit(Oid database, int64 now, PlinthLimitVisit visit, void *arg)
{
	uint64 idle = plinth_rate_idle(now);

	for (int p = 0; p < PLINTH_LIMITS_PARTITIONS; p++)
	{
		LWLockAcquire(&plinth_limits_table_locks[p].lock, LW_SHARED);
		for (uint32 s = p; s < plinth_limits_table->nsets; s += PLINTH_LIMITS_PARTITIONS)
		{
			for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
			{
				PlinthLimitEntry *entry = &plinth_limits_table->sets[s].entries[i];

				if (entry->database == database && pg_atomic_read_u64(&entry->word) > idle)
					visit(arg, entry->policy);
			}
		}
		LWLockRelease(&plinth_limits_table_locks[p].lock);
	}
}

int64
plinth_limits_table_copy_max(void)
{
	return (int64) (plinth_limits_table->nsets / PLINTH_LIMITS_PARTITIONS + 1) * PLINTH_LIMITS_WAYS;
}

int64
plinth_limits_table_copy(int partition, PlinthLimitSaved *array, int64 now, bool alone)
{
	uint64 idle = plinth_rate_idle(now);
	bool whole = true;
	int64 n = 0;

	if (!alone)
		LWLockAcquire(&plinth_limits_table_locks[partition].lock, LW_SHARED);
	for (uint32 s = partition; s < plinth_limits_table->nsets; s += PLINTH_LIMITS_PARTITIONS)
	{
		for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
		{
			PlinthLimitEntry *entry = &plinth_limits_table->sets[s].entries[i];
			uint64 word = pg_atomic_read_u64(&entry->word);

			whole = whole && word != PLINTH_RATE_TAKEN;
			if (!OidIsValid(entry->database) || word < idle)
				continue;
			array[n++] = (PlinthLimitSaved){
				.word = word,
				.high = entry->high,
				.low = entry->low,
				.database = entry->database,
				.policy = entry->policy,
			};
		}
	}
	if (!alone)
		LWLockRelease(&plinth_limits_table_locks[partition].lock);
	return whole ? n : -1;
}

void
plinth_limits_table_put(const PlinthLimitSaved *saved, int64 now)
{
	PlinthLimitKey key = {saved->high, saved->low, saved->database, saved->policy};
	uint32 sets[2];

	if (saved->word < plinth_rate_idle(now))
		return;
	plinth_limits_table_sets(&key, sets);
	for (int s = 0; s < 2; s++)
	{
		for (int i = 0; i < PLINTH_LIMITS_WAYS; i++)
		{
			PlinthLimitEntry *entry =
				&plinth_limits_table->sets[sets[s]].entries[(key.low + i) % PLINTH_LIMITS_WAYS];

			if (OidIsValid(entry->database))
				continue;
			entry->high = key.high;
			entry->low = key.low;
			entry->database = key.database;
			entry->policy = key.policy;
			pg_atomic_write_u64(&entry->word, saved->word);
			return;
		}
	}
}
