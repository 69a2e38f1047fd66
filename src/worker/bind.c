/*
 * bind.c
 *		The clone guard: deliveries outside belong to one database of one
 *		cluster.
 *
 * plinth.bindings holds at most one row, (system identifier, database OID),
 * written when something is first to be delivered and dumped with the data.
 * In a database restored from a dump, made from a template or upgraded the row
 * names another cluster or database: nothing is delivered until plinth.adopt()
 * binds it to itself.  A copy of the whole cluster (base backup, promoted
 * standby) keeps both numbers; what delivers must tell by the timeline and by
 * what it finds outside.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "worker/worker.h"

static PlinthPlan read_plan = {
	.sql = "SELECT system_identifier OPERATOR(pg_catalog.=) $1 "
		   "AND database_oid OPERATOR(pg_catalog.=) $2 FROM plinth.bindings",
	.nargs = 2,
	.argtypes = {TEXTOID, OIDOID},
};

static PlinthPlan bind_plan = {
	.sql = "INSERT INTO plinth.bindings (system_identifier, database_oid) VALUES ($1, $2) "
		   "ON CONFLICT (id) DO NOTHING",
	.nargs = 2,
	.argtypes = {TEXTOID, OIDOID},
};

static PlinthPlan rebind_plan = {
	.sql = "INSERT INTO plinth.bindings AS b (system_identifier, database_oid) VALUES ($1, $2) "
		   "ON CONFLICT (id) DO UPDATE SET system_identifier = excluded.system_identifier, "
		   "database_oid = excluded.database_oid, bound_at = pg_catalog.now() "
		   "WHERE (b.system_identifier, b.database_oid) "
		   "IS DISTINCT FROM (excluded.system_identifier, excluded.database_oid)",
	.nargs = 2,
	.argtypes = {TEXTOID, OIDOID},
};

static void
identify(Datum values[2])
{
	values[0] = CStringGetTextDatum(psprintf(UINT64_FORMAT, GetSystemIdentifier()));
	values[1] = ObjectIdGetDatum(MyDatabaseId);
}

bool
plinth_worker_is_adopted(void)
{
	PlinthAsOwner owner;
	Datum values[2];
	bool adopted = true;

	identify(values);
	plinth_base_owner_begin(&owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plinth_base_spi_execute(&read_plan, values, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		bool isnull;

		adopted =
			DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_finish();
	plinth_base_owner_end(&owner);
	return adopted;
}

static bool
write_binding(PlinthPlan *plan)
{
	PlinthAsOwner owner;
	Datum values[2];
	bool changed;

	identify(values);
	plinth_base_owner_begin(&owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	plinth_base_spi_execute(plan, values, NULL, false, SPI_OK_INSERT);
	changed = SPI_processed > 0;
	SPI_finish();
	plinth_base_owner_end(&owner);
	if (changed)
		plinth_base_generation_touch(PLINTH_GEN_SYNC);
	return changed;
}

void
plinth_worker_bind(void)
{
	(void) write_binding(&bind_plan);
}

PGDLLEXPORT Datum plinth_worker_bind_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_worker_bind_sql);

/* _bind(force): true when the binding changed. */
Datum
plinth_worker_bind_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_binding(PG_GETARG_BOOL(0) ? &rebind_plan : &bind_plan));
}

PGDLLEXPORT Datum plinth_worker_is_adopted_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_worker_is_adopted_sql);

Datum
plinth_worker_is_adopted_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(plinth_worker_is_adopted());
}
