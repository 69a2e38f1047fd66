/*
 * verify_compare.c
 *		sync_verify(): the two passes.
 *
 * First the table, page by page in the order of its key, each row's document
 * made by the engine's own code and compared with what MongoDB has: finds what
 * is missing and what differs.  Then the collection, page by page in the order
 * of _id: finds what no row stands behind.  Whatever differs at first sight is
 * looked at again before it is reported (verify_recheck.c).
 *
 * Memory is bounded by a page: PAGE_ROWS rows or plinth.sync_batch_bytes,
 * the documents that MongoDB has for them, and the keys of what is to be looked
 * at again.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "sync/append_int.h"
#include "sync/verify_int.h"

#define PAGE_ROWS 500
/* The clocks of the two servers differ, by less than this. */
#define EXPIRY_S 300

/* The table itself, or its partitions: each has an index in the order of the key. */
static List *
list_relations(PlinthVerify *verify)
{
	List *relations = NIL;
	List *members;
	ListCell *lc;
	MemoryContext old;

	plinth_sync_verify_begin(verify);
	members = find_all_inheritors(verify->mapping->relation, AccessShareLock, NULL);
	old = MemoryContextSwitchTo(verify->run);
	foreach (lc, members)
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_RELATION)
			relations = lappend_oid(relations, lfirst_oid(lc));
	MemoryContextSwitchTo(old);
	plinth_sync_verify_end(verify);
	return relations;
}

/* Reads a page of rows; false when the partition has gone. */
static bool
read_page(PlinthVerify *verify, Oid relation, const char *after, PlinthSyncBatch *batch)
{
	bool exists;

	plinth_sync_verify_begin(verify);
	LockRelationOid(relation, AccessShareLock);
	exists = SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relation));
	if (exists)
		plinth_sync_read_page(verify->mapping, relation, NULL, after, PAGE_ROWS, batch);
	plinth_sync_verify_end(verify);
	return exists;
}

/* What of a page differs at first sight. */
static PlinthVerifyCandidate *
compare_page(PlinthVerify *verify, const PlinthSyncBatch *batch, int *ncandidates)
{
	PlinthVerifyCandidate *candidates =
		palloc0(sizeof(PlinthVerifyCandidate) * (batch->nops + list_length(batch->poison) + 1));
	PlinthBson *ids = palloc(sizeof(PlinthBson) * (batch->nops + 1));
	PlinthBson *found = palloc(sizeof(PlinthBson) * (batch->nops + 1));
	PlinthBson *documents;
	PlinthMongoStatus status;
	PlinthMongoError error;
	int ndocuments;
	int n = 0;
	ListCell *lc;

	for (int i = 0; i < batch->nops; i++)
		ids[i] = batch->ops[i].op.id;
	if (batch->nops > 0)
	{
		do
			status = plinth_mongo_find(verify->client, verify->mapping->collection, ids,
									   batch->nops, &documents, &ndocuments, &error);
		while (plinth_sync_verify_again(verify, status, &error));
		plinth_sync_verify_match(ids, batch->nops, documents, ndocuments, found);
	}
	for (int i = 0; i < batch->nops; i++)
	{
		PlinthBson document = batch->ops[i].op.document;
		PlinthVerifyState row;
		PlinthVerifyState there;

		/* A root without a document: the other pass finds one that should not be there. */
		if (batch->ops[i].op.kind == PLINTH_MONGO_DELETE)
			continue;
		if (found[i].len == document.len && memcmp(found[i].data, document.data, document.len) == 0)
			continue;
		/* What was appended stays as it was; what has expired, or is about to, may have gone. */
		if (found[i].len > 0 ? verify->mapping->append
							 : plinth_sync_append_expires(verify->mapping, document, EXPIRY_S))
			continue;
		row = plinth_sync_verify_state(document);
		there = plinth_sync_verify_state(found[i]);
		if (plinth_sync_verify_same(&row, &there))
			continue;
		candidates[n].literal = batch->ops[i].literal;
		candidates[n].id = ids[i];
		candidates[n++].row = row;
	}
	foreach (lc, batch->poison)
	{
		PlinthSyncKey *key = lfirst(lc);

		candidates[n].literal =
			plinth_sync_key_literal(verify->mapping->nkeys, key->key, key->keylen);
		candidates[n++].row.kind = PLINTH_VERIFY_POISON;
	}
	*ncandidates = n;
	return candidates;
}

/* The _ids behind one, in their order. */
static void
scan(PlinthVerify *verify, PlinthBson after, int limit, PlinthBson **documents, int *ndocuments)
{
	PlinthMongoStatus status;
	PlinthMongoError error;

	do
		status = plinth_mongo_scan(verify->client, verify->mapping->collection, after, true, limit,
								   documents, ndocuments, &error);
	while (plinth_sync_verify_again(verify, status, &error));
}

/*
 * The key of the first document of a capped collection, in order of _id: what
 * stood before it may have made way.  NULL where all is to be compared.
 */
static char *
capped_start(PlinthVerify *verify)
{
	PlinthBson none = {NULL, 0};
	PlinthBson *documents;
	PlinthSyncKey key;
	int n;
	char *start = NULL;

	if (verify->mapping->capped_bytes == 0)
		return NULL;
	scan(verify, none, 1, &documents, &n);
	if (n == 0)
		return NULL;
	plinth_sync_verify_begin(verify);
	if (plinth_sync_read_id(verify->mapping, documents[0], &key))
		start = MemoryContextStrdup(
			verify->run, plinth_sync_key_literal(verify->mapping->nkeys, key.key, key.keylen));
	plinth_sync_verify_end(verify);
	return start;
}

static void
compare_relation(PlinthVerify *verify, Oid relation)
{
	char *after = capped_start(verify);
	bool more = true;

	while (more)
	{
		PlinthSyncBatch *batch;
		PlinthVerifyCandidate *candidates;
		int n;
		char *last;

		MemoryContextReset(verify->page);
		batch = plinth_sync_batch_create(verify->page);
		if (!read_page(verify, relation, after, batch))
			return;
		candidates = compare_page(verify, batch, &n);
		plinth_sync_verify_suspect(verify, candidates, n);
		more = !batch->exhausted && batch->last_key != NULL;
		last = more ? MemoryContextStrdup(verify->run, batch->last_key) : NULL;
		if (after != NULL)
			pfree(after);
		after = last;
	}
}

void
plinth_sync_verify_rows(PlinthVerify *verify)
{
	ListCell *lc;

	foreach (lc, list_relations(verify))
		compare_relation(verify, lfirst_oid(lc));
	plinth_sync_verify_settle(verify);
}

/* A page of the collection: which of its documents has no row? */
static void
compare_ids(PlinthVerify *verify, PlinthBson *documents, int ndocuments)
{
	PlinthVerifyCandidate *candidates = palloc0(sizeof(PlinthVerifyCandidate) * ndocuments);
	PlinthSyncKey *keys = palloc(sizeof(PlinthSyncKey) * ndocuments);
	int *document_of = palloc(sizeof(int) * ndocuments);
	bool *absent = palloc0(sizeof(bool) * ndocuments);
	int nkeys = 0;
	int n = 0;

	plinth_sync_verify_begin(verify);
	for (int i = 0; i < ndocuments; i++)
	{
		if (plinth_sync_read_id(verify->mapping, documents[i], &keys[nkeys]))
			document_of[nkeys++] = i;
		else
			candidates[n++].id = plinth_mongo_id_of(documents[i]);
	}
	if (nkeys > 0)
		plinth_sync_read_absent(verify->mapping, keys, nkeys, absent);
	plinth_sync_verify_end(verify);
	for (int k = 0; k < nkeys; k++)
	{
		if (!absent[k])
			continue;
		candidates[n].literal =
			plinth_sync_key_literal(verify->mapping->nkeys, keys[k].key, keys[k].keylen);
		candidates[n++].id = plinth_mongo_id_of(documents[document_of[k]]);
	}
	plinth_sync_verify_suspect(verify, candidates, n);
}

void
plinth_sync_verify_documents(PlinthVerify *verify)
{
	PlinthBson after = {NULL, 0};
	PlinthBson *documents;
	int ndocuments;

	/* Documents of rows that have gone are what a log is for. */
	if (verify->mapping->append)
		return;
	do
	{
		MemoryContextReset(verify->page);
		scan(verify, after, PAGE_ROWS, &documents, &ndocuments);
		if (ndocuments > 0)
		{
			PlinthBson last = plinth_mongo_id_of(documents[ndocuments - 1]);
			uint8 *data = MemoryContextAlloc(verify->run, last.len);

			compare_ids(verify, documents, ndocuments);
			memcpy(data, last.data, last.len);
			if (after.data != NULL)
				pfree(after.data);
			after.data = data;
			after.len = last.len;
		}
		/* A page that is not full is the last: nothing rests on how NaN is sorted. */
	} while (ndocuments == PAGE_ROWS);
	plinth_sync_verify_settle(verify);
}
