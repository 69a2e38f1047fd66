/*
 * read_absent.c
 *		Which keys have no row.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "sync/read_int.h"

/* So many rows at a time. */
#define PORTION 256

typedef struct AbsentRead
{
	PlinthSyncMapping *mapping;
	PlinthSyncKey *keys;
	int nkeys;
	bool *absent;
	bool strict; /* a row that spells its key otherwise is not absent */
} AbsentRead;

static void
look_at_row(AbsentRead *read, HeapTuple tuple, TupleDesc desc, StringInfo text)
{
	int n = plinth_sync_read_row_place(tuple, desc);
	bool isnull;

	(void) SPI_getbinval(tuple, desc, 2, &isnull);
	if (isnull)
	{
		read->absent[n] = true;
		return;
	}
	plinth_sync_read_row_key(read->mapping, tuple, desc, text);
	read->absent[n] = !read->strict && (text->len != read->keys[n].keylen ||
										memcmp(text->data, read->keys[n].key, text->len) != 0);
}

static void
read_absent_function(void *arg)
{
	AbsentRead *read = arg;
	PlinthSyncMapping *mapping = read->mapping;
	Datum arrays[PLINTH_SYNC_MAX_KEYS];
	PlinthAsOwner state;
	StringInfoData text;
	Portal portal;
	uint64 fetched;

	(void) plinth_sync_query_lock(mapping->relation, mapping->relation_name);
	SPI_connect();
	plinth_sync_query_as_owner(mapping, &state);
	if (mapping->absent_plan == NULL)
		mapping->absent_plan = plinth_sync_query_prepare(mapping->absent_sql, mapping->nkeys,
														 TEXTARRAYOID, InvalidOid, true);
	plinth_sync_read_key_arrays(mapping, read->keys, read->nkeys, arrays);
	initStringInfo(&text);
	portal = SPI_cursor_open(NULL, mapping->absent_plan, arrays, NULL, false);
	/* Before anything of it runs: what has a table's name now may be a view. */
	plinth_sync_query_check_relation(mapping, mapping->absent_plan, mapping->relation);
	/* A query may have any number of rows for a key, few of which are kept at a time. */
	do
	{
		SPI_cursor_fetch(portal, true, PORTION);
		fetched = SPI_processed;
		plinth_sync_query_check_types(mapping, SPI_tuptable->tupdesc, 0);
		for (uint64 i = 0; i < fetched; i++)
			look_at_row(read, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &text);
		SPI_freetuptable(SPI_tuptable);
	} while (fetched == PORTION);
	SPI_cursor_close(portal);
	plinth_sync_query_as_before(&state);
	SPI_finish();
}

void
plinth_sync_read_absent(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys, bool *absent)
{
	AbsentRead read = {mapping, keys, nkeys, absent, false};
	ErrorData *error;

	if (plinth_sync_query_guarded(read_absent_function, &read, &error))
		return;
	/* A key or row that cannot be read is looked at by itself when it is written. */
	for (int i = 0; i < nkeys; i++)
		absent[i] = true;
}

static void
input_key_function(void *arg)
{
	AbsentRead *read = arg;
	const char *text = read->keys[0].key;
	PlinthAsOwner state;

	/* A domain within the type (of a composite, an array) runs code of its owner. */
	plinth_sync_query_as_owner(read->mapping, &state);
	for (int i = 0; i < read->mapping->nkeys; i++)
	{
		Oid input;
		Oid ioparam;

		getTypeInputInfo(getBaseType(read->mapping->key_types[i]), &input, &ioparam);
		(void) OidInputFunctionCall(input, unconstify(char *, text), ioparam, -1);
		text += strlen(text) + 1;
	}
	plinth_sync_query_as_before(&state);
}

bool
plinth_sync_read_is_nothing(PlinthSyncMapping *mapping, PlinthSyncKey *key)
{
	bool absent = false;
	AbsentRead read = {mapping, key, 1, &absent, true};
	ErrorData *error;

	if (!plinth_sync_query_guarded(input_key_function, &read, &error))
		return true;
	return plinth_sync_query_guarded(read_absent_function, &read, &error) && absent;
}
