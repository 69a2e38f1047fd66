/*
 * read.c
 *		The rows' current state, as documents.
 *
 * Runs in a transaction of the caller's, under a fresh snapshot, as the
 * mapping's owner in a restricted security context with row_security off (a
 * policy that would hide a row is an error, never a deletion).  Rows are taken
 * as the executor makes them (read_rows.c), and a batch ends at
 * plinth.sync_batch_bytes however large its rows are.
 *
 * A row that cannot become a document (or be read, such as one whose filter
 * divides by zero) must not stop the others: when a batch fails it is read
 * again key by key, each in a subtransaction of its own, and what still fails
 * is reported as poison.  What concerns the whole mapping (a lock not had in
 * time, rights, the table itself) is raised.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "sync/read_int.h"
#include "sync/share_int.h"

/* Rows of a page that is read one by one. */
#define SINGLE_ROWS 256

static bool
is_full(const PlinthSyncBatch *batch)
{
	return batch->bytes >= (Size) plinth_setting_sync_batch_bytes * 1024;
}

/* One row found: its document, and away with the document of an older spelling of its key. */
static PlinthSyncOp *
add_row(PlinthSyncMapping *mapping, const Datum *values, const bool *nulls, PlinthSyncBatch *batch,
		int key, PlinthBson oldid)
{
	const Datum *keyvalues = values + 1;
	int first = 1 + mapping->nkeys;
	PlinthBson id;
	PlinthBson document;
	PlinthSyncOp *op;
	MemoryContext old = MemoryContextSwitchTo(batch->context);

	id = plinth_mongo_id_encode(mapping->idspec, keyvalues);
	document = plinth_mongo_document(mapping->idspec, keyvalues, mapping->fields, mapping->nfields,
									 values + first, nulls + first);
	MemoryContextSwitchTo(old);

	if (oldid.data != NULL && !plinth_mongo_id_equal(id, oldid))
	{
		op = plinth_sync_batch_add(batch, PLINTH_MONGO_DELETE, key);
		op->op.id = oldid;
	}
	op = plinth_sync_batch_add(batch, PLINTH_MONGO_REPLACE, key);
	op->op.id = id;
	op->op.document = document;
	batch->bytes += document.len;
	return op;
}

/* {"_id": …} as the key's own texts make it. */
static PlinthBson
id_of_key(PlinthSyncMapping *mapping, const PlinthSyncKey *key, PlinthSyncBatch *batch)
{
	Datum values[PLINTH_SYNC_MAX_KEYS];
	const char *text = key->key;
	MemoryContext old;
	PlinthBson id;

	for (int i = 0; i < mapping->nkeys; i++)
	{
		Oid input;
		Oid ioparam;

		/* A domain may refuse by now what a row had as its key. */
		getTypeInputInfo(getBaseType(mapping->key_types[i]), &input, &ioparam);
		values[i] = OidInputFunctionCall(input, unconstify(char *, text), ioparam, -1);
		text += strlen(text) + 1;
	}
	old = MemoryContextSwitchTo(batch->context);
	id = plinth_mongo_id_encode(mapping->idspec, values);
	MemoryContextSwitchTo(old);
	return id;
}

static void
check_single(const PlinthSyncKey *key)
{
	if (key->done)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("the query returns more than one row for this key")));
}

typedef struct KeysRead
{
	PlinthSyncMapping *mapping;
	PlinthSyncKey *keys;
	int nkeys;
	PlinthSyncBatch *batch;
	StringInfoData text; /* the row's key */
} KeysRead;

static bool
take_key_row(void *arg, const Datum *values, const bool *nulls)
{
	KeysRead *read = arg;
	PlinthSyncMapping *mapping = read->mapping;
	PlinthSyncBatch *batch = read->batch;
	int n = plinth_sync_read_row_place(values);
	PlinthSyncKey *key = &read->keys[n];

	check_single(key);
	/* It came only to tell that it is not the last key's second. */
	if (is_full(batch))
		return false;
	if (nulls[1])
	{
		PlinthBson id = id_of_key(mapping, key, batch);
		PlinthSyncOp *op = plinth_sync_batch_add(batch, PLINTH_MONGO_DELETE, n);

		op->op.id = id;
		batch->bytes += id.len;
	}
	else
	{
		PlinthBson oldid = {NULL, 0};

		/* A key may be equal and yet look different (citext): compare what it looks like. */
		plinth_sync_read_row_key(mapping, values, nulls, &read->text);
		if (read->text.len != key->keylen || memcmp(read->text.data, key->key, key->keylen) != 0)
			oldid = id_of_key(mapping, key, batch);
		if (oldid.data != NULL && plinth_sync_share_passes(mapping, &read->text))
			plinth_sync_share_leave_row(mapping, &read->text, batch, n, oldid);
		else
			(void) add_row(mapping, values, nulls, batch, n, oldid);
	}
	key->done = true;
	/* A query may have a second row for it, which would come next. */
	return !is_full(batch) || mapping->query != NULL;
}

void
plinth_sync_read_key_arrays(PlinthSyncMapping *mapping, const PlinthSyncKey *keys, int nkeys,
							Datum *arrays)
{
	Datum *elements = palloc(sizeof(Datum) * nkeys);
	const char **at = palloc(sizeof(char *) * nkeys);

	for (int i = 0; i < nkeys; i++)
		at[i] = keys[i].key;
	for (int k = 0; k < mapping->nkeys; k++)
	{
		for (int i = 0; i < nkeys; i++)
		{
			elements[i] = CStringGetTextDatum(at[i]);
			at[i] += strlen(at[i]) + 1;
		}
		arrays[k] =
			PointerGetDatum(construct_array(elements, nkeys, TEXTOID, -1, false, TYPALIGN_INT));
	}
}

static void
read_keys_function(void *arg)
{
	KeysRead *read = arg;
	PlinthSyncMapping *mapping = read->mapping;
	PlinthSyncQuery query = {
		.mapping = mapping, .nfields = mapping->nfields, .take = take_key_row, .arg = read};

	plinth_sync_query_keys(&query, &mapping->keys_plan, mapping->keys_sql, read->keys, read->nkeys,
						   &read->text);
}

void
plinth_sync_read_keys(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys,
					  PlinthSyncBatch *batch)
{
	KeysRead read = {mapping, keys, nkeys, batch, {0}};
	ErrorData *error;
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "plinth sync read", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);

	if (!plinth_sync_query_guarded(read_keys_function, &read, &error))
	{
		plinth_sync_batch_cut(batch, 0);
		batch->bytes = 0;
		batch->respelled = NIL;
		for (int i = 0; i < nkeys; i++)
			keys[i].done = false;
		for (int i = 0; i < nkeys && !is_full(batch); i++)
		{
			int before = batch->nops;
			KeysRead one = {mapping, &keys[i], 1, batch, {0}};

			if (plinth_sync_query_guarded(read_keys_function, &one, &error))
			{
				for (int j = before; j < batch->nops; j++)
					batch->ops[j].key = i;
				continue;
			}
			plinth_sync_batch_cut(batch, before);
			keys[i].done = true;
			if (plinth_sync_read_is_nothing(mapping, &keys[i]))
				continue;
			keys[i].poison = MemoryContextStrdup(batch->context, error->message);
			keys[i].poison_code = error->sqlerrcode;
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}

typedef struct PageRead
{
	PlinthSyncMapping *mapping;
	Oid relation;
	const char *relation_name;
	const char *after;
	int limit;
	bool keys_only; /* only where the page ends and what is in it */
	PlinthSyncBatch *batch;
	List *literals;    /* keys_only: of its rows */
	StringInfo passed; /* key of the last row, where that is not to be sent */
	const char *old_filter;
	int rows;
	StringInfoData text; /* the row's key */
} PageRead;

/* The plan of a page, and its parameters. */
static SPIPlanPtr
prepare_page(PageRead *read, Datum *values, bool *nulls)
{
	PlinthSyncMapping *mapping = read->mapping;
	int which = read->after != NULL ? 1 : 0;
	bool changed = read->old_filter != NULL && !read->keys_only;
	bool keep = read->relation == mapping->relation &&
				read->keys_only == (mapping->query != NULL) && !changed;
	bool unfiltered = read->keys_only || changed;
	SPIPlanPtr plan = keep ? mapping->page_plan[which] : NULL;

	if (plan == NULL)
	{
		plan = plinth_sync_query_prepare(
			psprintf("%s%s%s",
					 changed ? plinth_sync_mapping_changed_head(mapping, read->old_filter)
							 : mapping->page_head[read->keys_only ? 1 : 0],
					 read->relation_name, mapping->page_tail[which][unfiltered ? 1 : 0]),
			mapping->nkeys, TEXTOID, INT4OID, keep);
		if (keep)
			mapping->page_plan[which] = plan;
	}
	for (int i = 0; i < mapping->nkeys; i++)
	{
		values[i] = (Datum) 0;
		nulls[i] = read->after == NULL;
	}
	if (read->after != NULL)
	{
		uint32 len;
		char *text = plinth_sync_key_parse(mapping->nkeys, read->after, &len);

		for (int i = 0; i < mapping->nkeys; i++)
		{
			values[i] = CStringGetTextDatum(text);
			text += strlen(text) + 1;
		}
	}
	values[mapping->nkeys] = Int32GetDatum(read->limit);
	nulls[mapping->nkeys] = false;
	return plan;
}

/* It matched the old filter, and does not match the mapping's. */
static PlinthSyncOp *
add_ended(PageRead *read)
{
	PlinthSyncOp *op = plinth_sync_batch_add(read->batch, PLINTH_MONGO_DELETE, -1);
	PlinthSyncKey key = {.key = read->text.data, .keylen = read->text.len};

	op->op.id = id_of_key(read->mapping, &key, read->batch);
	read->batch->bytes += op->op.id.len;
	return op;
}

static bool
take_page_row(void *arg, const Datum *values, const bool *nulls)
{
	PageRead *read = arg;
	PlinthSyncMatch match = (PlinthSyncMatch) DatumGetInt64(values[0]);
	PlinthBson none = {NULL, 0};
	PlinthSyncOp *op = NULL;
	char *literal;
	MemoryContext old;

	read->rows++;
	plinth_sync_read_row_key(read->mapping, values, nulls, &read->text);
	if (read->passed != NULL)
	{
		resetStringInfo(read->passed);
		if (plinth_sync_share_passes(read->mapping, &read->text) || match == PLINTH_SYNC_MATCH_SAME)
		{
			appendBinaryStringInfo(read->passed, read->text.data, read->text.len);
			return true;
		}
	}
	if (!read->keys_only)
		op = match == PLINTH_SYNC_MATCH_ENDED
				 ? add_ended(read)
				 : add_row(read->mapping, values, nulls, read->batch, -1, none);
	old = MemoryContextSwitchTo(read->batch->context);
	literal = plinth_sync_key_literal(read->mapping->nkeys, read->text.data, read->text.len);
	if (op == NULL)
		read->literals = lappend(read->literals, literal);
	else
		read->batch->last_key = op->literal = literal;
	MemoryContextSwitchTo(old);
	return !is_full(read->batch);
}

static void
read_page_function(void *arg)
{
	PageRead *read = arg;
	PlinthSyncMapping *mapping = read->mapping;
	PlinthSyncQuery query = {mapping, NULL, read->relation, 0, take_page_row, read};
	Datum values[PLINTH_SYNC_MAX_KEYS + 1];
	bool nulls[PLINTH_SYNC_MAX_KEYS + 1];
	PlinthAsOwner state;
	bool whole;

	read->relation_name = plinth_sync_query_lock(
		read->relation, read->relation == mapping->relation ? mapping->relation_name : NULL);
	read->rows = 0;
	SPI_connect();
	plinth_sync_query_as_owner(mapping, &state);
	query.plan = prepare_page(read, values, nulls);
	if (!read->keys_only)
		query.nfields = mapping->nfields;
	initStringInfo(&read->text);
	whole = plinth_sync_query_rows(&query, values, nulls, TEXTOID, INT4OID);
	read->batch->exhausted = whole && read->rows < read->limit;
	if (!read->keys_only)
		plinth_sync_share_end_page(mapping, read->passed, read->batch);
	plinth_sync_query_as_before(&state);
	SPI_finish();
}

/* A page with a poisonous row: its keys alone, then row by row. */
static void
read_page_singly(PageRead *read)
{
	PlinthSyncBatch *batch = read->batch;
	ErrorData *error;
	ListCell *lc;

	read->keys_only = true;
	read->literals = NIL;
	if (read->passed != NULL)
		resetStringInfo(read->passed);
	read_page_function(read);
	foreach (lc, read->literals)
	{
		PlinthSyncKey *key = MemoryContextAllocZero(batch->context, sizeof(PlinthSyncKey));
		KeysRead one = {read->mapping, key, 1, batch, {0}};
		int before = batch->nops;
		MemoryContext old;

		if (is_full(batch))
			break;
		old = MemoryContextSwitchTo(batch->context);
		key->key = plinth_sync_key_parse(read->mapping->nkeys, lfirst(lc), &key->keylen);
		MemoryContextSwitchTo(old);
		batch->last_key = lfirst(lc);
		if (plinth_sync_query_guarded(read_keys_function, &one, &error))
		{
			for (int j = before; j < batch->nops; j++)
			{
				batch->ops[j].key = -1;
				batch->ops[j].literal = lfirst(lc);
			}
			continue;
		}
		plinth_sync_batch_cut(batch, before);
		key->poison = MemoryContextStrdup(batch->context, error->message);
		key->poison_code = error->sqlerrcode;
		old = MemoryContextSwitchTo(batch->context);
		batch->poison = lappend(batch->poison, key);
		MemoryContextSwitchTo(old);
	}
	if (lc == NULL)
		plinth_sync_share_end_page(read->mapping, read->passed, batch);
	batch->exhausted = false;
}

/* False when a row cannot be read, or what an old filter names is not there any more. */
static bool
read_page_at_once(PageRead *read, bool *unusable)
{
	ErrorData *error;
	bool poison = true;
	bool ok = read->old_filter == NULL ? plinth_sync_query_guarded(read_page_function, read, &error)
									   : plinth_sync_query_tried(read_page_function, read, &poison);

	*unusable = !poison;
	return ok;
}

List *
plinth_sync_read_page_keys(PlinthSyncMapping *mapping, Oid relation, const char *after, int limit,
						   PlinthSyncBatch *batch, StringInfo passed)
{
	PageRead read = {mapping, relation, NULL, after, limit, true, batch, NIL, NULL, NULL, 0, {0}};

	if (mapping->lanes > 1)
	{
		read.limit = limit * mapping->lanes;
		read.passed = passed;
	}
	read_page_function(&read);
	return read.literals;
}

void
plinth_sync_read_page(PlinthSyncMapping *mapping, Oid relation, const char *old_filter,
					  const char *after, int limit, PlinthSyncBatch *batch)
{
	PageRead read = {mapping, relation, NULL, after,      limit, false,
					 batch,   NIL,      NULL, old_filter, 0,     {0}};
	MemoryContext work =
		AllocSetContextCreate(CurrentMemoryContext, "plinth sync read", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(work);

	if (mapping->lanes > 1)
	{
		/* So many that about as many are ours as are asked for. */
		read.limit = limit * mapping->lanes;
		read.passed = makeStringInfo();
	}
	else if (old_filter != NULL)
		read.passed = makeStringInfo();
	if (mapping->query != NULL)
		plinth_sync_read_page_documents(mapping, relation, after, limit, batch);
	else if (!read_page_at_once(&read, &batch->unusable))
	{
		plinth_sync_batch_cut(batch, 0);
		batch->bytes = 0;
		batch->last_key = NULL;
		read.limit = Min(limit, SINGLE_ROWS);
		if (!batch->unusable)
			read_page_singly(&read);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}
