/*
 * sign_up.c
 *		plinth.sign_up: a new user with a password.
 *
 * The password is hashed before anything is looked up, so a taken e-mail
 * address costs what a free one costs.  Two who sign up with one address at
 * the same time are told apart by the unique indexes alone.
 */
#include "postgres.h"

#include "audit/audit.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "fmgr.h"
#include "funcapi.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "identity/names.h"
#include "limits/limits.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#define MAX_FULL_NAME 400
#define MAX_METADATA 65536
#define ACTION "plinth.sign_up"
#define TRIES 3

static PlinthPlan insert_user_plan = {
	.sql = "INSERT INTO plinth.users (email, username, full_name, metadata) "
		   "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING id",
	.nargs = 4,
	.argtypes = {TEXTOID, TEXTOID, TEXTOID, JSONBOID},
};
static PlinthPlan insert_password_plan = {
	.sql = "INSERT INTO plinth.passwords (user_id, phc) VALUES ($1, $2)",
	.nargs = 2,
	.argtypes = {UUIDOID, TEXTOID},
};
static PlinthPlan username_taken_plan = {
	.sql = "SELECT id FROM plinth.users WHERE deleted_at IS NULL "
		   "AND pg_catalog.lower(username) = pg_catalog.lower($1)",
	.nargs = 1,
	.argtypes = {TEXTOID},
};
static PlinthPlan email_taken_plan = {
	.sql = "SELECT id FROM plinth.users WHERE deleted_at IS NULL "
		   "AND pg_catalog.lower(email) = pg_catalog.lower($1)",
	.nargs = 1,
	.argtypes = {TEXTOID},
};

typedef struct SignUp
{
	Datum values[4]; /* as insert_user_plan takes them */
	char nulls[4];
	text *password;
	char *phc;
	const char *status;
	bool has_user;
	pg_uuid_t user_id; /* the new user, or who holds the name */
	int64 retry_after;
} SignUp;

PGDLLEXPORT Datum plinth_identity_sign_up(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_sign_up);

static void
check(bool good, const char *message)
{
	if (!good)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_BAD_REQUEST), errmsg_internal("%s", message)));
}

static void
take_arguments(FunctionCallInfo fcinfo, SignUp *up)
{
	text *email;

	check(!PG_ARGISNULL(0), "email is missing");
	check(!PG_ARGISNULL(1), "password is missing");
	memset(up->nulls, ' ', sizeof(up->nulls));

	email = PG_GETARG_TEXT_PP(0);
	check(VARSIZE_ANY_EXHDR(email) <= PLINTH_EMAIL_MAX, "email is not valid");
	email = plinth_identity_normalize(email);
	check(plinth_identity_email_valid(VARDATA_ANY(email), VARSIZE_ANY_EXHDR(email)),
		  "email is not valid");
	up->values[0] = PointerGetDatum(email);

	up->nulls[1] = PG_ARGISNULL(2) ? 'n' : ' ';
	if (!PG_ARGISNULL(2))
	{
		text *username = PG_GETARG_TEXT_PP(2);

		check(plinth_identity_username_valid(VARDATA_ANY(username), VARSIZE_ANY_EXHDR(username)),
			  "username is not valid");
		up->values[1] = PointerGetDatum(username);
	}

	up->nulls[2] = PG_ARGISNULL(3) ? 'n' : ' ';
	if (!PG_ARGISNULL(3))
	{
		text *full_name = PG_GETARG_TEXT_PP(3);

		check(VARSIZE_ANY_EXHDR(full_name) <= MAX_FULL_NAME, "full_name is too long");
		up->values[2] = PointerGetDatum(full_name);
	}

	if (PG_ARGISNULL(4))
		up->values[3] = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	else
	{
		Jsonb *metadata = PG_GETARG_JSONB_P(4);

		check(JB_ROOT_IS_OBJECT(metadata), "metadata must be a JSON object");
		check(strlen(JsonbToCString(NULL, &metadata->root, VARSIZE(metadata))) <= MAX_METADATA,
			  "metadata must have at most 64 KiB");
		up->values[3] = JsonbPGetDatum(metadata);
	}
}

static bool
first_uuid(pg_uuid_t *uuid)
{
	bool null;

	if (SPI_processed == 0)
		return false;
	*uuid = *DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	return true;
}

static bool
insert_user(SignUp *up)
{
	Datum values[2];

	plinth_base_spi_execute(&insert_user_plan, up->values, up->nulls, false,
							SPI_OK_INSERT_RETURNING);
	if (!first_uuid(&up->user_id))
		return false;
	values[0] = UUIDPGetDatum(&up->user_id);
	values[1] = CStringGetTextDatum(up->phc);
	plinth_base_spi_execute(&insert_password_plan, values, NULL, false, SPI_OK_INSERT);
	up->status = "ok";
	return true;
}

/* Who stands in the way?  Nobody, when they have gone meanwhile. */
static bool
find_holder(SignUp *up)
{
	if (up->nulls[1] == ' ')
	{
		plinth_base_spi_execute(&username_taken_plan, &up->values[1], NULL, false, SPI_OK_SELECT);
		if (first_uuid(&up->user_id))
		{
			up->status = "username_taken";
			return true;
		}
	}
	plinth_base_spi_execute(&email_taken_plan, &up->values[0], NULL, false, SPI_OK_SELECT);
	up->status = "email_taken";
	return first_uuid(&up->user_id);
}

static void
store_user(SignUp *up)
{
	PlinthAsOwner owner;
	bool done = false;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	for (int i = 0; !done && i < TRIES; i++)
		done = insert_user(up) || find_holder(up);
	plinth_base_owner_end(&owner);
	SPI_finish();
	up->has_user = done;
	if (!done)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("could not sign up because of concurrent changes")));
}

static void
record(const SignUp *up, bool ok)
{
	PlinthAuditEntry entry = {.action = ACTION,
							  .result = ok             ? "success"
										: up->has_user ? "failure"
													   : "denied"};

	if (up->has_user)
		entry.resource = plinth_identity_resource(&up->user_id);
	if (ok)
		entry.user_id = &up->user_id;
	else
		entry.metadata = plinth_audit_reason(up->status);
	(void) plinth_audit_attempt(&entry);
}

static void
hash_and_store(SignUp *up, Datum password)
{
	up->password = plinth_identity_secret(password);
	PG_TRY ()
		;
	{
		plinth_identity_password_check(up->password);
		if (plinth_identity_address_allowed("plinth.sign_up_address", &up->retry_after))
			up->phc = plinth_crypto_password_hash(VARDATA_ANY(up->password),
												  VARSIZE_ANY_EXHDR(up->password));
	}
	PG_FINALLY ()
		;
	{
		plinth_identity_secret_wipe(up->password, password);
	}
	PG_END_TRY();

	if (up->phc != NULL)
		store_user(up);
	else
		up->status = "rate_limited";
}

Datum
plinth_identity_sign_up(PG_FUNCTION_ARGS)
{
	SignUp up = {0};
	TupleDesc desc;
	Datum values[3];
	bool nulls[3] = {false, false, false};
	bool ok;

	plinth_base_hide_statement();
	PreventCommandIfReadOnly("plinth.sign_up()");
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	take_arguments(fcinfo, &up);
	hash_and_store(&up, PG_GETARG_DATUM(1));
	ok = strcmp(up.status, "ok") == 0;
	record(&up, ok);

	values[0] = CStringGetTextDatum(up.status);
	values[1] = UUIDPGetDatum(&up.user_id);
	nulls[1] = !ok;
	values[2] = plinth_limits_wait(up.retry_after, &nulls[2]);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
