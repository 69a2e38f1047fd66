/*
 * verify_indexes.c
 *		sync_verify(): the declared indexes.
 *
 * An index that MongoDB does not have, or has with other options, is a
 * difference; one that nobody declared here is somebody's business, and only
 * told.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/verify_int.h"

typedef struct Declared
{
	char *suffix;
	char *name;
	char *definition;
} Declared;

/* Those of the mapping, by collection; palloc'd in the current memory context. */
static Declared *
load(PlinthVerify *verify, int *n)
{
	static PlinthPlan plan = {
		"SELECT suffix, name, definition::text FROM plinth.sync_indexes"
		" WHERE mapping_id = $1 AND state <> 'dropping' ORDER BY suffix, name",
		1,
		{INT8OID},
		NULL};
	MemoryContext caller = CurrentMemoryContext;
	Datum value = Int64GetDatum(verify->id);
	Declared *declared;

	plinth_sync_verify_begin(verify);
	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	declared = MemoryContextAlloc(caller, sizeof(Declared) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		char **fields[] = {&declared[i].suffix, &declared[i].name, &declared[i].definition};

		for (int k = 0; k < lengthof(fields); k++)
			*fields[k] = MemoryContextStrdup(
				caller, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, k + 1));
	}
	SPI_finish();
	plinth_sync_verify_end(verify);
	return declared;
}

static void
report(PlinthVerify *verify, char *difference)
{
	const char *fields[3] = {NULL, difference, NULL};

	plinth_sync_verify_send(verify, PLINTH_VERIFY_DIFFERENCE, 3, fields);
}

/* One collection's declarations against its indexes. */
static void
compare(PlinthVerify *verify, const char *collection, const Declared *declared, int ndeclared)
{
	PlinthMongoError error;
	PlinthBson *indexes;
	int n;
	bool *known;

	plinth_sync_verify_check(
		verify, plinth_mongo_index_list(verify->client, collection, &indexes, &n, &error), &error);
	known = palloc0(sizeof(bool) * (n + 1));
	for (int i = 0; i < ndeclared; i++)
	{
		int at = plinth_mongo_index_find(indexes, n, declared[i].name);
		PlinthMongoIndex **index;
		char *difference;
		int one;

		if (at < 0)
		{
			report(verify, psprintf("index \"%s\" is missing", declared[i].name));
			continue;
		}
		known[at] = true;
		index = plinth_mongo_indexes_parse(declared[i].definition, &one);
		difference = plinth_mongo_index_difference(index[0]->spec, indexes[at]);
		if (difference != NULL)
			report(verify, psprintf("index \"%s\": %s", declared[i].name, difference));
	}
	for (int i = 0; i < n; i++)
	{
		const char *name = known[i] ? NULL : plinth_mongo_index_name(indexes[i]);
		const char *fields[2] = {collection, name};

		if (name != NULL)
			plinth_sync_verify_send(verify, PLINTH_VERIFY_UNDECLARED, 2, fields);
	}
}

void
plinth_sync_verify_indexes(PlinthVerify *verify)
{
	Declared *declared;
	int n;

	MemoryContextReset(verify->page);
	declared = load(verify, &n);
	for (int from = 0, to; from < n; from = to)
	{
		for (to = from; to < n && strcmp(declared[to].suffix, declared[from].suffix) == 0;)
			to++;
		compare(verify, psprintf("%s%s", verify->mapping->collection, declared[from].suffix),
				&declared[from], to - from);
	}
}
