/*
 * append.c
 *		Collections that only grow: what a lane does otherwise for them.
 *
 * Rows are inserted and never looked at again.  What the decoder marks is what
 * was inserted; a key whose row has gone when it is read is done, and so is one
 * whose _id is there.  So an insert that lands late does no harm, and nothing
 * is written twice for fear of one; and what MongoDB removes by itself (TTL, a
 * capped collection's end) stays away.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/append_int.h"
#include "sync/report_int.h"

/* TTL indexes that are declared, whatever kind the mapping is of. */
static void
load_expiry(PlinthSyncMapping *mapping)
{
	static PlinthPlan plan = {
		"SELECT definition::text FROM plinth.sync_indexes WHERE mapping_id = $1 AND suffix = ''"
		"   AND definition ->> 'expireAfterSeconds' IS NOT NULL AND state <> 'dropping'",
		1,
		{INT8OID},
		NULL};
	Datum value = Int64GetDatum(mapping->id);
	MemoryContext old;

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	old = MemoryContextSwitchTo(mapping->context);
	mapping->expiry = palloc(sizeof(PlinthBson) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int n;
		PlinthMongoIndex **index = plinth_mongo_indexes_parse(
			SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1), &n);

		mapping->expiry[mapping->nexpiry++] = index[0]->spec;
	}
	MemoryContextSwitchTo(old);
}

void
plinth_sync_append_load(PlinthSyncMapping *mapping)
{
	static PlinthPlan plan = {"SELECT kind = 'append', capped_bytes, capped_documents"
							  " FROM plinth.sync_mappings WHERE id = $1",
							  1,
							  {INT8OID},
							  NULL};
	Datum value = Int64GetDatum(mapping->id);

	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		Datum number;

		mapping->append = DatumGetBool(SPI_getbinval(tuple, desc, 1, &isnull));
		number = SPI_getbinval(tuple, desc, 2, &isnull);
		mapping->capped_bytes = isnull ? 0 : DatumGetInt64(number);
		number = SPI_getbinval(tuple, desc, 3, &isnull);
		mapping->capped_documents = isnull ? 0 : DatumGetInt64(number);
	}
	load_expiry(mapping);
}

bool
plinth_sync_append_prepare(PlinthLane *lane, PlinthLaneMapping *mapping, const char **reason,
						   const char **hint)
{
	PlinthMongoError error = {0};
	bool capped;

	*reason = NULL;
	if (mapping->def->capped_bytes == 0)
		return true;
	switch (plinth_mongo_make_capped(lane->client, mapping->def->collection,
									 mapping->def->capped_bytes, mapping->def->capped_documents,
									 &capped, &error))
	{
		case PLINTH_MONGO_OK:
			if (capped)
				return true;
			*reason = "the collection is there, and it is not capped";
			*hint = "Drop it in MongoDB, or make it capped there (convertToCapped), then "
					"plinth.sync_resync(name).";
			return false;
		case PLINTH_MONGO_BAD_DOCUMENT:
		case PLINTH_MONGO_OTHER:
			*reason = psprintf("MongoDB makes no capped collection: %s", error.message);
			*hint = "Make the mapping again without capped_bytes, or use another server.";
			return false;
		default:
			plinth_sync_report_outage(lane, &error);
			return false;
	}
}

bool
plinth_sync_append_expires(const PlinthSyncMapping *mapping, PlinthBson document, int64 seconds)
{
	for (int i = 0; i < mapping->nexpiry; i++)
	{
		if (plinth_mongo_index_expires(mapping->expiry[i], document, seconds))
			return true;
	}
	return false;
}

PlinthMongoStatus
plinth_sync_append_write(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthMongoOp *ops, int nops,
						 PlinthMongoError *error)
{
	PlinthMongoOp *inserts = palloc_extended(sizeof(PlinthMongoOp) * Max(nops, 1), MCXT_ALLOC_HUGE);
	int *of = palloc_extended(sizeof(int) * Max(nops, 1), MCXT_ALLOC_HUGE);
	PlinthMongoStatus status;
	int n = 0;

	for (int i = 0; i < nops; i++)
	{
		memset(&ops[i].error, 0, sizeof(ops[i].error));
		if (ops[i].kind == PLINTH_MONGO_DELETE ||
			plinth_sync_append_expires(mapping->def, ops[i].document, 0))
			continue;
		inserts[n] = ops[i];
		inserts[n].kind = PLINTH_MONGO_INSERT;
		of[n++] = i;
	}
	status = plinth_mongo_append(lane->client, mapping->def->collection, inserts, n, error);
	for (int i = 0; i < n; i++)
		ops[of[i]].error = inserts[i].error;
	return status;
}
