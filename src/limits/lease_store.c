/*
 * lease_store.c
 *		Leases in shared memory: who holds how many of what.
 *
 * Memory is divided into partitions, each with its LWLock, buckets, groups and
 * leases of its own.  A group is one (database, extension, name, key); it lies
 * in the partition and bucket that a keyed hash of these says, is there while
 * at least one lease of it is, and has all of them in one list.  So counting
 * and taking are one step under one lock, and more than max_count are never
 * held at a time.
 *
 * A lease ends when it is given back, when its time is over, or, if bound to
 * the process that took it, when that process ends.  Leases whose time is over
 * stay in the list until somebody finds all taken or memory full; they count
 * for nothing then.  The end of a process is never missed: it leaves by
 * proc_exit, whose before_shmem_exit callbacks run on every ERROR, FATAL and
 * signal; or it crashes, and then all shared memory is made anew, which frees
 * every lease.
 *
 * An id holds the place of its lease, and is otherwise random, so that nobody
 * gives back, by chance or by guessing, what is somebody else's.
 */
#include "postgres.h"

#include "base/base.h"
#include "crypto/crypto.h"
#include "limits/internal.h"
#include "limits/lease.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"

#define PARTITIONS 16
/* The part of plinth.limits_memory that leases have. */
#define MEMORY_PART 16
#define HASH_BYTES 16
#define NONE PG_UINT32_MAX

typedef struct LeaseGroup
{
	uint8 hash[HASH_BYTES];
	Oid database;
	Oid extension;
	uint32 next; /* in its bucket, or in the list of free ones */
	uint32 first;
	uint32 count;
	char name[PLINTH_LEASE_LABEL];
	char key[PLINTH_LEASE_LABEL];
} LeaseGroup;

typedef struct Lease
{
	pg_uuid_t id;
	int64 expires_at;
	uint32 group; /* NONE: free */
	uint32 next;  /* in its group, or in the list of free ones */
	uint32 previous;
	int pid; /* that it is bound to, or 0 */
} Lease;

/* All indexes count within the partition. */
typedef struct LeasePartition
{
	uint32 free_group;
	uint32 free_lease;
} LeasePartition;

typedef struct LeaseShared
{
	uint8 secret[HASH_BYTES];
	uint32 places; /* groups, leases and buckets of each partition */
	LeasePartition partitions[PARTITIONS];
} LeaseShared;

static LeaseShared *shared = NULL;
static LWLockPadded *locks = NULL;

/* One partition's arrays. */
typedef struct Part
{
	LWLock *lock;
	LeasePartition *heads;
	uint32 *buckets;
	LeaseGroup *groups;
	Lease *leases;
} Part;

static uint32
places_by_settings(void)
{
	Size each = sizeof(LeaseGroup) + sizeof(Lease) + sizeof(uint32);
	Size memory = (Size) plinth_setting_limits_memory * 1024 / MEMORY_PART;

	return Max(memory / PARTITIONS / each, 4);
}

static Size
places_size(uint32 places)
{
	Size size = MAXALIGN(mul_size(places, sizeof(LeaseGroup)));

	size = add_size(size, mul_size(places, sizeof(Lease)));
	return MAXALIGN(add_size(size, mul_size(places, sizeof(uint32))));
}

static Part
part_at(int index)
{
	char *base = (char *) shared + MAXALIGN(sizeof(LeaseShared)) +
				 (Size) index * places_size(shared->places);
	Part part;

	part.lock = &locks[index].lock;
	part.heads = &shared->partitions[index];
	part.groups = (LeaseGroup *) base;
	part.leases = (Lease *) (base + MAXALIGN((Size) shared->places * sizeof(LeaseGroup)));
	part.buckets = (uint32 *) ((char *) part.leases + (Size) shared->places * sizeof(Lease));
	return part;
}

static Size
store_size(void)
{
	return add_size(MAXALIGN(sizeof(LeaseShared)),
					mul_size(PARTITIONS, places_size(places_by_settings())));
}

static void
store_fill(void *ptr)
{
	memset(ptr, 0, store_size());
	shared = ptr;
	shared->places = places_by_settings();
	plinth_crypto_random(shared->secret, sizeof(shared->secret));
	for (int p = 0; p < PARTITIONS; p++)
	{
		Part part = part_at(p);

		for (uint32 i = 0; i < shared->places; i++)
		{
			part.buckets[i] = NONE;
			part.leases[i].group = NONE;
			part.groups[i].next = part.leases[i].next = i + 1 < shared->places ? i + 1 : NONE;
		}
	}
}

/* Frees a group that no lease is left of. */
static void
remove_group(const Part *part, uint32 index)
{
	LeaseGroup *group = &part->groups[index];
	uint32 bucket;
	uint32 *link;

	memcpy(&bucket, group->hash, sizeof(bucket));
	link = &part->buckets[bucket % shared->places];
	while (*link != index)
		link = &part->groups[*link].next;
	*link = group->next;
	group->database = InvalidOid;
	group->next = part->heads->free_group;
	part->heads->free_group = index;
}

static void
remove_lease(const Part *part, uint32 index)
{
	Lease *lease = &part->leases[index];
	uint32 owner = lease->group;
	LeaseGroup *group = &part->groups[owner];

	if (lease->previous == NONE)
		group->first = lease->next;
	else
		part->leases[lease->previous].next = lease->next;
	if (lease->next != NONE)
		part->leases[lease->next].previous = lease->previous;
	lease->group = NONE;
	lease->next = part->heads->free_lease;
	part->heads->free_lease = index;
	if (--group->count == 0)
		remove_group(part, owner);
}

static uint32
find_group(const Part *part, const uint8 *hash, uint32 bucket)
{
	uint32 index = part->buckets[bucket];

	while (index != NONE && memcmp(part->groups[index].hash, hash, HASH_BYTES) != 0)
		index = part->groups[index].next;
	return index;
}

/* Removes what is over of all leases of the partition, and what extensions left that are older than this. */
static void
remove_useless(const Part *part, int64 now, Oid committed)
{
	for (uint32 i = 0; i < shared->places; i++)
	{
		const Lease *lease = &part->leases[i];
		const LeaseGroup *group;

		if (lease->group == NONE)
			continue;
		group = &part->groups[lease->group];
		if (lease->expires_at <= now || (group->database == MyDatabaseId &&
										 plinth_base_oid_is_older(group->extension, committed)))
			remove_lease(part, i);
	}
}

/* As above, of one group, which goes with its last lease. */
static void
remove_expired_of(const Part *part, uint32 group, int64 now)
{
	uint32 index = part->groups[group].first;

	while (index != NONE)
	{
		uint32 next = part->leases[index].next;

		if (part->leases[index].expires_at <= now)
			remove_lease(part, index);
		index = next;
	}
}

static void
hash_name(const PlinthLeaseName *name, Oid extension, uint8 hash[HASH_BYTES])
{
	Size namelen = strlen(name->name) + 1;
	Size keylen = strlen(name->key) + 1;
	Size fixed = HASH_BYTES + 2 * sizeof(Oid);
	char *input = palloc(fixed + namelen + keylen);
	uint8 full[PLINTH_HASH_BYTES];

	memcpy(input, shared->secret, HASH_BYTES);
	memcpy(input + HASH_BYTES, &MyDatabaseId, sizeof(Oid));
	memcpy(input + HASH_BYTES + sizeof(Oid), &extension, sizeof(Oid));
	memcpy(input + fixed, name->name, namelen);
	memcpy(input + fixed + namelen, name->key, keylen);
	plinth_crypto_hash(input, fixed + namelen + keylen, full);
	memcpy(hash, full, HASH_BYTES);
	pfree(input);
}

static void
copy_label(char *label, const char *text)
{
	int len = pg_mbcliplen(text, strlen(text), PLINTH_LEASE_LABEL - 1);

	memcpy(label, text, len);
	label[len] = '\0';
}

/* A new group at the head of its bucket. */
static uint32
add_group(const Part *part, const uint8 *hash, uint32 bucket, const PlinthLeaseName *name,
		  Oid extension)
{
	uint32 index = part->heads->free_group;
	LeaseGroup *group = &part->groups[index];

	part->heads->free_group = group->next;
	memcpy(group->hash, hash, HASH_BYTES);
	group->database = MyDatabaseId;
	group->extension = extension;
	group->first = NONE;
	group->count = 0;
	copy_label(group->name, name->name);
	copy_label(group->key, name->key);
	group->next = part->buckets[bucket];
	part->buckets[bucket] = index;
	return index;
}

static void
add_lease(const Part *part, uint32 group, int partition, int64 expires_at, bool bound,
		  pg_uuid_t *id)
{
	uint32 index = part->heads->free_lease;
	Lease *lease = &part->leases[index];
	uint32 place = pg_hton32((uint32) partition * shared->places + index);

	part->heads->free_lease = lease->next;
	/* Version 8 of RFC 9562: the place in front, the rest as it was drawn. */
	memcpy(id->data, &place, sizeof(place));
	id->data[6] = (id->data[6] & 0x0f) | 0x80;
	id->data[8] = (id->data[8] & 0x3f) | 0x80;
	lease->id = *id;
	lease->expires_at = expires_at;
	lease->pid = bound ? MyProcPid : 0;
	lease->group = group;
	lease->previous = NONE;
	lease->next = part->groups[group].first;
	if (lease->next != NONE)
		part->leases[lease->next].previous = index;
	part->groups[group].first = index;
	part->groups[group].count++;
}

/* committed: removes what is useless where there is no room; NULL: does not. */
static PlinthLeaseResult
take(const PlinthLeaseName *name, int64 max_count, int64 expires_at, bool bound,
	 const Oid *committed, pg_uuid_t *id)
{
	Oid extension = plinth_base_extension_oid();
	uint8 hash[HASH_BYTES];
	uint32 bucket;
	int partition;
	Part part;
	uint32 group;
	PlinthLeaseResult result = PLINTH_LEASE_TAKEN;

	hash_name(name, extension, hash);
	plinth_crypto_random(id->data, UUID_LEN);
	memcpy(&bucket, hash, sizeof(bucket));
	bucket %= shared->places;
	partition = hash[HASH_BYTES - 1] % PARTITIONS;
	part = part_at(partition);

	LWLockAcquire(part.lock, LW_EXCLUSIVE);
	group = find_group(&part, hash, bucket);
	if (group != NONE && part.groups[group].count >= max_count)
	{
		remove_expired_of(&part, group, plinth_limits_now());
		group = find_group(&part, hash, bucket);
	}
	if (group != NONE && part.groups[group].count >= max_count)
		result = PLINTH_LEASE_NONE_LEFT;
	else
	{
		if (part.heads->free_lease == NONE && committed != NULL)
		{
			remove_useless(&part, plinth_limits_now(), *committed);
			group = find_group(&part, hash, bucket);
		}
		if (part.heads->free_lease == NONE)
			result = PLINTH_LEASE_NO_MEMORY;
		/* There are as many groups as leases, so one is free when a lease is. */
		else if (group == NONE)
			group = add_group(&part, hash, bucket, name, extension);
		if (result == PLINTH_LEASE_TAKEN)
			add_lease(&part, group, partition, expires_at, bound, id);
	}
	LWLockRelease(part.lock);
	return result;
}

PlinthLeaseResult
plinth_limits_lease_take(const PlinthLeaseName *name, int64 max_count, int64 expires_at, bool bound,
						 pg_uuid_t *id)
{
	PlinthLeaseResult result = take(name, max_count, expires_at, bound, NULL, id);

	/* The catalog cannot be read under the lock, and is not worth it where there is room. */
	if (result == PLINTH_LEASE_NO_MEMORY)
	{
		Oid committed = plinth_base_extension_committed();

		result = take(name, max_count, expires_at, bound, &committed, id);
	}
	return result;
}

/* The lease with this id of this database; NONE, or with its partition locked. */
static uint32
find_lease(const pg_uuid_t *id, Part *part)
{
	uint32 place;
	uint32 index;

	memcpy(&place, id->data, sizeof(place));
	place = pg_ntoh32(place);
	if (place >= PARTITIONS * shared->places)
		return NONE;
	*part = part_at(place / shared->places);
	index = place % shared->places;
	LWLockAcquire(part->lock, LW_EXCLUSIVE);
	if (part->leases[index].group != NONE &&
		memcmp(&part->leases[index].id, id, sizeof(*id)) == 0 &&
		part->groups[part->leases[index].group].database == MyDatabaseId)
		return index;
	LWLockRelease(part->lock);
	return NONE;
}

bool
plinth_limits_lease_give(const pg_uuid_t *id)
{
	Part part;
	uint32 index = find_lease(id, &part);
	bool live;

	if (index == NONE)
		return false;
	live = part.leases[index].expires_at > plinth_limits_now();
	remove_lease(&part, index);
	LWLockRelease(part.lock);
	return live;
}

bool
plinth_limits_lease_extend(const pg_uuid_t *id, int64 expires_at)
{
	Part part;
	uint32 index = find_lease(id, &part);
	bool live;

	if (index == NONE)
		return false;
	live = part.leases[index].expires_at > plinth_limits_now();
	if (live)
		part.leases[index].expires_at = expires_at;
	LWLockRelease(part.lock);
	return live;
}

/* Removes leases by their process, or by their database where pid is 0. */
static void
remove_all(int pid, Oid database)
{
	for (int p = 0; p < PARTITIONS; p++)
	{
		Part part = part_at(p);

		LWLockAcquire(part.lock, LW_EXCLUSIVE);
		for (uint32 i = 0; i < shared->places; i++)
		{
			const Lease *lease = &part.leases[i];

			if (lease->group != NONE &&
				(pid != 0 ? lease->pid == pid : part.groups[lease->group].database == database))
				remove_lease(&part, i);
		}
		LWLockRelease(part.lock);
	}
}

void
plinth_limits_lease_give_bound(void)
{
	remove_all(MyProcPid, InvalidOid);
}

static void
purge_database(Oid database)
{
	remove_all(0, database);
}

PlinthLeaseStat *
plinth_limits_lease_list(int *n)
{
	Oid extension = plinth_base_extension_oid();
	int size = 64;
	PlinthLeaseStat *list = palloc(sizeof(*list) * size);

	*n = 0;
	for (int p = 0; p < PARTITIONS; p++)
	{
		Part part = part_at(p);
		int64 now = plinth_limits_now();

		/* Room for all there may be, since nothing is allocated under the lock. */
		if (size < *n + (int) shared->places)
		{
			size = (*n + shared->places) * 2;
			list = repalloc(list, sizeof(*list) * size);
		}
		LWLockAcquire(part.lock, LW_SHARED);
		for (uint32 g = 0; g < shared->places; g++)
		{
			const LeaseGroup *group = &part.groups[g];
			PlinthLeaseStat *stat = &list[*n];

			if (group->database != MyDatabaseId || group->extension != extension)
				continue;
			memcpy(stat->name, group->name, PLINTH_LEASE_LABEL);
			memcpy(stat->key, group->key, PLINTH_LEASE_LABEL);
			stat->held = 0;
			stat->first_expires_at = PLINTH_LEASE_NEVER;
			for (uint32 i = group->first; i != NONE; i = part.leases[i].next)
			{
				if (part.leases[i].expires_at <= now)
					continue;
				stat->held++;
				stat->first_expires_at = Min(stat->first_expires_at, part.leases[i].expires_at);
			}
			if (stat->held > 0)
				(*n)++;
		}
		LWLockRelease(part.lock);
	}
	return list;
}

static const PlinthShmemPart store_part = {
	.name = "plinth_leases",
	.size = store_size,
	.init = store_fill,
	.pointer = (void **) &shared,
	.lwlocks = PARTITIONS,
	.locks = &locks,
};

void
plinth_limits_lease_store_init(void)
{
	plinth_base_shmem_declare(&store_part);
	plinth_base_database_on_purge(purge_database);
}
