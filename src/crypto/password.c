/*
 * password.c
 *		Argon2id, and a bound on how many run at the same time.
 *
 * One hash takes plinth.argon2_memory and cannot be interrupted, so at most
 * plinth.password_max_concurrent run in the whole cluster; others wait on a
 * condition variable, where they can be cancelled.  Nothing between taking
 * and giving back a place can ERROR; a process that exits there gives it back
 * on its way out, and one that crashes takes shared memory with it.
 */
#include "postgres.h"

#include <sodium.h>

#include "base/base.h"
#include "crypto/crypto.h"
#include "crypto/internal.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/spin.h"
#include "utils/wait_event.h"

#define ARGON2ID_PREFIX "$argon2id$"
#define ARGON2I_PREFIX "$argon2i$"

/* Costs that a stored string may ask for; libsodium itself would allow 4 TiB. */
#define MAX_MEMORY_KIB (1024 * 1024)
#define MAX_PASSES 100
#define MAX_LANES 64
#define MAX_WORK_KIB (UINT64CONST(4) * 1024 * 1024) /* memory times passes: some seconds */
#define MAX_BCRYPT_COST 16
#define OWN_BCRYPT_COST 12

/* What a caller's own string of Argon2 may cost, in multiples of this server's hashes. */
#define MAX_FACTOR 4

typedef struct PasswordState
{
	slock_t mutex; /* protects running */
	int running;
	ConditionVariable freed;
} PasswordState;

static PasswordState *state = NULL;
static bool holds_place = false;

static void
give_place_back(int code, Datum arg)
{
	if (!holds_place)
		return;
	holds_place = false;
	SpinLockAcquire(&state->mutex);
	state->running--;
	SpinLockRelease(&state->mutex);
	ConditionVariableSignal(&state->freed);
}

static bool
try_place(void)
{
	SpinLockAcquire(&state->mutex);
	if (state->running < plinth_setting_password_max_concurrent)
	{
		state->running++;
		holds_place = true;
	}
	SpinLockRelease(&state->mutex);
	return holds_place;
}

static void
take_place(void)
{
	static bool registered = false;

	if (!registered)
	{
		before_shmem_exit(give_place_back, (Datum) 0);
		registered = true;
	}
	if (try_place())
		return;
	ConditionVariablePrepareToSleep(&state->freed);
	while (!try_place())
		ConditionVariableSleep(&state->freed, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

static size_t
memory_bytes(void)
{
	return (size_t) plinth_setting_argon2_memory * 1024;
}

static void
out_of_memory(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory while hashing a password"),
			 errhint("Lower \"plinth.argon2_memory\" or "
					 "\"plinth.password_max_concurrent\".")));
}

char *
plinth_crypto_password_hash(const char *password, size_t len)
{
	char *phc = palloc(crypto_pwhash_STRBYTES);
	int rc;

	take_place();
	rc = crypto_pwhash_str_alg(phc, password, len, plinth_setting_argon2_ops, memory_bytes(),
							   crypto_pwhash_ALG_ARGON2ID13);
	give_place_back(0, (Datum) 0);
	if (rc != 0)
		out_of_memory();
	return phc;
}

/* The costs in a PHC string; false when it is none of Argon2. */
static bool
read_costs(const char *phc, unsigned *memory, unsigned *passes, unsigned *lanes)
{
	int end = 0;

	if (strncmp(phc, ARGON2ID_PREFIX, strlen(ARGON2ID_PREFIX)) == 0)
		phc += strlen(ARGON2ID_PREFIX);
	else if (strncmp(phc, ARGON2I_PREFIX, strlen(ARGON2I_PREFIX)) == 0)
		phc += strlen(ARGON2I_PREFIX);
	else
		return false;
	return sscanf(phc, "v=19$m=%9u,t=%9u,p=%9u$%n", memory, passes, lanes, &end) == 3 && end > 0;
}

/* Under bounds that keep one string from taking all memory, or a minute. */
static bool
bearable(unsigned memory, unsigned passes, unsigned lanes)
{
	return memory <= MAX_MEMORY_KIB && passes <= MAX_PASSES && lanes <= MAX_LANES &&
		   (uint64) memory * passes <= MAX_WORK_KIB;
}

static void
refuse_costs(unsigned memory, unsigned passes, unsigned lanes, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("password hash with costs m=%u,t=%u,p=%u is refused", memory, passes, lanes),
			 errdetail_internal("%s", detail)));
}

void
plinth_crypto_password_check_costs(const char *phc)
{
	unsigned memory;
	unsigned passes;
	unsigned lanes;
	uint64 own_memory = plinth_setting_argon2_memory;
	uint64 own_work = own_memory * plinth_setting_argon2_ops;
	int bcrypt_cost = plinth_crypto_bcrypt_cost(phc);

	if (bcrypt_cost > OWN_BCRYPT_COST)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("bcrypt hash with cost %d is refused", bcrypt_cost),
						errdetail("Only plinth_admin may pass one that costs more than %d.",
								  OWN_BCRYPT_COST)));

	if (read_costs(phc, &memory, &passes, &lanes) &&
		(memory > MAX_FACTOR * own_memory || (uint64) memory * passes > MAX_FACTOR * own_work))
		refuse_costs(memory, passes, lanes,
					 psprintf("Only plinth_admin may pass a hash that costs more than %d times "
							  "what plinth.argon2_memory and plinth.argon2_ops say.",
							  MAX_FACTOR));
}

/* Under a bound on costs that keeps one string from taking all memory, or an hour. */
static bool
verify_bcrypt(const char *hash, int cost, const char *password, size_t len)
{
	bool fits;

	if (cost > MAX_BCRYPT_COST)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("bcrypt hash with cost %d is refused", cost),
						errdetail("At most %d is accepted.", MAX_BCRYPT_COST)));
	take_place();
	fits = plinth_crypto_bcrypt_verify(hash, password, len);
	give_place_back(0, (Datum) 0);
	return fits;
}

bool
plinth_crypto_password_verify(const char *phc, const char *password, size_t len)
{
	unsigned memory;
	unsigned passes;
	unsigned lanes;
	int bcrypt_cost = plinth_crypto_bcrypt_cost(phc);
	int rc;

	if (bcrypt_cost > 0)
		return verify_bcrypt(phc, bcrypt_cost, password, len);
	if (!read_costs(phc, &memory, &passes, &lanes))
		return false;
	if (!bearable(memory, passes, lanes))
		refuse_costs(memory, passes, lanes,
					 psprintf("At most m=%d,t=%d,p=%d and %lld for m times t are accepted.",
							  MAX_MEMORY_KIB, MAX_PASSES, MAX_LANES, (long long) MAX_WORK_KIB));
	take_place();
	errno = 0;
	rc = crypto_pwhash_str_verify(phc, password, len);
	give_place_back(0, (Datum) 0);
	if (rc != 0 && errno == ENOMEM)
		out_of_memory();
	return rc == 0;
}

/*
 * Whether libsodium reads an Argon2 string of these costs: plain numbers of
 * which none is too small, and salt and hash as base64 without padding.
 */
static bool
well_formed(const char *phc, unsigned memory, unsigned passes, unsigned lanes)
{
	static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *rest = strchr(phc + 1, '$');
	char *costs = psprintf("$v=19$m=%u,t=%u,p=%u$", memory, passes, lanes);
	size_t salt_len;
	size_t hash_len;

	if (passes < 1 || lanes < 1 || memory < 8 * lanes || strncmp(rest, costs, strlen(costs)) != 0)
		return false;
	rest += strlen(costs);
	salt_len = strspn(rest, base64);
	if (rest[salt_len] != '$')
		return false;
	rest += salt_len + 1;
	hash_len = strspn(rest, base64);
	return rest[hash_len] == '\0' && salt_len >= 11 && salt_len <= 86 && hash_len >= 22 &&
		   hash_len <= 171;
}

bool
plinth_crypto_password_acceptable(const char *hash)
{
	unsigned memory;
	unsigned passes;
	unsigned lanes;
	int bcrypt_cost = plinth_crypto_bcrypt_cost(hash);

	if (bcrypt_cost > 0)
		return bcrypt_cost >= 4 && bcrypt_cost <= MAX_BCRYPT_COST;
	return read_costs(hash, &memory, &passes, &lanes) && bearable(memory, passes, lanes) &&
		   well_formed(hash, memory, passes, lanes);
}

/* The same way as with a hash that exists, down to how the string is read. */
void
plinth_crypto_password_dummy(const char *password, size_t len)
{
	char phc[crypto_pwhash_STRBYTES];

	snprintf(phc, sizeof(phc), ARGON2ID_PREFIX "v=19$m=%d,t=%d,p=1$%s$%s",
			 plinth_setting_argon2_memory, plinth_setting_argon2_ops, "AAAAAAAAAAAAAAAAAAAAAA",
			 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
	(void) plinth_crypto_password_verify(phc, password, len);
}

bool
plinth_crypto_password_needs_rehash(const char *phc)
{
	unsigned memory;
	unsigned passes;
	unsigned lanes;

	return strncmp(phc, ARGON2ID_PREFIX, strlen(ARGON2ID_PREFIX)) != 0 ||
		   !read_costs(phc, &memory, &passes, &lanes) || lanes != 1 ||
		   memory != plinth_setting_argon2_memory || passes != plinth_setting_argon2_ops;
}

static Size
state_size(void)
{
	return sizeof(PasswordState);
}

static void
state_init(void *ptr)
{
	PasswordState *s = ptr;

	SpinLockInit(&s->mutex);
	s->running = 0;
	ConditionVariableInit(&s->freed);
}

static const PlinthShmemPart shmem_part = {
	.name = "plinth passwords",
	.size = state_size,
	.init = state_init,
	.pointer = (void **) &state,
	.lwlocks = 0,
	.locks = NULL,
};

void
plinth_crypto_password_init(void)
{
	plinth_base_shmem_declare(&shmem_part);
}
