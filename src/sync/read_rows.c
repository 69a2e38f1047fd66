/*
 * read_rows.c
 *		The rows of a query, one after another as the executor makes them.
 *
 * They are not gathered first: each is looked at where it lies, in the table's
 * own page mostly, and nothing of it is kept but what was made of it.  Who
 * takes them ends the query when it has enough, so that memory is bounded
 * however large rows are.
 *
 * Not as SPI's read_only: then the snapshot is taken once the table is locked,
 * and rows that a TRUNCATE or a rewrite made meanwhile are seen.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "sync/read_int.h"

typedef struct RowReceiver
{
	DestReceiver base; /* first: the executor's pointer is ours */
	const PlinthSyncQuery *query;
	MemoryContext work; /* of one row */
	bool stopped;
} RowReceiver;

/* Before anything of it runs: what has a table's name now may be a view. */
static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	const PlinthSyncQuery *query = ((RowReceiver *) self)->query;

	plinth_sync_query_check_relation(query->mapping, query->plan, query->relation);
	plinth_sync_query_check_types(query->mapping, desc, query->nfields);
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	RowReceiver *receiver = (RowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->work);

	slot_getallattrs(slot);
	receiver->stopped =
		!receiver->query->take(receiver->query->arg, slot->tts_values, slot->tts_isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->work);
	return !receiver->stopped;
}

static void
end_rows(DestReceiver *self)
{
}

bool
plinth_sync_query_rows(const PlinthSyncQuery *query, Datum *values, const bool *nulls, Oid argtype,
					   Oid lasttype)
{
	int nargs = query->mapping->nkeys + (OidIsValid(lasttype) ? 1 : 0);
	RowReceiver receiver = {.base = {.receiveSlot = receive_row,
									 .rStartup = start_rows,
									 .rShutdown = end_rows,
									 .rDestroy = end_rows,
									 .mydest = DestNone},
							.query = query};
	SPIExecuteOptions options = {.dest = &receiver.base};
	int result;

	receiver.work =
		AllocSetContextCreate(CurrentMemoryContext, "plinth sync row", ALLOCSET_DEFAULT_SIZES);
	options.params = makeParamList(nargs);
	for (int i = 0; i < nargs; i++)
	{
		ParamExternData *param = &options.params->params[i];

		param->ptype = i < query->mapping->nkeys ? argtype : lasttype;
		param->pflags = PARAM_FLAG_CONST;
		param->isnull = nulls != NULL && nulls[i];
		param->value = values[i];
	}
	result = SPI_execute_plan_extended(query->plan, &options);
	if (result < 0)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not run the sync query: %s",
																SPI_result_code_string(result))));
	MemoryContextDelete(receiver.work);
	return !receiver.stopped;
}

void
plinth_sync_query_keys(PlinthSyncQuery *query, SPIPlanPtr *plan, const char *sql,
					   const PlinthSyncKey *keys, int nkeys, StringInfo text)
{
	PlinthSyncMapping *mapping = query->mapping;
	Datum arrays[PLINTH_SYNC_MAX_KEYS];
	PlinthAsOwner state;

	query->relation = mapping->relation;
	(void) plinth_sync_query_lock(mapping->relation, mapping->relation_name);
	SPI_connect();
	plinth_sync_query_as_owner(mapping, &state);
	if (*plan == NULL)
		*plan = plinth_sync_query_prepare(sql, mapping->nkeys, TEXTARRAYOID, InvalidOid, true);
	query->plan = *plan;
	plinth_sync_read_key_arrays(mapping, keys, nkeys, arrays);
	initStringInfo(text);
	(void) plinth_sync_query_rows(query, arrays, NULL, TEXTARRAYOID, InvalidOid);
	plinth_sync_query_as_before(&state);
	SPI_finish();
}

void
plinth_sync_read_row_key(PlinthSyncMapping *mapping, const Datum *values, const bool *nulls,
						 StringInfo key)
{
	resetStringInfo(key);
	for (int i = 0; i < mapping->nkeys; i++)
	{
		FmgrInfo *output = &mapping->key_outputs[i];

		/* Until a lane has looked at a new mapping, its table may have lost the key. */
		if (nulls[1 + i])
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("a row's key is null"),
							errhint("Give the table its key back, or create the mapping again.")));
		if (!OidIsValid(output->fn_oid))
		{
			Oid function;
			bool varlena;

			getTypeOutputInfo(mapping->key_types[i], &function, &varlena);
			fmgr_info_cxt(function, output, mapping->context);
		}
		appendStringInfoString(key, OutputFunctionCall(output, values[1 + i]));
		appendStringInfoChar(key, '\0');
	}
}

int
plinth_sync_read_row_place(const Datum *values)
{
	return (int) DatumGetInt64(values[0]) - 1;
}
