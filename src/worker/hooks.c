/*
 * hooks.c
 *		What other sessions do to databases and to the extension, as far as
 *		workers must know.
 *
 * DROP DATABASE refuses while one of its logical slots is active, WITH (FORCE)
 * too; RENAME, SET TABLESPACE and CREATE DATABASE with it as the template wait
 * 5 s for other sessions and end none of ours.  So our workers are stopped
 * first and kept away until the transaction ends.  DROP tells by the
 * object-access hook, once rights are checked and nobody can connect any more;
 * for the others there is no such place, so the statement's own check of
 * ownership is made here too: who may not do it stops nobody's workers.
 *
 * The extension's own catalog row tells of CREATE, ALTER and DROP EXTENSION,
 * whichever statement they come from (CASCADE, DROP SCHEMA, pg_restore).
 * What is told takes effect after commit; a rollback tells nothing.  DROP
 * EXTENSION stops nobody here: workers take the extension's lock for each
 * transaction, wait there until the dropping transaction ends, and then see
 * what became of it.
 *
 * During pg_upgrade no hook is set.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/base.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "worker/hooks.h"
#include "worker/registry.h"

static ProcessUtility_hook_type prev_process_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

static void
publish_extension(void *arg)
{
	plinth_worker_database_changed(MyDatabaseId);
}

static const PlinthXactAction extension_action = {
	.name = "extension changed",
	.reserve = NULL,
	.publish = publish_extension,
	.discard = NULL,
	.shared = true,
};

static void
publish_scan(void *arg)
{
	plinth_worker_launcher_scan();
}

static const PlinthXactAction scan_action = {
	.name = "databases changed",
	.reserve = NULL,
	.publish = publish_scan,
	.discard = NULL,
	.shared = false,
};

/* Is this row of pg_extension ours?  It may be one that was just inserted. */
static bool
is_our_extension(Oid extension)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	bool ours = false;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, SnapshotSelf, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		ours = strcmp(NameStr(((Form_pg_extension) GETSTRUCT(tuple))->extname), "plinth") == 0;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return ours;
}

static void
on_object_access(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, classId, objectId, subId, arg);

	if (classId == ExtensionRelationId &&
		(access == OAT_POST_CREATE || access == OAT_POST_ALTER || access == OAT_DROP))
	{
		if (is_our_extension(objectId))
		{
			plinth_base_generation_touch(PLINTH_GEN_EXTENSION);
			plinth_base_xact_add_once(&extension_action, NULL);
		}
	}
	else if (classId == DatabaseRelationId && access == OAT_DROP && objectId != MyDatabaseId)
		plinth_worker_database_hold(objectId, true);
}

/*
 * Holds a database that a statement names, if it exists and the user owns it.
 * The statement may name its own database: as a template that is allowed, and
 * else refused.
 */
static void
hold_database(const char *name)
{
	Oid database = get_database_oid(name, true);

	if (OidIsValid(database) && object_ownercheck(DatabaseRelationId, database, GetUserId()))
		plinth_worker_database_hold(database, false);
}

static DefElem *
find_option(List *options, const char *name)
{
	ListCell *lc;

	foreach (lc, options)
	{
		DefElem *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0)
			return option;
	}
	return NULL;
}

static void
before_utility(Node *statement)
{
	if (IsA(statement, CreatedbStmt))
	{
		DefElem *template = find_option(((CreatedbStmt *) statement)->options, "template");

		if (template != NULL && template->arg != NULL)
			hold_database(defGetString(template));
		plinth_base_xact_add_once(&scan_action, NULL);
	}
	else if (IsA(statement, AlterDatabaseStmt))
	{
		/* Connections allowed or not, template or not: the launcher looks. */
		if (find_option(((AlterDatabaseStmt *) statement)->options, "tablespace") != NULL)
			hold_database(((AlterDatabaseStmt *) statement)->dbname);
		plinth_base_xact_add_once(&scan_action, NULL);
	}
	else if (IsA(statement, RenameStmt) &&
			 ((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
		hold_database(((RenameStmt *) statement)->subname);
}

static void
on_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *queryEnv,
		   DestReceiver *dest, QueryCompletion *qc)
{
	before_utility(pstmt->utilityStmt);
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								qc);
}

void
plinth_worker_hooks_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	prev_object_access = object_access_hook;
	object_access_hook = on_object_access;
}
