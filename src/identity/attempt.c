/*
 * attempt.c
 *		How often somebody may try, asked before anything is hashed or looked at.
 *
 * A try is counted as it begins, in shared memory: so N tries at the same time
 * are N, and a transaction that rolls back has tried as well.  An account is
 * counted by the name that was typed, in the form in which it is looked up, so
 * that one which does not exist behaves as one that does.
 *
 * Whoever tries wrong passwords is kept out of that account, from that address
 * only, by pauses that grow: the owner elsewhere is not.  The right password
 * ends that.  A client without an address (a Unix socket) has no limit by
 * address, but is counted together with its like where an account is.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_collation.h"
#include "crypto/crypto.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "limits/limits.h"
#include "utils/builtins.h"

#define LOCAL_ADDRESS "local"

static const char *const lockouts[] = {"plinth.lockout_1", "plinth.lockout_2", "plinth.lockout_3"};

bool
plinth_identity_address_allowed(const char *policy, int64 *retry_after)
{
	char *address = plinth_limits_caller_address();
	PlinthLimitDecision decision;

	if (strcmp(address, LOCAL_ADDRESS) == 0)
		return true;
	decision = plinth_limits_check(policy, address, 1);
	*retry_after = decision.retry_after;
	return decision.allowed;
}

char *
plinth_identity_account_key(text *name)
{
	uint8 hash[PLINTH_HASH_BYTES];
	char *hex = palloc(2 * PLINTH_HASH_BYTES + 1);
	text *form = DatumGetTextPP(DirectFunctionCall1Coll(
		lower, DEFAULT_COLLATION_OID, PointerGetDatum(plinth_identity_normalize(name))));

	plinth_crypto_hash(VARDATA_ANY(form), VARSIZE_ANY_EXHDR(form), hash);
	hex[hex_encode((const char *) hash, sizeof(hash), hex)] = '\0';
	return hex;
}

PlinthAuthStatus
plinth_identity_attempt_begin(const char *account, PlinthAttempt *attempt)
{
	PlinthLimitDecision decision;

	attempt->key = psprintf("%s %s", account, plinth_limits_caller_address());
	attempt->retry_after = 0;
	if (!plinth_identity_address_allowed("plinth.sign_in_address", &attempt->retry_after))
		return PLINTH_AUTH_RATE_LIMITED;

	decision = plinth_limits_check_all(lockouts, lengthof(lockouts), attempt->key, 1);
	attempt->retry_after = decision.retry_after;
	if (!decision.allowed)
		return PLINTH_AUTH_LOCKED;

	decision = plinth_limits_check("plinth.sign_in_account", account, 1);
	attempt->retry_after = decision.retry_after;
	return decision.allowed ? PLINTH_AUTH_OK : PLINTH_AUTH_RATE_LIMITED;
}

void
plinth_identity_attempt_good(const PlinthAttempt *attempt)
{
	for (int i = 0; i < lengthof(lockouts); i++)
		plinth_limits_forget(lockouts[i], attempt->key);
}

const char *
plinth_identity_status_name(PlinthAuthStatus status)
{
	switch (status)
	{
		case PLINTH_AUTH_OK:
			return "ok";
		case PLINTH_AUTH_LOCKED:
			return "locked";
		case PLINTH_AUTH_UNVERIFIED:
			return "unverified";
		case PLINTH_AUTH_RATE_LIMITED:
			return "rate_limited";
		case PLINTH_AUTH_INVALID:
			break;
	}
	return "invalid_credentials";
}
