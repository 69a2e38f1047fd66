/*
 * read_absent.c
 *		Which keys have no row.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "sync/read_int.h"

typedef struct AbsentRead
{
	PlinthSyncMapping *mapping;
	PlinthSyncKey *keys;
	int nkeys;
	bool *absent;
	bool strict; /* a row that spells its key otherwise is not absent */
	StringInfoData text;
} AbsentRead;

static bool
look_at_row(void *arg, const Datum *values, const bool *nulls)
{
	AbsentRead *read = arg;
	int n = plinth_sync_read_row_place(values);

	if (nulls[1])
		read->absent[n] = true;
	else
	{
		plinth_sync_read_row_key(read->mapping, values, nulls, &read->text);
		read->absent[n] =
			!read->strict && (read->text.len != read->keys[n].keylen ||
							  memcmp(read->text.data, read->keys[n].key, read->text.len) != 0);
	}
	return true;
}

static void
read_absent_function(void *arg)
{
	AbsentRead *read = arg;
	PlinthSyncMapping *mapping = read->mapping;
	PlinthSyncQuery query = {.mapping = mapping, .take = look_at_row, .arg = read};

	plinth_sync_query_keys(&query, &mapping->absent_plan, mapping->absent_sql, read->keys,
						   read->nkeys, &read->text);
}

void
plinth_sync_read_absent(PlinthSyncMapping *mapping, PlinthSyncKey *keys, int nkeys, bool *absent)
{
	AbsentRead read = {mapping, keys, nkeys, absent, false, {0}};
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
	AbsentRead read = {mapping, key, 1, &absent, true, {0}};
	ErrorData *error;

	if (!plinth_sync_query_guarded(input_key_function, &read, &error))
		return true;
	return plinth_sync_query_guarded(read_absent_function, &read, &error) && absent;
}
