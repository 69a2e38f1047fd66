/*
 * housekeeper.c
 *		Forgets tokens and messages whose time is over.
 *
 * The worker is there only while there is something to forget: the coordinator
 * asks every few seconds.  What cannot be forgotten now is tried again then.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "identity/identity.h"
#include "identity/internal.h"
#include "miscadmin.h"
#include "worker/worker.h"

static int32
first_int(PlinthPlan *plan)
{
	PlinthAsOwner owner;
	int32 value;
	bool null;

	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(plan, NULL, NULL, false, SPI_OK_SELECT);
	value = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null));
	plinth_base_owner_end(&owner);
	SPI_finish();
	return value;
}

static int
wanted(void)
{
	static PlinthPlan plan = {.sql = "SELECT plinth._credentials_due()::int"};

	return first_int(&plan);
}

static void
housekeeper_main(int instance)
{
	static PlinthPlan plan = {.sql = "SELECT plinth._credentials_purge()"};
	int32 done;

	plinth_worker_report("running", NULL);
	do
	{
		if (!plinth_worker_transaction_begin())
			return;
		done = first_int(&plan);
		plinth_worker_transaction_end();
	} while (plinth_worker_wait(done > 0 ? 1 : 1000));
}

static const PlinthService service = {
	.name = "housekeeper",
	.group = NULL,
	.wanted = wanted,
	.main = housekeeper_main,
	.numbered = false,
	.standby = false,
};

void
plinth_identity_housekeeper_init(void)
{
	plinth_worker_service_declare(&service);
}
