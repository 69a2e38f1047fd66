/*
 * read_query.c
 *		What every query for rows shares: who asks, and what may go wrong.
 *
 * A query runs as the mapping's owner in a restricted security context; the
 * settings that its code changes are put back at the end.  It
 * names its table and was compiled for its columns' types: both are looked at
 * again when it runs, since the table may have been altered since.  An error
 * that may be one row's fault is told apart from what concerns the mapping.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"

#include "sync/read_int.h"

void
plinth_sync_query_as_role(Oid role, PlinthAsOwner *state)
{
	GetUserIdAndSecContext(&state->userid, &state->sec_context);
	SetUserIdAndSecContext(role, state->sec_context | SECURITY_LOCAL_USERID_CHANGE |
									 SECURITY_RESTRICTED_OPERATION);
	state->nestlevel = NewGUCNestLevel();
}

void
plinth_sync_query_as_owner(PlinthSyncMapping *mapping, PlinthAsOwner *state)
{
	plinth_sync_query_as_role(mapping->reader, state);
}

void
plinth_sync_query_as_before(PlinthAsOwner *state)
{
	/* What the owner's code set, such as search_path, must not meet ours. */
	AtEOXact_GUC(false, state->nestlevel);
	SetUserIdAndSecContext(state->userid, state->sec_context);
}

/*
 * A query names its table.  Under this lock the name stays the table's: what
 * somebody else makes of that name is never even planned.
 */
char *
plinth_sync_query_lock(Oid relation, const char *name)
{
	char *now;

	LockRelationOid(relation, AccessShareLock);
	now = get_rel_name(relation);
	if (now == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("table with OID %u does not exist any more", relation)));
	now = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), now);
	if (name != NULL && strcmp(now, name) != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table %s has been renamed", name)));
	return now;
}

SPIPlanPtr
plinth_sync_query_prepare(const char *sql, int nargs, Oid argtype, Oid lasttype, bool keep)
{
	Oid types[PLINTH_SYNC_MAX_KEYS + 1];
	SPIPlanPtr plan;

	for (int i = 0; i < nargs; i++)
		types[i] = argtype;
	if (OidIsValid(lasttype))
		types[nargs++] = lasttype;
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not prepare the sync query: %s",
														 SPI_result_code_string(SPI_result))));
	if (keep)
		SPI_keepplan(plan);
	return plan;
}

/* The conversions were compiled for these types: a table that was altered since is read later. */
void
plinth_sync_query_check_types(PlinthSyncMapping *mapping, TupleDesc desc, int nfields)
{
	bool same = desc->natts == 1 + mapping->nkeys + nfields;

	for (int i = 0; same && i < mapping->nkeys; i++)
		same = TupleDescAttr(desc, i + 1)->atttypid == mapping->key_types[i];
	for (int i = 0; same && i < nfields; i++)
		same = TupleDescAttr(desc, i + 1 + mapping->nkeys)->atttypid == mapping->field_types[i];
	if (!same)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the definition of table %s has changed", mapping->relation_name)));
}

/*
 * A query names its table; by that name another one may stand there now.  The
 * plan knows which it read, and its lock keeps that so.
 */
void
plinth_sync_query_check_relation(PlinthSyncMapping *mapping, SPIPlanPtr plan, Oid relation)
{
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));

	if (!list_member_oid(source->relationOids, relation))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("table %s has been renamed", mapping->relation_name)));
	/* A page of one partition has keys only, and not the query. */
	if (mapping->query != NULL && relation == mapping->relation)
		plinth_sync_document_check(mapping, plan);
}

/* Errors that say something of one row only. */
static bool
is_poison(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('2', '1', '0', '0', '0'): /* more than one row where one is expected */
		case MAKE_SQLSTATE('2', '2', '0', '0', '0'): /* data exception */
		case MAKE_SQLSTATE('2', '3', '0', '0', '0'): /* a constraint of a domain */
		case MAKE_SQLSTATE('5', '4', '0', '0', '0'): /* program limit exceeded */
		case MAKE_SQLSTATE('P', '0', '0', '0', '0'): /* RAISE */
		case MAKE_SQLSTATE('3', '8', '0', '0', '0'):
			return true;
		default:
			return sqlerrcode == ERRCODE_DATA_CORRUPTED || sqlerrcode == ERRCODE_INVALID_NAME;
	}
}

static bool
run_guarded(PlinthSyncRead function, void *arg, ErrorData **error)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool ok = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY ()
		;
	{
		function(arg);
		ReleaseCurrentSubTransaction();
		ok = true;
	}
	PG_CATCH ()
		;
	{
		MemoryContextSwitchTo(caller);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return ok;
}

bool
plinth_sync_query_guarded(PlinthSyncRead function, void *arg, ErrorData **error)
{
	bool ok = run_guarded(function, arg, error);

	if (!ok && !is_poison((*error)->sqlerrcode))
		ReThrowError(*error);
	return ok;
}

bool
plinth_sync_query_tried(PlinthSyncRead function, void *arg, bool *poison)
{
	ErrorData *error;

	*poison = true;
	if (run_guarded(function, arg, &error))
		return true;
	*poison = is_poison(error->sqlerrcode);
	if (!*poison && ERRCODE_TO_CATEGORY(error->sqlerrcode) !=
						MAKE_SQLSTATE('4', '2', '0', '0', '0')) /* what it names, or rights */
		ReThrowError(error);
	return false;
}

/* Input functions of domains run code of the table's owner. */
bool
plinth_sync_read_id(PlinthSyncMapping *mapping, PlinthBson id, PlinthSyncKey *key)
{
	char *texts[PLINTH_SYNC_MAX_KEYS];
	PlinthAsOwner state;
	StringInfoData text;
	bool ours;

	plinth_sync_query_as_owner(mapping, &state);
	ours = plinth_mongo_id_decode(mapping->idspec, id, texts);
	plinth_sync_query_as_before(&state);
	if (!ours)
		return false;
	initStringInfo(&text);
	for (int i = 0; i < mapping->nkeys; i++)
		appendBinaryStringInfo(&text, texts[i], strlen(texts[i]) + 1);
	memset(key, 0, sizeof(*key));
	key->key = text.data;
	key->keylen = text.len;
	return true;
}
