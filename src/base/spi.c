/*
 * spi.c
 *		Plans that are prepared once a backend and kept.
 *
 * Names in the SQL must be qualified: a plan is made again when the
 * search_path it was made under changes, and must then mean the same.
 */
#include "postgres.h"

#include "base/base.h"
#include "utils/snapmgr.h"

int
plinth_base_spi_execute(PlinthPlan *plan, Datum *values, const char *nulls, bool read_only,
						int expect)
{
	int rc;

	Assert(plan->nargs <= PLINTH_PLAN_MAX_ARGS);
	if (plan->plan == NULL)
	{
		SPIPlanPtr prepared = SPI_prepare(plan->sql, plan->nargs, plan->argtypes);

		if (prepared == NULL)
			ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
							errmsg("could not prepare a statement of plinth: %s",
								   SPI_result_code_string(SPI_result))));
		if (SPI_keepplan(prepared) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not keep a plan of plinth")));
		plan->plan = prepared;
	}

	rc = SPI_execute_plan(plan->plan, values, nulls, read_only, 0);
	if (rc < 0 || (expect != 0 && rc != expect))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("a statement of plinth returned %s", SPI_result_code_string(rc))));
	return rc;
}

void
plinth_base_spi_write(PlinthPlan *plan, Datum *values, int expect, bool *writing)
{
	*writing = true;
	PG_TRY ()
		;
	{
		plinth_base_spi_execute(plan, values, NULL, false, expect);
	}
	PG_FINALLY ()
		;
	{
		*writing = false;
	}
	PG_END_TRY();
}

void
plinth_base_spi_select_latest(PlinthPlan *plan, Datum *values)
{
	bool latest = !IsInParallelMode();

	if (latest)
		PushActiveSnapshot(GetLatestSnapshot());
	plinth_base_spi_execute(plan, values, NULL, true, SPI_OK_SELECT);
	if (latest)
		PopActiveSnapshot();
}

bool
plinth_base_spi_finds(PlinthPlan *plan)
{
	bool found;

	SPI_connect();
	plinth_base_spi_execute(plan, NULL, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	SPI_finish();
	return found;
}
