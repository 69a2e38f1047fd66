/*
 * keys.c
 *		Which key signs, and which may verify.
 *
 * The rows are looked up for every token, by the newest snapshot, so that a
 * key that was revoked is refused everywhere as soon as that commits, on a
 * standby too.  What is kept in the backend is only the parsed key, by the
 * hash of all that it was made from: another private part, file name or JWK
 * is another key.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "session/jwt.h"
#include "session/keys.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MAX_KEPT 64
#define COLUMNS "alg, kid, public_jwk, private_sealed, private_file"

static PlinthPlan active_plan = {
	.sql = "SELECT " COLUMNS " FROM plinth.signing_keys WHERE status = 'active'",
	.nargs = 0,
};
static PlinthPlan own_plan = {
	.sql = "SELECT " COLUMNS " FROM plinth.signing_keys WHERE kid = $1 "
		   "AND (not_after IS NULL OR not_after > $2)",
	.nargs = 2,
	.argtypes = {TEXTOID, TIMESTAMPTZOID},
};
static PlinthPlan foreign_plan = {
	.sql =
		"SELECT k.value, i.audience, i.authorized_parties, i.user_key_claim, "
		"coalesce(i.provider, i.issuer), i.create_users, i.by_user_key FROM plinth.jwt_issuers i, pg_catalog.jsonb_array_elements(i.jwks -> 'keys') k (value) "
		"WHERE i.issuer = $1 AND k.value ->> 'kid' = $2",
	.nargs = 2,
	.argtypes = {TEXTOID, TEXTOID},
};

typedef struct KeptKey
{
	uint8 hash[PLINTH_HASH_BYTES];
	PlinthJoseKey *key;
} KeptKey;

static HTAB *kept_keys = NULL;

static void
forget_all(void)
{
	HASH_SEQ_STATUS status;
	KeptKey *kept;

	hash_seq_init(&status, kept_keys);
	while ((kept = hash_seq_search(&status)) != NULL)
	{
		plinth_jose_key_free(kept->key);
		hash_search(kept_keys, kept->hash, HASH_REMOVE, NULL);
	}
}

const PlinthJoseKey *
plinth_session_key_keep(const char *kind, const void *description, size_t len, PlinthKeyMaker make,
						const void *arg)
{
	uint8 kind_hash[PLINTH_HASH_BYTES];
	uint8 hash[PLINTH_HASH_BYTES];
	KeptKey *kept;

	if (kept_keys == NULL)
	{
		HASHCTL control = {.keysize = PLINTH_HASH_BYTES, .entrysize = sizeof(KeptKey)};

		kept_keys = hash_create("plinth keys", MAX_KEPT, &control, HASH_ELEM | HASH_BLOBS);
	}
	plinth_crypto_hash(kind, strlen(kind), kind_hash);
	plinth_crypto_mac(kind_hash, description, len, hash);
	kept = hash_search(kept_keys, hash, HASH_FIND, NULL);
	if (kept != NULL && kept->key != NULL)
		return kept->key;

	/* The place first: no key may be lost where there is none for it. */
	if (kept == NULL && hash_get_num_entries(kept_keys) >= MAX_KEPT)
		forget_all();
	kept = hash_search(kept_keys, hash, HASH_ENTER, NULL);
	kept->key = NULL;
	kept->key = make(arg);
	return kept->key;
}

/* The result's only row, in the caller's memory; false when there is not exactly one. */
static bool
run(PlinthPlan *plan, Datum *values, MemoryContext memory, int ncolumns, Datum *columns,
	bool *nulls)
{
	PlinthAsOwner owner;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(plan, values);
	found = SPI_processed == 1;
	for (int i = 0; found && i < ncolumns; i++)
	{
		Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
		MemoryContext old = MemoryContextSwitchTo(memory);

		if (!nulls[i])
			columns[i] = TupleDescAttr(SPI_tuptable->tupdesc, i)->attbyval
							 ? value
							 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		MemoryContextSwitchTo(old);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return found;
}

char *
plinth_session_key_context(const char *kid, PlinthJoseAlg alg)
{
	return psprintf("%s:%s", kid, plinth_jose_alg_name(alg));
}

typedef struct PrivateKey
{
	PlinthJoseAlg alg;
	const char *kid;
	bytea *sealed;    /* or NULL */
	const char *file; /* or NULL */
} PrivateKey;

static PlinthJoseKey *
open_sealed(const PrivateKey *from)
{
	char *context = plinth_session_key_context(from->kid, from->alg);
	size_t len = VARSIZE_ANY_EXHDR(from->sealed);
	uint8 *data = palloc(Max(len, 1));
	PlinthJoseKey *key = NULL;

	if (plinth_crypto_open(PLINTH_SEAL_PURPOSE, context, (uint8 *) VARDATA_ANY(from->sealed), len,
						   data))
		key = plinth_jose_key_from_private(from->alg, data, len - PLINTH_SEAL_OVERHEAD);
	plinth_crypto_wipe(data, len);
	pfree(data);
	if (key == NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("signing key \"%s\" cannot be opened", from->kid),
						errhint("It was sealed under another root key: set "
								"\"plinth.root_key_file\" to that one and restart, or make "
								"another signing key.")));
	return key;
}

static PlinthJoseKey *
make_private(const void *arg)
{
	const PrivateKey *from = arg;

	if (from->sealed != NULL)
		return open_sealed(from);
	return plinth_session_key_from_file(from->alg, from->file);
}

/* A private part, sealed or in a file, of a row. */
static const PlinthJoseKey *
private_key(PlinthJoseAlg alg, const char *kid, Datum *columns, bool *nulls)
{
	PrivateKey from = {.alg = alg, .kid = kid};
	StringInfoData description;

	initStringInfo(&description);
	appendStringInfo(&description, "%s %s ", plinth_jose_alg_name(alg), kid);
	if (!nulls[3])
	{
		from.sealed = DatumGetByteaPP(columns[3]);
		appendBinaryStringInfo(&description, VARDATA_ANY(from.sealed),
							   VARSIZE_ANY_EXHDR(from.sealed));
	}
	else if (!nulls[4])
	{
		from.file = TextDatumGetCString(columns[4]);
		appendStringInfo(&description, "file %s/%s", plinth_setting_signing_key_directory,
						 from.file);
	}
	else
		return NULL;
	return plinth_session_key_keep("private", description.data, description.len, make_private,
								   &from);
}

/* Whether a private key belongs to what jwks() shows. */
static bool
fits_public(const PlinthJoseKey *key, Jsonb *public_jwk)
{
	PlinthJwk made;
	PlinthJwk shown;

	return plinth_jose_key_public(key, &made) && plinth_session_jwk_read(public_jwk, &shown) &&
		   memcmp(&made, &shown, sizeof(made)) == 0;
}

static PlinthJoseAlg
alg_column(Datum value)
{
	PlinthJoseAlg alg;

	if (!plinth_jose_alg_parse(TextDatumGetCString(value), &alg))
		elog(ERROR, "unknown algorithm of a signing key");
	return alg;
}

const PlinthJoseKey *
plinth_session_key_active(char **kid)
{
	Datum columns[5];
	bool nulls[5];
	PlinthJoseAlg alg;
	const PlinthJoseKey *key;

	if (!run(&active_plan, NULL, CurrentMemoryContext, 5, columns, nulls))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("there is no key that signs access tokens"),
						errhint("Make one: SELECT plinth.signing_key_create('ES256').")));
	alg = alg_column(columns[0]);
	*kid = TextDatumGetCString(columns[1]);
	key = private_key(alg, *kid, columns, nulls);
	if (key == NULL ||
		(alg != PLINTH_JOSE_HS256 && (nulls[2] || !fits_public(key, DatumGetJsonbP(columns[2])))))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the private part of signing key \"%s\" is another key's", *kid)));
	return key;
}

const PlinthJoseKey *
plinth_session_key_own(const char *kid)
{
	Datum values[2] = {CStringGetTextDatum(kid), TimestampTzGetDatum(GetCurrentTimestamp())};
	Datum columns[5];
	bool nulls[5];
	PlinthJoseAlg alg;
	const PlinthJoseKey *key;

	if (!run(&own_plan, values, CurrentMemoryContext, 5, columns, nulls))
		return NULL;
	alg = alg_column(columns[0]);
	if (alg == PLINTH_JOSE_HS256)
		return private_key(alg, kid, columns, nulls);
	key = nulls[2] ? NULL : plinth_session_key_of_jwk(DatumGetJsonbP(columns[2]));
	return key != NULL && plinth_jose_key_alg(key) == alg ? key : NULL;
}

bool
plinth_session_key_foreign(const char *issuer, const char *kid, PlinthIssuer *found)
{
	Datum values[2] = {CStringGetTextDatum(issuer), CStringGetTextDatum(kid)};
	Datum columns[7];
	bool nulls[7];

	if (!run(&foreign_plan, values, CurrentMemoryContext, 7, columns, nulls))
		return false;
	found->key = plinth_session_key_of_jwk(DatumGetJsonbP(columns[0]));
	found->audience = nulls[1] ? NULL : DatumGetArrayTypeP(columns[1]);
	found->authorized_parties = nulls[2] ? NULL : DatumGetArrayTypeP(columns[2]);
	found->user_key_claim = TextDatumGetCString(columns[3]);
	found->provider = TextDatumGetCString(columns[4]);
	found->create_users = DatumGetBool(columns[5]);
	found->by_user_key = DatumGetBool(columns[6]);
	return found->key != NULL;
}
