/*
 * user.c
 *		What the SQL of user administration needs from C: the forms of names.
 */
#include "postgres.h"

#include "base/base.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/names.h"
#include "utils/builtins.h"

PGDLLEXPORT Datum plinth_identity_email_check(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_username_check(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_email_check);
PG_FUNCTION_INFO_V1(plinth_identity_username_check);

/* The form of an address that is stored; PT400 for what is none. */
Datum
plinth_identity_email_check(PG_FUNCTION_ARGS)
{
	text *email = PG_GETARG_TEXT_PP(0);

	if (VARSIZE_ANY_EXHDR(email) <= PLINTH_EMAIL_MAX)
	{
		email = plinth_identity_normalize(email);
		if (plinth_identity_email_valid(VARDATA_ANY(email), VARSIZE_ANY_EXHDR(email)))
			PG_RETURN_TEXT_P(email);
	}
	ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("email is not valid")));
}

Datum
plinth_identity_username_check(PG_FUNCTION_ARGS)
{
	text *username = PG_GETARG_TEXT_PP(0);

	if (!plinth_identity_username_valid(VARDATA_ANY(username), VARSIZE_ANY_EXHDR(username)))
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg("username is not valid")));
	PG_RETURN_TEXT_P(username);
}
