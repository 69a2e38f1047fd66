/*
 * user.c
 *		What the SQL of user administration needs from C: the forms of names
 *		and of password hashes.
 */
#include "postgres.h"

#include "base/base.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/names.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_identity_email_check(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_email_normal(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_password_hash_valid(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_username_check(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_email_check);
PG_FUNCTION_INFO_V1(plinth_identity_email_normal);
PG_FUNCTION_INFO_V1(plinth_identity_password_hash_valid);
PG_FUNCTION_INFO_V1(plinth_identity_username_check);

/* The form of an address that is stored; NULL for what is none. */
static text *
normal_email(text *email)
{
	if (VARSIZE_ANY_EXHDR(email) > PLINTH_EMAIL_MAX)
		return NULL;
	email = plinth_identity_normalize(email);
	return plinth_identity_email_valid(VARDATA_ANY(email), VARSIZE_ANY_EXHDR(email)) ? email : NULL;
}

Datum
plinth_identity_email_normal(PG_FUNCTION_ARGS)
{
	text *email = normal_email(PG_GETARG_TEXT_PP(0));

	if (email == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(email);
}

/* As above, and PT400 for what is none. */
Datum
plinth_identity_email_check(PG_FUNCTION_ARGS)
{
	text *email = normal_email(PG_GETARG_TEXT_PP(0));

	if (email == NULL)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("email is not valid")));
	PG_RETURN_TEXT_P(email);
}

Datum
plinth_identity_username_check(PG_FUNCTION_ARGS)
{
	text *username = PG_GETARG_TEXT_PP(0);

	if (!plinth_identity_username_valid(VARDATA_ANY(username), VARSIZE_ANY_EXHDR(username)))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("username is not valid")));
	PG_RETURN_TEXT_P(username);
}

/*
 * Costs, salt and hash of an Argon2 string as libsodium reads them: plain
 * numbers of which none is too small, and base64 without padding.
 */
static bool
argon2_valid(const char *phc)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *costs = strstr(phc, "$v=19$m=");
	unsigned memory;
	unsigned passes;
	unsigned lanes;
	char plain[64];
	size_t salt_len;
	size_t hash_len;

	if (costs == NULL || sscanf(costs, "$v=19$m=%9u,t=%9u,p=%9u$", &memory, &passes, &lanes) != 3 ||
		passes < 1 || lanes < 1 || memory < 8 * lanes)
		return false;
	snprintf(plain, sizeof(plain), "$v=19$m=%u,t=%u,p=%u$", memory, passes, lanes);
	if (strncmp(costs, plain, strlen(plain)) != 0)
		return false;
	costs += strlen(plain);
	salt_len = strspn(costs, base64);
	if (costs[salt_len] != '$')
		return false;
	costs += salt_len + 1;
	hash_len = strspn(costs, base64);
	return costs[hash_len] == '\0' && salt_len >= 11 && salt_len <= 86 && hash_len >= 22 &&
		   hash_len <= 171;
}

/* Whether a password hash from elsewhere is one that can be verified, at a cost that is borne. */
Datum
plinth_identity_password_hash_valid(PG_FUNCTION_ARGS)
{
	char *hash = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(plinth_crypto_password_acceptable(hash) &&
				   (strncmp(hash, "$argon2", strlen("$argon2")) != 0 || argon2_valid(hash)));
}
