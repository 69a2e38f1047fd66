/*
 * keysql.c
 *		Making, rotating and revoking the keys that sign access tokens.
 *
 * One key signs, at most one is next.  Each of these functions takes the
 * table for itself first, so that two who rotate at once do so one after the
 * other; reading goes on meanwhile.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "session/jwt.h"
#include "session/keys.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define SECRET_KID_BYTES 16

static PlinthPlan lock_plan = {
	.sql = "LOCK TABLE plinth.signing_keys IN SHARE ROW EXCLUSIVE MODE",
	.nargs = 0,
};
static PlinthPlan insert_plan = {
	.sql =
		"INSERT INTO plinth.signing_keys "
		"(kid, alg, status, public_jwk, private_sealed, private_file, activated_at) "
		"SELECT $1, $2, CASE WHEN a.there THEN 'next' ELSE 'active' END, $3, $4, $5, "
		"CASE WHEN NOT a.there THEN pg_catalog.clock_timestamp() END "
		"FROM (SELECT EXISTS (SELECT FROM plinth.signing_keys WHERE status = 'active')) a (there) "
		"WHERE NOT EXISTS (SELECT FROM plinth.signing_keys WHERE status = 'next')",
	.nargs = 5,
	.argtypes = {TEXTOID, TEXTOID, JSONBOID, BYTEAOID, TEXTOID},
};

/* A public key verifies without its private part, which nobody needs any more. */
#define RETIRE                                                                                     \
	"UPDATE plinth.signing_keys SET status = 'retired', not_after = $1, "                          \
	"retired_at = coalesce(retired_at, pg_catalog.clock_timestamp()), "                            \
	"private_sealed = CASE WHEN alg = 'HS256' THEN private_sealed END, "                           \
	"private_file = CASE WHEN alg = 'HS256' THEN private_file END "

static PlinthPlan retire_plan = {
	.sql = RETIRE "WHERE status = 'active'",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID},
};
static PlinthPlan revoke_plan = {
	.sql = RETIRE "WHERE kid = $2 AND (not_after IS NULL OR not_after > $1)",
	.nargs = 2,
	.argtypes = {TIMESTAMPTZOID, TEXTOID},
};
static PlinthPlan promote_plan = {
	.sql = "UPDATE plinth.signing_keys SET status = 'active', "
		   "activated_at = pg_catalog.clock_timestamp() WHERE status = 'next' "
		   "AND NOT EXISTS (SELECT FROM plinth.signing_keys WHERE status = 'active') "
		   "RETURNING kid",
	.nargs = 0,
};
static PlinthPlan forget_plan = {
	.sql = "DELETE FROM plinth.signing_keys WHERE not_after <= pg_catalog.clock_timestamp()",
	.nargs = 0,
};

PGDLLEXPORT Datum plinth_session_signing_key_create(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_signing_key_rotate(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_signing_key_revoke(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_signing_key_create);
PG_FUNCTION_INFO_V1(plinth_session_signing_key_rotate);
PG_FUNCTION_INFO_V1(plinth_session_signing_key_revoke);

/* A name in the directory, not a way out of it. */
static bool
is_file_name(const char *name)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
	size_t len = strlen(name);

	return len > 0 && len <= 200 && name[0] != '.' && strspn(name, allowed) == len;
}

PlinthJoseKey *
plinth_session_key_from_file(PlinthJoseAlg alg, const char *file)
{
	uint8 data[PLINTH_JOSE_MAX_PRIVATE];
	char *path;
	size_t len;
	PlinthJoseKey *key;

	if (!is_file_name(file))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"%s\" is not the name of a file in the directory of signing keys",
							   file)));
	if (plinth_setting_signing_key_directory[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no directory of signing keys is configured"),
				 errhint("Set \"plinth.signing_key_directory\" and reload the configuration.")));
	/* Any client may come here by a token: where the file is, is not for them. */
	path = psprintf("%s/%s", plinth_setting_signing_key_directory, file);
	len = plinth_crypto_key_file_read(ERROR, psprintf("signing key file \"%s\"", file), path, NULL,
									  data, sizeof(data));
	key = plinth_jose_key_from_file(alg, data, len);
	plinth_crypto_wipe(data, sizeof(data));
	if (key == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("signing key file \"%s\" holds no key for %s", file, plinth_jose_alg_name(alg)),
			 errhint(alg == PLINTH_JOSE_HS256
						 ? "It must hold at least 32 bytes."
						 : "It must hold an unencrypted private key in PEM (PKCS #8): RSA of "
						   "2048 to 4096 bits, P-256 or Ed25519.")));
	return key;
}

/* The thumbprint; what it would tell of a secret is why that has a random name. */
static void
name_key(const PlinthJwk *jwk, char kid[PLINTH_JOSE_THUMBPRINT_SIZE])
{
	uint8 random[SECRET_KID_BYTES];

	if (plinth_jose_thumbprint(jwk, kid))
		return;
	plinth_crypto_random(random, sizeof(random));
	plinth_base64url_encode(random, sizeof(random), kid);
}

static bytea *
seal_private(const PlinthJoseKey *key, const char *kid)
{
	char *context = plinth_session_key_context(kid, plinth_jose_key_alg(key));
	uint8 private_part[PLINTH_JOSE_MAX_PRIVATE];
	size_t len = plinth_jose_key_private(key, private_part);
	bytea *sealed = palloc(VARHDRSZ + len + PLINTH_SEAL_OVERHEAD);

	plinth_crypto_seal(PLINTH_SEAL_PURPOSE, context, private_part, len, (uint8 *) VARDATA(sealed));
	plinth_crypto_wipe(private_part, sizeof(private_part));
	SET_VARSIZE(sealed, VARHDRSZ + len + PLINTH_SEAL_OVERHEAD);
	return sealed;
}

/* A key that cannot verify what it signed (a file of two halves) is none. */
static bool
works(const PlinthJoseKey *key, const PlinthJwk *jwk)
{
	static const char text[] = "plinth";
	uint8 signature[PLINTH_JOSE_MAX_SIGNATURE];
	size_t len = plinth_jose_sign(key, text, sizeof(text), signature);
	PlinthJoseKey *public_key;
	bool good;

	if (plinth_jose_key_alg(key) == PLINTH_JOSE_HS256)
		return len > 0;
	public_key = plinth_jose_key_from_jwk(jwk);
	good = public_key != NULL && len > 0 &&
		   plinth_jose_verify(public_key, text, sizeof(text), signature, len);
	plinth_jose_key_free(public_key);
	return good;
}

/* Fills the columns of a row for a key. */
static void
describe_key(const PlinthJoseKey *key, const char *file, Datum *values, char *nulls)
{
	char kid[PLINTH_JOSE_THUMBPRINT_SIZE];
	PlinthJwk jwk;
	bool has_public = plinth_jose_key_public(key, &jwk);

	if (!works(key, &jwk))
		ereport(ERROR, (errcode(file ? ERRCODE_CONFIG_FILE_ERROR : ERRCODE_SYSTEM_ERROR),
						errmsg("the key does not verify what it signs")));
	name_key(&jwk, kid);
	memset(nulls, ' ', 5);
	values[0] = CStringGetTextDatum(kid);
	values[1] = CStringGetTextDatum(plinth_jose_alg_name(plinth_jose_key_alg(key)));
	nulls[2] = has_public ? ' ' : 'n';
	values[2] = has_public ? JsonbPGetDatum(plinth_session_jwk_write(&jwk)) : (Datum) 0;
	nulls[3] = file ? 'n' : ' ';
	values[3] = file ? (Datum) 0 : PointerGetDatum(seal_private(key, kid));
	nulls[4] = file ? ' ' : 'n';
	values[4] = file ? CStringGetTextDatum(file) : (Datum) 0;
}

/* Makes or reads a key, which must not outlive an error. */
static void
make_row(PlinthJoseAlg alg, const char *file, Datum *values, char *nulls)
{
	PlinthJoseKey *key =
		file ? plinth_session_key_from_file(alg, file) : plinth_jose_key_generate(alg);

	if (key == NULL)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR),
						errmsg("could not make a key for %s", plinth_jose_alg_name(alg))));
	PG_TRY ()
		;
	{
		describe_key(key, file, values, nulls);
	}
	PG_FINALLY ()
		;
	{
		plinth_jose_key_free(key);
	}
	PG_END_TRY();
}

static void
record(const char *action, const char *kid)
{
	plinth_audit_record(action, psprintf("signing_key:%s", kid), "success", NULL);
}

Datum
plinth_session_signing_key_create(PG_FUNCTION_ARGS)
{
	PlinthJoseAlg alg;
	char *name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *file = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum values[5];
	char nulls[5];
	PlinthAsOwner owner;
	bool made;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.signing_key_create()");
	if (name == NULL || !plinth_jose_alg_parse(name, &alg))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("unknown algorithm \"%s\"", name ? name : "NULL"),
						errhint("There are HS256, EdDSA, ES256 and RS256.")));
	make_row(alg, file, values, nulls);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&lock_plan, NULL, NULL, false, SPI_OK_UTILITY);
	plinth_base_spi_execute(&insert_plan, values, nulls, false, SPI_OK_INSERT);
	made = SPI_processed == 1;
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (!made)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("there is a next signing key already"),
				 errhint("Let it sign: SELECT plinth.signing_key_rotate().")));
	record("plinth.signing_key_create", TextDatumGetCString(values[0]));
	PG_RETURN_DATUM(values[0]);
}

/* Lets the next key sign, if none does; its kid in the caller's memory, or NULL. */
static char *
promote(MemoryContext memory)
{
	char *kid;

	plinth_base_spi_execute(&promote_plan, NULL, NULL, false, SPI_OK_UPDATE_RETURNING);
	if (SPI_processed == 0)
		return NULL;
	kid = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	return MemoryContextStrdup(memory, kid);
}

Datum
plinth_session_signing_key_rotate(PG_FUNCTION_ARGS)
{
	MemoryContext memory = CurrentMemoryContext;
	int64 rest = (int64) plinth_setting_jwt_lifetime + plinth_setting_jwt_leeway;
	Datum not_after;
	PlinthAsOwner owner;
	char *kid;

	PreventCommandIfReadOnly("plinth.signing_key_rotate()");
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&lock_plan, NULL, NULL, false, SPI_OK_UTILITY);
	not_after = TimestampTzGetDatum(GetCurrentTimestamp() + rest * USECS_PER_SEC);
	plinth_base_spi_execute(&retire_plan, &not_after, NULL, false, SPI_OK_UPDATE);
	kid = promote(memory);
	if (kid != NULL)
		plinth_base_spi_execute(&forget_plan, NULL, NULL, false, SPI_OK_DELETE);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (kid == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("there is no next signing key"),
						errhint("Make one: SELECT plinth.signing_key_create('ES256'), and give "
								"verifiers time to fetch plinth.jwks().")));
	record("plinth.signing_key_rotate", kid);
	PG_RETURN_TEXT_P(cstring_to_text(kid));
}

Datum
plinth_session_signing_key_revoke(PG_FUNCTION_ARGS)
{
	Datum values[2] = {TimestampTzGetDatum(GetCurrentTimestamp()), PG_GETARG_DATUM(0)};
	PlinthAsOwner owner;
	bool revoked;

	PreventCommandIfReadOnly("plinth.signing_key_revoke()");
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&lock_plan, NULL, NULL, false, SPI_OK_UTILITY);
	plinth_base_spi_execute(&revoke_plan, values, NULL, false, SPI_OK_UPDATE);
	revoked = SPI_processed == 1;
	if (revoked)
		(void) promote(CurrentMemoryContext);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (revoked)
		record("plinth.signing_key_revoke", TextDatumGetCString(values[1]));
	PG_RETURN_BOOL(revoked);
}
