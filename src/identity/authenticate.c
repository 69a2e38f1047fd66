/*
 * authenticate.c
 *		Is this the password of that user?
 *
 * The hash is verified without any lock, since it takes long.  What it was
 * verified against is then looked at again under locks (the user's row, then
 * the password's), which hold until the end of the transaction: a password
 * that changed meanwhile, or a user who was locked, does not get in, and who
 * changes them afterwards waits and sees the session that was made.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "crypto/crypto.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#define FIND_USER                                                                                  \
	"SELECT u.id, p.phc FROM plinth.users u LEFT JOIN plinth.passwords p ON p.user_id = u.id "     \
	"WHERE u.deleted_at IS NULL AND "

static PlinthPlan find_by_email_plan = {
	.sql = FIND_USER "pg_catalog.lower(u.email) = pg_catalog.lower($1)",
	.nargs = 1,
	.argtypes = {TEXTOID},
};
static PlinthPlan find_by_username_plan = {
	.sql = FIND_USER "pg_catalog.lower(u.username) = pg_catalog.lower($1)",
	.nargs = 1,
	.argtypes = {TEXTOID},
};
static PlinthPlan lock_user_plan = {
	.sql = "SELECT " PLINTH_USER_ACTIVE(
		"u", "pg_catalog.clock_timestamp()") ", u.email_verified_at IS NOT NULL "
											 "FROM plinth.users u WHERE u.id = $1 AND "
											 "u.deleted_at IS NULL FOR NO KEY UPDATE",
	.nargs = 1,
	.argtypes = {UUIDOID},
};
static PlinthPlan lock_password_plan = {
	.sql = "SELECT 1 FROM plinth.passwords WHERE user_id = $1 AND phc = $2 FOR NO KEY UPDATE",
	.nargs = 2,
	.argtypes = {UUIDOID, TEXTOID},
};
static PlinthPlan rehash_plan = {
	.sql = "UPDATE plinth.passwords SET phc = $2 WHERE user_id = $1",
	.nargs = 2,
	.argtypes = {UUIDOID, TEXTOID},
};
static PlinthPlan seen_plan = {
	.sql = "UPDATE plinth.users SET last_login_at = pg_catalog.now() WHERE id = $1",
	.nargs = 1,
	.argtypes = {UUIDOID},
};

static bool
is_ascii_text(text *value)
{
	const char *s = VARDATA_ANY(value);

	for (int i = 0; i < VARSIZE_ANY_EXHDR(value); i++)
	{
		if (IS_HIGHBIT_SET(s[i]))
			return false;
	}
	return true;
}

text *
plinth_identity_normalize(text *name)
{
	if (GetDatabaseEncoding() != PG_UTF8 || is_ascii_text(name))
		return name;
	return DatumGetTextPP(DirectFunctionCall2(unicode_normalize_func, PointerGetDatum(name),
											  CStringGetTextDatum("NFC")));
}

text *
plinth_identity_secret(Datum argument)
{
	return DatumGetTextPP(argument);
}

void
plinth_identity_secret_wipe(text *secret, Datum argument)
{
	if ((Pointer) secret != DatumGetPointer(argument))
		plinth_crypto_wipe(VARDATA_ANY(secret), VARSIZE_ANY_EXHDR(secret));
}

char *
plinth_identity_resource(const pg_uuid_t *user_id)
{
	return psprintf("user:%s",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(user_id))));
}

/* Fills auth's user; returns the PHC string, in the caller's memory, or NULL. */
static char *
find_user(text *identifier, PlinthAuth *auth, MemoryContext memory)
{
	bool is_email = memchr(VARDATA_ANY(identifier), '@', VARSIZE_ANY_EXHDR(identifier)) != NULL;
	Datum value = PointerGetDatum(plinth_identity_normalize(identifier));
	char *phc;
	bool null;

	plinth_base_spi_execute(is_email ? &find_by_email_plan : &find_by_username_plan, &value, NULL,
							false, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return NULL;
	auth->has_user = true;
	auth->user_id =
		*DatumGetUUIDP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	phc = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	return phc ? MemoryContextStrdup(memory, phc) : NULL;
}

/* Under locks: is what was verified still so? */
static PlinthAuthStatus
confirm_user(const pg_uuid_t *user_id, const char *phc)
{
	Datum values[2] = {UUIDPGetDatum(user_id), CStringGetTextDatum(phc)};
	bool null;
	bool active;
	bool verified;

	plinth_base_spi_execute(&lock_user_plan, values, NULL, false, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return PLINTH_AUTH_INVALID;
	active = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	verified = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
	plinth_base_spi_execute(&lock_password_plan, values, NULL, false, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return PLINTH_AUTH_INVALID;
	if (!active)
		return PLINTH_AUTH_LOCKED;
	return verified || !plinth_setting_require_verified_email ? PLINTH_AUTH_OK
															  : PLINTH_AUTH_UNVERIFIED;
}

static void
record_login(const pg_uuid_t *user_id, const char *new_phc)
{
	Datum values[2] = {UUIDPGetDatum(user_id), new_phc ? CStringGetTextDatum(new_phc) : (Datum) 0};

	plinth_base_spi_execute(&seen_plan, values, NULL, false, SPI_OK_UPDATE);
	if (new_phc != NULL)
		plinth_base_spi_execute(&rehash_plan, values, NULL, false, SPI_OK_UPDATE);
}

PlinthAuth
plinth_identity_authenticate(text *identifier, text *password)
{
	MemoryContext caller = CurrentMemoryContext;
	const char *secret = VARDATA_ANY(password);
	size_t len = VARSIZE_ANY_EXHDR(password);
	PlinthAuth auth = {.status = PLINTH_AUTH_INVALID};
	PlinthAttempt attempt;
	PlinthAsOwner owner;
	char *phc;
	char *new_phc = NULL;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	phc = find_user(identifier, &auth, caller);
	plinth_base_owner_end(&owner);
	SPI_finish();

	auth.status = plinth_identity_attempt_begin(plinth_identity_account_key(identifier), &attempt);
	if (auth.status != PLINTH_AUTH_OK)
	{
		auth.retry_after = attempt.retry_after;
		return auth;
	}
	auth.status = PLINTH_AUTH_INVALID;

	/* No password of ours is longer; hashing it would only cost. */
	if (len > PLINTH_PASSWORD_MAX || phc == NULL)
	{
		plinth_crypto_password_dummy(secret, Min(len, PLINTH_PASSWORD_MAX));
		return auth;
	}
	if (!plinth_crypto_password_verify(phc, secret, len))
		return auth;
	if (plinth_crypto_password_needs_rehash(phc))
		new_phc = plinth_crypto_password_hash(secret, len);

	SPI_connect();
	plinth_base_owner_begin(&owner);
	auth.status = confirm_user(&auth.user_id, phc);
	if (auth.status == PLINTH_AUTH_OK)
		record_login(&auth.user_id, new_phc);
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (auth.status != PLINTH_AUTH_INVALID)
		plinth_identity_attempt_good(&attempt);
	return auth;
}

void
plinth_identity_init(void)
{
	static const char *const secret_functions[] = {
		"sign_up",        "user_create",          "users_import", "user_import",
		"password_check", "password_change",      "password_set", "password_reset",
		"email_verify",   "email_change_confirm", "outbox_claim"};

	for (int i = 0; i < lengthof(secret_functions); i++)
		plinth_base_secret_function(secret_functions[i]);
	plinth_identity_housekeeper_init();
	plinth_identity_api_key_init();
}
