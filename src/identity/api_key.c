/*
 * api_key.c
 *		API keys: "plk_" and 256 random bits, of which only the hash is stored.
 *
 * A key stands for its user, with the user's roles and permissions of the
 * moment, narrowed to the key's scopes.  It makes no other key and manages no
 * account, so that a stolen one ends when it is revoked; and since it outlives
 * the session that made it, that must have been signed in to a short time ago.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define KEY_PREFIX "plk_"
#define SHOWN 12 /* characters of a key that are stored and shown */

static PlinthPlan find_plan = {
	.sql =
		"SELECT k.id, k.user_id, k.key_hash, pg_catalog.array_to_string(nullif(k.scopes, '{}'), ','), "
		"k.limit_policy FROM plinth.api_keys k WHERE k.key_hash = $1 AND k.revoked_at IS NULL "
		"AND (k.expires_at IS NULL OR k.expires_at > $2)",
	.nargs = 2,
	.argtypes = {BYTEAOID, TIMESTAMPTZOID},
};
static PlinthPlan create_plan = {
	.sql = "SELECT plinth._api_key_create($1, $2, $3, $4, $5, $6, $7)",
	.nargs = 7,
	.argtypes = {UUIDOID, TEXTOID, TEXTARRAYOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BYTEAOID},
};

PGDLLEXPORT Datum plinth_identity_api_key_create(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_api_key_create);

bool
plinth_identity_api_key_shaped(text *key)
{
	return VARSIZE_ANY_EXHDR(key) >= strlen(KEY_PREFIX) &&
		   memcmp(VARDATA_ANY(key), KEY_PREFIX, strlen(KEY_PREFIX)) == 0;
}

static char *
column_text(int number, MemoryContext memory)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number);

	return value ? MemoryContextStrdup(memory, value) : NULL;
}

static Datum
column(int number)
{
	bool null;

	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
}

bool
plinth_identity_api_key_find(text *key, PlinthApiKey *found)
{
	MemoryContext caller = CurrentMemoryContext;
	bytea *hash = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	Datum values[2] = {PointerGetDatum(hash), TimestampTzGetDatum(GetCurrentTimestamp())};
	PlinthAsOwner owner;
	bool good;

	SET_VARSIZE(hash, VARHDRSZ + PLINTH_HASH_BYTES);
	if (!plinth_crypto_token_hash(KEY_PREFIX, VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key),
								  (uint8 *) VARDATA(hash)))
		return false;
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&find_plan, values);
	good = SPI_processed == 1 && plinth_crypto_equal(VARDATA_ANY(DatumGetByteaPP(column(3))),
													 VARDATA(hash), PLINTH_HASH_BYTES);
	if (good)
	{
		found->id = *DatumGetUUIDP(column(1));
		found->user_id = *DatumGetUUIDP(column(2));
		found->scopes = column_text(4, caller);
		found->limit_policy = column_text(5, caller);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (good)
		plinth_identity_api_key_used(&found->id);
	return good;
}

/* Whose key it is to be; the caller must be allowed to. */
static pg_uuid_t
choose_user(const pg_uuid_t *wanted)
{
	const PlinthContext *context = plinth_base_context();
	bool signed_in = context != NULL && context->has_user;

	if (signed_in && (context->api_key != NULL || context->impersonator != NULL))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
						errmsg("an API key needs the user's own sign-in")));
	if (signed_in)
		plinth_identity_require_recent(context);
	if (wanted != NULL && !(signed_in && memcmp(wanted, &context->user_id, sizeof(pg_uuid_t)) == 0))
	{
		plinth_identity_require_admin();
		return *wanted;
	}
	return plinth_base_require_user()->user_id;
}

static Datum
store(FunctionCallInfo fcinfo, const pg_uuid_t *user_id, text *prefix, bytea *hash)
{
	Datum values[7];
	char nulls[7];
	PlinthAsOwner owner;
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

	/* name, scopes, expires_at and limit_policy as they came */
	for (int i = 0; i < 4; i++)
	{
		values[i + 1] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
		nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	values[0] = UUIDPGetDatum(user_id);
	values[5] = PointerGetDatum(prefix);
	values[6] = PointerGetDatum(hash);
	nulls[0] = nulls[5] = nulls[6] = ' ';

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&create_plan, values, nulls, false, SPI_OK_SELECT);
	*id = *DatumGetUUIDP(column(1));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return UUIDPGetDatum(id);
}

/* Arguments: name, scopes, expires_at, limit_policy, user_id. */
Datum
plinth_identity_api_key_create(PG_FUNCTION_ARGS)
{
	char key[PLINTH_TOKEN_SIZE];
	bytea *hash = palloc(VARHDRSZ + PLINTH_HASH_BYTES);
	TupleDesc desc;
	Datum values[3];
	bool nulls[3] = {false, false, false};
	pg_uuid_t user_id;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.api_key_create()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	user_id = choose_user(PG_ARGISNULL(4) ? NULL : PG_GETARG_UUID_P(4));
	SET_VARSIZE(hash, VARHDRSZ + PLINTH_HASH_BYTES);
	plinth_crypto_token_make(KEY_PREFIX, key, (uint8 *) VARDATA(hash));
	values[1] = CStringGetTextDatum(key);
	values[2] = PointerGetDatum(cstring_to_text_with_len(key, SHOWN));
	plinth_crypto_wipe(key, sizeof(key));
	values[0] = store(fcinfo, &user_id, DatumGetTextPP(values[2]), hash);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
