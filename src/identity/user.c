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

/* Whether a password hash from elsewhere is one that can be verified, at a cost that is borne. */
Datum
plinth_identity_password_hash_valid(PG_FUNCTION_ARGS)
{
	char *hash = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_BOOL(plinth_crypto_password_acceptable(hash));
}
