/*
 * read_document.c
 *		Pages of a document mapping.
 *
 * First the keys of the root's table in their order, then the documents by
 * their keys, so that the query is never asked for more than a batch.  A key
 * that the query has no row for is deleted.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sync/read_int.h"
#include "sync/share_int.h"

static PlinthSyncKey *
parse_keys(PlinthSyncMapping *mapping, List *literals, PlinthSyncBatch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->context);
	PlinthSyncKey *keys = palloc0(sizeof(PlinthSyncKey) * (list_length(literals) + 1));
	ListCell *lc;
	int n = 0;

	foreach (lc, literals)
	{
		keys[n].key = plinth_sync_key_parse(mapping->nkeys, lfirst(lc), &keys[n].keylen);
		n++;
	}
	MemoryContextSwitchTo(old);
	return keys;
}

void
plinth_sync_read_page_documents(PlinthSyncMapping *mapping, Oid relation, const char *after,
								int limit, PlinthSyncBatch *batch)
{
	StringInfo passed = makeStringInfo();
	List *literals = plinth_sync_read_page_keys(mapping, relation, after, limit, batch, passed);
	bool exhausted = batch->exhausted;
	PlinthSyncKey *keys = parse_keys(mapping, literals, batch);
	int nkeys = list_length(literals);
	int done = 0;
	int nops = 0;
	MemoryContext old;

	if (nkeys > 0)
		plinth_sync_read_keys(mapping, keys, nkeys, batch);
	/* The page ends where the batch was full. */
	while (done < nkeys && keys[done].done)
		done++;
	for (int i = 0; i < batch->nops; i++)
	{
		if (batch->ops[i].key >= done)
			continue;
		batch->ops[nops] = batch->ops[i];
		batch->ops[nops].literal = list_nth(literals, batch->ops[i].key);
		batch->ops[nops++].key = -1;
	}
	batch->nops = nops;
	old = MemoryContextSwitchTo(batch->context);
	for (int i = 0; i < done; i++)
	{
		if (keys[i].poison != NULL)
			batch->poison = lappend(batch->poison, &keys[i]);
	}
	MemoryContextSwitchTo(old);
	batch->last_key = done > 0 ? list_nth(literals, done - 1) : NULL;
	batch->exhausted = exhausted && done == nkeys;
	if (done == nkeys)
		plinth_sync_share_end_page(mapping, passed, batch);
}
