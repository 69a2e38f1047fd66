/*
 * password.c
 *		May this be a password?  Its length, and whether others know it.
 *
 * What others know is in plinth.breached_passwords, by the first 8 to 20 bytes
 * of its SHA-1; so a look-up asks for every such beginning.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"

#define SHORTEST_PREFIX 8

typedef enum PasswordFault
{
	TOO_SHORT,
	TOO_LONG,
	BREACHED,
	FAULTS
} PasswordFault;

static const char *const reasons[FAULTS] = {"password_too_short", "password_too_long",
											"password_breached"};
static const char *const messages[FAULTS] = {"password is too short", "password is too long",
											 "password is known to others"};

static PlinthPlan breached_plan = {
	.sql = "SELECT 1 FROM plinth.breached_passwords WHERE hash = ANY ($1) LIMIT 1",
	.nargs = 1,
	.argtypes = {BYTEAARRAYOID},
};

PGDLLEXPORT Datum plinth_identity_password_check_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_password_check_sql);

static bool
is_breached(const char *password, size_t len)
{
	uint8 sha1[PLINTH_SHA1_BYTES];
	Datum prefixes[PLINTH_SHA1_BYTES - SHORTEST_PREFIX + 1];
	Datum value;
	PlinthAsOwner owner;
	bool found;

	plinth_crypto_sha1(password, len, sha1);
	for (int i = 0; i < lengthof(prefixes); i++)
		prefixes[i] =
			PointerGetDatum(cstring_to_text_with_len((const char *) sha1, SHORTEST_PREFIX + i));
	plinth_crypto_wipe(sha1, sizeof(sha1));
	value = PointerGetDatum(
		construct_array(prefixes, lengthof(prefixes), BYTEAOID, -1, false, TYPALIGN_INT));

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&breached_plan, &value, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	plinth_base_owner_end(&owner);
	SPI_finish();
	for (int i = 0; i < lengthof(prefixes); i++)
		plinth_crypto_wipe(VARDATA(DatumGetPointer(prefixes[i])), SHORTEST_PREFIX + i);
	return found;
}

static void
find_faults(text *password, bool faults[FAULTS])
{
	const char *data = VARDATA_ANY(password);
	int len = VARSIZE_ANY_EXHDR(password);

	faults[TOO_LONG] = len > PLINTH_PASSWORD_MAX;
	faults[TOO_SHORT] =
		!faults[TOO_LONG] && pg_mbstrlen_with_len(data, len) < plinth_setting_password_min_length;
	faults[BREACHED] = !faults[TOO_LONG] && is_breached(data, len);
}

void
plinth_identity_password_check(text *password)
{
	bool faults[FAULTS];

	find_faults(password, faults);
	for (int i = 0; i < FAULTS; i++)
	{
		if (faults[i])
			ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", messages[i]),
							errdetail_internal("%s", reasons[i])));
	}
}

char *
plinth_identity_password_hash(Datum argument)
{
	text *password = plinth_identity_secret(argument);
	char *volatile phc = NULL;

	PG_TRY ()
		;
	{
		plinth_identity_password_check(password);
		phc = plinth_crypto_password_hash(VARDATA_ANY(password), VARSIZE_ANY_EXHDR(password));
	}
	PG_FINALLY ()
		;
	{
		plinth_identity_secret_wipe(password, argument);
	}
	PG_END_TRY();
	return phc;
}

Datum
plinth_identity_password_check_sql(PG_FUNCTION_ARGS)
{
	static PlinthRow row;
	text *password;
	bool faults[FAULTS] = {true};
	ArrayBuildState *found = initArrayResult(TEXTOID, CurrentMemoryContext, false);
	Datum values[2];
	bool nulls[2] = {false, false};

	plinth_base_hide_statement();
	if (!PG_ARGISNULL(0))
	{
		password = plinth_identity_secret(PG_GETARG_DATUM(0));
		find_faults(password, faults);
		plinth_identity_secret_wipe(password, PG_GETARG_DATUM(0));
	}
	values[0] = BoolGetDatum(true);
	for (int i = 0; i < FAULTS; i++)
	{
		if (!faults[i])
			continue;
		values[0] = BoolGetDatum(false);
		found = accumArrayResult(found, CStringGetTextDatum(reasons[i]), false, TEXTOID,
								 CurrentMemoryContext);
	}
	values[1] = makeArrayResult(found, CurrentMemoryContext);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &row), values, nulls)));
}
