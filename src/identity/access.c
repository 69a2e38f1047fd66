/*
 * access.c
 *		What a user may do: roles, what they inherit, and permissions.
 *
 * A request context holds only what is granted to its user, as a list: roles,
 * and permissions as "+resource:action".  What the list comes to is read from
 * the tables once in each backend and kept until the generation of identity
 * moves, so that asking touches no page, and a change of roles counts for
 * running sessions from its commit on.
 *
 * Not kept is what was read in a parallel operation, whose snapshot may be
 * old, and in a transaction that changes these tables itself, whose changes it
 * must see and others must not.  On a standby no trigger tells of a change:
 * there it is kept to the end of the transaction.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "identity/access.h"
#include "identity/identity.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* So many lists are kept; then all are forgotten. */
#define KEEP_MAX 200

static PlinthPlan granted_plan = {
	.sql =
		"WITH granted (name, until) AS ("
		"SELECT $2, 'infinity'::pg_catalog.timestamptz WHERE $2 IS NOT NULL "
		"UNION ALL SELECT r.name, 'infinity' FROM plinth.roles r "
		"WHERE r.name = 'tier:' || $3 "
		"UNION ALL SELECT role, COALESCE(expires_at, 'infinity') FROM plinth.user_roles "
		"WHERE user_id = $1 AND (expires_at > $4 OR expires_at IS NULL) "
		"UNION ALL SELECT '+' || permission, COALESCE(expires_at, 'infinity') "
		"FROM plinth.user_permissions "
		"WHERE user_id = $1 AND (expires_at > $4 OR expires_at IS NULL)) "
		"SELECT pg_catalog.string_agg(DISTINCT name COLLATE \"C\", ',' ORDER BY name COLLATE \"C\"), "
		"pg_catalog.min(until) FROM granted",
	.nargs = 4,
	.argtypes = {UUIDOID, TEXTOID, TEXTOID, TIMESTAMPTZOID},
};

/* Roles with what they inherit, and then permissions, each in order. */
static PlinthPlan access_plan = {
	.sql =
		"WITH RECURSIVE granted (name) AS (SELECT pg_catalog.unnest("
		"pg_catalog.string_to_array($1, ','))), "
		"held (role) AS (SELECT name FROM granted WHERE name NOT LIKE '+%' UNION "
		"SELECT i.inherits FROM held h JOIN plinth.role_inherits i ON i.role = h.role), "
		"found (is_role, name) AS (SELECT true, role FROM held UNION "
		"SELECT false, p.permission FROM held h JOIN plinth.role_permissions p ON p.role = h.role "
		"UNION SELECT false, pg_catalog.substr(name, 2) FROM granted WHERE name LIKE '+%') "
		"SELECT is_role, name FROM found ORDER BY is_role DESC, name COLLATE \"C\"",
	.nargs = 1,
	.argtypes = {TEXTOID},
};

typedef struct Kept
{
	PlinthAccess access;
	struct Kept *next;
	char roles[FLEXIBLE_ARRAY_MEMBER];
} Kept;

static MemoryContext kept_memory = NULL;
static Kept *kept = NULL;
static int kept_count = 0;
static uint64 kept_generation = 0;
static LocalTransactionId kept_lxid = InvalidLocalTransactionId; /* on a standby: in which */

static LocalTransactionId changing_lxid = InvalidLocalTransactionId;

PGDLLEXPORT Datum plinth_identity_roles_changed(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_roles_changed);

/* After each change of what roles there are, inherit and permit. */
Datum
plinth_identity_roles_changed(PG_FUNCTION_ARGS)
{
	(void) plinth_base_trigger_data(fcinfo, "_roles_changed");
	plinth_base_generation_touch(PLINTH_GEN_IDENTITY);
	changing_lxid = plinth_compat_lxid();
	PG_RETURN_POINTER(NULL);
}

bool
plinth_identity_roles_changed_here(void)
{
	return changing_lxid != InvalidLocalTransactionId && changing_lxid == plinth_compat_lxid();
}

char *
plinth_identity_access(const pg_uuid_t *user_id, const char *role, const char *tier,
					   TimestampTz *until)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum values[4];
	PlinthAsOwner owner;
	char *list;
	bool null;

	values[0] = UUIDPGetDatum(user_id);
	values[1] = CStringGetTextDatum(role);
	values[2] = CStringGetTextDatum(tier);
	values[3] = TimestampTzGetDatum(GetCurrentTimestamp());
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&granted_plan, values);
	list =
		MemoryContextStrdup(caller, SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1));
	*until =
		DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return list;
}

/* What is read from now on is of this generation, or of this transaction. */
static void
forget(uint64 generation, LocalTransactionId lxid)
{
	if (kept_memory != NULL)
		MemoryContextReset(kept_memory);
	else
		kept_memory =
			AllocSetContextCreate(TopMemoryContext, "plinth access", ALLOCSET_DEFAULT_SIZES);
	kept = NULL;
	kept_count = 0;
	kept_generation = generation;
	kept_lxid = lxid;
}

static void
copy_names(PlinthNames *names, bool is_role, MemoryContext memory)
{
	names->names = MemoryContextAlloc(memory, sizeof(char *) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple row = SPI_tuptable->vals[i];
		bool null;

		if (DatumGetBool(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &null)) == is_role)
			names->names[names->n++] =
				MemoryContextStrdup(memory, SPI_getvalue(row, SPI_tuptable->tupdesc, 2));
	}
}

static Kept *
read_access(const char *roles, MemoryContext memory)
{
	Kept *entry = MemoryContextAllocZero(memory, offsetof(Kept, roles) + strlen(roles) + 1);
	Datum list = CStringGetTextDatum(roles);
	PlinthAsOwner owner;

	strcpy(entry->roles, roles);
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_select_latest(&access_plan, &list);
	copy_names(&entry->access.roles, true, memory);
	copy_names(&entry->access.permissions, false, memory);
	plinth_base_owner_end(&owner);
	SPI_finish();
	return entry;
}

/* Whether what is kept holds; forgets it where not.  *keep: may more be kept? */
static bool
kept_holds(bool *keep)
{
	bool standby = RecoveryInProgress();
	uint64 now = standby ? 0 : plinth_base_generation_keep(PLINTH_GEN_IDENTITY);

	if (plinth_identity_roles_changed_here() || IsInParallelMode())
	{
		*keep = false;
		return now != 0 && now == kept_generation && !plinth_identity_roles_changed_here();
	}
	*keep = standby || now != 0;
	if (standby ? kept_lxid == plinth_compat_lxid() : now != 0 && now == kept_generation)
		return true;
	forget(now, standby ? plinth_compat_lxid() : InvalidLocalTransactionId);
	return false;
}

const PlinthAccess *
plinth_identity_access_of(const char *roles)
{
	bool keep;
	Kept *entry;

	if (kept_holds(&keep))
	{
		for (entry = kept; entry != NULL; entry = entry->next)
		{
			if (strcmp(entry->roles, roles) == 0)
				return &entry->access;
		}
	}
	if (!keep)
		return &read_access(roles, CurrentMemoryContext)->access;

	/* What an error leaves behind in the memory goes with the next change. */
	if (kept_count >= KEEP_MAX)
		forget(kept_generation, kept_lxid);
	entry = read_access(roles, kept_memory);
	entry->next = kept;
	kept = entry;
	kept_count++;
	return &entry->access;
}

char **
plinth_identity_role_names(const char *access, int *count)
{
	const PlinthAccess *found = plinth_identity_access_of(access);

	*count = found->roles.n;
	return found->roles.names;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

bool
plinth_identity_named(const PlinthNames *names, const char *name)
{
	return bsearch(&name, names->names, names->n, sizeof(char *), compare_names) != NULL;
}

bool
plinth_identity_permits(const PlinthNames *granted, const char *permission)
{
	const char *colon = strchr(permission, ':');

	if (granted->n == 0 || colon == NULL)
		return false;
	return plinth_identity_named(granted, permission) || plinth_identity_named(granted, "*:*") ||
		   plinth_identity_named(granted,
								 psprintf("%.*s:*", (int) (colon - permission), permission));
}
