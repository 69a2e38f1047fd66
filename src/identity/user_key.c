/*
 * user_key.c
 *		The application's own keys of users, as request contexts have them.
 *
 * A backend keeps the keys that it looked up for as long as their generation
 * stands: triggers on plinth.users and user_key_sources move it whenever a key
 * changes, which is when an application's row is made or goes.  Where there is
 * no source of keys, nothing is looked up.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/identity.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define MAX_KEPT 4096
#define MAX_KEY 200 /* as the table has it */

static PlinthPlan find_plan = {
	.sql = "SELECT (SELECT u.user_key FROM plinth.users u WHERE u.id = $1), "
		   "EXISTS (SELECT FROM plinth.user_key_sources)",
	.nargs = 1,
	.argtypes = {UUIDOID},
};

typedef struct KeptUserKey
{
	pg_uuid_t user_id;
	char key[MAX_KEY + 1]; /* "" for none */
} KeptUserKey;

static HTAB *kept = NULL;
static uint64 kept_generation = 0;
static bool no_source = false;

/* The transaction in which a key was changed: it may roll back what it sees. */
static LocalTransactionId changing_lxid = InvalidLocalTransactionId;

PGDLLEXPORT Datum plinth_identity_user_key_changed(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_user_key_changed);

/* After each change of a key, or of where keys come from. */
Datum
plinth_identity_user_key_changed(PG_FUNCTION_ARGS)
{
	(void) plinth_base_trigger_data(fcinfo, "_user_key_forget");
	plinth_base_generation_touch(PLINTH_GEN_USER_KEY);
	changing_lxid = plinth_compat_lxid();
	PG_RETURN_POINTER(NULL);
}

static void
forget(uint64 generation)
{
	HASHCTL control = {
		.keysize = sizeof(pg_uuid_t), .entrysize = sizeof(KeptUserKey), .hcxt = TopMemoryContext};

	if (kept != NULL)
		hash_destroy(kept);
	kept = NULL;
	no_source = false;
	/* Of none, should there be no memory for the table. */
	kept_generation = 0;
	if (generation != 0)
		kept = hash_create("plinth user keys", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	kept_generation = generation;
}

static char *
look_up(const pg_uuid_t *user_id, bool *has_source)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum value = UUIDPGetDatum(user_id);
	PlinthAsOwner owner;
	char *key;
	bool null;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&find_plan, &value);
	key = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (key != NULL)
		key = MemoryContextStrdup(caller, key);
	*has_source =
		DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return key;
}

char *
plinth_identity_user_key(const pg_uuid_t *user_id)
{
	uint64 now = RecoveryInProgress() ? 0 : plinth_base_generation_keep(PLINTH_GEN_USER_KEY);
	bool keep = now != 0 && changing_lxid != plinth_compat_lxid();
	KeptUserKey *found;
	bool has_source;
	char *key;

	if (kept_generation != now || (kept != NULL && hash_get_num_entries(kept) >= MAX_KEPT))
		forget(now);
	if (keep && no_source)
		return NULL;
	found = keep ? hash_search(kept, user_id, HASH_FIND, NULL) : NULL;
	if (found != NULL)
		return found->key[0] != '\0' ? pstrdup(found->key) : NULL;

	key = look_up(user_id, &has_source);
	if (keep && !has_source)
		no_source = true;
	else if (keep && (key == NULL || strlen(key) <= MAX_KEY))
	{
		found = hash_search(kept, user_id, HASH_ENTER, NULL);
		strlcpy(found->key, key ? key : "", sizeof(found->key));
	}
	return has_source ? key : NULL;
}
