/*
 * refresh.c
 *		Refresh tokens: each can be exchanged once, and tells when it was stolen.
 *
 * The tokens that follow one another are a family, and a family is one row.
 * A token is "plr_" and, in base64url, the family's id, the token's generation
 * and a secret of 256 bits.  Each secret follows from the one before, keyed by
 * it, with a salt that only the row has:
 *
 *		secret(n + 1) = BLAKE2b(key = secret(n), salt, n + 1)
 *
 * The row keeps the hash of the newest secret only.  So whoever brings an older
 * token proves that it is real, by how many steps lead from it to the newest;
 * and whoever has the row alone, or a token alone, knows no other.
 *
 * A token that was exchanged already is, within plinth.refresh_grace, a client
 * that asked twice (two tabs, a lost answer): it gets the newest token again,
 * so that both end up with the same.  Later it was stolen, by the one who
 * brings it or by the one who came before: the session ends.  What counts is
 * what had committed when a request arrived, not what it finds once it has the
 * row's lock: whoever waits for another one's commit is never late by that.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "session/jwt.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define PREFIX "plr_"
#define PREFIX_LENGTH 4
#define SECRET_BYTES PLINTH_HASH_BYTES
#define TOKEN_BYTES (UUID_LEN + sizeof(uint32) + SECRET_BYTES)
#define TOKEN_LENGTH (PREFIX_LENGTH + PLINTH_BASE64URL_LENGTH(TOKEN_BYTES))

/* How old a token may be and still be known for one that was used. */
#define MAX_STEPS 100000

/* How many exchanges within the grace are remembered. */
#define MAX_ROTATIONS "1000"

static PlinthPlan insert_plan = {
	.sql = "INSERT INTO plinth.refresh_tokens (id, session_id, salt, token_hash) "
		   "VALUES ($1, $2, $3, $4)",
	.nargs = 4,
	.argtypes = {UUIDOID, UUIDOID, BYTEAOID, BYTEAOID},
};
static PlinthPlan trim_plan = {
	.sql = "DELETE FROM plinth.refresh_tokens WHERE id IN (SELECT id FROM plinth.refresh_tokens "
		   "WHERE session_id = $1 ORDER BY last_used_at DESC, id DESC OFFSET 10)",
	.nargs = 1,
	.argtypes = {UUIDOID},
};

static PlinthPlan look_plan = {
	.sql = "SELECT 1 FROM plinth.refresh_tokens WHERE id = $1 AND generation <= $2",
	.nargs = 2,
	.argtypes = {UUIDOID, INT4OID},
};

/* $2 is the generation that somebody brings, $3 the oldest time that is in grace. */
static PlinthPlan lock_plan = {
	.sql = "SELECT session_id, salt, generation, token_hash, coalesce("
		   "rotated_at[pg_catalog.cardinality(rotated_at) - generation + $2 + 1] >= $3, false) "
		   "FROM plinth.refresh_tokens WHERE id = $1 AND generation >= $2 FOR NO KEY UPDATE",
	.nargs = 3,
	.argtypes = {UUIDOID, INT4OID, TIMESTAMPTZOID},
};
static PlinthPlan rotate_plan = {
	.sql = "UPDATE plinth.refresh_tokens SET generation = generation + 1, token_hash = $2, "
		   "last_used_at = $3, rotated_at = rotated_at[pg_catalog.cardinality(rotated_at) + 1 - "
		   "(SELECT least(count(*), " MAX_ROTATIONS ") FROM pg_catalog.unnest(rotated_at) t "
		   "WHERE t >= $4):] || $3 WHERE id = $1",
	.nargs = 4,
	.argtypes = {UUIDOID, BYTEAOID, TIMESTAMPTZOID, TIMESTAMPTZOID},
};

typedef struct RefreshToken
{
	pg_uuid_t family;
	uint32 generation;
	uint8 secret[SECRET_BYTES];
} RefreshToken;

typedef struct Family
{
	pg_uuid_t session_id;
	uint8 salt[SECRET_BYTES];
	uint32 generation;
	uint8 hash[PLINTH_HASH_BYTES];
	bool in_grace; /* who brings this token is early enough, if it was exchanged */
} Family;

PGDLLEXPORT Datum plinth_session_tokens_issue(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_refresh(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_tokens_issue);
PG_FUNCTION_INFO_V1(plinth_session_refresh);

static bool
parse_token(text *token, RefreshToken *parsed)
{
	const char *bytes = VARDATA_ANY(token);
	size_t len = VARSIZE_ANY_EXHDR(token);
	uint8 decoded[TOKEN_BYTES];

	if (len != TOKEN_LENGTH || memcmp(bytes, PREFIX, PREFIX_LENGTH) != 0 ||
		plinth_base64url_decode(bytes + PREFIX_LENGTH, len - PREFIX_LENGTH, decoded) != TOKEN_BYTES)
		return false;
	memcpy(&parsed->family, decoded, UUID_LEN);
	memcpy(&parsed->generation, decoded + UUID_LEN, sizeof(uint32));
	parsed->generation = pg_ntoh32(parsed->generation);
	memcpy(parsed->secret, decoded + UUID_LEN + sizeof(uint32), SECRET_BYTES);
	plinth_crypto_wipe(decoded, sizeof(decoded));
	return parsed->generation <= PG_INT32_MAX;
}

static text *
write_token(const RefreshToken *token)
{
	uint8 bytes[TOKEN_BYTES];
	char encoded[TOKEN_LENGTH + 1];
	uint32 generation = pg_hton32(token->generation);
	text *result;

	memcpy(bytes, &token->family, UUID_LEN);
	memcpy(bytes + UUID_LEN, &generation, sizeof(uint32));
	memcpy(bytes + UUID_LEN + sizeof(uint32), token->secret, SECRET_BYTES);
	memcpy(encoded, PREFIX, PREFIX_LENGTH);
	plinth_base64url_encode(bytes, sizeof(bytes), encoded + PREFIX_LENGTH);
	result = cstring_to_text(encoded);
	plinth_crypto_wipe(bytes, sizeof(bytes));
	plinth_crypto_wipe(encoded, sizeof(encoded));
	return result;
}

/* The token that follows. */
static void
step(RefreshToken *token, const uint8 salt[SECRET_BYTES])
{
	uint8 message[SECRET_BYTES + sizeof(uint32)];
	uint8 next[PLINTH_HASH_BYTES];
	uint32 generation = pg_hton32(token->generation + 1);

	memcpy(message, salt, SECRET_BYTES);
	memcpy(message + SECRET_BYTES, &generation, sizeof(uint32));
	plinth_crypto_mac(token->secret, message, sizeof(message), next);
	memcpy(token->secret, next, SECRET_BYTES);
	token->generation++;
	plinth_crypto_wipe(next, sizeof(next));
}

static Datum
bytea_datum(const uint8 *data, size_t len)
{
	bytea *result = palloc(VARHDRSZ + len);

	SET_VARSIZE(result, VARHDRSZ + len);
	memcpy(VARDATA(result), data, len);
	return PointerGetDatum(result);
}

static Datum
hash_datum(const RefreshToken *token)
{
	uint8 hash[PLINTH_HASH_BYTES];

	plinth_crypto_hash(token->secret, SECRET_BYTES, hash);
	return bytea_datum(hash, sizeof(hash));
}

static void
begin_family(const pg_uuid_t *session_id, RefreshToken *token)
{
	uint8 salt[SECRET_BYTES];
	Datum values[4];
	PlinthAsOwner owner;

	plinth_base_make_uuid_v7(&token->family);
	token->generation = 0;
	plinth_crypto_random(token->secret, SECRET_BYTES);
	plinth_crypto_random(salt, sizeof(salt));
	values[0] = UUIDPGetDatum(&token->family);
	values[1] = UUIDPGetDatum(session_id);
	values[2] = bytea_datum(salt, sizeof(salt));
	values[3] = hash_datum(token);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&insert_plan, values, NULL, false, SPI_OK_INSERT);
	plinth_base_spi_execute(&trim_plan, &values[1], NULL, false, SPI_OK_DELETE);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

static Datum
column(int number)
{
	bool null;

	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, &null);
}

/* Locks the row of a token's family; false when there is none that can have had it. */
static bool
lock_family(const RefreshToken *token, TimestampTz in_grace_since, Family *family)
{
	Datum values[3] = {UUIDPGetDatum(&token->family), Int32GetDatum((int32) token->generation),
					   TimestampTzGetDatum(in_grace_since)};
	PlinthAsOwner owner;
	bool overlaps;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&look_plan, values, NULL, false, SPI_OK_SELECT);
	overlaps = SPI_processed > 0;
	plinth_base_spi_execute(&lock_plan, values, NULL, false, SPI_OK_SELECT);
	found = SPI_processed == 1;
	if (found)
	{
		family->session_id = *DatumGetUUIDP(column(1));
		memcpy(family->salt, VARDATA_ANY(DatumGetByteaPP(column(2))), SECRET_BYTES);
		family->generation = DatumGetInt32(column(3));
		memcpy(family->hash, VARDATA_ANY(DatumGetByteaPP(column(4))), PLINTH_HASH_BYTES);
		family->in_grace = overlaps || DatumGetBool(column(5));
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return found;
}

/* Steps from a token to the newest of its family; false when it is not of it. */
static bool
reach_newest(RefreshToken *token, const Family *family)
{
	uint8 hash[PLINTH_HASH_BYTES];

	if (family->generation - token->generation > MAX_STEPS)
		return false;
	while (token->generation < family->generation)
	{
		CHECK_FOR_INTERRUPTS();
		step(token, family->salt);
	}
	plinth_crypto_hash(token->secret, SECRET_BYTES, hash);
	return plinth_crypto_equal(hash, family->hash, PLINTH_HASH_BYTES);
}

static void
rotate(RefreshToken *token, const Family *family)
{
	TimestampTz now = GetCurrentTimestamp();
	Datum values[4];
	PlinthAsOwner owner;

	step(token, family->salt);
	values[0] = UUIDPGetDatum(&token->family);
	values[1] = hash_datum(token);
	values[2] = TimestampTzGetDatum(now);
	values[3] = TimestampTzGetDatum(now - plinth_setting_refresh_grace * USECS_PER_SEC);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&rotate_plan, values, NULL, false, SPI_OK_UPDATE);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

/* Somebody else has had this token: neither goes on. */
static void
end_stolen(const PlinthSession *session)
{
	PlinthAuditEntry entry = {.action = "plinth.session_refresh",
							  .resource = plinth_session_resource(&session->id),
							  .result = "denied",
							  .metadata = plinth_audit_reason("refresh token used again"),
							  .user_id = &session->user_id,
							  .session_id = &session->id};

	if (plinth_session_end(&session->id, "a refresh token was used again"))
		(void) plinth_audit_attempt(&entry);
}

/* Turns a token into the one to use next, and finds its session. */
static bool
exchange(RefreshToken *token, PlinthSession *session)
{
	TimestampTz arrived_at = GetCurrentTimestamp();
	uint32 brought = token->generation;
	Family family;

	if (!lock_family(token, arrived_at - plinth_setting_refresh_grace * USECS_PER_SEC, &family) ||
		!reach_newest(token, &family) || !plinth_session_find_by_id(&family.session_id, session))
		return false;
	if (brought == family.generation)
	{
		if (family.generation == PG_INT32_MAX)
			return false;
		rotate(token, &family);
	}
	else if (!family.in_grace)
	{
		end_stolen(session);
		return false;
	}
	return true;
}

/* Both tokens, in the order of the functions' results. */
static void
put_tokens(const PlinthSession *session, const RefreshToken *refresh, Datum *values)
{
	TimestampTz expires_at;

	values[0] = CStringGetTextDatum(plinth_session_jwt_issue(session, &expires_at));
	values[1] = TimestampTzGetDatum(expires_at);
	values[2] = PointerGetDatum(write_token(refresh));
	values[3] = TimestampTzGetDatum(session->expires_at);
}

static Datum
return_row(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

Datum
plinth_session_tokens_issue(PG_FUNCTION_ARGS)
{
	PlinthSession session;
	RefreshToken refresh;
	Datum values[4];
	bool nulls[4] = {false, false, false, false};

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.tokens_issue()");
	if (PG_ARGISNULL(0) || !plinth_session_find(PG_GETARG_TEXT_PP(0), &session))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("session is not valid")));
	begin_family(&session.id, &refresh);
	put_tokens(&session, &refresh, values);
	plinth_crypto_wipe(&refresh, sizeof(refresh));
	plinth_session_touch(&session);
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}

Datum
plinth_session_refresh(PG_FUNCTION_ARGS)
{
	PlinthSession session;
	RefreshToken token;
	Datum values[5] = {0};
	bool nulls[5] = {false, true, true, true, true};
	bool good;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.session_refresh()");
	good =
		!PG_ARGISNULL(0) && parse_token(PG_GETARG_TEXT_PP(0), &token) && exchange(&token, &session);
	values[0] = CStringGetTextDatum(good ? "ok" : "invalid_token");
	if (good)
	{
		put_tokens(&session, &token, values + 1);
		memset(nulls, false, sizeof(nulls));
		plinth_session_touch(&session);
	}
	plinth_crypto_wipe(&token, sizeof(token));
	PG_RETURN_DATUM(return_row(fcinfo, values, nulls));
}
