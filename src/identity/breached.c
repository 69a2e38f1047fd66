/*
 * breached.c
 *		plinth.breached_passwords_load: passwords that others know, from a file.
 *
 * A file may have a thousand million lines: they are read one by one and stored
 * in batches, each in memory of its own.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define BATCH 5000
#define KEPT_BYTES 10
#define HEX_DIGITS (2 * PLINTH_SHA1_BYTES)
#define MAX_LINE 128

static PlinthPlan insert_plan = {
	.sql = "INSERT INTO plinth.breached_passwords SELECT pg_catalog.unnest($1) "
		   "ON CONFLICT DO NOTHING",
	.nargs = 1,
	.argtypes = {BYTEAARRAYOID},
};

typedef struct Loader
{
	const char *path;
	FILE *file;
	int64 line;
	int64 min_count;
	int64 stored;
	int n;
	uint8 hashes[BATCH][KEPT_BYTES];
} Loader;

PGDLLEXPORT Datum plinth_identity_breached_load(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_breached_load);

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False when the line is of another form. */
static bool
take_line(Loader *loader, char *line, size_t len)
{
	uint8 hash[PLINTH_SHA1_BYTES];
	int64 count = PG_INT64_MAX;
	char *end;

	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
		line[--len] = '\0';
	if (len == 0)
		return true;
	if (len < HEX_DIGITS)
		return false;
	for (int i = 0; i < PLINTH_SHA1_BYTES; i++)
	{
		int high = hex_value(line[2 * i]);
		int low = hex_value(line[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		hash[i] = high << 4 | low;
	}
	if (len > HEX_DIGITS)
	{
		count = strtol(line + HEX_DIGITS + 1, &end, 10);
		if (line[HEX_DIGITS] != ':' || end == line + HEX_DIGITS + 1 || end != line + len ||
			count < 0)
			return false;
	}
	if (count >= loader->min_count)
		memcpy(loader->hashes[loader->n++], hash, KEPT_BYTES);
	return true;
}

static void
store_batch(Loader *loader)
{
	Datum *hashes = palloc(BATCH * sizeof(Datum));
	Datum value;
	PlinthAsOwner owner;

	for (int i = 0; i < loader->n; i++)
		hashes[i] =
			PointerGetDatum(cstring_to_text_with_len((const char *) loader->hashes[i], KEPT_BYTES));
	value = PointerGetDatum(construct_array(hashes, loader->n, BYTEAOID, -1, false, TYPALIGN_INT));
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&insert_plan, &value, NULL, false, SPI_OK_INSERT);
	loader->stored += SPI_processed;
	plinth_base_owner_end(&owner);
	SPI_finish();
	loader->n = 0;
}

/* True when there is more. */
static bool
read_batch(Loader *loader)
{
	char line[MAX_LINE];
	size_t len;

	while (loader->n < BATCH)
	{
		if (fgets(line, sizeof(line), loader->file) == NULL)
		{
			if (ferror(loader->file))
				ereport(ERROR, (errcode_for_file_access(),
								errmsg("could not read file \"%s\": %m", loader->path)));
			return false;
		}
		loader->line++;
		len = strlen(line);
		/* What does not end here is too long, or has a zero in it. */
		if ((len == 0 || line[len - 1] != '\n') && !feof(loader->file))
			len = 1;
		if (!take_line(loader, line, len))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("line " INT64_FORMAT " of file \"%s\" is not valid", loader->line,
							loader->path),
					 errdetail("A line has 40 hexadecimal digits, and a colon and a count or "
							   "nothing.")));
	}
	return true;
}

Datum
plinth_identity_breached_load(PG_FUNCTION_ARGS)
{
	Loader *loader = palloc0(sizeof(Loader));
	MemoryContext batch = AllocSetContextCreate(CurrentMemoryContext, "plinth breached passwords",
												ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = CurrentMemoryContext;
	bool more = true;

	PreventCommandIfReadOnly("plinth.breached_passwords_load()");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("arguments must not be NULL")));
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be a superuser or a member of pg_read_server_files to load a file")));
	loader->path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	loader->min_count = PG_GETARG_INT64(1);
	loader->file = AllocateFile(loader->path, PG_BINARY_R);
	if (loader->file == NULL)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not open file \"%s\" for reading: %m", loader->path)));
	while (more)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(batch);
		more = read_batch(loader);
		store_batch(loader);
		MemoryContextSwitchTo(old);
		MemoryContextReset(batch);
	}
	FreeFile(loader->file);
	PG_RETURN_INT64(loader->stored);
}
