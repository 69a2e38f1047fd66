/*
 * partition.c
 *		The monthly partitions of plinth.audit_entries.
 *
 * Whoever records an entry sees to it that the partition of this month exists,
 * and makes the next month's ahead, so that at the turn of a month nobody has
 * to wait: only the very first entry, or one after a month without any, makes
 * the partition that it needs itself.  Making one takes SHARE UPDATE EXCLUSIVE
 * on the parent until the end of the transaction, which recording into the
 * partitions that are there does not conflict with.
 *
 * Each backend remembers until when partitions exist.  It forgets when the
 * parent's relcache entry is invalidated, which ATTACH, DETACH and DROP of a
 * partition do, and their rollback too.
 */
#include "postgres.h"

#include "access/table.h"
#include "audit/internal.h"
#include "base/base.h"
#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define PARENT_NAME "audit_entries"

static Oid parent_oid = InvalidOid;
static TimestampTz known_from = 0;
static TimestampTz known_until = 0;
static bool callback_registered = false;

static PlinthPlan create_plan = {
	.sql = "SELECT plinth._audit_partition_create($1)",
	.nargs = 1,
	.argtypes = {TIMESTAMPTZOID},
};

static void
forget_partitions(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == parent_oid)
	{
		known_from = 0;
		known_until = 0;
	}
}

/* The beginning, in UTC, of the month that is some months after a time's. */
static TimestampTz
month_start(TimestampTz when, int months, char *partition, Size size)
{
	struct pg_tm tm;
	fsec_t fsec;
	TimestampTz start;
	int month;

	if (timestamp2tm(when, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	month = tm.tm_mon - 1 + months;
	tm.tm_year += month / MONTHS_PER_YEAR;
	tm.tm_mon = month % MONTHS_PER_YEAR + 1;
	tm.tm_mday = 1;
	tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
	if (tm2timestamp(&tm, 0, NULL, &start) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	snprintf(partition, size, PARENT_NAME "_%04d_%02d", tm.tm_year, tm.tm_mon);
	return start;
}

static void
create_partition(TimestampTz month)
{
	Datum value = TimestampTzGetDatum(month);

	plinth_base_spi_execute(&create_plan, &value, NULL, false, SPI_OK_SELECT);
}

/*
 * May the next month's partition be made now?  Not while this session itself
 * reads the parent (ALTER TABLE would be refused), nor while another makes it.
 */
static bool
can_create_ahead(void)
{
	Relation parent = table_open(parent_oid, AccessShareLock);
	bool unused = parent->rd_refcnt == 1;

	table_close(parent, NoLock);
	return unused && ConditionalLockRelationOid(parent_oid, ShareUpdateExclusiveLock);
}

void
plinth_audit_partition_ensure(TimestampTz recorded_at)
{
	Oid schema;
	char partition[NAMEDATALEN];
	char next_partition[NAMEDATALEN];
	TimestampTz start;
	TimestampTz next;

	if (recorded_at >= known_from && recorded_at < known_until)
		return;

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(forget_partitions, (Datum) 0);
		callback_registered = true;
	}

	schema = plinth_base_schema_oid();
	parent_oid = get_relname_relid(PARENT_NAME, schema);
	start = month_start(recorded_at, 0, partition, sizeof(partition));
	next = month_start(recorded_at, 1, next_partition, sizeof(next_partition));

	if (!OidIsValid(get_relname_relid(partition, schema)))
		create_partition(start);
	if (OidIsValid(get_relname_relid(next_partition, schema)))
	{
		known_from = start;
		known_until = next;
	}
	else if (can_create_ahead())
		create_partition(next);
}
