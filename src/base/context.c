/*
 * context.c
 *		The request context: who is calling, as this extension verified it.
 *
 * The truth is a stack of records in this backend's memory.  Fixing a context
 * pushes a record; the end of the transaction, or the rollback of the
 * subtransaction that pushed it, takes it away.  No SQL reaches it.
 *
 * Parallel workers need it too, and PostgreSQL hands them settings.  So each
 * record also stands, as text, in the setting plinth.context, and a worker (and
 * only a worker) reads it from there.  Nobody else can write the setting: its
 * check hook accepts just the pointer that plinth_base_context_fix passes at
 * that moment, and, in a worker that is being started, what its leader sends.
 * RESET asks no check hook, so the assign hook refuses it while a context is
 * fixed; RESET ALL and DISCARD ALL leave the setting alone (GUC_NO_RESET_ALL).
 *
 * Where what runs serves nobody's request, the setting says so (HIDDEN), for it
 * and for its parallel workers; the records stay.
 *
 * The identity that was fixed first is remembered for the whole transaction,
 * beyond the rollback of its savepoint, and no other is accepted in it.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "base/base.h"
#include "base/internal.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define CONTEXT_NAME "plinth.context"
#define HIDDEN "-" /* no encoded context begins like this */

typedef struct ContextRecord
{
	PlinthContext context;
	struct ContextRecord *outer;
} ContextRecord;

/* The records of the running transaction, innermost first; in TopTransactionContext. */
static ContextRecord *current = NULL;

/* Who was fixed in which transaction. */
static LocalTransactionId bound_lxid = InvalidLocalTransactionId;
static pg_uuid_t bound_user;
static pg_uuid_t bound_session;
static bool bound_has_user;
static bool bound_has_session;
static char bound_impersonator[64];
static char bound_api_key[64];

/* The setting, what may be assigned to it now, and a worker's reading of it. */
static char *context_setting = NULL;
static const char *staged = NULL;
static MemoryContext worker_memory = NULL;
static PlinthContext *worker_context = NULL;
static bool worker_parsed = false;

static bool
check_context(char **newval, void **extra, GucSource source)
{
	if (source == PGC_S_DEFAULT && **newval == '\0')
		return true;
	if (source == PGC_S_SESSION && InitializingParallelWorker)
		return true;
	if (source == PGC_S_SESSION && staged != NULL && strcmp(*newval, staged) == 0)
		return true;

	GUC_check_errcode(ERRCODE_INSUFFICIENT_PRIVILEGE);
	GUC_check_errmsg("setting \"%s\" cannot be set", CONTEXT_NAME);
	GUC_check_errhint("A request context is begun by plinth.context_begin.");
	return false;
}

/*
 * At the end of a transaction or a rollback the record is gone before
 * PostgreSQL restores the setting, so only RESET comes here with a record
 * and without a value.
 */
static void
assign_context(const char *newval, void *extra)
{
	if (current != NULL && *newval == '\0')
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("setting \"%s\" cannot be reset", CONTEXT_NAME),
						errdetail("A request context lasts until the end of its transaction.")));
	worker_parsed = false;
}

void
plinth_base_context_init(void)
{
	DefineCustomStringVariable(CONTEXT_NAME, "Who is calling, as plinth verified it.",
							   "Only plinth itself can set it.", &context_setting, "", PGC_SUSET,
							   GUC_NO_RESET_ALL | GUC_NO_SHOW_ALL | GUC_SUPERUSER_ONLY |
								   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE | PLINTH_GUC_NO_RESET,
							   check_context, assign_context, NULL);
}

/* A field as its length, a colon and its bytes; "~" for NULL. */
static void
put_field(StringInfo out, const char *value)
{
	if (value == NULL)
		appendStringInfoChar(out, '~');
	else
		appendStringInfo(out, "%zu:%s", strlen(value), value);
}

static char *
take_field(const char **in)
{
	char *end;
	unsigned long len;
	char *value;

	if (**in == '~')
	{
		(*in)++;
		return NULL;
	}
	len = strtoul(*in, &end, 10);
	if (*end != ':' || strlen(end + 1) < len)
		elog(ERROR, "malformed request context");
	value = pnstrdup(end + 1, len);
	*in = end + 1 + len;
	return value;
}

static char *
encode_context(const PlinthContext *context)
{
	StringInfoData out;

	initStringInfo(&out);
	put_field(&out,
			  context->has_user
				  ? DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&context->user_id)))
				  : NULL);
	put_field(&out, context->has_session ? DatumGetCString(DirectFunctionCall1(
											   uuid_out, UUIDPGetDatum(&context->session_id)))
										 : NULL);
	put_field(&out, psprintf("%d", context->aal));
	put_field(&out, context->user_key);
	put_field(&out, context->roles ? context->roles : "");
	put_field(&out, context->scopes);
	put_field(&out, context->tier);
	put_field(&out, context->address);
	put_field(&out, context->impersonator);
	put_field(&out, context->api_key);
	return out.data;
}

static bool
take_uuid(const char **in, pg_uuid_t *uuid)
{
	char *text = take_field(in);

	if (text == NULL)
		return false;
	*uuid = *DatumGetUUIDP(DirectFunctionCall1(uuid_in, CStringGetDatum(text)));
	return true;
}

static PlinthContext *
decode_context(const char *in)
{
	PlinthContext *context = palloc0(sizeof(PlinthContext));

	context->has_user = take_uuid(&in, &context->user_id);
	context->has_session = take_uuid(&in, &context->session_id);
	context->aal = atoi(take_field(&in));
	context->user_key = take_field(&in);
	context->roles = take_field(&in);
	context->scopes = take_field(&in);
	context->tier = take_field(&in);
	context->address = take_field(&in);
	context->impersonator = take_field(&in);
	context->api_key = take_field(&in);
	return context;
}

/* What the leader's context is, read once. */
static const PlinthContext *
leaders_context(void)
{
	if (!worker_parsed)
	{
		MemoryContext old;

		if (worker_memory == NULL)
			worker_memory =
				AllocSetContextCreate(TopMemoryContext, "plinth context", ALLOCSET_SMALL_SIZES);
		worker_context = NULL;
		MemoryContextReset(worker_memory);
		old = MemoryContextSwitchTo(worker_memory);
		if (context_setting != NULL && *context_setting != '\0')
			worker_context = decode_context(context_setting);
		MemoryContextSwitchTo(old);
		worker_parsed = true;
	}
	return worker_context;
}

/* Also where there is no setting, without preload. */
static bool
is_hidden(void)
{
	return context_setting != NULL && *context_setting == HIDDEN[0];
}

const PlinthContext *
plinth_base_context(void)
{
	const PlinthContext *context;

	if (is_hidden())
		return NULL;
	if (IsParallelWorker())
		context = leaders_context();
	else
		context = current != NULL ? &current->context : NULL;
	return context != NULL ? context : plinth_base_claims_context();
}

/* The (sub)transaction rolls back: records are discarded innermost first. */
static void
drop_record(void *arg)
{
	current = ((ContextRecord *) arg)->outer;
}

/* Every record goes at once: the first to be published is the outermost. */
static void
drop_records(void *arg)
{
	current = NULL;
}

static const PlinthXactAction context_action = {
	.name = "request context",
	.reserve = NULL,
	.publish = drop_records,
	.discard = drop_record,
	.shared = false,
};

/* Refuses another identity than the one that this transaction has seen. */
static void
bind_identity(const PlinthContext *context)
{
	const char *impersonator = context->impersonator ? context->impersonator : "";
	const char *api_key = context->api_key ? context->api_key : "";

	if (bound_lxid == plinth_compat_lxid())
	{
		if (bound_has_user == context->has_user && bound_has_session == context->has_session &&
			(!bound_has_user || memcmp(&bound_user, &context->user_id, sizeof(pg_uuid_t)) == 0) &&
			(!bound_has_session ||
			 memcmp(&bound_session, &context->session_id, sizeof(pg_uuid_t)) == 0) &&
			strcmp(bound_impersonator, impersonator) == 0 && strcmp(bound_api_key, api_key) == 0)
			return;
		ereport(ERROR, (errcode(PLINTH_ERRCODE_FORBIDDEN),
						errmsg("another request context was begun in this transaction"),
						errhint("Begin each request in a transaction of its own.")));
	}

	if (strlen(impersonator) >= sizeof(bound_impersonator) ||
		strlen(api_key) >= sizeof(bound_api_key))
		elog(ERROR, "impersonator or API key is too long");
	bound_user = context->user_id;
	bound_session = context->session_id;
	bound_has_user = context->has_user;
	bound_has_session = context->has_session;
	strcpy(bound_impersonator, impersonator);
	strcpy(bound_api_key, api_key);
	bound_lxid = plinth_compat_lxid();
}

static const char *
copy_string(const char *value)
{
	return value ? MemoryContextStrdup(TopTransactionContext, value) : NULL;
}

/* Writes the setting, which only we may. */
static void
assign(const char *value, GucAction action)
{
	staged = value;
	PG_TRY ()
		;
	{
		(void) set_config_option(CONTEXT_NAME, value, PGC_SUSET, PGC_S_SESSION, action, true, ERROR,
								 false);
	}
	PG_FINALLY ()
		;
	{
		staged = NULL;
	}
	PG_END_TRY();
}

void
plinth_base_context_hide(void)
{
	/* From 16 on a setting that has no RESET refuses GUC_ACTION_SAVE. */
	assign(HIDDEN, GUC_ACTION_LOCAL);
	(void) set_config_option("request.jwt.claims", "", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, ERROR, false);
}

void
plinth_base_context_fix(const PlinthContext *context)
{
	ContextRecord *record;
	char *encoded;

	if (IsInParallelMode() || InSecurityRestrictedOperation())
		ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
						errmsg("cannot begin a request context in a parallel or "
							   "security-restricted operation")));

	encoded = encode_context(context);
	bind_identity(context);

	record = MemoryContextAllocZero(TopTransactionContext, sizeof(ContextRecord));
	record->context = *context;
	record->context.user_key = copy_string(context->user_key);
	record->context.roles = copy_string(context->roles ? context->roles : "");
	record->context.scopes = copy_string(context->scopes);
	record->context.tier = copy_string(context->tier);
	record->context.address = copy_string(context->address);
	record->context.impersonator = copy_string(context->impersonator);
	record->context.api_key = copy_string(context->api_key);
	record->outer = current;

	assign(encoded, GUC_ACTION_LOCAL);

	plinth_base_xact_add(&context_action, record);
	current = record;

	if (MyBackendType == B_BACKEND && !IsTransactionBlock() && !IsSubTransaction())
		/* One statement can be a whole request: no line in the log for each. */
		ereport(WARNING_CLIENT_ONLY, (errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
									  errmsg("the request context ends with this statement"),
									  errhint("Begin it in a transaction block.")));
	pfree(encoded);
}
