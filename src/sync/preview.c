/*
 * preview.c
 *		sync_preview(): the documents that a mapping would write, without MongoDB.
 *
 * Rows are read by the code of the lane, as the mapping's owner and under the
 * settings that a lane has, so that what is shown is what would be sent.  Whoever
 * calls must be a member of the owner; the mapping may be paused or blocked, or
 * made by this very transaction.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "sync/api_int.h"
#include "sync/read_int.h"

extern PGDLLEXPORT Datum plinth_sync_preview(PG_FUNCTION_ARGS);

#define PAGE_ROWS 500

typedef struct Preview
{
	PlinthSyncMapping *mapping;
	ReturnSetInfo *result;
	int64 left; /* how many more */
} Preview;

/* A key as sync_resync takes it. */
static Datum
key_datum(PlinthSyncMapping *mapping, const char *literal)
{
	uint32 len;

	return CStringGetTextDatum(mapping->nkeys == 1 ? plinth_sync_key_parse(1, literal, &len)
												   : literal);
}

static void
add(Preview *preview, Datum key, const char *document, const char *problem)
{
	Datum values[3] = {0};
	bool nulls[3] = {false, document == NULL, problem == NULL};

	if (preview->left-- <= 0)
		return;
	values[0] = key;
	if (document != NULL)
		values[1] = CStringGetTextDatum(document);
	if (problem != NULL)
		values[2] = CStringGetTextDatum(problem);
	tuplestore_putvalues(preview->result->setResult, preview->result->setDesc, values, nulls);
}

static void
add_page(Preview *preview, PlinthSyncBatch *batch)
{
	ListCell *lc;

	for (int i = 0; i < batch->nops; i++)
	{
		PlinthSyncOp *op = &batch->ops[i];

		if (op->op.kind != PLINTH_MONGO_DELETE)
			add(preview, key_datum(preview->mapping, op->literal),
				plinth_mongo_to_json(op->op.document), NULL);
	}
	foreach (lc, batch->poison)
	{
		PlinthSyncKey *key = lfirst(lc);

		add(preview,
			key_datum(preview->mapping,
					  plinth_sync_key_literal(preview->mapping->nkeys, key->key, key->keylen)),
			NULL, key->poison);
	}
}

static void
read_pages(Preview *preview)
{
	char *after = NULL;
	bool exhausted = false;

	while (!exhausted && preview->left > 0)
	{
		PlinthSyncBatch *batch = plinth_sync_batch_create(CurrentMemoryContext);

		CHECK_FOR_INTERRUPTS();
		/* One more than is wanted would be read for nothing. */
		plinth_sync_read_page(preview->mapping, preview->mapping->relation, NULL, after,
							  (int) Min(preview->left, PAGE_ROWS), batch);
		add_page(preview, batch);
		exhausted = batch->exhausted || batch->last_key == NULL;
		after = batch->last_key == NULL ? NULL : pstrdup(batch->last_key);
		plinth_sync_batch_free(batch);
	}
}

PG_FUNCTION_INFO_V1(plinth_sync_preview);
Datum
plinth_sync_preview(PG_FUNCTION_ARGS)
{
	char *name = plinth_sync_api_text_required(fcinfo, 0, "name");
	Preview preview = {0};
	PlinthSyncTarget target;
	PlinthSyncApi api;
	Oid caller = GetUserId();

	preview.result = (ReturnSetInfo *) fcinfo->resultinfo;
	preview.left = PG_ARGISNULL(1) ? PG_INT64_MAX : PG_GETARG_INT64(1);
	if (preview.left < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_documents must not be negative"),
						errhint("Pass NULL for all documents.")));
	InitMaterializedSRF(fcinfo, 0);
	plinth_sync_api_begin(&api);
	plinth_sync_api_target(name, caller, false, &target);
	/* An administrator of mappings is none of the rows. */
	if (!has_privs_of_role(caller, target.owner))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("permission denied for the documents of sync mapping \"%s\"", name),
						errhint("Only its owner and members of it may see them.")));
	plinth_base_plain_settings();
	(void) set_config_option("row_security", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	preview.mapping = plinth_sync_mapping_load(CurrentMemoryContext, target.id);
	if (preview.mapping->problem != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("no documents can be made by sync mapping \"%s\": %s", name,
							   preview.mapping->problem),
						errhint("%s", preview.mapping->problem_hint)));
	PG_TRY ()
		;
	{
		read_pages(&preview);
	}
	PG_FINALLY ()
		;
	{
		plinth_sync_mapping_free(preview.mapping);
	}
	PG_END_TRY();
	plinth_sync_api_end(&api);
	return (Datum) 0;
}
