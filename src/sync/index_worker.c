/*
 * index_worker.c
 *		Makes MongoDB's indexes what sync_indexes says.
 *
 * Building an index may take hours, so it is no lane's work: a worker of its
 * own does it, over a connection of its own, and is there only while something
 * is due.  Servers are divided between two such workers, so that a long build
 * on one server holds up half of the others at most.
 *
 * It only looks at collections that the lane has taken over, and looks at the
 * fence itself before it asks for anything: a collection that has become
 * another database's is left alone.  An index that MongoDB has with other
 * options is reported, and dropped only where that was asked for.
 *
 * What fails for good here (a unique index over values that are not) is told
 * in sync_indexes and looked at again once in a while; no document waits for
 * it.  A snapshot waits for indexes that are to be built before it while they
 * are neither built nor failed.
 *
 * Locking: none; what it found is written down only where the declaration is
 * still the one that was looked at.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "sync/index_int.h"
#include "sync/sync_int.h"
#include "worker/worker.h"

#define WORKERS 2
#define IDLE_MS 500
/* Once it is there, or has failed, it is looked at so often. */
#define CHECK_S 3600
/* The first time sooner: a drop that a killed worker had asked for may come after it was made again. */
#define FIRST_CHECK_S 60
#define FENCE_S 10
#define FIRST_BACKOFF_S 1
#define LAST_BACKOFF_S 60
/* An error of which it is not known whether it passes counts as final then. */
#define TRIES 5
#define CODE_UNAUTHORIZED 13

/* Of the joined tables: may it be worked on at all, now or soon? */
#define RUNNABLE                                                                                   \
	"s.prepared AND NOT s.adopting AND s.blocked IS NULL AND NOT m.paused"                         \
	" AND (i.build = 'before' OR i.state NOT IN ('waiting', 'building')"                           \
	"      OR NOT EXISTS (SELECT FROM plinth.sync_tasks t"                                         \
	"                      WHERE t.mapping_id = m.id AND t.kind = 'snapshot'))"
#define FROM_INDEXES                                                                               \
	" FROM plinth.sync_indexes i JOIN plinth.sync_mappings m ON m.id = i.mapping_id"               \
	" JOIN plinth.sync_states s ON s.mapping_id = m.id"                                            \
	" JOIN pg_catalog.pg_foreign_server f ON f.srvname = m.server_name"                            \
	"  AND pg_catalog.has_server_privilege(m.owner, f.oid, 'USAGE')"
/* Which of the workers a server is for. */
#define PLACE "pg_catalog.hashtext(m.server_name::text) & 1"

typedef struct Job
{
	int64 mapping;
	char *mapping_name;
	char *suffix;
	char *name;
	char *definition;
	char *state;
	bool rebuild;
	char *server;
	Oid owner;
	char *fenced; /* the mapping's collection */
	char *collection;
	uint64 epoch;
	int attempts;
} Job;

/* What became of it. */
typedef struct Outcome
{
	const char *state; /* NULL: the row goes */
	const char *reason;
	const char *hint;
	int again_s;
	bool tried; /* counts as an attempt */
} Outcome;

int
plinth_sync_indexes_wanted(void)
{
	/* Those that are due soon keep it alive; how many depends on declarations only. */
	static PlinthPlan plan = {
		"SELECT CASE WHEN EXISTS (SELECT" FROM_INDEXES
		" WHERE i.due_at <= now() + '15 s' AND " RUNNABLE ")"
		" THEN (SELECT max(" PLACE ") + 1 FROM plinth.sync_mappings m"
		"        WHERE EXISTS (SELECT FROM plinth.sync_indexes i WHERE i.mapping_id = m.id))"
		" ELSE 0 END",
		0,
		{0},
		NULL};
	bool isnull;
	int wanted;

	if (!plinth_worker_is_adopted())
		return 0;
	SPI_connect();
	plinth_base_spi_execute(&plan, NULL, NULL, false, SPI_OK_SELECT);
	wanted = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return isnull ? 0 : Min(wanted, WORKERS);
}

/* The next that is due, in the current memory context; NULL for none.  Inside a transaction. */
static Job *
next_job(int place)
{
	static PlinthPlan plan = {
		"SELECT i.mapping_id, m.name, i.suffix, i.name, i.definition::text, i.state, i.rebuild,"
		"       m.server_name::text, m.owner::oid, m.collection, m.collection || i.suffix,"
		"       s.fence_epoch, i.attempts" FROM_INDEXES " WHERE i.due_at <= now() AND " RUNNABLE
		" AND " PLACE " = $1"
		" ORDER BY i.build = 'after', i.due_at, i.mapping_id, i.name LIMIT 1",
		1,
		{INT4OID},
		NULL};
	MemoryContext caller = CurrentMemoryContext;
	Datum value = Int32GetDatum(place);
	Job *job = NULL;
	char *texts[13];
	bool isnull;

	SPI_connect();
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed > 0)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;

		for (int i = 0; i < lengthof(texts); i++)
			texts[i] = MemoryContextStrdup(caller, SPI_getvalue(tuple, desc, i + 1));
		job = MemoryContextAllocZero(caller, sizeof(Job));
		job->mapping = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		job->mapping_name = texts[1];
		job->suffix = texts[2];
		job->name = texts[3];
		job->definition = texts[4];
		job->state = texts[5];
		job->rebuild = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
		job->server = texts[7];
		job->owner = DatumGetObjectId(SPI_getbinval(tuple, desc, 9, &isnull));
		job->fenced = texts[9];
		job->collection = texts[10];
		job->epoch = DatumGetInt64(SPI_getbinval(tuple, desc, 12, &isnull));
		job->attempts = DatumGetInt32(SPI_getbinval(tuple, desc, 13, &isnull));
	}
	SPI_finish();
	return job;
}

/* Inside a transaction. */
static void
store_outcome(const Job *job, const Outcome *outcome)
{
	static PlinthPlan done = {
		"UPDATE plinth.sync_indexes SET state = $5, reason = $6, hint = $7,"
		"       attempts = CASE WHEN $9 THEN attempts + 1 ELSE 0 END,"
		"       due_at = clock_timestamp() + $8 * interval '1 s',"
		"       checked_at = CASE WHEN $5 IN ('ready', 'different', 'failed')"
		"                         THEN clock_timestamp() ELSE checked_at END,"
		"       rebuild = rebuild AND $5 NOT IN ('ready', 'different')"
		" WHERE mapping_id = $1 AND suffix = $2 AND name = $3 AND definition::text = $4"
		"   AND (state = 'dropping') = ($5 = 'dropping')",
		9,
		{INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID, BOOLOID},
		NULL};
	static PlinthPlan gone = {"DELETE FROM plinth.sync_indexes WHERE mapping_id = $1"
							  " AND suffix = $2 AND name = $3 AND state = 'dropping'",
							  3,
							  {INT8OID, TEXTOID, TEXTOID},
							  NULL};
	Datum values[9];
	char nulls[10] = "         ";

	values[0] = Int64GetDatum(job->mapping);
	values[1] = CStringGetTextDatum(job->suffix);
	values[2] = CStringGetTextDatum(job->name);
	SPI_connect();
	if (outcome->state == NULL)
		plinth_base_spi_execute(&gone, values, NULL, false, SPI_OK_DELETE);
	else
	{
		values[3] = CStringGetTextDatum(job->definition);
		values[4] = CStringGetTextDatum(outcome->state);
		nulls[5] = outcome->reason == NULL ? 'n' : ' ';
		values[5] = outcome->reason == NULL ? (Datum) 0 : CStringGetTextDatum(outcome->reason);
		nulls[6] = outcome->hint == NULL ? 'n' : ' ';
		values[6] = outcome->hint == NULL ? (Datum) 0 : CStringGetTextDatum(outcome->hint);
		values[7] = Int32GetDatum(outcome->again_s);
		values[8] = BoolGetDatum(outcome->tried);
		plinth_base_spi_execute(&done, values, nulls, false, SPI_OK_UPDATE);
	}
	SPI_finish();
}

/* It is being built: told before, since it may take long.  False when the extension has gone. */
static bool
tell_building(Job *job)
{
	static PlinthPlan plan = {
		"UPDATE plinth.sync_indexes SET state = 'building', reason = NULL, hint = NULL"
		" WHERE mapping_id = $1 AND suffix = $2 AND name = $3 AND definition::text = $4"
		"   AND state <> 'dropping'",
		4,
		{INT8OID, TEXTOID, TEXTOID, TEXTOID},
		NULL};
	MemoryContext caller = CurrentMemoryContext;
	Datum values[4] = {Int64GetDatum(job->mapping), CStringGetTextDatum(job->suffix),
					   CStringGetTextDatum(job->name), CStringGetTextDatum(job->definition)};

	if (!plinth_worker_transaction_begin())
		return false;
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, SPI_OK_UPDATE);
	SPI_finish();
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);
	plinth_worker_report("building", psprintf("%s.%s", job->collection, job->name));
	return true;
}

/* The server could not be asked, or not answer: later. */
static void
try_later(const Job *job, const PlinthMongoError *error, Outcome *outcome)
{
	int wait = FIRST_BACKOFF_S << Min(job->attempts, 10);

	outcome->state = strcmp(job->state, "building") == 0 ? "waiting" : job->state;
	outcome->reason = psprintf("%s: %s", plinth_mongo_status_name(error->status), error->message);
	outcome->hint = "It is tried again by itself.";
	outcome->again_s = Min(wait, LAST_BACKOFF_S);
	outcome->tried = true;
}

static void
take_failure(const Job *job, const PlinthMongoError *error, Outcome *outcome)
{
	bool refused = false;

	switch (error->status)
	{
		case PLINTH_MONGO_OTHER:
			/* Such as an index build that was aborted, or a collection that was dropped meanwhile. */
			refused = error->code != 0 && (job->attempts + 1 >= TRIES || error->code == 67 ||
										   error->code == 85 || error->code == 86);
			break;
		case PLINTH_MONGO_AUTH:
			refused = error->code == CODE_UNAUTHORIZED;
			break;
		case PLINTH_MONGO_DUPLICATE_KEY:
		case PLINTH_MONGO_TOO_LARGE:
		case PLINTH_MONGO_BAD_DOCUMENT:
			refused = true;
			break;
		default:
			break;
	}
	if (!refused)
	{
		try_later(job, error, outcome);
		return;
	}
	outcome->state = strcmp(job->state, "dropping") == 0 ? "dropping" : "failed";
	outcome->reason = psprintf("%s (code %d)", error->message, error->code);
	if (error->status == PLINTH_MONGO_DUPLICATE_KEY)
		outcome->hint = "Rows have the same value: mend them, and call plinth.sync_index() again. "
						"It is also tried once an hour.";
	else if (error->status == PLINTH_MONGO_AUTH)
		outcome->hint = "Give the MongoDB user the rights createIndex, dropIndex and listIndexes "
						"on the collection.";
	else
		outcome->hint = "The server refuses this index: declare another by plinth.sync_index(), or "
						"end it by plinth.sync_index_drop(). It is also tried once an hour.";
	outcome->again_s = CHECK_S;
	outcome->tried = true;
	ereport(LOG, (errmsg("index \"%s\" of sync mapping \"%s\" could not be made", job->name,
						 job->mapping_name),
				  errdetail_internal("%s", outcome->reason)));
}

/* Is the collection ours at this moment?  Otherwise outcome says what then. */
static bool
is_ours(PlinthMongoClient *client, const Job *job, Outcome *outcome)
{
	PlinthMongoFence fence;
	PlinthMongoError error = {0};
	bool found;

	if (plinth_mongo_fence_read(client, job->fenced, &fence, &found, &error) != PLINTH_MONGO_OK)
	{
		try_later(job, &error, outcome);
		return false;
	}
	if (found && fence.system_identifier == GetSystemIdentifier() &&
		fence.database == MyDatabaseId && fence.epoch == job->epoch)
		return true;
	outcome->state = job->state;
	outcome->reason = "the collection is not this database's";
	outcome->hint = "See plinth.stat_sync.";
	outcome->again_s = FENCE_S;
	return false;
}

/* Does MongoDB have it, and as declared?  False when it could not be asked. */
static bool
look(PlinthMongoClient *client, const Job *job, PlinthBson spec, bool *found, char **difference,
	 PlinthMongoError *error)
{
	PlinthBson *indexes;
	int n;
	int i;

	if (plinth_mongo_index_list(client, job->collection, &indexes, &n, error) != PLINTH_MONGO_OK)
		return false;
	i = plinth_mongo_index_find(indexes, n, job->name);
	*found = i >= 0;
	*difference = *found ? plinth_mongo_index_difference(spec, indexes[i]) : NULL;
	return true;
}

static void
take_found(const char *difference, Outcome *outcome)
{
	outcome->state = difference == NULL ? "ready" : "different";
	outcome->reason = difference;
	outcome->hint = difference == NULL
						? NULL
						: "Build it anew by plinth.sync_index(…, rebuild => true), or declare it "
						  "as it is.";
	outcome->again_s = CHECK_S;
}

/* Makes one index what it is declared to be. */
static void
settle(PlinthMongoClient *client, Job *job, Outcome *outcome)
{
	PlinthMongoIndex **declared;
	PlinthMongoError error = {0};
	PlinthMongoStatus status = PLINTH_MONGO_OK;
	char *difference;
	bool found;
	int n;

	if (!is_ours(client, job, outcome))
		return;
	if (strcmp(job->state, "dropping") == 0)
	{
		if (plinth_mongo_index_drop(client, job->collection, job->name, &error) != PLINTH_MONGO_OK)
			take_failure(job, &error, outcome);
		return;
	}
	declared = plinth_mongo_indexes_parse(job->definition, &n);
	if (!look(client, job, declared[0]->spec, &found, &difference, &error))
	{
		take_failure(job, &error, outcome);
		return;
	}
	if (found && (difference == NULL || !job->rebuild))
	{
		take_found(difference, outcome);
		return;
	}
	if (!tell_building(job))
		return;
	if (found)
		status = plinth_mongo_index_drop(client, job->collection, job->name, &error);
	if (status == PLINTH_MONGO_OK)
		status = plinth_mongo_index_create(client, job->collection, declared[0]->spec, &error);
	if (status != PLINTH_MONGO_OK ||
		!look(client, job, declared[0]->spec, &found, &difference, &error))
		take_failure(job, &error, outcome);
	else if (found)
	{
		take_found(difference, outcome);
		outcome->again_s = FIRST_CHECK_S;
	}
	else
	{
		error.status = PLINTH_MONGO_OTHER;
		snprintf(error.message, sizeof(error.message), "the server made no such index");
		try_later(job, &error, outcome);
	}
}

/* One job, if there is one; *did tells.  False when the extension has gone. */
static bool
run_job(int place, bool *did)
{
	MemoryContext caller = CurrentMemoryContext;
	PlinthMongoClient *client = NULL;
	PlinthMongoError error = {0};
	Outcome outcome = {0};
	Job *job;

	if (!plinth_worker_transaction_begin())
		return false;
	MemoryContextSwitchTo(caller);
	job = next_job(place);
	*did = job != NULL;
	if (job != NULL)
		client = plinth_mongo_open(job->server, job->owner, &error);
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);
	if (job == NULL)
		return true;
	plinth_worker_report("looking", psprintf("%s.%s", job->collection, job->name));
	if (client == NULL)
		try_later(job, &error, &outcome);
	else
	{
		plinth_mongo_be_patient(client);
		settle(client, job, &outcome);
		plinth_mongo_close(client);
	}
	/* What was under way is begun again by the next. */
	if (plinth_worker_stopping() || !plinth_worker_transaction_begin())
		return false;
	MemoryContextSwitchTo(caller);
	store_outcome(job, &outcome);
	plinth_worker_transaction_end();
	MemoryContextSwitchTo(caller);
	return true;
}

void
plinth_sync_indexes_main(int place)
{
	MemoryContext work =
		AllocSetContextCreate(TopMemoryContext, "plinth indexes", ALLOCSET_DEFAULT_SIZES);
	bool did = false;

	do
	{
		MemoryContextSwitchTo(work);
		if (!run_job(place, &did))
			return;
		if (!did)
			plinth_worker_report("idle", NULL);
		MemoryContextSwitchTo(TopMemoryContext);
		MemoryContextReset(work);
	} while (plinth_worker_wait(did ? 0 : IDLE_MS));
}
