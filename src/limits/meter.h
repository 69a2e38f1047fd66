/*
 * meter.h
 *		What the files of meters share with each other.
 *
 * meter_store.c (shared memory) knows neither SQL nor definitions;
 * meter_define.c and meter_period.c know what a meter is; meter_decide.c brings
 * them together; meter_durable.c, meter_read.c, meter_flush.c and meter_save.c
 * write and read what is in tables and in the file; meter.c is what SQL calls.
 */
#ifndef PLINTH_LIMITS_METER_H
#define PLINTH_LIMITS_METER_H

#include "base/base.h"
#include "datatype/timestamp.h"
#include "utils/numeric.h"

#define PLINTH_METER_MAX_NAME 200      /* bytes */
#define PLINTH_METER_MAX_KEY 1024      /* bytes */
#define PLINTH_METER_MAX_DIMENSION 200 /* bytes */
#define PLINTH_METER_MAX_ZONE 64       /* bytes, with the zero */
#define PLINTH_METER_MAX_SCALE 12
#define PLINTH_METER_NO_QUOTA PG_INT64_MAX

typedef enum PlinthMeterPeriod
{
	PLINTH_METER_MINUTE,
	PLINTH_METER_HOUR,
	PLINTH_METER_DAY,
	PLINTH_METER_MONTH,
	PLINTH_METER_TOTAL
} PlinthMeterPeriod;

#define PLINTH_METER_PERIODS 5

/* When the current periods begin and end.  The total begins at -infinity. */
typedef struct PlinthMeterBounds
{
	TimestampTz start[PLINTH_METER_PERIODS];
	TimestampTz end[PLINTH_METER_PERIODS];
	TimestampTz valid_from;  /* all of this holds for times from here ... */
	TimestampTz valid_until; /* ... until before here */
} PlinthMeterBounds;

/* A meter's definition; amounts are integers of 10^-scale. */
typedef struct PlinthMeter
{
	int64 id;
	int scale;
	int status_code;
	bool durable;
	bool allow_on_error;
	bool enabled;
	bool changed; /* by this transaction: nobody else knows it yet */
	bool has[PLINTH_METER_PERIODS];
	bool has_quota[PLINTH_METER_PERIODS]; /* for some key */
	bool any_quota;
	uint64 epoch; /* of the definition and all quotas; 0: keep nothing */
	int counters; /* its place among the statistics, or -1 */
	char zone[PLINTH_METER_MAX_ZONE];
	PlinthMeterBounds bounds;
} PlinthMeter;

/* Who is counted.  dimension is NULL, or what the amount is also kept by. */
typedef struct PlinthMeterKey
{
	const char *key;
	int keylen;
	const char *dimension;
	int dimlen;
} PlinthMeterKey;

/* -------------------------------------------------------------------------
 * Definitions (meter_define.c) and periods (meter_period.c)
 * -------------------------------------------------------------------------
 */
extern const char *const plinth_limits_meter_period_names[PLINTH_METER_PERIODS];

/* The meter of this name with the bounds of now; 42704 when there is none. */
extern void plinth_limits_meter_get(const char *name, PlinthMeter *meter);

/* Set while a statement of ours writes usage: its trigger is to take no note. */
extern bool plinth_limits_meter_writing;

extern PlinthMeterPeriod plinth_limits_meter_period(const PlinthMeter *meter,
													const char *meter_name, const char *period);
extern TimestampTz plinth_limits_meter_start(PlinthMeterPeriod period, TimestampTz at,
											 const char *zone);
extern void plinth_limits_meter_bounds(PlinthMeter *meter, TimestampTz now);

/* -------------------------------------------------------------------------
 * Amounts (meter_amount.c)
 * -------------------------------------------------------------------------
 */
/* As an integer of 10^-scale; 22023 for what is none, 22003 for what is too large. */
extern int64 plinth_limits_meter_amount(Numeric amount, int scale);

/* As above, but cuts digits off, and gives the largest or smallest for what is beyond. */
extern int64 plinth_limits_meter_amount_clamped(Numeric amount, int scale);
extern Numeric plinth_limits_meter_numeric(int64 amount, int scale);

/* -------------------------------------------------------------------------
 * Shared memory (meter_store.c)
 * -------------------------------------------------------------------------
 */
/* What tables say of a key's current periods, true as long as version is the partition's. */
typedef struct PlinthMeterBases
{
	uint64 version;
	bool loaded;
	TimestampTz start[PLINTH_METER_PERIODS];
	int64 base[PLINTH_METER_PERIODS]; /* flushed, without what is in flight */
	int64 soft[PLINTH_METER_PERIODS];
	int64 hard[PLINTH_METER_PERIODS];
	bool exact[PLINTH_METER_PERIODS]; /* base fits an integer */
} PlinthMeterBases;

/* What a decision was based on; used is before the amount. */
typedef struct PlinthMeterUse
{
	int64 used[PLINTH_METER_PERIODS];
	int64 soft[PLINTH_METER_PERIODS];
	int64 hard[PLINTH_METER_PERIODS];
} PlinthMeterUse;

typedef enum PlinthMeterOutcome
{
	PLINTH_METER_COUNTED,
	PLINTH_METER_EXCEEDED,  /* a hard quota: nothing was counted */
	PLINTH_METER_NOT_KNOWN, /* load the bases and call again */
	PLINTH_METER_NOT_NOW,   /* the meter's bounds are over: get it again */
	PLINTH_METER_FULL,      /* no memory: nothing was counted */
	PLINTH_METER_TOO_LARGE  /* more than an integer holds is pending: nothing was counted */
} PlinthMeterOutcome;

/*
 * Adds to all periods of the meter, at once, or to none.  use: NULL, or decide
 * by the quotas, and say by what; then bases may be what was loaded.
 */
extern PlinthMeterOutcome plinth_limits_meter_count(const PlinthMeter *meter,
													const PlinthMeterKey *key, int64 amount,
													PlinthMeterUse *use,
													const PlinthMeterBases *bases);

/* An amount that is in memory and, maybe, on its way to the table. */
typedef struct PlinthMeterPending
{
	PlinthMeterPeriod period;
	TimestampTz start;
	int64 pending;
	int64 in_flight;
	TransactionId xid; /* that carries what is in flight */
} PlinthMeterPending;

/* Up to max amounts of a key; returns how many there are, and the version. */
extern int plinth_limits_meter_pending(int64 meter, const PlinthMeterKey *key,
									   PlinthMeterPending *list, int max, uint64 *version);

#define PLINTH_METER_BATCH 1000
#define PLINTH_METER_BATCH_TEXT (256 * 1024)

/* Where amounts are in flight, by one transaction: until its end. */
typedef struct PlinthMeterFlights
{
	TransactionId xid;
	int n;
	struct
	{
		int partition;
		uint32 slot;
		int64 amount;
	} flights[PLINTH_METER_BATCH];
} PlinthMeterFlights;

/* One amount taken to be written. */
typedef struct PlinthMeterTaken
{
	int64 meter;
	PlinthMeterPeriod period;
	TimestampTz start;
	int64 amount;
	int scale;
	uint32 text; /* offset of key and dimension */
	int keylen;
	int dimlen;
} PlinthMeterTaken;

/* What is written at once. */
typedef struct PlinthMeterBatch
{
	PlinthMeterFlights *flights; /* as many */
	bool more;                   /* there was no room for all */
	uint32 text_used;
	PlinthMeterTaken taken[PLINTH_METER_BATCH];
	char text[PLINTH_METER_BATCH_TEXT];
} PlinthMeterBatch;

/* Takes what is pending in this database, and not in flight, up to a batch; flights is empty. */
extern void plinth_limits_meter_take(PlinthMeterBatch *batch, PlinthMeterFlights *flights);

/* What was taken is in the table, or is not.  Raise no error. */
extern void plinth_limits_meter_taken_written(PlinthMeterFlights *flights);
extern void plinth_limits_meter_taken_back(PlinthMeterFlights *flights);

/* Asks for a flush before its time, for want of room; and tells, once, that somebody has asked. */
extern void plinth_limits_meter_press(void);
extern bool plinth_limits_meter_pressed(void);

/* Is anything pending, or in flight, in this database? */
extern bool plinth_limits_meter_has_pending(void);

/* Everything pending of all databases, for the file; only when nobody counts. */
typedef struct PlinthMeterSaved
{
	Oid database;
	Oid extension;
	int64 meter;
	int64 start;
	int64 amount;
	int32 period;
	int32 scale;
	int32 keylen;
	int32 dimlen;
} PlinthMeterSaved;
typedef bool (*PlinthMeterSaver)(const PlinthMeterSaved *saved, const char *text, void *arg);
extern bool plinth_limits_meter_save_all(PlinthMeterSaver saver, void *arg);
extern bool plinth_limits_meter_restore(const PlinthMeterSaved *saved, const char *text);

/* A meter's place among the counters (meter_stat.c), -1 when there is none; counts an outcome there. */
extern int plinth_limits_meter_counters(int64 meter);
extern void plinth_limits_meter_counted(int counters, PlinthMeterOutcome outcome);
extern void plinth_limits_meter_store_init(void);

/* -------------------------------------------------------------------------
 * The rest
 * -------------------------------------------------------------------------
 */
/* Counts in shared memory, deciding by quotas where use is given (meter_decide.c). */
extern PlinthMeterOutcome plinth_limits_meter_decide(const char *name, PlinthMeter *meter,
													 const PlinthMeterKey *key, int64 amount,
													 PlinthMeterUse *use);

/* The same in the table, by this transaction (meter_durable.c). */
extern PlinthMeterOutcome plinth_limits_meter_decide_durable(const PlinthMeter *meter,
															 const PlinthMeterKey *key,
															 int64 amount, PlinthMeterUse *use);

/* Would an amount lead beyond a quota? */
extern bool plinth_limits_meter_exceeds(int64 used, int64 amount, int64 quota);

/* Rows for the table (meter_durable.c): added to what is there. */
#define PLINTH_METER_COLUMNS 6
typedef struct PlinthMeterRows
{
	int n;
	Datum *column[PLINTH_METER_COLUMNS];
} PlinthMeterRows;
extern Datum plinth_limits_meter_dimension(const PlinthMeterKey *key); /* as the table has it */
extern void plinth_limits_meter_rows_init(PlinthMeterRows *rows, int max);
extern void plinth_limits_meter_rows_add(PlinthMeterRows *rows, int64 meter,
										 const PlinthMeterKey *key, PlinthMeterPeriod period,
										 TimestampTz start, Numeric amount);
/* skip_dropped: leave those out whose meter is not there any more, by the snapshot. */
extern void plinth_limits_meter_rows_write(const PlinthMeterRows *rows, bool skip_dropped);

/* What was used in each period that began between two times, in their order (meter_read.c). */
typedef struct PlinthMeterAmount
{
	TimestampTz start;
	Numeric amount;
} PlinthMeterAmount;
extern PlinthMeterAmount *plinth_limits_meter_amounts(const PlinthMeter *meter,
													  const PlinthMeterKey *key,
													  PlinthMeterPeriod period, TimestampTz from,
													  TimestampTz to, int *n);

/* Quotas of a key, and what the table has of its current periods (meter_read.c). */
extern void plinth_limits_meter_load(const PlinthMeter *meter, const PlinthMeterKey *key,
									 PlinthMeterBases *bases);

/*
 * Writes all that is pending in this database, in this transaction (meter_flush.c).
 * One flush at a time: waits for another one's end, or returns -1 where it is
 * not to.  Otherwise how many amounts there were.
 */
extern int64 plinth_limits_meter_flush(bool wait);
extern void plinth_limits_meter_flush_init(void);

/* Puts in what the last server left; called as shared memory is made (meter_save.c). */
extern void plinth_limits_meter_save_load(void);

#endif /* PLINTH_LIMITS_METER_H */
