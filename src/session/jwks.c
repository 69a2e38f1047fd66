/*
 * jwks.c
 *		JSON web keys (RFC 7517), and the issuers whose tokens are believed.
 *
 * Only public keys come in here.  The algorithm of a key follows from its
 * kind, never from a token.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "session/jwt.h"
#include "utils/builtins.h"

#define MAX_JWKS 65536

static PlinthPlan upsert_plan = {
	.sql =
		"INSERT INTO plinth.jwt_issuers AS i "
		"(issuer, jwks, audience, authorized_parties, user_key_claim, provider, create_users, "
		"by_user_key) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (issuer) DO UPDATE SET jwks = excluded.jwks, "
		"audience = excluded.audience, authorized_parties = excluded.authorized_parties, "
		"user_key_claim = excluded.user_key_claim, provider = excluded.provider, "
		"create_users = excluded.create_users, by_user_key = excluded.by_user_key, updated_at = pg_catalog.clock_timestamp()",
	.nargs = 8,
	.argtypes = {TEXTOID, JSONBOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, BOOLOID, BOOLOID},
};
static PlinthPlan delete_plan = {
	.sql = "DELETE FROM plinth.jwt_issuers WHERE issuer = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
};

PGDLLEXPORT Datum plinth_session_jwk_thumbprint(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_jwt_issuer_set(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_jwt_issuer_remove(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_jwk_thumbprint);
PG_FUNCTION_INFO_V1(plinth_session_jwt_issuer_set);
PG_FUNCTION_INFO_V1(plinth_session_jwt_issuer_remove);

/* Copies a member that is a string and fits; "" for one that is not there. */
static bool
copy_member(Jsonb *object, const char *name, char *dst, size_t size)
{
	JsonbValue *value = plinth_session_json_member(object, name);

	dst[0] = '\0';
	if (value == NULL)
		return true;
	if (value->type != jbvString || value->val.string.len >= size)
		return false;
	memcpy(dst, value->val.string.val, value->val.string.len);
	dst[value->val.string.len] = '\0';
	return true;
}

static bool
member_is(Jsonb *object, const char *name, const char *wanted)
{
	JsonbValue *value = plinth_session_json_member(object, name);

	return value == NULL || (value->type == jbvString && value->val.string.len == strlen(wanted) &&
							 memcmp(value->val.string.val, wanted, value->val.string.len) == 0);
}

bool
plinth_session_jwk_read(Jsonb *object, PlinthJwk *jwk)
{
	memset(jwk, 0, sizeof(*jwk));
	return JB_ROOT_IS_OBJECT(object) && copy_member(object, "kty", jwk->kty, sizeof(jwk->kty)) &&
		   copy_member(object, "crv", jwk->crv, sizeof(jwk->crv)) &&
		   copy_member(object, "n", jwk->n, sizeof(jwk->n)) &&
		   copy_member(object, "e", jwk->e, sizeof(jwk->e)) &&
		   copy_member(object, "x", jwk->x, sizeof(jwk->x)) &&
		   copy_member(object, "y", jwk->y, sizeof(jwk->y));
}

Jsonb *
plinth_session_jwk_write(const PlinthJwk *jwk)
{
	const struct
	{
		const char *name;
		const char *value;
	} members[] = {{"kty", jwk->kty}, {"crv", jwk->crv}, {"n", jwk->n},
				   {"e", jwk->e},     {"x", jwk->x},     {"y", jwk->y}};
	PlinthJsonBuilder builder;

	plinth_session_json_begin(&builder);
	for (int i = 0; i < lengthof(members); i++)
	{
		if (members[i].value[0] != '\0')
			plinth_session_json_put_string(&builder, members[i].name, members[i].value);
	}
	return plinth_session_json_end(&builder);
}

static PlinthJoseKey *
make_public(const void *arg)
{
	return plinth_jose_key_from_jwk(arg);
}

/* Whether a key says that it is for verifying signatures of one of our algorithms. */
static bool
is_for_verifying(Jsonb *object)
{
	PlinthJwk jwk;
	PlinthJoseAlg alg;

	return JB_ROOT_IS_OBJECT(object) && copy_member(object, "kty", jwk.kty, sizeof(jwk.kty)) &&
		   copy_member(object, "crv", jwk.crv, sizeof(jwk.crv)) &&
		   plinth_jose_jwk_alg(&jwk, &alg) && member_is(object, "use", "sig") &&
		   member_is(object, "alg", plinth_jose_alg_name(alg)) &&
		   (plinth_session_json_member(object, "key_ops") == NULL ||
			plinth_session_json_has(object, "key_ops", "verify"));
}

const PlinthJoseKey *
plinth_session_key_of_jwk(Jsonb *object)
{
	PlinthJwk jwk;

	if (!is_for_verifying(object) || !plinth_session_jwk_read(object, &jwk))
		return NULL;
	return plinth_session_key_keep("public", &jwk, sizeof(jwk), make_public, &jwk);
}

Datum
plinth_session_jwk_thumbprint(PG_FUNCTION_ARGS)
{
	char thumbprint[PLINTH_JOSE_THUMBPRINT_SIZE];
	PlinthJwk jwk;

	if (!plinth_session_jwk_read(PG_GETARG_JSONB_P(0), &jwk) ||
		!plinth_jose_thumbprint(&jwk, thumbprint))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("this is not a public key of RSA, P-256 or Ed25519")));
	PG_RETURN_TEXT_P(cstring_to_text(thumbprint));
}

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg_internal("%s", message)));
}

/*
 * Whether a key of a set is for verifying by one of our algorithms.  One of
 * another kind is left alone (RFC 7517 section 5); a malformed one is not.
 */
static bool
check_jwk(Jsonb *object, List **kids)
{
	static const char *const private_members[] = {"d", "p", "q", "dp", "dq", "qi", "k", "oth"};
	PlinthJwk jwk;
	char kid[PLINTH_KID_MAX + 1];
	PlinthJoseKey *key;
	ListCell *cell;

	check(JB_ROOT_IS_OBJECT(object), "a key of the set is not a JSON object");
	for (int i = 0; i < lengthof(private_members); i++)
		check(plinth_session_json_member(object, private_members[i]) == NULL,
			  "the set holds a private key or a secret");
	check(copy_member(object, "kid", kid, sizeof(kid)) && kid[0] != '\0',
		  "a key of the set has no kid");
	foreach (cell, *kids)
		check(strcmp(lfirst(cell), kid) != 0, "two keys of the set have the same kid");
	*kids = lappend(*kids, pstrdup(kid));

	if (!is_for_verifying(object))
		return false;
	key = plinth_session_jwk_read(object, &jwk) ? plinth_jose_key_from_jwk(&jwk) : NULL;
	check(key != NULL, "a key of the set is malformed or too weak");
	plinth_jose_key_free(key);
	return true;
}

/* How many keys of a set can verify. */
static int
check_jwks(Jsonb *jwks)
{
	JsonbValue *keys;
	JsonbValue value;
	JsonbIterator *it;
	JsonbIteratorToken token;
	List *kids = NIL;
	int usable = 0;

	check(VARSIZE(jwks) <= MAX_JWKS, "the set has more than 64 KiB");
	keys = JB_ROOT_IS_OBJECT(jwks) ? plinth_session_json_member(jwks, "keys") : NULL;
	check(keys != NULL && keys->type == jbvBinary && JsonContainerIsArray(keys->val.binary.data),
		  "this is not a JWK set");
	it = JsonbIteratorInit(keys->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && check_jwk(JsonbValueToJsonb(&value), &kids))
			usable++;
	}
	check(usable > 0, "no key of the set is for RS256, ES256 or EdDSA");
	return usable;
}

Datum
plinth_session_jwt_issuer_set(PG_FUNCTION_ARGS)
{
	Datum values[8] = {0};
	char nulls[8];
	PlinthAsOwner owner;
	char *issuer;
	int usable;

	PreventCommandIfReadOnly("plinth.jwt_issuer_set()");
	check(!PG_ARGISNULL(0), "issuer is missing");
	check(!PG_ARGISNULL(1), "jwks is missing");
	check(!PG_ARGISNULL(4), "user_key_claim is missing");
	check(!PG_ARGISNULL(6) && !PG_ARGISNULL(7), "create_users and by_user_key must not be null");
	issuer = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check(strcmp(issuer, plinth_setting_jwt_issuer) != 0, "this issuer is this database itself");
	usable = check_jwks(PG_GETARG_JSONB_P(1));

	for (int i = 0; i < lengthof(values); i++)
	{
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&upsert_plan, values, nulls, false, SPI_OK_INSERT);
	plinth_base_owner_end(&owner);
	SPI_finish();
	plinth_audit_record("plinth.jwt_issuer_set", psprintf("jwt_issuer:%s", issuer), "success",
						NULL);
	PG_RETURN_INT32(usable);
}

Datum
plinth_session_jwt_issuer_remove(PG_FUNCTION_ARGS)
{
	Datum issuer = PG_GETARG_DATUM(0);
	PlinthAsOwner owner;
	bool removed;

	PreventCommandIfReadOnly("plinth.jwt_issuer_remove()");
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&delete_plan, &issuer, NULL, false, SPI_OK_DELETE);
	removed = SPI_processed > 0;
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (removed)
		plinth_audit_record("plinth.jwt_issuer_remove",
							psprintf("jwt_issuer:%s", TextDatumGetCString(issuer)), "success",
							NULL);
	PG_RETURN_BOOL(removed);
}
