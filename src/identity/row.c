/*
 * row.c
 *		A row of an application's table as jsonb, without anybody's rights.
 *
 * to_jsonb calls the casts to json that the owners of a row's types made: code
 * of theirs.  So it runs as plinth.role_anon, where roles cannot be switched and
 * nothing can be left behind for later: never as plinth_owner, whose trigger
 * asks for the row, nor as a superuser who adopts the table.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"

PGDLLEXPORT Datum plinth_identity_row_jsonb(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_identity_row_jsonb);

Datum
plinth_identity_row_jsonb(PG_FUNCTION_ARGS)
{
	Datum row = PointerGetDatum(PG_GETARG_HEAPTUPLEHEADER(0));
	Oid type = HeapTupleHeaderGetTypeId(DatumGetHeapTupleHeader(row));
	Oid nobody = get_role_oid(plinth_setting_role_anon, false);
	int nestlevel = NewGUCNestLevel();
	Datum result;
	Oid userid;
	int sec_context;
	bool null;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(nobody, sec_context | SECURITY_LOCAL_USERID_CHANGE |
									   SECURITY_RESTRICTED_OPERATION);
	SPI_connect();
	if (SPI_execute_with_args("SELECT pg_catalog.to_jsonb($1)", 1, &type, &row, NULL, false, 1) !=
			SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not convert a row of type %u", type);
	result = SPI_datumTransfer(
		SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &null), false, -1);
	SPI_finish();
	AtEOXact_GUC(false, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	PG_RETURN_DATUM(result);
}
