/*
 * accesssql.c
 *		What SQL asks about roles and permissions; for policies above all.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/access.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

#define ADMIN_ROLE "plinth_admin"

PGDLLEXPORT Datum plinth_identity_has_role(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_has_permission(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_current_roles(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_current_permissions(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_require_permission(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_identity_require_admin_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_has_role);
PG_FUNCTION_INFO_V1(plinth_identity_has_permission);
PG_FUNCTION_INFO_V1(plinth_identity_current_roles);
PG_FUNCTION_INFO_V1(plinth_identity_current_permissions);
PG_FUNCTION_INFO_V1(plinth_identity_require_permission);
PG_FUNCTION_INFO_V1(plinth_identity_require_admin_sql);

/* What an API key is limited to; as permissions are, but from a list. */
static bool
in_scope(const PlinthContext *context, const char *permission)
{
	char *scopes;
	char *state = NULL;
	PlinthNames names = {0};

	if (context->scopes == NULL)
		return true;
	scopes = pstrdup(context->scopes);
	names.names = palloc(sizeof(char *) * (strlen(scopes) / 2 + 1));
	for (char *name = strtok_r(scopes, ",", &state); name; name = strtok_r(NULL, ",", &state))
		names.names[names.n++] = name;
	return plinth_identity_permits(&names, permission);
}

/* Has the context's user this permission now, within the scopes of an API key? */
static bool
permits(const char *permission)
{
	const PlinthContext *context = plinth_base_context();

	return context != NULL && in_scope(context, permission) &&
		   plinth_identity_permits(&plinth_identity_access_of(context->roles)->permissions,
								   permission);
}

bool
plinth_identity_access_permits(const char *access, const char *permission)
{
	return plinth_identity_permits(&plinth_identity_access_of(access)->permissions, permission);
}

Datum
plinth_identity_has_role(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	PG_RETURN_BOOL(context != NULL &&
				   plinth_identity_named(&plinth_identity_access_of(context->roles)->roles,
										 text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

Datum
plinth_identity_has_permission(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(permits(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}

static Datum
names_array(const PlinthNames *names, const PlinthContext *scope)
{
	Datum *values = palloc(sizeof(Datum) * Max(names->n, 1));
	int n = 0;

	for (int i = 0; i < names->n; i++)
	{
		if (scope == NULL || in_scope(scope, names->names[i]))
			values[n++] = CStringGetTextDatum(names->names[i]);
	}
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

Datum
plinth_identity_current_roles(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(names_array(&plinth_identity_access_of(context->roles)->roles, NULL));
}

Datum
plinth_identity_current_permissions(PG_FUNCTION_ARGS)
{
	const PlinthContext *context = plinth_base_context();

	if (context == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(names_array(&plinth_identity_access_of(context->roles)->permissions, context));
}

static bool
is_signed_in(void)
{
	const PlinthContext *context = plinth_base_context();

	return context != NULL && context->has_user;
}

static void
refuse(const char *permission)
{
	(void) plinth_base_require_user();
	ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN), errmsg("not permitted"),
					errdetail("The permission %s is needed.", permission)));
}

Datum
plinth_identity_require_permission(PG_FUNCTION_ARGS)
{
	char *permission;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("permission is missing")));
	permission = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (!permits(permission))
		refuse(permission);
	PG_RETURN_VOID();
}

/*
 * With a user in the context, the user counts and not the database's role;
 * without one, who the client is, since functions that ask run as their owner.
 */
bool
plinth_identity_is_admin(void)
{
	const PlinthContext *context = plinth_base_context();
	Oid role;

	/* Nobody administers as somebody else. */
	if (context != NULL && context->impersonator != NULL)
		return false;
	if (is_signed_in())
		return permits(PLINTH_PERMISSION_ADMIN);
	role = get_role_oid(ADMIN_ROLE, true);
	return OidIsValid(role) && has_privs_of_role(GetOuterUserId(), role);
}

void
plinth_identity_require_admin(void)
{
	if (!plinth_identity_is_admin())
		refuse(PLINTH_PERMISSION_ADMIN);
}

Datum
plinth_identity_require_admin_sql(PG_FUNCTION_ARGS)
{
	plinth_identity_require_admin();
	PG_RETURN_VOID();
}
