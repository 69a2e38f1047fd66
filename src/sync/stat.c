/*
 * stat.c
 *		What the lanes say of each mapping, for the view plinth.stat_sync.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"

#include "sync/sync_int.h"
#include "worker/worker.h"

PGDLLEXPORT Datum plinth_sync_stat(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_sync_stat);

static Datum
time_or_null(TimestampTz at, bool *isnull)
{
	*isnull = at == 0;
	return TimestampTzGetDatum(at);
}

/*
 * Errors may quote documents: a mapping's state is for those who see the
 * mapping.  Asked as the caller, whose search_path must not choose the operator.
 */
static bool
is_visible(int64 mapping_id)
{
	static PlinthPlan plan = {
		.sql = "SELECT FROM plinth.sync_mappings WHERE id OPERATOR(pg_catalog.=) $1",
		.nargs = 1,
		.argtypes = {INT8OID},
	};
	Datum values[1] = {Int64GetDatum(mapping_id)};
	bool visible;

	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	visible = SPI_processed > 0;
	SPI_finish();
	return visible;
}

/* One mapping's statistics as a row; NULLs when no lane has told any yet. */
Datum
plinth_sync_stat(PG_FUNCTION_ARGS)
{
	PlinthSyncStat stat;
	TupleDesc desc;
	Datum values[17] = {0};
	bool nulls[17] = {0};
	XLogRecPtr end = RecoveryInProgress() ? InvalidXLogRecPtr : GetFlushRecPtr(NULL);

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("function returning record called in context that cannot accept "
							   "type record")));
	if (!is_visible(PG_GETARG_INT64(0)) ||
		!plinth_sync_stat_get(PG_GETARG_INT64(0), plinth_base_extension_oid(), &stat))
	{
		memset(nulls, true, sizeof(nulls));
		nulls[16] = false;
		values[16] = BoolGetDatum(plinth_worker_is_adopted());
		PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
	}
	values[0] = CStringGetTextDatum(stat.state);
	nulls[1] = stat.lag_lsn == 0 || end == InvalidXLogRecPtr;
	values[1] = Int64GetDatum(end > stat.lag_lsn ? (int64) (end - stat.lag_lsn) : 0);
	nulls[2] = stat.oldest_at == 0;
	values[2] =
		Int64GetDatum(TimestampDifferenceMilliseconds(stat.oldest_at, GetCurrentTimestamp()));
	values[3] = Int64GetDatum(stat.documents_replaced);
	values[4] = Int64GetDatum(stat.documents_deleted);
	values[5] = Int64GetDatum(stat.bytes_sent);
	values[6] = Int64GetDatum(stat.retries);
	values[7] = Int64GetDatum(stat.keys_in_memory);
	nulls[8] = stat.last_error[0] == '\0';
	values[8] = CStringGetTextDatum(stat.last_error);
	values[9] = time_or_null(stat.last_error_at, &nulls[9]);
	values[10] = time_or_null(stat.next_try_at, &nulls[10]);
	nulls[11] = stat.lag_lsn == 0;
	values[11] = LSNGetDatum(stat.lag_lsn);
	nulls[12] = stat.rate <= 0;
	values[12] = Float8GetDatum(stat.rate);
	values[13] = time_or_null(stat.state_since, &nulls[13]);
	values[14] = BoolGetDatum(stat.behind_at_least);
	values[15] = BoolGetDatum(stat.late);
	values[16] = BoolGetDatum(plinth_worker_is_adopted());
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
