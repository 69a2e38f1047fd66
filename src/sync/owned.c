/*
 * owned.c
 *		What DROP OWNED, REASSIGN OWNED and DROP ROLE do to what roles own here.
 *
 * Buckets of files, grants on them and the rules of cascades name roles by
 * number, and PostgreSQL knows nothing of that.  So once the statement has done
 * its work, rights included, these are taken along: dropped, given to the new
 * role, or the reason not to drop it.  Mappings stay: their tables went, or have
 * another owner, and that is told of them (mapping.c).
 *
 * Only this database is looked at, as by DROP OWNED itself.  What a role that
 * was dropped in another one leaves behind is nobody's.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "sync/api_int.h"
#include "sync/file_int.h"
#include "sync/watch_int.h"

static ProcessUtility_hook_type prev_process_utility = NULL;

/* The roles that a statement is about, as an array; before it, as they may be gone after. */
static ArrayType *
roles_of(List *specs)
{
	Datum *roles = palloc(sizeof(Datum) * Max(list_length(specs), 1));
	ListCell *lc;
	int n = 0;

	foreach (lc, specs)
		roles[n++] = ObjectIdGetDatum(get_rolespec_oid(lfirst_node(RoleSpec, lc), true));
	return construct_array(roles, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT);
}

static void
drop_grants(Datum roles)
{
	static PlinthPlan plan = {
		"DELETE FROM plinth.file_grants WHERE role::oid = ANY ($1)", 1, {OIDARRAYOID}, NULL};

	plinth_base_spi_execute(&plan, &roles, NULL, false, SPI_OK_DELETE);
}

static void
drop_owned(ArrayType *roles, bool cascade)
{
	/* In a statement before the others: who writes to a bucket ends first, and what he wrote is seen. */
	static PlinthPlan lock = {"SELECT FROM plinth.file_buckets WHERE owner::oid = ANY ($1)"
							  " ORDER BY id FOR UPDATE",
							  1,
							  {OIDARRAYOID},
							  NULL};
	static PlinthPlan mapped = {"SELECT b.name, m.name FROM plinth.sync_mappings AS m"
								"  JOIN plinth.file_buckets AS b ON b.id = m.bucket_id"
								" WHERE b.owner::oid = ANY ($1) ORDER BY m.id LIMIT 1",
								1,
								{OIDARRAYOID},
								NULL};
	static PlinthPlan mappings = {
		"DELETE FROM plinth.sync_mappings WHERE bucket_id IN"
		" (SELECT b.id FROM plinth.file_buckets AS b WHERE b.owner::oid = ANY ($1))",
		1,
		{OIDARRAYOID},
		NULL};
	static PlinthPlan buckets = {
		"WITH gone AS (DELETE FROM plinth.file_buckets WHERE owner::oid = ANY ($1) RETURNING id)"
		" DELETE FROM plinth.file_chunks WHERE bucket_id IN (SELECT id FROM gone)",
		1,
		{OIDARRAYOID},
		NULL};
	static PlinthPlan rules = {"DELETE FROM plinth.sync_cascade_rules WHERE owner::oid = ANY ($1)",
							   1,
							   {OIDARRAYOID},
							   NULL};
	Datum value = PointerGetDatum(roles);

	plinth_base_spi_execute(&lock, &value, NULL, false, SPI_OK_SELECT);
	if (cascade)
		plinth_base_spi_execute(&mappings, &value, NULL, false, SPI_OK_DELETE);
	plinth_base_spi_execute(&mapped, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("file bucket \"%s\" is synced",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1)),
				 errhint("First SELECT plinth.sync_drop(%s), or use DROP OWNED ... CASCADE; the "
						 "documents stay then.",
						 quote_literal_cstr(
							 SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2)))));
	plinth_base_spi_execute(&buckets, &value, NULL, false, SPI_OK_DELETE);
	drop_grants(value);
	plinth_base_spi_execute(&rules, &value, NULL, false, SPI_OK_DELETE);
}

static void
reassign_owned(ArrayType *roles, Oid newrole)
{
	static PlinthPlan buckets = {
		"UPDATE plinth.file_buckets SET owner = $2::regrole WHERE owner::oid = ANY ($1)",
		2,
		{OIDARRAYOID, OIDOID},
		NULL};
	static PlinthPlan grants = {
		"UPDATE plinth.file_grants SET owner = $2::regrole WHERE owner::oid = ANY ($1)",
		2,
		{OIDARRAYOID, OIDOID},
		NULL};
	static PlinthPlan rules = {
		"UPDATE plinth.sync_cascade_rules SET owner = $2::regrole WHERE owner::oid = ANY ($1)",
		2,
		{OIDARRAYOID, OIDOID},
		NULL};
	Datum values[2] = {PointerGetDatum(roles), ObjectIdGetDatum(newrole)};

	plinth_base_spi_execute(&buckets, values, NULL, false, SPI_OK_UPDATE);
	if (SPI_processed > 0)
	{
		plinth_sync_file_refuse_owner(newrole);
		shdepLockAndCheckObject(AuthIdRelationId, newrole);
	}
	plinth_base_spi_execute(&grants, values, NULL, false, SPI_OK_UPDATE);
	plinth_base_spi_execute(&rules, values, NULL, false, SPI_OK_UPDATE);
}

/* As PostgreSQL says of what depends on a role; what it was granted goes with it. */
static void
refuse_drop(ArrayType *roles)
{
	static PlinthPlan owned = {
		"SELECT 'file bucket', name FROM plinth.file_buckets WHERE owner::oid = ANY ($1)"
		" UNION ALL"
		" SELECT 'cascade', name FROM plinth.sync_cascade_rules WHERE owner::oid = ANY ($1)"
		" ORDER BY 1, 2 LIMIT 1",
		1,
		{OIDARRAYOID},
		NULL};
	Datum value = PointerGetDatum(roles);

	plinth_base_spi_execute(&owned, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("role cannot be dropped because some objects depend on it"),
			 errdetail("owner of %s \"%s\"",
					   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1),
					   SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2)),
			 errhint("REASSIGN OWNED gives what it owns to another role, DROP OWNED drops it.")));
	drop_grants(value);
}

static void
after_utility(Node *statement, ArrayType *roles)
{
	PlinthSyncApi api;

	/* It may have been dropped with the rest. */
	if (!OidIsValid(get_extension_oid("plinth", true)))
		return;
	CommandCounterIncrement();
	plinth_sync_api_begin(&api);
	if (IsA(statement, DropOwnedStmt))
		drop_owned(roles, ((DropOwnedStmt *) statement)->behavior == DROP_CASCADE);
	else if (IsA(statement, ReassignOwnedStmt))
		reassign_owned(roles, get_rolespec_oid(((ReassignOwnedStmt *) statement)->newrole, false));
	else
		refuse_drop(roles);
	plinth_sync_api_end(&api);
}

static void
on_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
		   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *queryEnv,
		   DestReceiver *dest, QueryCompletion *qc)
{
	Node *statement = pstmt->utilityStmt;
	ArrayType *roles = NULL;

	if (IsA(statement, DropOwnedStmt))
		roles = roles_of(((DropOwnedStmt *) statement)->roles);
	else if (IsA(statement, ReassignOwnedStmt))
		roles = roles_of(((ReassignOwnedStmt *) statement)->roles);
	else if (IsA(statement, DropRoleStmt))
		roles = roles_of(((DropRoleStmt *) statement)->roles);
	if (prev_process_utility)
		prev_process_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								qc);
	if (roles != NULL)
		after_utility(statement, roles);
}

void
plinth_sync_owned_init(void)
{
	prev_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
