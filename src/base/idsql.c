/*
 * idsql.c
 *		SQL functions for identifiers and base64url: time and randomness for
 *		ids.c.
 */
#include "postgres.h"

#include <time.h>

#include "base/base.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define MAX_PREFIX 16

PGDLLEXPORT Datum plinth_base_uuid_v7(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_ulid(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_objectid(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_base64url_encode(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_base_base64url_decode(PG_FUNCTION_ARGS);

static void
fill_random(void *dst, size_t len)
{
	if (!pg_strong_random(dst, len))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("could not get random bytes from the operating system")));
}

static uint64
unix_nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64) now.tv_sec * UINT64CONST(1000000000) + now.tv_nsec;
}

void
plinth_base_make_uuid_v7(pg_uuid_t *uuid)
{
	/* Milliseconds and 12 bits of their fraction; what this backend gave last. */
	static uint64 last = 0;
	uint64 ns = unix_nanoseconds();
	uint64 stamp = (ns / 1000000) << 12 | (ns % 1000000) * 4096 / 1000000;
	uint8 random[8];

	if (stamp <= last)
		stamp = last + 1;
	last = stamp;

	fill_random(random, sizeof(random));
	plinth_uuid_v7_build(stamp >> 12, stamp & 0xfff, random, uuid->data);
}

PG_FUNCTION_INFO_V1(plinth_base_uuid_v7);
Datum
plinth_base_uuid_v7(PG_FUNCTION_ARGS)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));

	plinth_base_make_uuid_v7(uuid);
	PG_RETURN_UUID_P(uuid);
}

PG_FUNCTION_INFO_V1(plinth_base_ulid);
Datum
plinth_base_ulid(PG_FUNCTION_ARGS)
{
	char *prefix = text_to_cstring(PG_GETARG_TEXT_PP(0));
	size_t len = strlen(prefix);
	uint8 random[10];
	char ulid[27];

	if (len > MAX_PREFIX || strspn(prefix, "abcdefghijklmnopqrstuvwxyz0123456789_") != len)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid prefix of an identifier: \"%s\"", prefix),
						errdetail("A prefix has at most %d characters, each of a-z, 0-9 or _.",
								  MAX_PREFIX)));

	fill_random(random, sizeof(random));
	plinth_ulid_build(unix_nanoseconds() / 1000000, random, ulid);
	PG_RETURN_TEXT_P(cstring_to_text(len == 0 ? ulid : psprintf("%s_%s", prefix, ulid)));
}

PG_FUNCTION_INFO_V1(plinth_base_objectid);
Datum
plinth_base_objectid(PG_FUNCTION_ARGS)
{
	static int owner_pid = 0;
	static uint8 process_random[5];
	static uint32 counter;
	uint8 oid[12];
	char hex[25];
	uint32 seconds = (uint32) (unix_nanoseconds() / 1000000000);

	if (owner_pid != MyProcPid)
	{
		fill_random(process_random, sizeof(process_random));
		fill_random(&counter, sizeof(counter));
		owner_pid = MyProcPid;
	}
	counter++;

	for (int i = 0; i < 4; i++)
		oid[i] = (uint8) (seconds >> (8 * (3 - i)));
	memcpy(oid + 4, process_random, sizeof(process_random));
	for (int i = 0; i < 3; i++)
		oid[9 + i] = (uint8) (counter >> (8 * (2 - i)));
	for (int i = 0; i < 12; i++)
		snprintf(hex + 2 * i, 3, "%02x", oid[i]);
	PG_RETURN_TEXT_P(cstring_to_text(hex));
}

PG_FUNCTION_INFO_V1(plinth_base_base64url_encode);
Datum
plinth_base_base64url_encode(PG_FUNCTION_ARGS)
{
	bytea *data = PG_GETARG_BYTEA_PP(0);
	size_t len = VARSIZE_ANY_EXHDR(data);
	size_t outlen = PLINTH_BASE64URL_LENGTH(len);
	text *result;

	if (VARHDRSZ + outlen + 1 > MaxAllocSize)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("%zu bytes are too many to encode", len)));
	result = palloc(VARHDRSZ + outlen + 1);
	plinth_base64url_encode((const uint8_t *) VARDATA_ANY(data), len, VARDATA(result));
	SET_VARSIZE(result, VARHDRSZ + outlen);
	PG_RETURN_TEXT_P(result);
}

PG_FUNCTION_INFO_V1(plinth_base_base64url_decode);
Datum
plinth_base_base64url_decode(PG_FUNCTION_ARGS)
{
	text *data = PG_GETARG_TEXT_PP(0);
	size_t len = VARSIZE_ANY_EXHDR(data);
	bytea *result = palloc(VARHDRSZ + len);
	long outlen = plinth_base64url_decode(VARDATA_ANY(data), len, (uint8_t *) VARDATA(result));

	/* The text may be a secret: not shown. */
	if (outlen < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TEXT_REPRESENTATION), errmsg("invalid base64url"),
						errdetail("Only A-Z, a-z, 0-9, - and _ are used, without padding.")));
	SET_VARSIZE(result, VARHDRSZ + outlen);
	PG_RETURN_BYTEA_P(result);
}
