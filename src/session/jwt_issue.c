/*
 * jwt_issue.c
 *		Access tokens: signed claims about a session that was found good.
 *
 * They are made from the session's own token, never from another access token
 * or from the request context: who has stolen one cannot renew it.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "session/jwt.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define JTI_BYTES 16

PGDLLEXPORT Datum plinth_session_jwt_issue_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_session_jwt_issue_sql);

static char *
uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

/* Whole seconds since 1970. */
static int64
unix_seconds(TimestampTz time)
{
	return time / USECS_PER_SEC + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
}

static Jsonb *
make_header(PlinthJoseAlg alg, const char *kid)
{
	PlinthJsonBuilder header;

	plinth_session_json_begin(&header);
	plinth_session_json_put_string(&header, "alg", plinth_jose_alg_name(alg));
	plinth_session_json_put_string(&header, "kid", kid);
	plinth_session_json_put_string(&header, "typ", "at+jwt");
	return plinth_session_json_end(&header);
}

/* {"sub": impersonator} (RFC 8693 section 4.1) */
static Jsonb *
make_actor(const pg_uuid_t *impersonator)
{
	PlinthJsonBuilder actor;

	plinth_session_json_begin(&actor);
	plinth_session_json_put_string(&actor, "sub", uuid_text(impersonator));
	return plinth_session_json_end(&actor);
}

static void
put_roles(PlinthJsonBuilder *claims, const PlinthSession *session)
{
	int count;
	char **roles = plinth_identity_role_names(session->roles, &count);

	plinth_session_json_put_strings(claims, "roles", roles, count);
}

static Jsonb *
make_claims(const PlinthSession *session, TimestampTz now, TimestampTz expires_at)
{
	uint8 random[JTI_BYTES];
	char jti[PLINTH_BASE64URL_LENGTH(JTI_BYTES) + 1];
	PlinthJsonBuilder claims;

	plinth_crypto_random(random, sizeof(random));
	plinth_base64url_encode(random, sizeof(random), jti);
	plinth_session_json_begin(&claims);
	plinth_session_json_put_string(&claims, "iss", plinth_setting_jwt_issuer);
	plinth_session_json_put_string(&claims, "aud", plinth_setting_jwt_audience);
	plinth_session_json_put_string(&claims, "sub", uuid_text(&session->user_id));
	plinth_session_json_put_string(&claims, "sid", uuid_text(&session->id));
	plinth_session_json_put_string(&claims, "role", plinth_setting_role_authenticated);
	put_roles(&claims, session);
	plinth_session_json_put_number(&claims, "aal", session->aal);
	plinth_session_json_put_number(&claims, "iat", unix_seconds(now));
	plinth_session_json_put_number(&claims, "nbf", unix_seconds(now));
	plinth_session_json_put_number(&claims, "exp", unix_seconds(expires_at));
	plinth_session_json_put_string(&claims, "jti", jti);
	if (session->has_impersonator)
		plinth_session_json_put(&claims, "act", make_actor(&session->impersonator_id));
	return plinth_session_json_end(&claims);
}

char *
plinth_session_jwt_issue(const PlinthSession *session, TimestampTz *expires_at)
{
	char *kid;
	const PlinthJoseKey *key = plinth_session_key_active(&kid);
	TimestampTz now = GetCurrentTimestamp();
	uint8 signature[PLINTH_JOSE_MAX_SIGNATURE];
	char encoded[PLINTH_BASE64URL_LENGTH(PLINTH_JOSE_MAX_SIGNATURE) + 1];
	char *signed_part;
	char *token;
	size_t len;

	*expires_at = Min(now + plinth_setting_jwt_lifetime * USECS_PER_SEC, session->expires_at);
	*expires_at -= *expires_at % USECS_PER_SEC;
	signed_part =
		psprintf("%s.%s", plinth_session_json_encode(make_header(plinth_jose_key_alg(key), kid)),
				 plinth_session_json_encode(make_claims(session, now, *expires_at)));
	len = plinth_jose_sign(key, signed_part, strlen(signed_part), signature);
	if (len == 0)
		ereport(ERROR, (errcode(ERRCODE_SYSTEM_ERROR), errmsg("could not sign an access token")));
	plinth_base64url_encode(signature, len, encoded);
	token = psprintf("%s.%s", signed_part, encoded);
	if (strlen(token) > PLINTH_JOSE_MAX_TOKEN)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the access token is too long")));
	return token;
}

Datum
plinth_session_jwt_issue_sql(PG_FUNCTION_ARGS)
{
	PlinthSession session;
	TimestampTz expires_at;

	plinth_base_hide_statement();
	if (PG_ARGISNULL(0) || !plinth_session_find(PG_GETARG_TEXT_PP(0), &session))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED), errmsg("session is not valid")));
	PG_RETURN_TEXT_P(cstring_to_text(plinth_session_jwt_issue(&session, &expires_at)));
}
