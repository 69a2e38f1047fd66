/*
 * cryptosql.c
 *		SQL functions of room crypto.
 *
 * Secrets are read where the caller's datum holds them and never copied.
 */
#include "postgres.h"

#include "base/base.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#define MAX_RANDOM (1024 * 1024)
#define ADMIN_ROLE "plinth_admin"

PGDLLEXPORT Datum plinth_crypto_random_bytes(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_crypto_blake2b(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_crypto_secret_hash(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_crypto_secret_verify(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(plinth_crypto_random_bytes);
Datum
plinth_crypto_random_bytes(PG_FUNCTION_ARGS)
{
	int32 len = PG_GETARG_INT32(0);
	bytea *result;

	if (len < 1 || len > MAX_RANDOM)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cannot make %d random bytes", len),
						errdetail("Between 1 and %d can be asked for.", MAX_RANDOM)));
	result = palloc(VARHDRSZ + len);
	plinth_crypto_random(VARDATA(result), len);
	SET_VARSIZE(result, VARHDRSZ + len);
	PG_RETURN_BYTEA_P(result);
}

PG_FUNCTION_INFO_V1(plinth_crypto_blake2b);
Datum
plinth_crypto_blake2b(PG_FUNCTION_ARGS)
{
	bytea *data = PG_GETARG_BYTEA_PP(0);
	bytea *result = palloc(VARHDRSZ + PLINTH_HASH_BYTES);

	plinth_crypto_hash(VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), (uint8 *) VARDATA(result));
	SET_VARSIZE(result, VARHDRSZ + PLINTH_HASH_BYTES);
	PG_RETURN_BYTEA_P(result);
}

PG_FUNCTION_INFO_V1(plinth_crypto_secret_hash);
Datum
plinth_crypto_secret_hash(PG_FUNCTION_ARGS)
{
	text *secret = PG_GETARG_TEXT_PP(0);

	plinth_base_hide_statement();
	PG_RETURN_TEXT_P(cstring_to_text(
		plinth_crypto_password_hash(VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret))));
}

PG_FUNCTION_INFO_V1(plinth_crypto_secret_verify);
Datum
plinth_crypto_secret_verify(PG_FUNCTION_ARGS)
{
	text *secret = PG_GETARG_TEXT_PP(0);
	char *phc = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Oid admin = get_role_oid(ADMIN_ROLE, true);

	plinth_base_hide_statement();
	/* Whoever chooses the hash chooses what it costs, uninterrupted, in one of few places. */
	if (!OidIsValid(admin) || !has_privs_of_role(GetUserId(), admin))
		plinth_crypto_password_check_costs(phc);
	PG_RETURN_BOOL(
		plinth_crypto_password_verify(phc, VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret)));
}
