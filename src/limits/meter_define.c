/*
 * meter_define.c
 *		Meters by their names, as each backend keeps them.
 *
 * What is kept holds for one epoch: the sum of the generations of limits and
 * of the extension, which only grow, so that the sum repeats no more than they
 * do.  Triggers on meters, quotas and usage, and on the tier of users, move the
 * generation of limits, before commit and after it.  A definition is read under
 * the latest snapshot, after the epoch was taken: an old snapshot of the
 * transaction must not decide what is kept.
 *
 * A transaction that has itself changed any of these keeps nothing until its
 * end; and what it counts by a meter that it has made, or whose own row it has
 * changed, goes to the table, in the transaction, whatever the meter says:
 * nobody else may know the meter, or its periods, yet or ever.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "limits/internal.h"
#include "limits/meter.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PGDLLEXPORT Datum plinth_limits_meter_touch(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_meter_touch);

typedef struct KeptMeter
{
	char name[PLINTH_METER_MAX_NAME + 1]; /* hash key */
	PlinthMeter meter;
} KeptMeter;

static HTAB *kept = NULL;
static uint64 kept_epoch = 0;

static LocalTransactionId changed_in = InvalidLocalTransactionId;
bool plinth_limits_meter_writing = false;

static PlinthPlan define_plan = {
	.sql = "SELECT m.id, m.scale, m.status_code, m.durable, m.on_error = 'allow', m.enabled, "
		   "m.time_zone, m.periods, ARRAY(SELECT DISTINCT q.period FROM plinth.meter_quotas q "
		   "WHERE q.meter_id = m.id), m.xmin FROM plinth.meters m WHERE m.name = $1",
	.nargs = 1,
	.argtypes = {TEXTOID},
};

/* Has this transaction changed meters, quotas or usage by its own statements? */
static bool
has_changed(void)
{
	return changed_in != InvalidLocalTransactionId && changed_in == plinth_compat_lxid();
}

static uint64
current_epoch(void)
{
	uint64 limits = plinth_base_generation(MyDatabaseId, PLINTH_GEN_LIMITS);
	uint64 extension = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);

	return limits != 0 && extension != 0 && !has_changed() ? limits + extension : 0;
}

/* A statement trigger on whatever definitions, quotas and usage are read from. */
Datum
plinth_limits_meter_touch(PG_FUNCTION_ARGS)
{
	(void) plinth_base_trigger_data(fcinfo, "_meter_touch");
	if (!plinth_limits_meter_writing)
	{
		changed_in = plinth_compat_lxid();
		plinth_base_generation_touch(PLINTH_GEN_LIMITS);
	}
	return PointerGetDatum(NULL);
}

static void
forget_all(uint64 epoch)
{
	HASHCTL ctl;

	if (kept != NULL)
		hash_destroy(kept);
	kept = NULL;
	ctl.keysize = PLINTH_METER_MAX_NAME + 1;
	ctl.entrysize = sizeof(KeptMeter);
	kept = hash_create("plinth meters", 16, &ctl, HASH_ELEM | HASH_STRINGS);
	kept_epoch = epoch;
}

/* Marks the periods that an array of names has. */
static void
read_periods(Datum value, bool *periods)
{
	Datum *names;
	int n;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT, &names, NULL,
					  &n);
	memset(periods, false, PLINTH_METER_PERIODS * sizeof(bool));
	for (int i = 0; i < n; i++)
	{
		char *name = TextDatumGetCString(names[i]);

		for (int p = 0; p < PLINTH_METER_PERIODS; p++)
			periods[p] |= strcmp(name, plinth_limits_meter_period_names[p]) == 0;
	}
}

static void
read_meter(PlinthMeter *meter)
{
	HeapTuple tuple = SPI_tuptable->vals[0];
	TupleDesc desc = SPI_tuptable->tupdesc;
	bool isnull;

	meter->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	meter->scale = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
	meter->status_code = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));
	meter->durable = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
	meter->allow_on_error = DatumGetBool(SPI_getbinval(tuple, desc, 5, &isnull));
	meter->enabled = DatumGetBool(SPI_getbinval(tuple, desc, 6, &isnull));
	strlcpy(meter->zone, TextDatumGetCString(SPI_getbinval(tuple, desc, 7, &isnull)),
			sizeof(meter->zone));
	read_periods(SPI_getbinval(tuple, desc, 8, &isnull), meter->has);
	meter->has[PLINTH_METER_TOTAL] = true;
	read_periods(SPI_getbinval(tuple, desc, 9, &isnull), meter->has_quota);
	for (int p = 0; p < PLINTH_METER_PERIODS; p++)
	{
		meter->has_quota[p] = meter->has_quota[p] && meter->has[p];
		meter->any_quota |= meter->has_quota[p];
	}
	meter->changed = TransactionIdIsCurrentTransactionId(
		DatumGetTransactionId(SPI_getbinval(tuple, desc, 10, &isnull)));
}

static void
load_meter(const char *name, uint64 epoch, PlinthMeter *meter)
{
	Datum values[1] = {CStringGetTextDatum(name)};
	PlinthAsOwner owner;
	bool found;

	memset(meter, 0, sizeof(*meter));
	PushActiveSnapshot(GetLatestSnapshot());
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&define_plan, values, NULL, true, SPI_OK_SELECT);
	found = SPI_processed > 0;
	if (found)
		read_meter(meter);
	plinth_base_owner_end(&owner);
	SPI_finish();
	PopActiveSnapshot();
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("meter \"%s\" does not exist", name),
				 errhint("SELECT plinth.meter_create('%s'); makes one.", name)));
	meter->epoch = epoch;
	meter->counters = meter->changed ? -1 : plinth_limits_meter_counters(meter->id);
}

void
plinth_limits_meter_get(const char *name, PlinthMeter *meter)
{
	uint64 epoch = current_epoch();
	TimestampTz now = GetCurrentTimestamp();
	KeptMeter *entry = NULL;

	if (strlen(name) > PLINTH_METER_MAX_NAME)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("the name of a meter has at most %d bytes", PLINTH_METER_MAX_NAME)));
	if (kept == NULL || epoch != kept_epoch)
		forget_all(epoch);
	if (epoch != 0)
		entry = hash_search(kept, name, HASH_FIND, NULL);
	if (entry == NULL)
	{
		load_meter(name, epoch, meter);
		meter->bounds.valid_until = DT_NOBEGIN;
		/* Loading may have seen that the epoch is over. */
		if (epoch != 0 && epoch == kept_epoch)
		{
			entry = hash_search(kept, name, HASH_ENTER, NULL);
			entry->meter = *meter;
		}
	}
	else
		*meter = entry->meter;
	if (now < meter->bounds.valid_from || now >= meter->bounds.valid_until)
	{
		plinth_limits_meter_bounds(meter, now);
		if (entry != NULL)
			entry->meter.bounds = meter->bounds;
	}
}
