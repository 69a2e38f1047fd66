/*
 * claims.c
 *		A context from request.jwt.claims, where that setting is believed.
 *
 * PostgREST verifies a JWT and leaves its claims in a setting that any client
 * could write.  So they count only when the connection logged in as one of
 * plinth.trusted_authenticators, and only where no context was begun.  They
 * are believed as they are: nobody looks whether session and user still stand.
 *
 * Policies ask for each row, so what was read is kept until the setting reads
 * otherwise.
 */
#include "postgres.h"

#include "base/base.h"
#include "base/internal.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/varlena.h"

static MemoryContext kept_memory = NULL;
static char *kept_claims = NULL;
static PlinthContext *kept_context = NULL;

bool
plinth_base_is_trusted_authenticator(void)
{
	char *list;
	char *user;
	List *names;
	ListCell *cell;
	bool found = false;

	if (plinth_setting_trusted_authenticators[0] == '\0')
		return false;
	list = pstrdup(plinth_setting_trusted_authenticators);
	user = GetUserNameFromId(GetSessionUserId(), true);
	if (user != NULL && SplitIdentifierString(list, ',', &names))
	{
		foreach (cell, names)
			found = found || strcmp(lfirst(cell), user) == 0;
		list_free(names);
	}
	pfree(list);
	return found;
}

/* A claim that is a string; NULL when it is not there, or something else. */
static char *
string_claim(Jsonb *claims, const char *name)
{
	JsonbValue value;

	if (getKeyJsonValueFromContainer(&claims->root, name, strlen(name), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* Only the form that PostgreSQL itself writes; what else a "sub" may be is no id of ours. */
static bool
uuid_claim(Jsonb *claims, const char *name, pg_uuid_t *uuid)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	char *text = string_claim(claims, name);

	if (text == NULL || strlen(text) != strlen(form))
		return false;
	for (int i = 0; form[i] != '\0'; i++)
	{
		if (form[i] == '-' ? text[i] != '-' : !isxdigit((unsigned char) text[i]))
			return false;
	}
	*uuid = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
	return true;
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/* The strings of the array "roles", sorted; one with a comma in it is no name. */
static char *
roles_claim(Jsonb *claims)
{
	JsonbValue array;
	JsonbIterator *it;
	JsonbValue value;
	JsonbIteratorToken token;
	List *names = NIL;
	ListCell *cell;
	StringInfoData roles;

	initStringInfo(&roles);
	if (getKeyJsonValueFromContainer(&claims->root, "roles", strlen("roles"), &array) == NULL ||
		array.type != jbvBinary || !JsonContainerIsArray(array.val.binary.data))
		return roles.data;

	it = JsonbIteratorInit(array.val.binary.data);
	while ((token = JsonbIteratorNext(&it, &value, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM && value.type == jbvString && value.val.string.len > 0 &&
			memchr(value.val.string.val, ',', value.val.string.len) == NULL)
			names = lappend(names, pnstrdup(value.val.string.val, value.val.string.len));
	}
	list_sort(names, compare_names);
	foreach (cell, names)
		appendStringInfo(&roles, "%s%s", roles.len > 0 ? "," : "", (char *) lfirst(cell));
	return roles.data;
}

/* "aal": a number, or Supabase's aal1 to aal3; 1 where it does not say. */
static int
aal_claim(Jsonb *claims)
{
	JsonbValue value;
	char *text = string_claim(claims, "aal");

	if (text == NULL &&
		getKeyJsonValueFromContainer(&claims->root, "aal", strlen("aal"), &value) != NULL &&
		value.type == jbvNumeric)
		text = psprintf("aal%s", DatumGetCString(DirectFunctionCall1(
									 numeric_out, NumericGetDatum(value.val.numeric))));
	if (text != NULL && strlen(text) == 4 && strncmp(text, "aal", 3) == 0 && text[3] >= '1' &&
		text[3] <= '3')
		return text[3] - '0';
	return 1;
}

static PlinthContext *
parse_claims(const char *text)
{
	Jsonb *claims = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
	PlinthContext *context;

	if (!JB_ROOT_IS_OBJECT(claims))
		return NULL;
	context = palloc0(sizeof(PlinthContext));
	context->has_user = uuid_claim(claims, "sub", &context->user_id);
	if (!context->has_user)
		return NULL;
	context->has_session = uuid_claim(claims, "sid", &context->session_id) ||
						   uuid_claim(claims, "session_id", &context->session_id);
	context->aal = aal_claim(claims);
	context->roles = roles_claim(claims);
	context->tier = string_claim(claims, "tier");
	return context;
}

const PlinthContext *
plinth_base_claims_context(void)
{
	const char *claims = GetConfigOption("request.jwt.claims", true, false);
	MemoryContext old;

	if (claims == NULL || claims[0] == '\0' || !plinth_base_is_trusted_authenticator())
		return NULL;
	if (kept_claims != NULL && strcmp(kept_claims, claims) == 0)
		return kept_context;

	kept_claims = NULL;
	if (kept_memory == NULL)
		kept_memory =
			AllocSetContextCreate(TopMemoryContext, "plinth claims", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(kept_memory);
	old = MemoryContextSwitchTo(kept_memory);
	kept_context = parse_claims(claims);
	kept_claims = pstrdup(claims);
	MemoryContextSwitchTo(old);
	return kept_context;
}
