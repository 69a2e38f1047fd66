/*
 * meter_save.c
 *		Keeps over a clean stop what no flush has written.
 *
 * When the server stops, backends may count until the very end, after the
 * flushing service has left.  So the postmaster, which ends last, writes what
 * is pending to a file, and the next one reads it as it makes shared memory.
 * The file is removed before anything can be flushed, so that no amount is
 * counted twice: not by a crash later on, which then loses what it loses of
 * any memory.
 *
 * Only memory that was left in order is saved: the control file must say that
 * the server was shut down.  An immediate stop ends backends where they stand.
 * pg_upgrade's servers leave the file alone.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#define SAVE_FILE "pg_stat/plinth_meters.stat"
#define SAVE_TEMP SAVE_FILE ".tmp"
#define SAVE_MAGIC 0x504d5431

typedef struct SaveHeader
{
	uint32 magic;
	pg_crc32c crc; /* of all that follows the header */
	int64 n;
} SaveHeader;

typedef struct SaveState
{
	FILE *file;
	SaveHeader header;
} SaveState;

static bool
write_amount(const PlinthMeterSaved *saved, const char *text, void *arg)
{
	SaveState *state = arg;
	size_t len = saved->keylen + saved->dimlen;

	COMP_CRC32C(state->header.crc, saved, sizeof(*saved));
	COMP_CRC32C(state->header.crc, text, len);
	state->header.n++;
	return fwrite(saved, sizeof(*saved), 1, state->file) == 1 &&
		   fwrite(text, 1, len, state->file) == len;
}

static bool
write_file(FILE *file)
{
	SaveState state = {.file = file, .header = {.magic = SAVE_MAGIC, .n = 0}};

	INIT_CRC32C(state.header.crc);
	/* The header comes first and is known last. */
	if (fwrite(&state.header, sizeof(state.header), 1, file) != 1 ||
		!plinth_limits_meter_save_all(write_amount, &state))
		return false;
	FIN_CRC32C(state.header.crc);
	return fseek(file, 0, SEEK_SET) == 0 &&
		   fwrite(&state.header, sizeof(state.header), 1, file) == 1;
}

static bool
is_shut_down(void)
{
	bool crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool down =
		crc_ok && (control->state == DB_SHUTDOWNED || control->state == DB_SHUTDOWNED_IN_RECOVERY);

	pfree(control);
	return down;
}

static void
save_at_exit(int code, Datum arg)
{
	FILE *file;
	bool ok;

	if (code != 0 || IsBinaryUpgrade || !is_shut_down())
		return;
	file = AllocateFile(SAVE_TEMP, PG_BINARY_W);
	ok = file != NULL && write_file(file);
	ok = file != NULL && FreeFile(file) == 0 && ok;
	if (!ok)
		ereport(LOG,
				(errcode_for_file_access(), errmsg("could not write file \"%s\": %m", SAVE_TEMP),
				 errdetail("Usage that was counted and not flushed is lost.")));
	else if (durable_rename(SAVE_TEMP, SAVE_FILE, LOG) == 0)
		return;
	(void) unlink(SAVE_TEMP);
}

/* Reads all amounts, to check them or to count them; false when they are not as they were written. */
static bool
read_file(FILE *file, bool count, int64 *lost)
{
	SaveHeader header;
	PlinthMeterSaved saved;
	char text[PLINTH_METER_MAX_KEY + PLINTH_METER_MAX_DIMENSION];
	pg_crc32c crc;

	*lost = 0;
	INIT_CRC32C(crc);
	if (fseek(file, 0, SEEK_SET) != 0 || fread(&header, sizeof(header), 1, file) != 1 ||
		header.magic != SAVE_MAGIC)
		return false;
	for (int64 i = 0; i < header.n; i++)
	{
		size_t len;

		if (fread(&saved, sizeof(saved), 1, file) != 1 || saved.keylen < 0 ||
			saved.keylen > PLINTH_METER_MAX_KEY || saved.dimlen < 0 ||
			saved.dimlen > PLINTH_METER_MAX_DIMENSION)
			return false;
		len = saved.keylen + saved.dimlen;
		if (fread(text, 1, len, file) != len)
			return false;
		COMP_CRC32C(crc, &saved, sizeof(saved));
		COMP_CRC32C(crc, text, len);
		if (count && !plinth_limits_meter_restore(&saved, text))
			(*lost)++;
	}
	FIN_CRC32C(crc);
	return EQ_CRC32C(crc, header.crc) && fgetc(file) == EOF;
}

/*
 * A copy of a server that was stopped, which replays the WAL of the original:
 * that one has the same file, and flushes it.
 */
static bool
in_recovery(void)
{
	return access(STANDBY_SIGNAL_FILE, F_OK) == 0 || access(RECOVERY_SIGNAL_FILE, F_OK) == 0;
}

void
plinth_limits_meter_save_load(void)
{
	FILE *file;
	bool whole;
	int64 lost;

	if (IsUnderPostmaster || IsBinaryUpgrade)
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
	whole = read_file(file, false, &lost);
	if (!whole)
		ereport(LOG, (errcode(ERRCODE_DATA_CORRUPTED),
					  errmsg("ignoring file \"%s\", which is not whole", SAVE_FILE),
					  errdetail("Usage that was counted and not flushed is lost.")));
	/* What stays where it is would be counted again by the next start. */
	if (durable_unlink(SAVE_FILE, LOG) == 0 && whole && !in_recovery() &&
		read_file(file, true, &lost) && lost > 0)
		ereport(LOG, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					  errmsg("%lld amounts that were not flushed have no room and are lost",
							 (long long) lost),
					  errhint("\"plinth.limits_memory\" was larger at the last start.")));
	FreeFile(file);
}
