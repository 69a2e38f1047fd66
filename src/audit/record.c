/*
 * record.c
 *		Writes audit entries in the running transaction.
 *
 * An entry says who acts and from where as the request context has it, never
 * as a caller's argument has it.  Code of this extension may name the actor
 * where no context exists yet, and alone may use action names that begin with
 * "plinth.", so that no application can imitate its entries.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "audit/internal.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inet.h"
#include "utils/timestamp.h"

#define OWN_ACTION_PREFIX "plinth."
#define MAX_ACTION 200
#define MAX_RESOURCE 1000
#define MAX_METADATA PLINTH_AUDIT_MAX_METADATA
#define MAX_USER_AGENT 1000

static PlinthPlan insert_plan = {
	.sql = "INSERT INTO plinth.audit_entries (" PLINTH_AUDIT_COLUMNS
		   ") VALUES (" PLINTH_AUDIT_VALUES ")",
	.nargs = PLINTH_AUDIT_NCOLUMNS,
	.argtypes = {PLINTH_AUDIT_TYPES},
};

PGDLLEXPORT Datum plinth_audit_record_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_audit_record_sql);
PGDLLEXPORT Datum plinth_audit_record_own(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_audit_record_own);

typedef PlinthAuditRow Row;

static void
put(Row *row, Datum value, bool null)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = null;
}

/* A text, cut to a number of bytes without splitting a character. */
static void
put_text(Row *row, const char *value, int max)
{
	if (value == NULL)
		put(row, (Datum) 0, true);
	else
	{
		int len = pg_mbcliplen(value, strlen(value), max);

		put(row, PointerGetDatum(cstring_to_text_with_len(value, len)), false);
	}
}

static void
put_uuid(Row *row, const pg_uuid_t *value)
{
	put(row, UUIDPGetDatum(value), value == NULL);
}

static void
put_parsed(Row *row, PGFunction input, const char *value)
{
	put(row, value ? DirectFunctionCall1(input, CStringGetDatum(value)) : (Datum) 0, value == NULL);
}

static Jsonb *
empty_metadata(void)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
}

Jsonb *
plinth_audit_reason(const char *reason)
{
	JsonbParseState *state = NULL;
	JsonbValue key = {.type = jbvString};
	JsonbValue value = {.type = jbvString};

	key.val.string.val = "reason";
	key.val.string.len = strlen("reason");
	value.val.string.val = unconstify(char *, reason);
	value.val.string.len = strlen(reason);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	pushJsonbValue(&state, WJB_KEY, &key);
	pushJsonbValue(&state, WJB_VALUE, &value);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

void
plinth_audit_row_fill(PlinthAuditRow *row, const PlinthAuditEntry *entry)
{
	const PlinthContext *context = plinth_base_context();
	char *role = GetUserNameFromId(GetSessionUserId(), true);
	NameData *db_role = palloc0(sizeof(NameData));

	namestrcpy(db_role, role ? role : "");
	plinth_base_make_uuid_v7(&row->id);
	row->recorded_at = GetCurrentTimestamp();
	row->n = 0;
	put_uuid(row, &row->id);
	put(row, TimestampTzGetDatum(row->recorded_at), false);
	put_text(row, entry->action, MAX_ACTION);
	put_text(row, entry->resource, MAX_RESOURCE);
	put_text(row, entry->result, MAX_ACTION);
	if (context != NULL && context->has_user)
		put_uuid(row, &context->user_id);
	else
		put_uuid(row, entry->user_id);
	put_text(row, context ? context->user_key : NULL, MAX_RESOURCE);
	if (context != NULL && context->has_session)
		put_uuid(row, &context->session_id);
	else
		put_uuid(row, entry->session_id);
	put_parsed(row, uuid_in, context ? context->impersonator : NULL);
	put_parsed(row, uuid_in, context ? context->api_key : NULL);
	put_parsed(row, inet_in,
			   context && context->address ? context->address : plinth_base_client_address());
	put_text(row, entry->user_agent, MAX_USER_AGENT);
	put(row, NameGetDatum(db_role), false);
	put_text(row, application_name && *application_name ? application_name : NULL, MAX_RESOURCE);
	put(row, JsonbPGetDatum(entry->metadata ? entry->metadata : empty_metadata()), false);
}

void
plinth_audit_row_insert(PlinthAuditRow *row)
{
	PlinthAsOwner owner;
	char nulls[PLINTH_AUDIT_NCOLUMNS];

	for (int i = 0; i < PLINTH_AUDIT_NCOLUMNS; i++)
		nulls[i] = row->nulls[i] ? 'n' : ' ';

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_audit_partition_ensure(row->recorded_at);
	plinth_base_spi_execute(&insert_plan, row->values, nulls, false, SPI_OK_INSERT);
	plinth_base_owner_end(&owner);
	SPI_finish();
}

pg_uuid_t
plinth_audit_write(const PlinthAuditEntry *entry)
{
	Row row;

	PreventCommandIfReadOnly("recording an audit entry");
	plinth_audit_row_fill(&row, entry);
	plinth_audit_row_insert(&row);
	return row.id;
}

void
plinth_audit_record(const char *action, const char *resource, const char *result, Jsonb *metadata)
{
	PlinthAuditEntry entry = {
		.action = action, .resource = resource, .result = result, .metadata = metadata};

	(void) plinth_audit_write(&entry);
}

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
}

static bool
is_own_action(const char *action)
{
	return pg_strncasecmp(action + strspn(action, " \t\r\n"), OWN_ACTION_PREFIX,
						  strlen(OWN_ACTION_PREFIX)) == 0;
}

void
plinth_audit_arguments(FunctionCallInfo fcinfo, bool own, PlinthAuditEntry *entry)
{
	memset(entry, 0, sizeof(*entry));
	check(!PG_ARGISNULL(0), "action is missing");
	entry->action = text_to_cstring(PG_GETARG_TEXT_PP(0));
	check(*entry->action != '\0' && strlen(entry->action) <= MAX_ACTION,
		  "action must have 1 to 200 bytes");
	check(own || !is_own_action(entry->action), "actions that begin with plinth. are reserved");
	if (!PG_ARGISNULL(1))
		entry->resource = text_to_cstring(PG_GETARG_TEXT_PP(1));
	check(entry->resource == NULL || strlen(entry->resource) <= MAX_RESOURCE,
		  "resource must have at most 1000 bytes");
	entry->result = PG_ARGISNULL(2) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(2));
	check(strcmp(entry->result, "success") == 0 || strcmp(entry->result, "failure") == 0 ||
			  strcmp(entry->result, "denied") == 0,
		  "result must be success, failure or denied");
	if (!PG_ARGISNULL(3))
	{
		entry->metadata = PG_GETARG_JSONB_P(3);
		check(JB_ROOT_IS_OBJECT(entry->metadata), "metadata must be a JSON object");
		check(VARSIZE(entry->metadata) <= MAX_METADATA, "metadata must have at most 64 KiB");
	}
}

static Datum
record(FunctionCallInfo fcinfo, bool own)
{
	PlinthAuditEntry entry;
	pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

	plinth_audit_arguments(fcinfo, own, &entry);
	*id = plinth_audit_write(&entry);
	PG_RETURN_UUID_P(id);
}

Datum
plinth_audit_record_sql(PG_FUNCTION_ARGS)
{
	return record(fcinfo, false);
}

/* For plinth's own functions in SQL. */
Datum
plinth_audit_record_own(PG_FUNCTION_ARGS)
{
	return record(fcinfo, true);
}
