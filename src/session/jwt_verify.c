/*
 * jwt_verify.c
 *		Is this token good?  RFC 7519 as RFC 8725 wants it.
 *
 * The order: form, header, which issuer and which of its keys, that key's
 * algorithm, signature; only then what the claims say.  A key is found by
 * issuer and kid together and decides the algorithm alone; what a token brings
 * along to be verified with is refused.  A token made here needs its session
 * besides, so that it ends when that does.  There is one error for all of it.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "session/jwt.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* The end of the year 9999, which is as far as a time can mean anything. */
#define MAX_TIME 253402300799.0

PGDLLEXPORT Datum plinth_session_jwt_verify_sql(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_session_jwt_user_key(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_jwt_verify_sql);
PG_FUNCTION_INFO_V1(plinth_session_jwt_user_key);

static void
require(bool good)
{
	if (!good)
		plinth_session_jwt_refuse();
}

/*
 * What changes the meaning of a token (crit, b64, zip, enc), puts another one
 * into it (cty), or brings a key along is refused, known or not.
 */
static void
check_header(Jsonb *header)
{
	static const char *const refused[] = {"crit", "b64", "zip", "enc", "cty", "jwk",
										  "jku",  "x5u", "x5c", "epk", "apu", "apv"};

	for (int i = 0; i < lengthof(refused); i++)
		require(plinth_session_json_member(header, refused[i]) == NULL);
}

/* Media types are told apart without regard to case, and may leave "application/" out. */
static bool
is_type(const char *typ, const char *wanted)
{
	static const char prefix[] = "application/";

	if (pg_strncasecmp(typ, prefix, strlen(prefix)) == 0)
		typ += strlen(prefix);
	return pg_strcasecmp(typ, wanted) == 0;
}

static double
now_seconds(void)
{
	return GetCurrentTimestamp() / 1000000.0 +
		   (double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

static bool
time_claim(Jsonb *claims, const char *name, bool required, double *seconds)
{
	if (!plinth_session_json_number(claims, name, seconds))
	{
		require(!required);
		return false;
	}
	require(*seconds >= 0 && *seconds <= MAX_TIME);
	return true;
}

static void
check_times(Jsonb *claims, bool own)
{
	double now = now_seconds();
	double leeway = plinth_setting_jwt_leeway;
	double seconds;

	(void) time_claim(claims, "exp", true, &seconds);
	require(now < seconds + leeway);
	if (time_claim(claims, "nbf", own, &seconds))
		require(seconds <= now + leeway);
	if (time_claim(claims, "iat", own, &seconds))
		require(seconds <= now + leeway);
}

/* Whether a claim has one of the texts in an array. */
static bool
has_any(Jsonb *claims, const char *name, ArrayType *wanted)
{
	Datum *elements;
	bool *nulls;
	int count;
	bool found = false;

	deconstruct_array(wanted, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &count);
	for (int i = 0; i < count; i++)
		found = found || (!nulls[i] &&
						  plinth_session_json_has(claims, name, TextDatumGetCString(elements[i])));
	return found;
}

static void
check_parties(Jsonb *claims, const PlinthIssuer *issuer)
{
	if (issuer->audience != NULL)
		require(has_any(claims, "aud", issuer->audience));
	else
		require(plinth_session_json_member(claims, "aud") == NULL);
	if (issuer->authorized_parties != NULL)
		require(has_any(claims, "azp", issuer->authorized_parties));
}

static void
check_signature(const char *token, const PlinthJoseParts *parts, const char *alg,
				const PlinthJoseKey *key)
{
	uint8 signature[PLINTH_JOSE_MAX_TOKEN];
	long len = plinth_base64url_decode(parts->signature, parts->signature_len, signature);

	require(key != NULL && strcmp(alg, plinth_jose_alg_name(plinth_jose_key_alg(key))) == 0);
	require(len > 0 && plinth_jose_verify(key, token, parts->signed_len, signature, len));
}

/* A uuid in exactly the form that it was written in. */
static void
uuid_claim(Jsonb *claims, const char *name, pg_uuid_t *uuid)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	char *text = plinth_session_json_string(claims, name);

	require(text != NULL && strlen(text) == strlen(form));
	for (int i = 0; form[i] != '\0'; i++)
		require(form[i] == '-' ? text[i] == '-' : strchr("0123456789abcdef", text[i]) != NULL);
	*uuid = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
}

/* A token made here is good as long as its session, and for no more than that. */
static void
check_session(PlinthJwt *jwt)
{
	pg_uuid_t user_id;
	pg_uuid_t session_id;
	char *jti = plinth_session_json_string(jwt->claims, "jti");
	double aal;

	require(jti != NULL && jti[0] != '\0');
	require(plinth_session_json_has(jwt->claims, "aud", plinth_setting_jwt_audience));
	uuid_claim(jwt->claims, "sub", &user_id);
	uuid_claim(jwt->claims, "sid", &session_id);
	require(plinth_session_json_number(jwt->claims, "aal", &aal) && aal >= 1 && aal <= 3);
	require(plinth_session_find_by_id(&session_id, &jwt->session));
	require(memcmp(&user_id, &jwt->session.user_id, sizeof(pg_uuid_t)) == 0);
	jwt->session.aal = Min(jwt->session.aal, (int) aal);
}

bool
plinth_session_jwt_shaped(text *token)
{
	return memchr(VARDATA_ANY(token), '.', VARSIZE_ANY_EXHDR(token)) != NULL;
}

void
plinth_session_jwt_verify(text *token, PlinthJwt *jwt)
{
	const char *bytes = VARDATA_ANY(token);
	PlinthJoseParts parts;
	Jsonb *header;
	char *alg;
	char *kid;
	char *typ;
	char *iss;

	memset(jwt, 0, sizeof(*jwt));
	require(plinth_jose_split(bytes, VARSIZE_ANY_EXHDR(token), &parts));
	header = plinth_session_json_parse(parts.header, parts.header_len);
	check_header(header);
	alg = plinth_session_json_string(header, "alg");
	kid = plinth_session_json_string(header, "kid");
	typ = plinth_session_json_string(header, "typ");
	require(alg != NULL && kid != NULL && kid[0] != '\0' && strlen(kid) <= PLINTH_KID_MAX);

	jwt->claims = plinth_session_json_parse(parts.payload, parts.payload_len);
	iss = plinth_session_json_string(jwt->claims, "iss");
	require(iss != NULL);
	jwt->own = strcmp(iss, plinth_setting_jwt_issuer) == 0;
	if (jwt->own)
	{
		require(typ != NULL && is_type(typ, "at+jwt"));
		jwt->issuer.key = plinth_session_key_own(kid);
	}
	else
	{
		require(typ == NULL || is_type(typ, "JWT") || is_type(typ, "at+jwt"));
		require(plinth_session_key_foreign(iss, kid, &jwt->issuer));
	}

	check_signature(bytes, &parts, alg, jwt->issuer.key);
	check_times(jwt->claims, jwt->own);
	if (jwt->own)
		check_session(jwt);
	else
		check_parties(jwt->claims, &jwt->issuer);
}

static void
verify_argument(FunctionCallInfo fcinfo, PlinthJwt *jwt)
{
	plinth_base_hide_statement();
	require(!PG_ARGISNULL(0));
	plinth_session_jwt_verify(PG_GETARG_TEXT_PP(0), jwt);
}

Datum
plinth_session_jwt_verify_sql(PG_FUNCTION_ARGS)
{
	PlinthJwt jwt;

	verify_argument(fcinfo, &jwt);
	PG_RETURN_JSONB_P(jwt.claims);
}

char *
plinth_session_jwt_subject(const PlinthJwt *jwt)
{
	JsonbValue *value =
		plinth_session_json_member(jwt->claims, jwt->own ? "sub" : jwt->issuer.user_key_claim);

	require(value != NULL &&
			((value->type == jbvString && value->val.string.len > 0) || value->type == jbvNumeric));
	if (value->type == jbvNumeric)
		return DatumGetCString(
			DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

Datum
plinth_session_jwt_user_key(PG_FUNCTION_ARGS)
{
	PlinthJwt jwt;

	verify_argument(fcinfo, &jwt);
	PG_RETURN_TEXT_P(cstring_to_text(plinth_session_jwt_subject(&jwt)));
}
