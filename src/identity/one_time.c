/*
 * one_time.c
 *		Tokens and codes that are good for one use: how they are made, stored
 *		and opened.
 *
 * A token ("plo_") carries 256 bits and is stored as its plain BLAKE2b.  A code
 * carries 20 bits: it is stored as a hash keyed by the root key and bound to
 * its id, so that a reader of the table cannot try all.  The clear text goes
 * into the outbox sealed under the root key and bound to its message.
 */
#include "postgres.h"

#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/one_time.h"
#include "utils/builtins.h"

#define TOKEN_PREFIX "plo_"
#define CODE_PURPOSE "plinth one-time code"
#define OUTBOX_PURPOSE "plinth outbox"
#define CODES 1000000

PGDLLEXPORT Datum plinth_identity_outbox_open(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_outbox_open);

static bytea *
make_bytea(size_t len)
{
	bytea *value = palloc(VARHDRSZ + len);

	SET_VARSIZE(value, VARHDRSZ + len);
	return value;
}

/* What a message's envelope is bound to. */
static char *
message_context(const pg_uuid_t *id)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)));
}

bytea *
plinth_identity_code_hash(const pg_uuid_t *id, const char *code)
{
	uint8 text[UUID_LEN + PLINTH_CODE_DIGITS];
	bytea *hash = make_bytea(PLINTH_HASH_BYTES);

	memcpy(text, id->data, UUID_LEN);
	memcpy(text + UUID_LEN, code, PLINTH_CODE_DIGITS);
	plinth_crypto_keyed_hash(CODE_PURPOSE, text, sizeof(text), (uint8 *) VARDATA(hash));
	plinth_crypto_wipe(text, sizeof(text));
	return hash;
}

void
plinth_identity_one_time_make(bool code, PlinthOneTime *made)
{
	char token[PLINTH_TOKEN_SIZE];
	size_t len;

	plinth_base_make_uuid_v7(&made->token_id);
	plinth_base_make_uuid_v7(&made->message_id);
	if (code)
	{
		snprintf(token, sizeof(token), "%0*u", PLINTH_CODE_DIGITS,
				 plinth_crypto_random_below(CODES));
		made->hash = plinth_identity_code_hash(&made->token_id, token);
	}
	else
	{
		made->hash = make_bytea(PLINTH_HASH_BYTES);
		plinth_crypto_token_make(TOKEN_PREFIX, token, (uint8 *) VARDATA(made->hash));
	}
	len = strlen(token);
	made->envelope = make_bytea(len + PLINTH_SEAL_OVERHEAD);
	plinth_crypto_seal(OUTBOX_PURPOSE, message_context(&made->message_id), token, len,
					   (uint8 *) VARDATA(made->envelope));
	plinth_crypto_wipe(token, sizeof(token));
}

bool
plinth_identity_one_time_hash(text *token, Datum *hash)
{
	bytea *value = make_bytea(PLINTH_HASH_BYTES);

	*hash = PointerGetDatum(value);
	return plinth_crypto_token_hash(TOKEN_PREFIX, VARDATA_ANY(token), VARSIZE_ANY_EXHDR(token),
									(uint8 *) VARDATA(value));
}

bool
plinth_identity_one_time_run(PlinthPlan *plan, Datum *values, pg_uuid_t *user_id)
{
	PlinthAsOwner owner;
	bool null = true;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(plan, values, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null);

		if (!null)
			*user_id = *DatumGetUUIDP(value);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return !null;
}

/* What is sealed in a message; NULL when another root key sealed it. */
Datum
plinth_identity_outbox_open(PG_FUNCTION_ARGS)
{
	bytea *envelope = PG_GETARG_BYTEA_PP(1);
	size_t len = VARSIZE_ANY_EXHDR(envelope);
	text *token;

	plinth_base_hide_statement();
	token = make_bytea(len > PLINTH_SEAL_OVERHEAD ? len - PLINTH_SEAL_OVERHEAD : 0);
	if (!plinth_crypto_open(OUTBOX_PURPOSE, message_context(PG_GETARG_UUID_P(0)),
							(uint8 *) VARDATA_ANY(envelope), len, VARDATA(token)))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(token);
}
