/*
 * verify_recheck.c
 *		sync_verify(): is a difference one, or only a write under way?
 *
 * Both sides move while they are compared.  A difference is one when the row
 * was the same before and after a document was read that differs from it, and
 * everything committed before the first of these had been delivered by then.
 * A row that changed meanwhile is looked at again, some rounds long; one that
 * never stands still is not reported: nothing can be said of it.
 *
 * What differs at first sight is set aside, and looked at again together.
 *
 * Rows and documents are kept as digests, so that a thousand large ones need
 * no memory; a digest decides only whether to look again, or to report.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/verify_int.h"

#define ROUNDS 5
#define CHUNK 100
/* Waiting takes far longer than looking: so many are waited for together. */
#define MAX_SUSPECTS 1000

PlinthVerifyState
plinth_sync_verify_state(PlinthBson document)
{
	PlinthVerifyState state = {PLINTH_VERIFY_NONE, {0, 0}};

	if (document.data == NULL)
		return state;
	state.kind = PLINTH_VERIFY_DOCUMENT;
	plinth_mongo_digest(document, state.digest);
	return state;
}

bool
plinth_sync_verify_same(const PlinthVerifyState *a, const PlinthVerifyState *b)
{
	return a->kind == b->kind && a->digest[0] == b->digest[0] && a->digest[1] == b->digest[1];
}

/* Does the _id bytewise equal, or is it the same value to MongoDB? */
static bool
same_id(PlinthBson a, PlinthBson b)
{
	return (a.len == b.len && memcmp(a.data, b.data, a.len) == 0) || plinth_mongo_id_equal(a, b);
}

/* A document by its _id, for sorting. */
typedef struct Entry
{
	PlinthBson id;
	PlinthBson document;
	bool taken;
} Entry;

static int
compare_bytes(PlinthBson a, PlinthBson b)
{
	if (a.len != b.len)
		return a.len < b.len ? -1 : 1;
	return memcmp(a.data, b.data, a.len);
}

static int
compare_entries(const void *a, const void *b)
{
	return compare_bytes(((const Entry *) a)->id, ((const Entry *) b)->id);
}

/* Bytewise first; only what is left over can be a number of another type. */
void
plinth_sync_verify_match(const PlinthBson *ids, int n, PlinthBson *documents, int ndocuments,
						 PlinthBson *found)
{
	Entry *entries = palloc0(sizeof(Entry) * Max(ndocuments, 1));
	int nleft = ndocuments;

	memset(found, 0, sizeof(PlinthBson) * n);
	for (int i = 0; i < ndocuments; i++)
	{
		entries[i].document = documents[i];
		entries[i].id = plinth_mongo_id_of(documents[i]);
	}
	qsort(entries, ndocuments, sizeof(Entry), compare_entries);
	for (int i = 0; i < n; i++)
	{
		Entry wanted = {ids[i], {NULL, 0}, false};
		Entry *entry;

		if (ids[i].data == NULL)
			continue;
		entry = bsearch(&wanted, entries, ndocuments, sizeof(Entry), compare_entries);
		if (entry == NULL || entry->taken)
			continue;
		found[i] = entry->document;
		entry->taken = true;
		nleft--;
	}
	for (int i = 0; i < n && nleft > 0; i++)
	{
		for (int j = 0; j < ndocuments && found[i].data == NULL && ids[i].data != NULL; j++)
		{
			if (entries[j].taken || !plinth_mongo_id_equal(ids[i], entries[j].id))
				continue;
			found[i] = entries[j].document;
			entries[j].taken = true;
			nleft--;
		}
	}
	pfree(entries);
}

/* What MongoDB has now. */
static void
read_documents(PlinthVerify *verify, PlinthVerifyCandidate *candidates, int n)
{
	PlinthBson *ids = palloc(sizeof(PlinthBson) * n);
	PlinthBson *found = palloc(sizeof(PlinthBson) * n);
	PlinthBson *documents;
	PlinthMongoStatus status;
	PlinthMongoError error;
	int ndocuments;
	int nids = 0;

	for (int i = 0; i < n; i++)
		if (candidates[i].id.data != NULL)
			ids[nids++] = candidates[i].id;
	do
		status = plinth_mongo_find(verify->client, verify->mapping->collection, ids, nids,
								   &documents, &ndocuments, &error);
	while (plinth_sync_verify_again(verify, status, &error));
	plinth_sync_verify_match(ids, nids, documents, ndocuments, found);
	for (int i = 0, j = 0; i < n; i++)
	{
		PlinthBson none = {NULL, 0};

		candidates[i].document =
			plinth_sync_verify_state(candidates[i].id.data != NULL ? found[j++] : none);
	}
}

/* What stands for the candidate's _id in the batch: the document of its row, or nothing. */
static PlinthVerifyState
state_in_batch(const PlinthVerifyCandidate *candidate, const PlinthSyncBatch *batch, int key)
{
	PlinthBson none = {NULL, 0};

	for (int i = 0; i < batch->nops; i++)
	{
		const PlinthSyncOp *op = &batch->ops[i];

		if (op->key == key && op->op.kind == PLINTH_MONGO_REPLACE &&
			same_id(op->op.id, candidate->id))
			return plinth_sync_verify_state(op->op.document);
	}
	return plinth_sync_verify_state(none);
}

/* What the table has now for each candidate; reading stops at a number of bytes, hence in portions. */
static void
read_rows(PlinthVerify *verify, PlinthVerifyCandidate *candidates, int n, PlinthVerifyState *states)
{
	PlinthSyncKey *keys = palloc(sizeof(PlinthSyncKey) * n);
	int *of = palloc(sizeof(int) * n);
	bool *done = palloc0(sizeof(bool) * n);
	int left = 0;

	for (int i = 0; i < n; i++)
	{
		PlinthBson none = {NULL, 0};

		states[i] = plinth_sync_verify_state(none);
		done[i] = candidates[i].literal == NULL;
		left += !done[i];
	}
	while (left > 0)
	{
		PlinthSyncBatch *batch = plinth_sync_batch_create(CurrentMemoryContext);
		int nkeys = 0;

		plinth_sync_verify_begin(verify);
		memset(keys, 0, sizeof(PlinthSyncKey) * n);
		for (int i = 0; i < n; i++)
		{
			if (done[i])
				continue;
			keys[nkeys].key = plinth_sync_key_parse(verify->mapping->nkeys, candidates[i].literal,
													&keys[nkeys].keylen);
			of[nkeys++] = i;
		}
		plinth_sync_read_keys(verify->mapping, keys, nkeys, batch);
		for (int k = 0; k < nkeys; k++)
		{
			if (!keys[k].done)
				continue;
			if (keys[k].poison != NULL)
				states[of[k]].kind = PLINTH_VERIFY_POISON;
			else
				states[of[k]] = state_in_batch(&candidates[of[k]], batch, k);
			done[of[k]] = true;
			left--;
		}
		plinth_sync_verify_end(verify);
		plinth_sync_batch_free(batch);
	}
}

/* Was it there before us (on_existing = keep)? */
static bool
is_foreign(PlinthVerify *verify, PlinthBson id)
{
	static PlinthPlan plan = {"SELECT FROM plinth.sync_foreign_ids"
							  " WHERE mapping_id = $1 AND md5(id) = md5($2) AND id = $2",
							  2,
							  {INT8OID, BYTEAOID},
							  NULL};
	Datum values[2];
	bytea *bytes = palloc(VARHDRSZ + id.len);
	bool found;

	SET_VARSIZE(bytes, VARHDRSZ + id.len);
	memcpy(VARDATA(bytes), id.data, id.len);
	values[0] = Int64GetDatum(verify->id);
	values[1] = PointerGetDatum(bytes);
	plinth_sync_verify_begin(verify);
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	SPI_finish();
	plinth_sync_verify_end(verify);
	return found;
}

static void
report(PlinthVerify *verify, const PlinthVerifyCandidate *candidate)
{
	const char *fields[3];

	fields[0] = candidate->literal;
	fields[2] = candidate->id.data == NULL ? NULL : plinth_mongo_to_json(candidate->id);
	if (candidate->row.kind == PLINTH_VERIFY_NONE)
	{
		if (is_foreign(verify, candidate->id))
			return;
		fields[1] = "extra";
	}
	else if (candidate->row.kind == PLINTH_VERIFY_DOCUMENT &&
			 candidate->document.kind == PLINTH_VERIFY_NONE)
		fields[1] = "missing";
	else
		fields[1] = "different";
	plinth_sync_verify_send(verify, PLINTH_VERIFY_DIFFERENCE, 3, fields);
}

/* One round of some; what must be looked at again is moved to the front, and counted. */
static int
look_again(PlinthVerify *verify, PlinthVerifyCandidate *candidates, int n)
{
	PlinthVerifyState *now = palloc(sizeof(PlinthVerifyState) * n);
	int left = 0;

	read_documents(verify, candidates, n);
	read_rows(verify, candidates, n, now);
	for (int i = 0; i < n; i++)
	{
		PlinthVerifyCandidate *candidate = &candidates[i];

		if (plinth_sync_verify_same(&candidate->document, &candidate->row) ||
			plinth_sync_verify_same(&candidate->document, &now[i]) ||
			(verify->mapping->append && candidate->document.kind == PLINTH_VERIFY_DOCUMENT))
			continue;
		if (plinth_sync_verify_same(&candidate->row, &now[i]))
		{
			report(verify, candidate);
			continue;
		}
		candidate->row = now[i];
		candidates[left++] = *candidate;
	}
	return left;
}

/* All that was set aside, in rounds: what is under way is waited for once for all of it. */
void
plinth_sync_verify_settle(PlinthVerify *verify)
{
	PlinthVerifyCandidate *candidates = verify->suspects;
	int n = verify->nsuspects;
	MemoryContext work =
		AllocSetContextCreate(verify->run, "plinth verify recheck", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);

	for (int round = 0; round < ROUNDS && n > 0; round++)
	{
		int left = 0;

		plinth_sync_verify_catch_up(verify);
		for (int start = 0; start < n; start += CHUNK)
		{
			int again = look_again(verify, candidates + start, Min(CHUNK, n - start));

			memmove(candidates + left, candidates + start, again * sizeof(*candidates));
			left += again;
			MemoryContextReset(work);
		}
		n = left;
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
	verify->nsuspects = 0;
	if (verify->suspects_context != NULL)
		MemoryContextReset(verify->suspects_context);
	verify->suspects = NULL;
}

void
plinth_sync_verify_suspect(PlinthVerify *verify, const PlinthVerifyCandidate *candidates, int n)
{
	MemoryContext old;

	if (verify->suspects_context == NULL)
		verify->suspects_context =
			AllocSetContextCreate(verify->run, "plinth verify suspects", ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < n; i++)
	{
		PlinthVerifyCandidate *suspect;

		old = MemoryContextSwitchTo(verify->suspects_context);
		if (verify->suspects == NULL)
			verify->suspects = palloc(sizeof(PlinthVerifyCandidate) * MAX_SUSPECTS);
		suspect = &verify->suspects[verify->nsuspects++];
		*suspect = candidates[i];
		if (suspect->literal != NULL)
			suspect->literal = pstrdup(suspect->literal);
		if (suspect->id.data != NULL)
			suspect->id.data = memcpy(palloc(suspect->id.len), suspect->id.data, suspect->id.len);
		MemoryContextSwitchTo(old);
		if (verify->nsuspects == MAX_SUSPECTS)
			plinth_sync_verify_settle(verify);
	}
}
