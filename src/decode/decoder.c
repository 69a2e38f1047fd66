/*
 * decoder.c
 *		The decoder service: one process a database, which owns its slot.
 *
 * States (docs/decode.md): it first settles what slot there should be
 * (settle), then decodes (run) until it is to stop, no consumer wants it any
 * more, or the extension has gone.  An ERROR ends the process; PostgreSQL
 * releases the slot and the next start removes what was spilled.
 *
 * Between two WAL records no transaction is open.  There the consumers are
 * called outside decoding: reload when the generation of sync or of the
 * extension moved, drain, durable.  The generation is published only after
 * every consumer has loaded it.
 *
 * The slot is confirmed up to the least durable() of the consumers, every
 * plinth.sync_checkpoint_interval or 16 MB, and never backwards.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/base.h"
#include "decode/internal.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/slot.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define CONFIRM_BYTES (16 * 1024 * 1024)
/* Records after which consumers and generations are looked at; well under a millisecond. */
#define RECORDS_A_ROUND 256
/* Waiting for WAL, ms: for a while after the last of it, and then. */
#define POLL_BUSY 10
#define POLL_IDLE 200
#define BUSY_TIME 1000
/*
 * Rounds begin no faster than this, ms: what is committed within it goes
 * together, and who commits need not wake us.  The first after a rest waits
 * for nothing.
 */
#define ROUND_TIME 2
/* While a person has to act. */
#define PROBLEM_WAIT 10000
#define PROBLEM_LOG_INTERVAL 60000

typedef enum Outcome
{
	OUTCOME_STOP,   /* the process ends */
	OUTCOME_READY,  /* the slot is there, and acquired */
	OUTCOME_SETTLE, /* look again what slot there should be */
} Outcome;

static PlinthDecodeEntry *entry = NULL;
static LogicalDecodingContext *ctx = NULL;
static XLogRecPtr decoded = InvalidXLogRecPtr;
static XLogRecPtr confirmed = InvalidXLogRecPtr;
static TimestampTz confirmed_at = 0;
static bool loaded = false;
static uint64 loaded_sync = 0;
static uint64 loaded_extension = 0;

/* What decoding needs beyond the settings that every worker fixes. */
static void
fix_settings(void)
{
	char work_mem[32];

	snprintf(work_mem, sizeof(work_mem), "%d", Max(64, plinth_setting_sync_memory / 4));
	SetConfigOption("logical_decoding_work_mem", work_mem, PGC_SUSET, PGC_S_OVERRIDE);
	/* Meant for queries; what waits on disk here is as much as was changed. */
	SetConfigOption("temp_file_limit", "-1", PGC_SUSET, PGC_S_OVERRIDE);
	/* What is recorded of the slot must be on disk, but no standby need be there. */
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
}

/* Shows a problem that a person must solve, and logs it at most once a minute. */
static void
report_problem(const char *state, const char *message, const char *hint)
{
	static TimestampTz logged_at = 0;
	static char logged[256] = "";
	TimestampTz now = GetCurrentTimestamp();

	plinth_worker_report(state, message);
	if (strncmp(logged, message, sizeof(logged) - 1) == 0 &&
		!TimestampDifferenceExceeds(logged_at, now, PROBLEM_LOG_INTERVAL))
		return;
	strlcpy(logged, message, sizeof(logged));
	logged_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("plinth's decoder of database %u cannot go on: %s", MyDatabaseId, message),
			 errhint("%s", hint)));
}

/* Shows what the decoder does; cheap while it does the same. */
static void
report_state(const char *state)
{
	static const char *reported = NULL;

	if (state != NULL && reported != state)
		plinth_worker_report(state, NULL);
	reported = state;
}

static bool
generations_moved(void)
{
	return !loaded || loaded_sync != plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC) ||
		   loaded_extension != plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
}

/* Until the generation of sync moves from the one seen, or some seconds. */
static Outcome
wait_for_change(uint64 seen)
{
	TimestampTz start = GetCurrentTimestamp();

	while (plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC) == seen &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), PROBLEM_WAIT))
	{
		if (!plinth_worker_wait(POLL_IDLE))
			return OUTCOME_STOP;
	}
	return OUTCOME_SETTLE;
}

/*
 * Starts a transaction and says whether there is anything to decode for;
 * false, with no transaction open, when the process is to end.
 */
static bool
begin_and_ask(bool *wanted)
{
	if (!plinth_decode_begin())
		return false;
	if (!plinth_worker_is_adopted())
	{
		plinth_decode_end();
		return false;
	}
	*wanted = plinth_decode_wanted();
	return true;
}

/* Acquires the slot, waiting for whoever peeks at it. */
static Outcome
acquire_slot(void)
{
	int pid;

	for (;;)
	{
		PlinthSlotHealth health = plinth_decode_slot_health(&pid);

		if (health != PLINTH_SLOT_HEALTHY)
			return OUTCOME_SETTLE;
		if (pid == 0)
			break;
		plinth_worker_report("waiting for slot", psprintf("it is used by process %d", pid));
		if (!plinth_worker_wait(1000))
			return OUTCOME_STOP;
	}
	plinth_compat_slot_acquire(plinth_decode_slot_name(), true, false);
	return OUTCOME_READY;
}

/*
 * One step towards a slot: looks at what is recorded, what there is and what
 * is wanted.  OUTCOME_SETTLE asks for another step.
 */
static Outcome
settle_once(void)
{
	PlinthSlotRecord record;
	PlinthSlotHealth health;
	PlinthDecodeProblem problem;
	uint64 seen = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	bool wanted;
	bool copied;
	int pid;

	if (!begin_and_ask(&wanted))
		return OUTCOME_STOP;
	plinth_decode_slot_read(&record);
	health = plinth_decode_slot_health(&pid);

	if (!wanted)
	{
		if (record.state != PLINTH_SLOT_NONE)
			plinth_decode_slot_record(&record, PLINTH_SLOT_NONE);
		plinth_decode_end();
		plinth_decode_slot_drop();
		return OUTCOME_STOP;
	}
	copied = strcmp(NameStr(record.slot_name), plinth_decode_slot_name()) != 0;
	if (record.state == PLINTH_SLOT_READY && (health != PLINTH_SLOT_HEALTHY || copied))
	{
		plinth_decode_slot_record_loss(&record, health);
		plinth_decode_end();
		return OUTCOME_SETTLE;
	}
	pg_atomic_write_u64(&entry->slot_generation,
						record.state == PLINTH_SLOT_READY ? record.generation : 0);
	if (record.state == PLINTH_SLOT_LOST)
	{
		report_problem(
			"slot lost", record.reason != NULL ? record.reason : "the slot was lost",
			"What changed since is not in MongoDB. Repair each mapping: SELECT "
			"plinth.sync_resync(name). See max_slot_wal_keep_size if it was invalidated.");
		plinth_decode_end();
		return wait_for_change(seen);
	}
	if (!plinth_decode_possible(&problem))
	{
		report_problem("misconfigured", problem.message, problem.hint);
		plinth_decode_end();
		return wait_for_change(seen);
	}
	if (record.state == PLINTH_SLOT_READY)
	{
		plinth_decode_end();
		return acquire_slot();
	}
	plinth_decode_slot_record(&record, PLINTH_SLOT_CREATING);
	plinth_decode_end();
	if (!plinth_decode_slot_create(&record))
		return OUTCOME_STOP;
	pg_atomic_write_u64(&entry->slot_generation, record.generation);
	return OUTCOME_READY;
}

/* Publishes how far decoding came, and hands over what is committed; false when consumers have no room. */
static bool
drain(void)
{
	bool room = true;

	decoded = Max(decoded, ctx->reader->EndRecPtr);
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->drain != NULL &&
			!plinth_decode_consumers[i]->drain(decoded))
			room = false;
	}
	pg_atomic_write_u64(&entry->decoded, decoded);
	return room;
}

/* Confirms the slot up to what every consumer has made durable. */
static void
confirm(bool now)
{
	XLogRecPtr lsn = decoded;
	TimestampTz time = GetCurrentTimestamp();

	if (!now && decoded - confirmed < CONFIRM_BYTES &&
		!TimestampDifferenceExceeds(confirmed_at, time, plinth_setting_sync_checkpoint_interval))
		return;
	confirmed_at = time;
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->durable != NULL)
			lsn = Min(lsn, plinth_decode_consumers[i]->durable());
	}
	/* The least is invalid when one of them does not know yet. */
	if (lsn <= confirmed)
		return;
	LogicalConfirmReceivedLocation(lsn);
	confirmed = lsn;
	pg_atomic_write_u64(&entry->confirmed, confirmed);
}

/* Lets the consumers load what is wanted now. */
static Outcome
reload(void)
{
	uint64 sync = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	uint64 extension = plinth_base_generation(MyDatabaseId, PLINTH_GEN_EXTENSION);
	PlinthSlotRecord record;
	bool wanted;

	if (!begin_and_ask(&wanted))
		return OUTCOME_STOP;
	plinth_decode_slot_read(&record);
	if (!wanted || record.state != PLINTH_SLOT_READY)
	{
		plinth_decode_end();
		return OUTCOME_SETTLE;
	}
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->reload != NULL)
			plinth_decode_consumers[i]->reload();
	}
	plinth_decode_end();
	loaded = true;
	loaded_sync = sync;
	loaded_extension = extension;
	pg_write_barrier();
	pg_atomic_write_u64(&entry->generation, sync);
	return OUTCOME_READY;
}

/* Waits until a round may begin again; false when this worker is to stop. */
static bool
pace(TimestampTz round_at)
{
	TimestampTz end = TimestampTzPlusMilliseconds(round_at, ROUND_TIME);
	TimestampTz now;

	while ((now = GetCurrentTimestamp()) < end && now >= round_at)
	{
		if (!plinth_worker_wait(Max(1, (end - now) / 1000)))
			return false;
	}
	return true;
}

/* Waits for WAL, for room, or for something to reload; false when this worker is to stop. */
static bool
wait_for_work(bool room)
{
	static TimestampTz active_at = 0;
	static XLogRecPtr active_lsn = InvalidXLogRecPtr;
	TimestampTz now = GetCurrentTimestamp();
	bool goes_on;

	if (!room)
	{
		report_state("waiting for lanes");
		return plinth_worker_wait(POLL_IDLE);
	}
	report_state("streaming");
	if (active_lsn != decoded)
	{
		active_lsn = decoded;
		active_at = now;
	}

	pg_atomic_write_u32(&entry->sleeping, 1);
	pg_memory_barrier();
	if (plinth_decode_reader_refresh(ctx) || generations_moved())
		goes_on = !plinth_worker_stopping();
	else
	{
		goes_on = plinth_worker_wait(
			TimestampDifferenceExceeds(active_at, now, BUSY_TIME) ? POLL_IDLE : POLL_BUSY);
		/* Who woke us may not have flushed yet: look more often for a while. */
		if (pg_atomic_read_u32(&entry->sleeping) == 0)
			active_at = GetCurrentTimestamp();
	}
	pg_atomic_write_u32(&entry->sleeping, 0);
	return goes_on;
}

/* Decodes a round of records; false when the consumers have no room left. */
static bool
decode_some(void)
{
	int records = 0;
	bool room = true;

	while (room && !plinth_worker_stopping() && plinth_decode_reader_next(ctx))
	{
		CHECK_FOR_INTERRUPTS();
		if (++records < RECORDS_A_ROUND)
			continue;
		records = 0;
		room = drain();
		confirm(false);
		if (generations_moved())
			break;
	}
	return drain() && room;
}

/* Decodes with the acquired slot. */
static Outcome
run(void)
{
	Outcome outcome = OUTCOME_STOP;
	TimestampTz round_at = 0;

	report_state(NULL);
	ctx = plinth_decode_reader_new(false);
	confirmed = decoded = ctx->slot->data.confirmed_flush;
	confirmed_at = GetCurrentTimestamp();
	loaded = false;
	pg_atomic_write_u64(&entry->confirmed, confirmed);
	pg_atomic_write_u64(&entry->decoded, decoded);

	for (;;)
	{
		bool room = true;

		if (generations_moved() && (outcome = reload()) != OUTCOME_READY)
			break;
		outcome = OUTCOME_STOP;
		if (plinth_decode_reader_refresh(ctx))
		{
			round_at = GetCurrentTimestamp();
			room = decode_some();
		}
		else
			room = drain();
		confirm(false);
		if (plinth_worker_stopping())
			break;
		if (!pace(round_at) ||
			((!room || !plinth_decode_reader_refresh(ctx)) && !wait_for_work(room)))
			break;
	}

	/* Save the confirmed point, so that less is decoded twice. */
	confirm(true);
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
	FreeDecodingContext(ctx);
	ctx = NULL;
	ReplicationSlotRelease();
	return outcome;
}

int
plinth_decode_service_wanted(void)
{
	PlinthSlotRecord record;
	PlinthSlotHealth health;
	int pid;

	if (RecoveryInProgress() || !plinth_worker_is_adopted())
		return 0;
	if (plinth_decode_wanted())
		return 1;

	/* Once more, to drop the slot. */
	plinth_decode_slot_read(&record);
	health = plinth_decode_slot_health(&pid);
	return record.state != PLINTH_SLOT_NONE || health == PLINTH_SLOT_HEALTHY ||
				   health == PLINTH_SLOT_INVALID
			   ? 1
			   : 0;
}

void
plinth_decode_service_main(int instance)
{
	bool started = false;
	Outcome outcome;

	plinth_decode_in_decoder = true;
	fix_settings();
	entry = plinth_decode_attach();

	for (;;)
	{
		plinth_worker_report("starting", NULL);
		outcome = settle_once();
		if (outcome == OUTCOME_READY)
		{
			for (int i = 0; !started && i < plinth_decode_nconsumers; i++)
			{
				if (plinth_decode_consumers[i]->start != NULL)
					plinth_decode_consumers[i]->start();
			}
			started = true;
			outcome = run();
		}
		if (outcome == OUTCOME_STOP || plinth_worker_stopping())
			break;
	}
}
