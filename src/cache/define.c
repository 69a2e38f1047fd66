/*
 * define.c
 *		Named caches, as each backend keeps their definitions, and who may use
 *		them.
 *
 * Definitions are kept by name under the generation PLINTH_GEN_CACHE, which a
 * trigger on plinth.caches moves, so that a DBA's UPDATE counts too.  What a
 * transaction reads after it changed plinth.caches itself may be rolled back,
 * and a standby hears of no generation: there nothing is kept.  Changes of
 * roles and of memberships make a backend forget what it kept.
 *
 * Callers get a copy: what is kept may go whenever anything else is looked up.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "cache/service.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define ADMIN_ROLE "plinth_admin"

typedef struct KeptDef
{
	char name[NAMEDATALEN]; /* key of the hash table */
	PlinthCacheDef def;
	int nroles;
	Oid *roles;
	bool everybody;
	Oid asked_by; /* for whom uses and def.manages are known */
	bool uses;
} KeptDef;

static MemoryContext kept_memory = NULL;
static HTAB *kept = NULL;
static uint64 kept_generation = 0;
static KeptDef *last_kept = NULL;
static LocalTransactionId touched_lxid = InvalidLocalTransactionId;

PGDLLEXPORT Datum plinth_cache_touched(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum plinth_cache_entry_touched(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_touched);
PG_FUNCTION_INFO_V1(plinth_cache_entry_touched);

static void
forget_roles(Datum arg, int cacheid, uint32 hashvalue)
{
	kept_generation = 0;
}

/* Empties the table of definitions; the first call makes it. */
static void
reset_kept(void)
{
	HASHCTL ctl;

	if (kept_memory == NULL)
	{
		kept_memory =
			AllocSetContextCreate(TopMemoryContext, "plinth caches", ALLOCSET_DEFAULT_SIZES);
		CacheRegisterSyscacheCallback(AUTHOID, forget_roles, (Datum) 0);
		CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, forget_roles, (Datum) 0);
	}
	kept = NULL;
	last_kept = NULL;
	kept_generation = 0;
	MemoryContextReset(kept_memory);

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(KeptDef);
	ctl.hcxt = kept_memory;
	kept = hash_create("plinth caches", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
}

static Datum
column(int number, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, number, isnull);
}

static int64
interval_column(int number)
{
	bool isnull;
	Datum value = column(number, &isnull);

	return isnull ? 0 : plinth_cache_interval(DatumGetIntervalP(value), "ttl", true);
}

/* The roles that a definition lists; those that do not exist (any more) give no right. */
static void
read_roles(KeptDef *entry, ArrayType *array)
{
	Datum *names;
	int n;

	deconstruct_array(array, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names, NULL, &n);
	entry->roles = MemoryContextAlloc(kept_memory, Max(n, 1) * sizeof(Oid));
	for (int i = 0; i < n; i++)
	{
		const char *name = NameStr(*DatumGetName(names[i]));

		if (strcmp(name, "public") == 0)
			entry->everybody = true;
		else
		{
			entry->roles[entry->nroles] = get_role_oid(name, true);
			if (OidIsValid(entry->roles[entry->nroles]))
				entry->nroles++;
		}
	}
}

#define SELECT_CACHE                                                                               \
	"SELECT c.id, c.name, c.owner::pg_catalog.oid, c.per_user, c.durable, c.overflow, c.enabled, " \
	"c.ttl, c.stale_ttl, c.jitter, c.max_bytes, c.max_value_bytes, c.roles "                       \
	"FROM plinth.caches c "

static void
read_definition(KeptDef *entry)
{
	PlinthCacheDef *def = &entry->def;
	char *name;
	bool isnull;

	name = TextDatumGetCString(column(2, &isnull));
	def->id = DatumGetInt32(column(1, &isnull));
	strlcpy(def->name, name, NAMEDATALEN);
	def->owner = DatumGetObjectId(column(3, &isnull));
	def->per_user = DatumGetBool(column(4, &isnull));
	def->durable = DatumGetBool(column(5, &isnull));
	def->overflow = DatumGetBool(column(6, &isnull));
	def->enabled = DatumGetBool(column(7, &isnull));
	def->ttl = interval_column(8);
	def->stale_ttl = interval_column(9);
	def->jitter = DatumGetFloat4(column(10, &isnull));
	def->max_bytes = DatumGetInt64(column(11, &isnull));
	def->max_value_bytes = DatumGetInt32(column(12, &isnull));
	read_roles(entry, DatumGetArrayTypeP(column(13, &isnull)));
}

/* Runs a plan that selects a definition, as of now; true when it found one. */
static bool
select_definition(PlinthPlan *plan, Datum argument, KeptDef *entry)
{
	PlinthAsOwner owner;
	bool found;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(plan, &argument);
	found = SPI_processed == 1;
	if (found)
		read_definition(entry);
	plinth_base_owner_end(&owner);
	SPI_finish();
	return found;
}

uint64
plinth_cache_generation(void)
{
	if (touched_lxid == plinth_compat_lxid() || RecoveryInProgress())
		return 0;
	return plinth_base_generation_keep(PLINTH_GEN_CACHE);
}

static void
unknown_cache(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("cache \"%s\" does not exist", name),
					errhint("Create it with plinth.cache_create.")));
}

static KeptDef *
load_definition(const char *name, uint64 generation)
{
	static PlinthPlan plan = {
		.sql = SELECT_CACHE "WHERE c.name = $1", .nargs = 1, .argtypes = {TEXTOID}};
	KeptDef loaded;
	KeptDef *entry;

	if (kept == NULL || kept_generation != generation || generation == 0)
		reset_kept();
	/* Before reading: a role that changes meanwhile takes it back. */
	kept_generation = generation;
	memset(&loaded, 0, sizeof(loaded));
	if (!select_definition(&plan, CStringGetTextDatum(name), &loaded))
		unknown_cache(name);
	entry = hash_search(kept, name, HASH_ENTER, NULL);
	loaded.asked_by = InvalidOid;
	memcpy(loaded.name, entry->name, NAMEDATALEN);
	*entry = loaded;
	return entry;
}

/* Answers for the current role who may; remembered with the definition. */
static void
ask_rights(KeptDef *entry)
{
	Oid role = GetUserId();
	Oid admin = get_role_oid(ADMIN_ROLE, true);
	bool uses = entry->everybody;

	entry->def.manages = has_privs_of_role(role, entry->def.owner) ||
						 (OidIsValid(admin) && has_privs_of_role(role, admin));
	for (int i = 0; i < entry->nroles && !uses; i++)
		uses = has_privs_of_role(role, entry->roles[i]);
	entry->uses = uses || entry->def.manages;
	entry->asked_by = role;
}

void
plinth_cache_use(text *name, PlinthCacheRight right, PlinthCacheDef *def)
{
	const char *data = VARDATA_ANY(name);
	int len = VARSIZE_ANY_EXHDR(name);
	uint64 generation = plinth_cache_generation();
	KeptDef *entry = last_kept;

	if (entry == NULL || generation == 0 || kept_generation != generation ||
		strncmp(entry->name, data, len) != 0 || entry->name[len] != '\0')
	{
		char buffer[NAMEDATALEN];

		if (len >= NAMEDATALEN || len == 0 || memchr(data, '\0', len) != NULL)
			unknown_cache(text_to_cstring(name));
		memcpy(buffer, data, len);
		buffer[len] = '\0';
		entry = NULL;
		if (kept != NULL && generation != 0 && kept_generation == generation)
			entry = hash_search(kept, buffer, HASH_FIND, NULL);
		if (entry == NULL)
			entry = load_definition(buffer, generation);
		last_kept = entry;
	}

	if (entry->asked_by != GetUserId())
		ask_rights(entry);
	if ((right == PLINTH_CACHE_USE && !entry->uses) ||
		(right == PLINTH_CACHE_MANAGE && !entry->def.manages))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for cache \"%s\"", entry->name),
				 right == PLINTH_CACHE_MANAGE
					 ? errhint("Only its owner and members of plinth_admin may do this.")
					 : errhint("Its owner can name roles that may use it: plinth.cache_alter.")));
	*def = entry->def;
}

bool
plinth_cache_by_id(int32 id, PlinthCacheDef *def)
{
	static PlinthPlan plan = {
		.sql = SELECT_CACHE "WHERE c.id = $1", .nargs = 1, .argtypes = {INT4OID}};
	KeptDef loaded;

	if (kept_memory == NULL)
		reset_kept();
	memset(&loaded, 0, sizeof(loaded));
	if (!select_definition(&plan, Int32GetDatum(id), &loaded))
		return false;
	pfree(loaded.roles);
	*def = loaded.def;
	return true;
}

void
plinth_cache_user(const PlinthCacheDef *def, pg_uuid_t *user)
{
	const PlinthContext *context;

	memset(user, 0, sizeof(*user));
	if (!def->per_user)
		return;
	context = plinth_base_context();
	if (context == NULL || !context->has_user)
		ereport(ERROR, (errcode(PLINTH_ERRCODE_UNAUTHENTICATED),
						errmsg("cache \"%s\" is per user, and nobody is signed in", def->name),
						errhint("Begin a request context, or create the cache with per_user => "
								"false.")));
	*user = context->user_id;
}

void
plinth_cache_key(const PlinthCacheDef *def, text *key, PlinthCacheKey *result)
{
	result->cache = def->id;
	plinth_cache_user(def, &result->user);
	result->key = VARDATA_ANY(key);
	result->keylen = VARSIZE_ANY_EXHDR(key);
	if (result->keylen > PLINTH_CACHE_MAX_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("key of %d bytes is longer than %d", result->keylen, PLINTH_CACHE_MAX_KEY),
				 errhint("Use a hash of it, such as encode(sha256(...), 'hex').")));
}

int64
plinth_cache_interval(const Interval *interval, const char *name, bool zero_ok)
{
	double us = (double) interval->time + (double) interval->day * USECS_PER_DAY +
				(double) interval->month * DAYS_PER_MONTH * USECS_PER_DAY;

	if (us < 0 || (us == 0 && !zero_ok))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						zero_ok ? errmsg("%s must not be negative", name)
								: errmsg("%s must be greater than zero", name)));
	if (us > (double) 100 * 365 * USECS_PER_DAY)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must not be longer than 100 years", name)));
	return (int64) us;
}

text *
plinth_cache_text_required(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name),
				 errhint("Pass a value for the argument %s.", name)));
	return PG_GETARG_TEXT_PP(argument);
}

/* The service has something to look at; whether it is wanted the coordinator asks itself. */
static void
wake_service(void *arg)
{
	plinth_worker_wake(MyDatabaseId, "cache", -1);
}

static const PlinthXactAction wake_action = {
	.name = "cache service",
	.publish = wake_service,
};

/*
 * Entries in tables, and invalidations of them, are made as the definition
 * was at the time: one that changed whose they are, or whether there are any,
 * and then changed back, would find entries that missed invalidations.
 */
static void
refuse_other_entries(const TriggerData *data)
{
	static const char *const columns[] = {"per_user", "durable", "overflow"};
	TupleDesc desc = RelationGetDescr(data->tg_relation);

	for (int i = 0; i < lengthof(columns); i++)
	{
		int column = SPI_fnumber(desc, columns[i]);
		bool isnull;

		if (DatumGetBool(heap_getattr(data->tg_trigtuple, column, desc, &isnull)) !=
			DatumGetBool(heap_getattr(data->tg_newtuple, column, desc, &isnull)))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("%s of a cache cannot be changed", columns[i]),
							errhint("Drop the cache and create it again, or create another one.")));
	}
}

/*
 * Trigger on plinth.caches.  For each statement: definitions changed.  For
 * each row: what the cache holds is of another definition.
 */
Datum
plinth_cache_touched(PG_FUNCTION_ARGS)
{
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_cache_touched");

	touched_lxid = plinth_compat_lxid();
	plinth_base_generation_touch(PLINTH_GEN_CACHE);
	plinth_base_xact_add_once(&wake_action, NULL);
	if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
	{
		bool isnull;
		Datum id =
			heap_getattr(data->tg_trigtuple, 1, RelationGetDescr(data->tg_relation), &isnull);

		if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
			refuse_other_entries(data);
		plinth_cache_pending_clear(DatumGetInt32(id), NULL);
	}
	return PointerGetDatum(NULL);
}

/* Of a row of a table of entries: columns 2 to 4 are its name. */
static void
forget_entry(Relation rel, HeapTuple tuple)
{
	TupleDesc desc = RelationGetDescr(rel);
	PlinthCacheKey key;
	bool isnull;
	text *name;

	key.cache = DatumGetInt32(heap_getattr(tuple, 2, desc, &isnull));
	key.user = *DatumGetUUIDP(heap_getattr(tuple, 3, desc, &isnull));
	name = DatumGetTextPP(heap_getattr(tuple, 4, desc, &isnull));
	key.key = VARDATA_ANY(name);
	key.keylen = VARSIZE_ANY_EXHDR(name);
	if (key.keylen <= PLINTH_CACHE_MAX_KEY)
		plinth_cache_pending_delete(&key);
}

/*
 * Trigger on the tables of entries, for changes by hand: memory forgets the
 * entry, or, at TRUNCATE, all that the tables stood behind.
 */
Datum
plinth_cache_entry_touched(PG_FUNCTION_ARGS)
{
	static PlinthPlan plan = {.sql =
								  "SELECT c.id FROM plinth.caches c WHERE c.durable OR c.overflow"};
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_cache_entry_touched");
	PlinthAsOwner owner;

	if (TRIGGER_FIRED_FOR_ROW(data->tg_event))
	{
		forget_entry(data->tg_relation, data->tg_trigtuple);
		if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
			forget_entry(data->tg_relation, data->tg_newtuple);
		return PointerGetDatum(NULL);
	}
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool isnull;

		plinth_cache_pending_clear(
			DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)),
			NULL);
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	return PointerGetDatum(NULL);
}

void
plinth_cache_init(void)
{
	plinth_cache_store_init();
	plinth_cache_pending_init();
	plinth_cache_service_init();
}
