/*
 * jwt.h
 *		What the files about access tokens and their keys share.
 */
#ifndef PLINTH_SESSION_JWT_H
#define PLINTH_SESSION_JWT_H

#include "session/internal.h"
#include "session/jose.h"
#include "utils/array.h"
#include "utils/jsonb.h"

/* The one error for whatever is wrong with a token: PT401. */
pg_noreturn extern void plinth_session_jwt_refuse(void);

/* ---- JSON (jwt_json.c) ---- */

/*
 * An object from one encoded part of a token; refuses what is no base64url, no
 * UTF-8, no JSON, no object, too deep, or names a member twice.
 */
extern Jsonb *plinth_session_json_parse(const char *encoded, size_t len);

/* A member of an object, or NULL; the string and the number refuse other types. */
extern JsonbValue *plinth_session_json_member(Jsonb *object, const char *name);
extern char *plinth_session_json_string(Jsonb *object, const char *name);
extern bool plinth_session_json_number(Jsonb *object, const char *name, double *number);

/* Whether a member is this string, or an array of strings that has it. */
extern bool plinth_session_json_has(Jsonb *object, const char *name, const char *value);

/* Building an object, and encoding it for a token. */
typedef struct PlinthJsonBuilder
{
	JsonbParseState *state;
} PlinthJsonBuilder;
extern void plinth_session_json_begin(PlinthJsonBuilder *builder);
extern void plinth_session_json_put_string(PlinthJsonBuilder *builder, const char *name,
										   const char *value);
extern void plinth_session_json_put_number(PlinthJsonBuilder *builder, const char *name,
										   int64 value);
extern void plinth_session_json_put(PlinthJsonBuilder *builder, const char *name, Jsonb *value);

extern void plinth_session_json_put_strings(PlinthJsonBuilder *builder, const char *name,
											char **values, int count);
extern Jsonb *plinth_session_json_end(PlinthJsonBuilder *builder);
extern char *plinth_session_json_encode(Jsonb *object);

/* ---- Keys (keys.c, jwks.c) ---- */

/* The longest kid that is looked for. */
#define PLINTH_KID_MAX 255

/*
 * The keys returned are kept by the backend, and good until the next call.
 * The one that signs: ERRORs when there is none.  *kid is palloc'd.
 */
extern const PlinthJoseKey *plinth_session_key_active(char **kid);

/* A key of this database's own that may verify now; NULL for none. */
extern const PlinthJoseKey *plinth_session_key_own(const char *kid);

/* Another issuer's key, and what else counts for its tokens. */
typedef struct PlinthIssuer
{
	const PlinthJoseKey *key;
	ArrayType *audience;           /* or NULL */
	ArrayType *authorized_parties; /* or NULL */
	char *user_key_claim;
	char *provider;    /* as identities have it */
	bool create_users; /* one who is not known becomes a user */
	bool by_user_key;  /* its subjects are the application's own keys of users */
} PlinthIssuer;
extern bool plinth_session_key_foreign(const char *issuer, const char *kid, PlinthIssuer *found);

/* A key from what describes it, through the backend's cache; NULL when it is none. */
typedef PlinthJoseKey *(*PlinthKeyMaker)(const void *arg);
extern const PlinthJoseKey *plinth_session_key_keep(const char *kind, const void *description,
													size_t len, PlinthKeyMaker make,
													const void *arg);

/* The members of a JWK for verifying; false when it is not one of ours. */
extern bool plinth_session_jwk_read(Jsonb *object, PlinthJwk *jwk);
extern Jsonb *plinth_session_jwk_write(const PlinthJwk *jwk);
extern const PlinthJoseKey *plinth_session_key_of_jwk(Jsonb *object);

/* ---- Tokens (jwt_issue.c, jwt_verify.c) ---- */

/* An access token of a session that was found good; palloc'd. */
extern char *plinth_session_jwt_issue(const PlinthSession *session, TimestampTz *expires_at);

typedef struct PlinthJwt
{
	Jsonb *claims;
	bool own;              /* made by this database; else of another issuer */
	PlinthSession session; /* of an own one: it is good */
	PlinthIssuer issuer;   /* of another one */
} PlinthJwt;

/* Whether a text can only be meant for a JWT. */
extern bool plinth_session_jwt_shaped(text *token);

/* Whose a verified token of another issuer is, to that issuer; palloc'd. */
extern char *plinth_session_jwt_subject(const PlinthJwt *jwt);

/* Verifies; refuses what is not good.  No SPI connection of the caller's. */
extern void plinth_session_jwt_verify(text *token, PlinthJwt *jwt);

#endif /* PLINTH_SESSION_JWT_H */
