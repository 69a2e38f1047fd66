/*
 * save.c
 *		Keeps rate limits over a restart: a file of all keys in use.
 *
 * Written by the postmaster as the server stops, when nobody else runs, and
 * every plinth.limits_save_interval by the launcher, which runs on a standby
 * too.  So a clean restart forgets nothing, and a crash what was admitted since
 * the last save.  The postmaster takes no lock: after an immediate stop, which
 * it does not tell from another, somebody may have died with it; if also in
 * the middle of a change, the file that is there is left as it is.  What stands in the file is also a state that
 * never was: each key as of the moment it was copied; nothing relates two keys.
 *
 * The file is written beside its place, flushed, and renamed, so that there is
 * always a whole one; a checksum tells one that is not.  A broken file, or one
 * of another version, is ignored, with a message: all keys then have all of
 * their limit.  So is one by a clock that was beyond the time that limits have:
 * going on from there, it would stand still.  It lies where PostgreSQL keeps its statistics: a base backup
 * has it, so a standby begins with what its primary had counted.
 *
 * The salt of the hashes is kept with them.  Entries are put back where the
 * table's present size has them.
 */
#include "postgres.h"

#include <unistd.h>

#include "base/base.h"
#include "limits/internal.h"
#include "limits/table.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "worker/worker.h"

#define SAVE_FILE "pg_stat/plinth_limits.stat"
#define SAVE_TEMP SAVE_FILE ".tmp"
#define SAVE_MAGIC 0x504c524c
#define SAVE_VERSION 1

typedef struct SaveHeader
{
	uint32 magic;
	uint32 version;
	uint8 salt[PLINTH_LIMITS_SALT_BYTES];
	int64 time;
	int64 n;
	pg_crc32c crc; /* of what is before it and all entries */
	uint32 unused;
} SaveHeader;

/* What this process has saved last. */
static pg_crc32c last_crc;
static int64 last_n = -1;
static int64 next_save = 0;

/* Somebody was killed in the middle of a change. */
static bool torn = false;

static PlinthLimitSaved *
make_buffer(void)
{
	return palloc_extended(plinth_limits_table_copy_max() * sizeof(PlinthLimitSaved),
						   MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE);
}

/* Goes over all that is in use, into a file or just to see whether it has changed. */
static bool
put_entries(FILE *file, PlinthLimitSaved *buffer, int64 now, pg_crc32c *crc, int64 *n)
{
	bool alone = !IsUnderPostmaster;

	*n = 0;
	for (int p = 0; p < PLINTH_LIMITS_PARTITIONS; p++)
	{
		int64 some = plinth_limits_table_copy(p, buffer, now, alone);

		if (some < 0)
		{
			torn = true;
			return false;
		}
		COMP_CRC32C(*crc, buffer, some * sizeof(PlinthLimitSaved));
		*n += some;
		if (file != NULL && fwrite(buffer, sizeof(PlinthLimitSaved), some, file) != some)
			return false;
	}
	return true;
}

static bool
write_file(FILE *file, PlinthLimitSaved *buffer, int64 now)
{
	SaveHeader header;
	pg_crc32c entries;

	memset(&header, 0, sizeof(header));
	header.magic = SAVE_MAGIC;
	header.version = SAVE_VERSION;
	memcpy(header.salt, plinth_limits_table_salt(), sizeof(header.salt));
	header.time = now;

	/* The header comes first and is known last. */
	INIT_CRC32C(entries);
	if (fwrite(&header, sizeof(header), 1, file) != 1 ||
		!put_entries(file, buffer, now, &entries, &header.n))
		return false;
	last_crc = entries;
	last_n = header.n;
	COMP_CRC32C(entries, &header, offsetof(SaveHeader, crc));
	FIN_CRC32C(entries);
	header.crc = entries;
	return fseek(file, 0, SEEK_SET) == 0 && fwrite(&header, sizeof(header), 1, file) == 1 &&
		   fflush(file) == 0;
}

/* Writes the file; a failure is told, and no more. */
static void
save(PlinthLimitSaved *buffer)
{
	FILE *file = AllocateFile(SAVE_TEMP, PG_BINARY_W);
	bool ok;

	last_n = -1;
	if (file == NULL)
	{
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not create file \"%s\": %m", SAVE_TEMP)));
		return;
	}
	ok = write_file(file, buffer, plinth_limits_now());
	if (!ok && !torn)
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not write file \"%s\": %m", SAVE_TEMP)));
	ok = FreeFile(file) == 0 && ok;
	if (!ok || durable_rename(SAVE_TEMP, SAVE_FILE, LOG) != 0)
	{
		last_n = -1;
		(void) unlink(SAVE_TEMP);
	}
}

static void
save_at_exit(int code, Datum arg)
{
	PlinthLimitSaved *buffer;

	/* After a crash shared memory is not to be believed. */
	if (code != 0 || (buffer = make_buffer()) == NULL)
		return;
	save(buffer);
	pfree(buffer);
}

static bool
has_changed(PlinthLimitSaved *buffer)
{
	pg_crc32c crc;
	int64 n;

	if (last_n < 0)
		return true;
	INIT_CRC32C(crc);
	(void) put_entries(NULL, buffer, plinth_limits_now(), &crc, &n);
	return n != last_n || !EQ_CRC32C(crc, last_crc);
}

/* In the launcher: saves when it is time; returns for how long it is not. */
static long
save_now_and_then(void)
{
	int64 interval = (int64) plinth_setting_limits_save_interval * 1000;
	int64 now = plinth_limits_now();

	/* The setting may have become shorter. */
	if (next_save <= now || next_save > now + interval)
	{
		PlinthLimitSaved *buffer = make_buffer();

		if (buffer == NULL)
			ereport(LOG, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory"),
						  errdetail("Rate limits could not be saved.")));
		else
		{
			if (has_changed(buffer))
				save(buffer);
			pfree(buffer);
		}
		now = plinth_limits_now();
		next_save = now + interval;
	}
	return (next_save - now) / 1000 + 1;
}

/* Reads all entries, to check them or to put them in; false when they do not end as they should. */
static bool
read_entries(FILE *file, const SaveHeader *header, int64 now)
{
	pg_crc32c crc;
	PlinthLimitSaved saved;

	INIT_CRC32C(crc);
	if (fseek(file, sizeof(SaveHeader), SEEK_SET) != 0)
		return false;
	for (int64 i = 0; i < header->n; i++)
	{
		if (fread(&saved, sizeof(saved), 1, file) != 1)
			return false;
		COMP_CRC32C(crc, &saved, sizeof(saved));
		if (now > 0)
			plinth_limits_table_put(&saved, now);
	}
	COMP_CRC32C(crc, header, offsetof(SaveHeader, crc));
	FIN_CRC32C(crc);
	return EQ_CRC32C(crc, header->crc) && fgetc(file) == EOF;
}

void
plinth_limits_save_load(void)
{
	FILE *file;
	SaveHeader header;

	if (IsUnderPostmaster)
		return;
	on_shmem_exit(save_at_exit, (Datum) 0);
	file = AllocateFile(SAVE_FILE, PG_BINARY_R);
	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG, (errcode_for_file_access(),
						  errmsg("could not open file \"%s\": %m", SAVE_FILE)));
		return;
	}
	if (fread(&header, sizeof(header), 1, file) != 1 || header.magic != SAVE_MAGIC ||
		header.version != SAVE_VERSION || header.n < 0 || !read_entries(file, &header, 0))
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
					  errmsg("ignoring file \"%s\", which is not whole", SAVE_FILE),
					  errdetail("Rate limits begin anew.")));
	else if (header.time > PLINTH_RATE_TIME_MAX)
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
					  errmsg("ignoring file \"%s\", whose time is out of bounds", SAVE_FILE),
					  errdetail("Rate limits begin anew.")));
	else
	{
		plinth_limits_table_salt_set(header.salt);
		plinth_limits_clock_not_before(header.time);
		(void) read_entries(file, &header, plinth_limits_now());
	}
	FreeFile(file);
}

void
plinth_limits_save_init(void)
{
	plinth_worker_on_tick(save_now_and_then);
}
