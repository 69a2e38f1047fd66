/*
 * extension.c
 *		The extension's own objects, and acting as its owner.
 *
 * pg_extension has no system cache, so its lookup would be a scan each time.
 * The OID is kept until any function changes: both CREATE and DROP EXTENSION
 * (and the rollback of either) change functions.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/base.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#define EXTENSION_NAME "plinth"
#define SCHEMA_NAME "plinth"
#define OWNER_NAME "plinth_owner"

static Oid kept_extension_oid = InvalidOid;
static bool callback_registered = false;

static void
forget_extension(Datum arg, int cacheid, uint32 hashvalue)
{
	kept_extension_oid = InvalidOid;
}

Oid
plinth_base_extension_oid(void)
{
	if (!callback_registered)
	{
		CacheRegisterSyscacheCallback(PROCOID, forget_extension, (Datum) 0);
		callback_registered = true;
	}

	/* The lookup handles invalidations first, so what it finds is not stale. */
	if (!OidIsValid(kept_extension_oid))
		kept_extension_oid = get_extension_oid(EXTENSION_NAME, true);
	return kept_extension_oid;
}

Oid
plinth_base_extension_committed(void)
{
	Relation relation = table_open(ExtensionRelationId, AccessShareLock);
	Oid committed = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(EXTENSION_NAME));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple) &&
		!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
		committed = ((Form_pg_extension) GETSTRUCT(tuple))->oid;
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return committed;
}

Oid
plinth_base_schema_oid(void)
{
	return get_namespace_oid(SCHEMA_NAME, true);
}

void
plinth_base_owner_begin(PlinthAsOwner *state)
{
	Oid owner = get_role_oid(OWNER_NAME, true);

	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("role \"%s\" does not exist", OWNER_NAME),
						errhint("Create the extension anew: CREATE EXTENSION plinth.")));

	/*
	 * Not SECURITY_RESTRICTED_OPERATION: that forbids deferred triggers, hence
	 * deferred foreign keys of an application to our tables.
	 */
	GetUserIdAndSecContext(&state->userid, &state->sec_context);
	SetUserIdAndSecContext(owner, state->sec_context | SECURITY_LOCAL_USERID_CHANGE);
	state->nestlevel = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
plinth_base_owner_end(PlinthAsOwner *state)
{
	/* As at the end of a function with SET: what was set locally in between stays. */
	AtEOXact_GUC(true, state->nestlevel);
	SetUserIdAndSecContext(state->userid, state->sec_context);
}
