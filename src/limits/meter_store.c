/*
 * meter_store.c
 *		What was counted and is not in the table yet, in shared memory.
 *
 * Memory is divided into partitions, each with its LWLock, buckets and cells.
 * A cell is an entry (one key, or one dimension of a key, of a meter), a slot of
 * an entry (one period from its start on), or text of an entry.  A key and its
 * dimensions lie in one partition, so that a decision over all their periods
 * is one step under one lock.
 *
 * A slot's amounts:
 *		base		what the table has, where it is known (epoch is that of
 *					the definition): only deciding needs it
 *		in_flight	what transaction xid is about to write
 *		pending		the rest
 * Each amount is in exactly one of these at any time.  A flush moves pending
 * to in_flight (take); when its transaction commits, in_flight goes to base
 * (written), and when it does not, back to pending (taken_back).  Both run as
 * callbacks of that very transaction, where PostgreSQL lets nothing come in
 * between; a crash in between loses the memory with the question.  While
 * in_flight is not 0 no other flush touches the slot.
 *
 * The partition's version moves with take, written and taken_back.  Who reads
 * the table between two looks that show the same version knows for each slot
 * whether the row it has read includes what is in flight: by whether its
 * snapshot sees xid.  See meter_read.c.
 *
 * Entries of which nothing is pending or in flight only save reading the
 * table; they are thrown out when their memory is needed.  Nothing else ever is.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "common/int.h"
#include "crypto/crypto.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "limits/meter_cells.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

MeterShared *plinth_limits_meter_shared = NULL;
LWLockPadded *plinth_limits_meter_locks = NULL;

static uint32
places_by_settings(void)
{
	/* 3/16 of plinth.limits_memory, and a bucket for four cells. */
	Size memory = (Size) plinth_setting_limits_memory * 1024 / 16 * 3;

	return Max(memory / METER_PARTITIONS / (sizeof(MeterCell) + sizeof(uint32) / 4), 64);
}

static Size
places_size(uint32 places)
{
	return MAXALIGN(
		add_size(mul_size(places, sizeof(MeterCell)), mul_size(places / 4, sizeof(uint32))));
}

static Size
store_size(void)
{
	return add_size(MAXALIGN(sizeof(MeterShared)),
					mul_size(METER_PARTITIONS, places_size(places_by_settings())));
}

MeterPart
plinth_limits_meter_part(int index)
{
	MeterShared *shared = plinth_limits_meter_shared;
	char *base = (char *) shared + MAXALIGN(sizeof(MeterShared)) +
				 (Size) index * places_size(shared->places);
	MeterPart part;

	part.lock = &plinth_limits_meter_locks[index].lock;
	part.head = &shared->partitions[index];
	part.cells = (MeterCell *) base;
	part.buckets = (uint32 *) (base + (Size) shared->places * sizeof(MeterCell));
	part.nbuckets = shared->places / 4;
	return part;
}

static void
store_fill(void *ptr)
{
	MeterShared *shared = ptr;

	memset(ptr, 0, store_size());
	plinth_limits_meter_shared = shared;
	shared->places = places_by_settings();
	plinth_crypto_random(&shared->seed, sizeof(shared->seed));
	pg_atomic_init_u32(&shared->pressed, 0);
	for (int i = 0; i < METER_COUNTERS; i++)
	{
		pg_atomic_init_u64(&shared->counters[i].adds, 0);
		pg_atomic_init_u64(&shared->counters[i].denied, 0);
		pg_atomic_init_u64(&shared->counters[i].full, 0);
	}
	for (int p = 0; p < METER_PARTITIONS; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);

		for (uint32 i = 0; i < part.nbuckets; i++)
			part.buckets[i] = METER_NONE;
		for (uint32 i = 0; i < shared->places; i++)
			part.cells[i].slot.next = i + 1 < shared->places ? i + 1 : METER_NONE;
		part.head->nfree = shared->places;
	}
	plinth_limits_meter_save_load();
}

/* -------------------------------------------------------------------------
 * Cells
 * -------------------------------------------------------------------------
 */
static uint32
text_cells(int len)
{
	return (len + METER_TEXT - 1) / METER_TEXT;
}

static uint32
take_cell(const MeterPart *part)
{
	uint32 index = part->head->free;

	Assert(part->head->nfree > 0);
	part->head->free = part->cells[index].slot.next;
	part->head->nfree--;
	return index;
}

static void
free_cells(const MeterPart *part, uint32 index)
{
	while (index != METER_NONE)
	{
		uint32 next = part->cells[index].slot.next;

		part->cells[index].slot.next = part->head->free;
		part->head->free = index;
		part->head->nfree++;
		index = next;
	}
}

void
plinth_limits_meter_text(const MeterPart *part, const MeterEntry *entry, char *text)
{
	int left = entry->keylen + entry->dimlen;

	for (uint32 i = entry->text; i != METER_NONE; i = part->cells[i].text.next)
	{
		memcpy(text, part->cells[i].text.data, Min(left, METER_TEXT));
		text += METER_TEXT;
		left -= METER_TEXT;
	}
}

static bool
same_text(const MeterPart *part, const MeterEntry *entry, const MeterName *name)
{
	char text[PLINTH_METER_MAX_KEY + PLINTH_METER_MAX_DIMENSION];

	if (entry->keylen != name->keylen || entry->dimlen != name->dimlen)
		return false;
	plinth_limits_meter_text(part, entry, text);
	return memcmp(text, name->key, name->keylen) == 0 &&
		   memcmp(text + name->keylen, name->dimension, name->dimlen) == 0;
}

/* What lies in which partition and bucket: the key decides on both, its dimensions lie beside it. */
static uint32
hash_name(const MeterName *name)
{
	uint64 seed =
		plinth_limits_meter_shared->seed ^ ((uint64) name->database << 32) ^ (uint64) name->meter;

	return (uint32) (hash_bytes_extended((const unsigned char *) name->key, name->keylen, seed));
}

static uint32 *
bucket_of(const MeterPart *part, uint32 hash)
{
	return &part->buckets[hash / METER_PARTITIONS % part->nbuckets];
}

static MeterEntry *
find_entry(const MeterPart *part, const MeterName *name, uint32 hash)
{
	for (uint32 i = *bucket_of(part, hash); i != METER_NONE; i = part->cells[i].entry.next)
	{
		MeterEntry *entry = &part->cells[i].entry;

		if (entry->hash == hash && entry->database == name->database &&
			entry->extension == name->extension && entry->meter == name->meter &&
			same_text(part, entry, name))
			return entry;
	}
	return NULL;
}

static bool
is_clean(const MeterPart *part, const MeterEntry *entry)
{
	for (uint32 i = entry->slots; i != METER_NONE; i = part->cells[i].slot.next)
	{
		if (part->cells[i].slot.pending != 0 || part->cells[i].slot.in_flight != 0)
			return false;
	}
	return true;
}

/* Throws out entries of which everything is in the table, or all of a database. */
void
plinth_limits_meter_evict(const MeterPart *part, Oid database)
{
	for (uint32 b = 0; b < part->nbuckets; b++)
	{
		uint32 *link = &part->buckets[b];

		while (*link != METER_NONE)
		{
			MeterEntry *entry = &part->cells[*link].entry;
			uint32 index = *link;

			if (OidIsValid(database) ? entry->database != database : !is_clean(part, entry))
			{
				link = &entry->next;
				continue;
			}
			*link = entry->next;
			free_cells(part, entry->slots);
			free_cells(part, entry->text);
			entry->next = METER_NONE;
			free_cells(part, index);
		}
	}
}

static void
put_text(const MeterPart *part, MeterEntry *entry, const MeterName *name)
{
	char text[PLINTH_METER_MAX_KEY + PLINTH_METER_MAX_DIMENSION];
	uint32 *link = &entry->text;
	int len = name->keylen + name->dimlen;

	memcpy(text, name->key, name->keylen);
	memcpy(text + name->keylen, name->dimension, name->dimlen);
	for (int done = 0; done < len; done += METER_TEXT)
	{
		*link = take_cell(part);
		memcpy(part->cells[*link].text.data, text + done, Min(len - done, METER_TEXT));
		link = &part->cells[*link].text.next;
	}
	*link = METER_NONE;
}

/* The entry of a name, made where there is none; the caller has seen that there is room. */
static MeterEntry *
ensure_entry(const MeterPart *part, const MeterName *name, uint32 hash, int scale)
{
	MeterEntry *entry = find_entry(part, name, hash);
	uint32 *bucket = bucket_of(part, hash);
	uint32 index;

	if (entry != NULL)
		return entry;
	index = take_cell(part);
	entry = &part->cells[index].entry;
	memset(entry, 0, sizeof(*entry));
	entry->hash = hash;
	entry->database = name->database;
	entry->extension = name->extension;
	entry->meter = name->meter;
	entry->keylen = name->keylen;
	entry->dimlen = name->dimlen;
	entry->scale = scale;
	entry->slots = METER_NONE;
	put_text(part, entry, name);
	entry->next = *bucket;
	*bucket = index;
	return entry;
}

/* The slot of a period: as it is, or one of the same period that is clean, or a new one. */
static MeterSlot *
ensure_slot(const MeterPart *part, MeterEntry *entry, PlinthMeterPeriod period, TimestampTz start)
{
	MeterSlot *slot = NULL;

	for (uint32 i = entry->slots; i != METER_NONE; i = part->cells[i].slot.next)
	{
		MeterSlot *other = &part->cells[i].slot;

		if (other->period != period)
			continue;
		if (other->start == start)
			return other;
		if (other->pending == 0 && other->in_flight == 0)
			slot = other;
	}
	if (slot == NULL)
	{
		uint32 index = take_cell(part);

		slot = &part->cells[index].slot;
		memset(slot, 0, sizeof(*slot));
		slot->next = entry->slots;
		entry->slots = index;
	}
	slot->period = period;
	slot->start = start;
	slot->epoch = 0;
	return slot;
}

/* Has a name its slots for all these periods already? */
static bool
has_slots(const MeterPart *part, const MeterName *name, uint32 hash, const bool *periods,
		  const TimestampTz *starts)
{
	const MeterEntry *entry = find_entry(part, name, hash);
	int missing = 0;

	if (entry == NULL)
		return false;
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
		missing += periods[p];
	for (uint32 i = entry->slots; i != METER_NONE; i = part->cells[i].slot.next)
	{
		const MeterSlot *slot = &part->cells[i].slot;

		if (periods[slot->period] && slot->start == starts[slot->period])
			missing--;
	}
	return missing == 0;
}

/* Room for all that one call may need, if need be by throwing out what is clean. */
static bool
ensure_room(const MeterPart *part, const MeterName *names, int n)
{
	uint32 need = 0;

	for (int i = 0; i < n; i++)
		need += 1 + text_cells(names[i].keylen + names[i].dimlen) + PLINTH_METER_PERIODS;
	if (part->head->nfree < need)
		plinth_limits_meter_evict(part, InvalidOid);
	return part->head->nfree >= need;
}

/* -------------------------------------------------------------------------
 * Counting
 * -------------------------------------------------------------------------
 */
/* The names under which an amount is kept: the key's, and the dimension's. */
static int
make_names(int64 meter, const PlinthMeterKey *key, MeterName names[2])
{
	for (int i = 0; i < 2; i++)
	{
		names[i].database = MyDatabaseId;
		names[i].extension = plinth_base_extension_oid();
		names[i].meter = meter;
		names[i].key = key->key;
		names[i].keylen = key->keylen;
		names[i].dimension = i == 0 ? "" : key->dimension;
		names[i].dimlen = i == 0 ? 0 : key->dimlen;
	}
	return key->dimension != NULL ? 2 : 1;
}

/* Brings what was loaded into the slot, and says what is used; false when it is not known. */
static bool
know_use(const PlinthMeter *meter, const MeterPart *part, MeterSlot *slot,
		 const PlinthMeterBases *bases, PlinthMeterUse *use)
{
	int p = slot->period;
	int64 unflushed = slot->pending + slot->in_flight;
	int64 base;

	if (!meter->has_quota[p])
	{
		use->used[p] = 0;
		use->soft[p] = use->hard[p] = PLINTH_METER_NO_QUOTA;
		return true;
	}
	if (slot->epoch != 0 && slot->epoch == meter->epoch)
		base = slot->base;
	else
	{
		if (bases == NULL || !bases->loaded || bases->version != part->head->version ||
			bases->start[p] != slot->start)
			return false;
		base = slot->base = bases->base[p];
		slot->soft = bases->soft[p];
		slot->hard = bases->hard[p];
		slot->epoch = bases->exact[p] ? meter->epoch : 0;
	}
	use->soft[p] = slot->soft;
	use->hard[p] = slot->hard;
	if (pg_add_s64_overflow(base, unflushed, &use->used[p]))
		use->used[p] = base > 0 ? PG_INT64_MAX : PG_INT64_MIN;
	return true;
}

bool
plinth_limits_meter_exceeds(int64 used, int64 amount, int64 quota)
{
	int64 sum;

	return quota != PLINTH_METER_NO_QUOTA &&
		   (pg_add_s64_overflow(used, amount, &sum) ? used > 0 : sum > quota);
}

static PlinthMeterOutcome
count_locked(const PlinthMeter *meter, const MeterPart *part, const MeterName *names, int n,
			 int64 amount, PlinthMeterUse *use, const PlinthMeterBases *bases)
{
	MeterSlot *slots[2][PLINTH_METER_PERIODS];
	uint32 hash = hash_name(&names[0]);

	if (!ensure_room(part, names, n))
	{
		for (int i = 0; i < n; i++)
		{
			if (!has_slots(part, &names[i], hash, meter->has, meter->bounds.start))
				return PLINTH_METER_FULL;
		}
	}
	for (int i = 0; i < n; i++)
	{
		MeterEntry *entry = ensure_entry(part, &names[i], hash, meter->scale);

		for (int p = 0; p < PLINTH_METER_PERIODS; p++)
		{
			int64 sum;

			slots[i][p] =
				meter->has[p] ? ensure_slot(part, entry, p, meter->bounds.start[p]) : NULL;
			if (slots[i][p] == NULL)
				continue;
			/* Also with what is in flight, which may come back. */
			if (pg_add_s64_overflow(slots[i][p]->pending, amount, &sum) ||
				pg_add_s64_overflow(sum, slots[i][p]->in_flight, &sum))
				return PLINTH_METER_TOO_LARGE;
			if (use != NULL && i == 0 && !know_use(meter, part, slots[i][p], bases, use))
				return PLINTH_METER_NOT_KNOWN;
		}
	}
	for (int p = 0; use != NULL && p < PLINTH_METER_PERIODS; p++)
	{
		if (meter->has[p] && plinth_limits_meter_exceeds(use->used[p], amount, use->hard[p]))
			return PLINTH_METER_EXCEEDED;
	}
	for (int i = 0; i < n; i++)
	{
		for (int p = 0; p < PLINTH_METER_PERIODS; p++)
		{
			if (slots[i][p] != NULL)
				slots[i][p]->pending += amount;
		}
	}
	return PLINTH_METER_COUNTED;
}

PlinthMeterOutcome
plinth_limits_meter_count(const PlinthMeter *meter, const PlinthMeterKey *key, int64 amount,
						  PlinthMeterUse *use, const PlinthMeterBases *bases)
{
	MeterName names[2];
	int n = make_names(meter->id, key, names);
	MeterPart part = plinth_limits_meter_part(hash_name(&names[0]) % METER_PARTITIONS);
	PlinthMeterOutcome outcome;
	TimestampTz now;

	/* The time is taken under the lock, so that no amount goes to a period that is over for others. */
	LWLockAcquire(part.lock, LW_EXCLUSIVE);
	now = GetCurrentTimestamp();
	if (now < meter->bounds.valid_from || now >= meter->bounds.valid_until)
		outcome = PLINTH_METER_NOT_NOW;
	else
		outcome = count_locked(meter, &part, names, n, amount, use, bases);
	LWLockRelease(part.lock);
	return outcome;
}

int
plinth_limits_meter_pending(int64 meter, const PlinthMeterKey *key, PlinthMeterPending *list,
							int max, uint64 *version)
{
	MeterName names[2];
	int last = make_names(meter, key, names) - 1;
	uint32 hash = hash_name(&names[0]);
	MeterPart part = plinth_limits_meter_part(hash % METER_PARTITIONS);
	MeterEntry *entry;
	int n = 0;

	LWLockAcquire(part.lock, LW_SHARED);
	*version = part.head->version;
	entry = find_entry(&part, &names[last], hash);
	for (uint32 i = entry != NULL ? entry->slots : METER_NONE; i != METER_NONE;
		 i = part.cells[i].slot.next)
	{
		const MeterSlot *slot = &part.cells[i].slot;

		if (slot->pending == 0 && slot->in_flight == 0)
			continue;
		if (n < max)
		{
			list[n].period = slot->period;
			list[n].start = slot->start;
			list[n].pending = slot->pending;
			list[n].in_flight = slot->in_flight;
			list[n].xid = slot->xid;
		}
		n++;
	}
	LWLockRelease(part.lock);
	return n;
}

bool
plinth_limits_meter_restore(const PlinthMeterSaved *saved, const char *text)
{
	MeterName name;
	uint32 hash;
	MeterPart part;
	MeterSlot *slot;

	name.database = saved->database;
	name.extension = saved->extension;
	name.meter = saved->meter;
	name.key = text;
	name.keylen = saved->keylen;
	name.dimension = text + saved->keylen;
	name.dimlen = saved->dimlen;
	hash = hash_name(&name);
	part = plinth_limits_meter_part(hash % METER_PARTITIONS);
	if (!ensure_room(&part, &name, 1))
		return false;
	slot = ensure_slot(&part, ensure_entry(&part, &name, hash, saved->scale), saved->period,
					   saved->start);
	slot->pending += saved->amount;
	return true;
}

static void
purge_database(Oid database)
{
	for (int p = 0; p < METER_PARTITIONS; p++)
	{
		MeterPart part = plinth_limits_meter_part(p);

		LWLockAcquire(part.lock, LW_EXCLUSIVE);
		plinth_limits_meter_evict(&part, database);
		LWLockRelease(part.lock);
	}
	plinth_limits_meter_counters_purge(database);
}

static const PlinthShmemPart store_part = {
	.name = "plinth_meters",
	.size = store_size,
	.init = store_fill,
	.pointer = (void **) &plinth_limits_meter_shared,
	.lwlocks = METER_PARTITIONS + 1,
	.locks = &plinth_limits_meter_locks,
};

void
plinth_limits_meter_store_init(void)
{
	plinth_base_shmem_declare(&store_part);
	plinth_base_database_on_purge(purge_database);
}
