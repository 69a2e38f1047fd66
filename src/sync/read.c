/*
 * read.c
 *		The rows' current state, as documents.
 *
 * Runs in a transaction of the caller's, under a fresh snapshot, as the
 * mapping's owner in a restricted security context with row_security off (a
 * policy that would hide a row is an error, never a deletion).  Rows come in
 * portions that grow, so that a batch ends at plinth.sync_batch_bytes however
 * large its rows are.  Not as SPI's read_only: then the snapshot is taken once
 * the table is locked, and rows that a TRUNCATE or a rewrite made meanwhile are
 * seen.
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

#define FIRST_PORTION 8
#define LARGEST_PORTION 256

static Size
batch_limit(void)
{
	return (Size) plinth_setting_sync_batch_bytes * 1024;
}

/* Until a lane has looked at a new mapping, its table may have lost the key. */
static void
refuse_null(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("a row's key is null"),
			 errhint("Give the table its key back, or create the mapping again.")));
}

void
plinth_sync_read_row_key(PlinthSyncMapping *mapping, HeapTuple tuple, TupleDesc desc,
						 StringInfo key)
{
	resetStringInfo(key);
	for (int i = 0; i < mapping->nkeys; i++)
	{
		char *text = SPI_getvalue(tuple, desc, i + 2);

		if (text == NULL)
			refuse_null();
		appendStringInfoString(key, text);
		appendStringInfoChar(key, '\0');
		pfree(text);
	}
}

/* One row found: its document, and away with the document of an older spelling of its key. */
static void
add_row(PlinthSyncMapping *mapping, HeapTuple tuple, TupleDesc desc, PlinthSyncBatch *batch,
		int key, PlinthBson oldid, bool page)
{
	Datum keyvalues[PLINTH_SYNC_MAX_KEYS];
	Datum *values = palloc(sizeof(Datum) * (mapping->nfields + 1));
	bool *nulls = palloc(sizeof(bool) * (mapping->nfields + 1));
	PlinthBson id;
	PlinthBson document;
	PlinthSyncOp *op;
	bool isnull;
	MemoryContext old;

	for (int i = 0; i < mapping->nkeys; i++)
	{
		keyvalues[i] = SPI_getbinval(tuple, desc, i + 2, &isnull);
		if (isnull)
			refuse_null();
	}
	for (int i = 0; i < mapping->nfields; i++)
		values[i] = SPI_getbinval(tuple, desc, mapping->nkeys + i + 2, &nulls[i]);

	old = MemoryContextSwitchTo(batch->context);
	id = plinth_mongo_id_encode(mapping->idspec, keyvalues);
	document = plinth_mongo_document(mapping->idspec, keyvalues, mapping->fields, mapping->nfields,
									 values, nulls);
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
	if (page)
	{
		StringInfoData text;

		initStringInfo(&text);
		plinth_sync_read_row_key(mapping, tuple, desc, &text);
		old = MemoryContextSwitchTo(batch->context);
		op->literal = plinth_sync_key_literal(mapping->nkeys, text.data, text.len);
		MemoryContextSwitchTo(old);
		pfree(text.data);
	}
	pfree(values);
	pfree(nulls);
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

int
plinth_sync_read_row_place(HeapTuple tuple, TupleDesc desc)
{
	bool isnull;

	return (int) DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull)) - 1;
}

static void
check_single(const PlinthSyncKey *key)
{
	if (key->done)
		ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
						errmsg("the query returns more than one row for this key")));
}

static void
take_key_row(PlinthSyncMapping *mapping, PlinthSyncKey *keys, HeapTuple tuple, TupleDesc desc,
			 PlinthSyncBatch *batch)
{
	int n = plinth_sync_read_row_place(tuple, desc);
	bool absent;

	check_single(&keys[n]);
	(void) SPI_getbinval(tuple, desc, 2, &absent);
	if (absent)
	{
		PlinthBson id = id_of_key(mapping, &keys[n], batch);
		PlinthSyncOp *op = plinth_sync_batch_add(batch, PLINTH_MONGO_DELETE, n);

		op->op.id = id;
		batch->bytes += id.len;
	}
	else
	{
		StringInfoData text;
		PlinthBson oldid = {NULL, 0};

		/* A key may be equal and yet look different (citext): compare what it looks like. */
		initStringInfo(&text);
		plinth_sync_read_row_key(mapping, tuple, desc, &text);
		if (text.len != keys[n].keylen || memcmp(text.data, keys[n].key, text.len) != 0)
			oldid = id_of_key(mapping, &keys[n], batch);
		if (oldid.data != NULL && plinth_sync_share_passes(mapping, &text))
			plinth_sync_share_leave_row(mapping, &text, batch, n, oldid);
		else
			add_row(mapping, tuple, desc, batch, n, oldid, false);
		pfree(text.data);
	}
	keys[n].done = true;
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

/* SPI is connected, the owner is set. */
static void
read_keys_once(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys, PlinthSyncBatch *batch)
{
	Datum arrays[PLINTH_SYNC_MAX_KEYS];
	Portal portal;
	long portion = FIRST_PORTION;

	if (mapping->keys_plan == NULL)
		mapping->keys_plan = plinth_sync_query_prepare(mapping->keys_sql, mapping->nkeys,
													   TEXTARRAYOID, InvalidOid, true);
	plinth_sync_read_key_arrays(mapping, keys, nkeys, arrays);
	portal = SPI_cursor_open(NULL, mapping->keys_plan, arrays, NULL, false);
	plinth_sync_query_check_relation(mapping, mapping->keys_plan, mapping->relation);
	do
	{
		SPI_cursor_fetch(portal, true, portion);
		plinth_sync_query_check_types(mapping, SPI_tuptable->tupdesc, mapping->nfields);
		for (uint64 i = 0; i < SPI_processed; i++)
			take_key_row(mapping, keys, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, batch);
		if (SPI_processed < portion)
			break;
		SPI_freetuptable(SPI_tuptable);
		portion = Min(portion * 2, LARGEST_PORTION);
	} while (batch->bytes < batch_limit());
	/* Where the batch is full, the last key's second row may come next. */
	if (mapping->query != NULL && SPI_processed > 0)
	{
		SPI_cursor_fetch(portal, true, 1);
		if (SPI_processed > 0)
			check_single(
				&keys[plinth_sync_read_row_place(SPI_tuptable->vals[0], SPI_tuptable->tupdesc)]);
	}
	SPI_cursor_close(portal);
}

typedef struct KeysRead
{
	PlinthSyncMapping *mapping;
	PlinthSyncKey *keys;
	int nkeys;
	PlinthSyncBatch *batch;
} KeysRead;

static void
read_keys_function(void *arg)
{
	KeysRead *read = arg;
	PlinthAsOwner state;

	(void) plinth_sync_query_lock(read->mapping->relation, read->mapping->relation_name);
	SPI_connect();
	plinth_sync_query_as_owner(read->mapping, &state);
	read_keys_once(read->mapping, read->keys, read->nkeys, read->batch);
	plinth_sync_query_as_before(&state);
	SPI_finish();
}

void
plinth_sync_read_keys(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys,
					  PlinthSyncBatch *batch)
{
	KeysRead read = {mapping, keys, nkeys, batch};
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
		for (int i = 0; i < nkeys && batch->bytes < batch_limit(); i++)
		{
			int before = batch->nops;
			KeysRead one = {mapping, &keys[i], 1, batch};

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
} PageRead;

static Portal
open_page(PageRead *read)
{
	PlinthSyncMapping *mapping = read->mapping;
	int which = read->after != NULL ? 1 : 0;
	Datum values[PLINTH_SYNC_MAX_KEYS + 1];
	char nulls[PLINTH_SYNC_MAX_KEYS + 1];
	bool changed = read->old_filter != NULL && !read->keys_only;
	bool keep = read->relation == mapping->relation &&
				read->keys_only == (mapping->query != NULL) && !changed;
	bool unfiltered = read->keys_only || changed;
	SPIPlanPtr plan = keep ? mapping->page_plan[which] : NULL;
	Portal portal;

	memset(nulls, 'n', sizeof(nulls));
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
	if (read->after != NULL)
	{
		uint32 len;
		char *text = plinth_sync_key_parse(mapping->nkeys, read->after, &len);

		for (int i = 0; i < mapping->nkeys; i++)
		{
			values[i] = CStringGetTextDatum(text);
			nulls[i] = ' ';
			text += strlen(text) + 1;
		}
	}
	values[mapping->nkeys] = Int32GetDatum(read->limit);
	nulls[mapping->nkeys] = ' ';
	portal = SPI_cursor_open(NULL, plan, values, nulls, false);
	plinth_sync_query_check_relation(mapping, plan, read->relation);
	return portal;
}

/* It matched the old filter, and does not match the mapping's. */
static void
add_ended(PageRead *read, HeapTuple tuple, TupleDesc desc)
{
	PlinthSyncOp *op = plinth_sync_batch_add(read->batch, PLINTH_MONGO_DELETE, -1);
	PlinthSyncKey key = {0};
	StringInfoData text;
	MemoryContext old;

	initStringInfo(&text);
	plinth_sync_read_row_key(read->mapping, tuple, desc, &text);
	key.key = text.data;
	key.keylen = text.len;
	op->op.id = id_of_key(read->mapping, &key, read->batch);
	old = MemoryContextSwitchTo(read->batch->context);
	op->literal = plinth_sync_key_literal(read->mapping->nkeys, text.data, text.len);
	MemoryContextSwitchTo(old);
	read->batch->bytes += op->op.id.len;
	pfree(text.data);
}

static void
take_page_row(PageRead *read, HeapTuple tuple, TupleDesc desc)
{
	bool isnull;
	PlinthSyncMatch match = (PlinthSyncMatch) DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	PlinthBson none = {NULL, 0};
	StringInfoData text;
	MemoryContext old;

	if (read->passed != NULL)
	{
		plinth_sync_read_row_key(read->mapping, tuple, desc, read->passed);
		if (plinth_sync_share_passes(read->mapping, read->passed) ||
			match == PLINTH_SYNC_MATCH_SAME)
			return;
		resetStringInfo(read->passed);
	}
	if (!read->keys_only)
	{
		if (match == PLINTH_SYNC_MATCH_ENDED)
			add_ended(read, tuple, desc);
		else
			add_row(read->mapping, tuple, desc, read->batch, -1, none, true);
		read->batch->last_key = read->batch->ops[read->batch->nops - 1].literal;
		return;
	}
	initStringInfo(&text);
	plinth_sync_read_row_key(read->mapping, tuple, desc, &text);
	old = MemoryContextSwitchTo(read->batch->context);
	read->literals =
		lappend(read->literals, plinth_sync_key_literal(read->mapping->nkeys, text.data, text.len));
	MemoryContextSwitchTo(old);
}

static void
read_page_function(void *arg)
{
	PageRead *read = arg;
	PlinthSyncBatch *batch = read->batch;
	PlinthAsOwner state;
	Portal portal;
	long portion = FIRST_PORTION;
	int rows = 0;

	read->relation_name = plinth_sync_query_lock(
		read->relation,
		read->relation == read->mapping->relation ? read->mapping->relation_name : NULL);
	SPI_connect();
	plinth_sync_query_as_owner(read->mapping, &state);
	portal = open_page(read);
	do
	{
		SPI_cursor_fetch(portal, true, portion);
		plinth_sync_query_check_types(read->mapping, SPI_tuptable->tupdesc,
									  read->keys_only ? 0 : read->mapping->nfields);
		for (uint64 i = 0; i < SPI_processed; i++)
			take_page_row(read, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		rows += SPI_processed;
		if (SPI_processed < portion)
		{
			batch->exhausted = rows < read->limit;
			break;
		}
		SPI_freetuptable(SPI_tuptable);
		portion = Min(portion * 2, LARGEST_PORTION);
	} while (batch->bytes < batch_limit());
	SPI_cursor_close(portal);
	if (!read->keys_only)
		plinth_sync_share_end_page(read->mapping, read->passed, batch);
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
		KeysRead one = {read->mapping, key, 1, batch};
		int before = batch->nops;
		MemoryContext old;

		if (batch->bytes >= batch_limit())
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
	PageRead read = {mapping, relation, NULL, after, limit, true, batch, NIL, NULL, NULL};

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
	PageRead read = {mapping, relation, NULL, after, limit, false, batch, NIL, NULL, old_filter};
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
		read.limit = Min(limit, LARGEST_PORTION);
		if (!batch->unusable)
			read_page_singly(&read);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(work);
}
