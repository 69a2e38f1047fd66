/*
 * process.c
 *		What every worker has in common: signals, its entry, its connection,
 *		waiting, and transactions under the extension's lock.
 *
 * Signals: SIGTERM sets a flag that plinth_worker_stopping shows, and makes
 * the next CHECK_FOR_INTERRUPTS end the process, so that a lock wait or a
 * long statement does not delay a shutdown; plinth_worker_wait looks at the
 * flag first, hence an idle worker leaves quietly.  A service that defers the
 * stop has only the flag while it works, and waits for nothing long.  SIGUSR1 stays
 * procsignal's.  PostgreSQL's default handler for SIGTERM would raise FATAL
 * inside the handler, so ours are set before signals are unblocked.
 *
 * A transaction holds the extension's lock in ACCESS SHARE mode, which DROP
 * EXTENSION's ACCESS EXCLUSIVE waits for; between transactions a worker holds
 * nothing.  The extension is looked up again once the lock is there: a worker
 * never works on what is dropped, nor on one that was created in its place.
 */
#include "postgres.h"

#include <limits.h>
#include <signal.h>

#include "access/xact.h"
#include "base/base.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
#include "worker/process.h"

/* No wait is longer, so that the process is never far from an interrupt check. */
#define WAIT_SLICE_MS 1000
/* What a service that defers its stop waits for a lock. */
#define SHORT_LOCK_TIMEOUT "100ms"

static volatile sig_atomic_t stop_requested = false;
static volatile sig_atomic_t stop_deferred = false;
static bool extension_gone = false;
static Oid extension_seen = InvalidOid;
static int my_entry = -1;
static char activity[PLINTH_WORKER_STATE_LEN + PLINTH_WORKER_MESSAGE_LEN] = "";

/*
 * What a DBA may have set for the database or for everybody, and what would
 * break a worker, or would make the text of a value depend on when it was
 * written.
 */
static const char *const fixed_settings[][2] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"transaction_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"DateStyle", "ISO, YMD"},
	{"IntervalStyle", "postgres"},
	{"TimeZone", "UTC"},
	{"extra_float_digits", "1"},
	{"bytea_output", "hex"},
	{"xmlbinary", "base64"},
	{"lc_monetary", "C"},
};

static void
handle_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	stop_requested = true;
	if (!proc_exit_inprogress && !stop_deferred)
	{
		InterruptPending = true;
		ProcDiePending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

static void
fix_settings(void)
{
	for (int i = 0; i < lengthof(fixed_settings); i++)
	{
		const char *name = fixed_settings[i][0];

		/* Some exist in newer versions only. */
		if (GetConfigOption(name, true, false) != NULL)
			SetConfigOption(name, fixed_settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
	}
}

void
plinth_worker_process_begin(const PlinthWorkerTicket *ticket)
{
	bool attached;

	pqsignal(SIGTERM, handle_sigterm);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);

	if (ticket != NULL)
	{
		my_entry = ticket->entry;
		attached = plinth_worker_entry_attach(my_entry, ticket->token);
	}
	else
	{
		my_entry = PLINTH_WORKER_LAUNCHER_ENTRY;
		attached = plinth_worker_entry_attach(my_entry, plinth_worker_entry_expect(my_entry));
	}

	/* Not expected any more: given up, or somebody needs the database alone. */
	if (!attached)
		proc_exit(0);

	BackgroundWorkerUnblockSignals();
	/* Texts go to servers in UTF-8; only this conversion works outside transactions too. */
	SetConfigOption("client_encoding", "UTF8", PGC_SUSET, PGC_S_OVERRIDE);
	if (ticket != NULL)
		BackgroundWorkerInitializeConnectionByOid(ticket->database, InvalidOid, 0);
	else
		BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	fix_settings();
}

void
plinth_worker_process_run(void (*body)(void *), void *arg)
{
	MemoryContext oldcontext = CurrentMemoryContext;

	PG_TRY ()
		;
	{
		body(arg);
	}
	PG_CATCH ()
		;
	{
		ErrorData *edata;

		LWLockReleaseAll();
		MemoryContextSwitchTo(oldcontext);
		edata = CopyErrorData();
		plinth_worker_entry_report(my_entry, "failed", edata->message);
		FreeErrorData(edata);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

void
plinth_worker_process_wait_shortly(void)
{
	SetConfigOption("lock_timeout", SHORT_LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("synchronous_commit", "local", PGC_SUSET, PGC_S_OVERRIDE);
}

void
plinth_worker_process_defer_stop(bool defer)
{
	stop_deferred = defer;
	/* One that came before is in stop_requested. */
	if (defer)
		ProcDiePending = false;
}

bool
plinth_worker_process_may_go_on(void)
{
	return !extension_gone && !IsTransactionState();
}

bool
plinth_worker_stopping(void)
{
	return stop_requested || extension_gone;
}

bool
plinth_worker_wait(long timeout_ms)
{
	TimestampTz end =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), Max(Min(timeout_ms, INT_MAX), 0));

	for (;;)
	{
		long left;
		int events;

		if (plinth_worker_stopping())
			return false;
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}

		/* Or the queue of invalidations would wait for us. */
		if (catchupInterruptPending && !IsTransactionState())
			ProcessCatchupInterrupt();

		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   Min(left, WAIT_SLICE_MS), PG_WAIT_EXTENSION);
		if (events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		if ((events & WL_LATCH_SET) || left <= WAIT_SLICE_MS)
		{
			if (plinth_worker_stopping())
				return false;
			CHECK_FOR_INTERRUPTS();
			return true;
		}
	}
}

void
plinth_worker_report(const char *state, const char *message)
{
	char text[sizeof(activity)];

	snprintf(text, sizeof(text), "%s%s%s", state ? state : "", message ? ": " : "",
			 message ? message : "");
	if (strcmp(text, activity) == 0)
		return;
	strlcpy(activity, text, sizeof(activity));
	if (my_entry >= 0)
		plinth_worker_entry_report(my_entry, state, message);
	pgstat_report_activity(IsTransactionState() ? STATE_RUNNING : STATE_IDLE, activity);
}

/* The extension's OID, its lock taken; InvalidOid where it is absent. */
static Oid
lock_extension(void)
{
	for (;;)
	{
		Oid extension = plinth_base_extension_oid();

		if (!OidIsValid(extension))
			return InvalidOid;
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		if (plinth_base_extension_oid() == extension)
			return extension;
		UnlockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
	}
}

Oid
plinth_worker_transaction_try(void)
{
	int lock_timeout = LockTimeout;
	Oid extension;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/*
	 * A service may have a lock_timeout for the tables that it reads; a DROP
	 * EXTENSION that is not committed yet is waited out, unless it waits for us.
	 */
	if (!stop_requested && !stop_deferred)
		LockTimeout = 0;
	PG_TRY ()
		;
	{
		extension = lock_extension();
	}
	PG_FINALLY ()
		;
	{
		LockTimeout = lock_timeout;
	}
	PG_END_TRY();
	if (!OidIsValid(extension))
	{
		CommitTransactionCommand();
		return InvalidOid;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
	return extension;
}

bool
plinth_worker_transaction_begin(void)
{
	Oid extension = plinth_worker_transaction_try();

	if (OidIsValid(extension) && (!OidIsValid(extension_seen) || extension == extension_seen))
	{
		extension_seen = extension;
		return true;
	}
	if (OidIsValid(extension))
		plinth_worker_transaction_end();
	extension_gone = true;
	return false;
}

void
plinth_worker_transaction_end(void)
{
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, activity);
}

static void
run_service(void *arg)
{
	const PlinthWorkerTicket *ticket = arg;
	const PlinthService *service = plinth_worker_service_get(ticket->service);

	if (!plinth_worker_transaction_begin())
		return;
	plinth_worker_transaction_end();
	plinth_worker_report("running", NULL);
	service->main(ticket->instance);
}

void
plinth_worker_service_main(Datum arg)
{
	PlinthWorkerTicket ticket;

	memcpy(&ticket, MyBgworkerEntry->bgw_extra, sizeof(ticket));
	plinth_worker_process_begin(&ticket);
	plinth_worker_process_run(run_service, &ticket);
	proc_exit(0);
}
