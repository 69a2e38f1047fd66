/*
 * lane.c
 *		A lane: the one writer of its keys' documents.
 *
 * A lane serves one server as one owner, alone or as one of several (share.c).
 * Its loop, in this order:
 *
 *	1. takes the marks that have come from the decoder, as far as there is room;
 *	2. loads mappings anew and settles tables' definitions where they moved;
 *	3. finds the roots that changed rows of joined tables lead to (via.c), and
 *	   moves keys to sync_dirty where they cannot be written now (room.c);
 *	4. makes sure of the connection and of each mapping's fence;
 *	5. writes: changes first, then what can wait (turns.c);
 *	6. moves the fences, writes down what they cover, tells how far it is.
 *
 * While MongoDB works on a batch the next one of the same kind is read, in a
 * transaction that ends before the answer is looked at (apply.c, tasks.c);
 * beyond that no transaction is open while it talks to MongoDB.  A mark that
 * comes for a key whose row was read already makes it owed again (dirty.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/procarray.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "worker/worker.h"

#include "sync/report_int.h"
#include "sync/share_int.h"
#include "sync/via_int.h"

#define MARKS_AT_ONCE 20000
#define ACKS_A_FENCE 10000
#define LOOK_EVERY_MS 2000
#define STATS_EVERY_MS 250

static PlinthLane *the_lane = NULL;

/* What the tables' owners wrote into filters and types may never end. */
static void
start_clock(void)
{
	if (plinth_setting_sync_read_timeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, plinth_setting_sync_read_timeout);
}

static void
stop_clock(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	/* It may have come when nothing looked for it any more. */
	QueryCancelPending = false;
}

static const char *
failure_message(const ErrorData *error, TimestampTz began)
{
	if (error->sqlerrcode != ERRCODE_QUERY_CANCELED || plinth_setting_sync_read_timeout == 0 ||
		!TimestampDifferenceExceeds(began, GetCurrentTimestamp(), plinth_setting_sync_read_timeout))
		return error->message;
	return psprintf("rows could not be read within plinth.sync_read_timeout (%d ms): see the "
					"mapping's filter",
					plinth_setting_sync_read_timeout);
}

bool
plinth_sync_lane_run(PlinthLane *lane, PlinthLaneMapping *mapping, PlinthLaneWork work, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz began = GetCurrentTimestamp();
	volatile bool ok = false;

	if (lane->gone || !plinth_worker_transaction_begin())
	{
		lane->gone = true;
		return false;
	}
	PG_TRY ()
		;
	{
		if (mapping != NULL)
			start_clock();
		PushActiveSnapshot(GetTransactionSnapshot());
		work(lane, mapping, arg);
		PopActiveSnapshot();
		if (mapping != NULL)
			stop_clock();
		plinth_worker_transaction_end();
		plinth_sync_share_tell(lane, true);
		ok = true;
	}
	PG_CATCH ()
		;
	{
		ErrorData *error;

		if (mapping != NULL)
			stop_clock();
		if (mapping == NULL || plinth_worker_stopping() || mapping->def == NULL)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		plinth_sync_share_tell(lane, false);
		MemoryContextSwitchTo(caller);
		plinth_sync_report_failure(lane, mapping, unpack_sql_state(error->sqlerrcode),
								   failure_message(error, began));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return ok;
}

static void
set(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}

void
plinth_sync_lane_commit_lazily(void)
{
	(void) set_config_option("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* What is read and how it is written must not depend on anybody's settings. */
static void
settle_session(void)
{
	set("search_path", "pg_catalog, pg_temp");
	set("row_security", "off");
	set("default_transaction_isolation", "read committed");
	set("default_transaction_read_only", "off");
	set("synchronous_commit", "on");
	set("statement_timeout", "0");
	set("idle_in_transaction_session_timeout", "0");
	set("session_replication_role", "origin");
	set("lock_timeout", psprintf("%dms", plinth_setting_sync_lock_timeout));
	set("DateStyle", "ISO, YMD");
	set("IntervalStyle", "postgres");
	set("TimeZone", "UTC");
	set("bytea_output", "hex");
	set("extra_float_digits", "3");
	/* Keys are looked up by their index, however few or many rows there are. */
	set("enable_seqscan", "off");
	set("enable_hashjoin", "off");
	set("enable_mergejoin", "off");
	/* And what is taken in an order comes in that of an index. */
	set("enable_bitmapscan", "off");
	set("enable_sort", "off");
	set("max_parallel_workers_per_gather", "0");
	set("jit", "off");
}

static void
relation_moved(Datum arg, Oid relid)
{
	ListCell *lc;

	if (the_lane == NULL)
		return;
	/* Of a partition's partition, or of a composite type, it is another one's. */
	the_lane->catalog_moved = true;
	foreach (lc, the_lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->def != NULL && (relid == InvalidOid || relid == mapping->def->relation ||
									 plinth_sync_mapping_reads(mapping->def, relid)))
			the_lane->shapes_stale = mapping->shape_stale = true;
	}
}

static void
labels_moved(Datum arg, int cacheid, uint32 hashvalue)
{
	if (the_lane != NULL)
		the_lane->catalog_moved = true;
}

static void
options_moved(Datum arg, int cacheid, uint32 hashvalue)
{
	ListCell *lc;

	if (the_lane == NULL ||
		(cacheid == FOREIGNSERVEROID && hashvalue != 0 && hashvalue != the_lane->server_hash))
		return;
	the_lane->client_stale = true;
	/* Rights to use the server are among what moved. */
	foreach (lc, the_lane->mappings)
		the_lane->shapes_stale = ((PlinthLaneMapping *) lfirst(lc))->shape_stale = true;
}

static void
mark_sweep(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthSyncMark *mark)
{
	MemoryContext old = MemoryContextSwitchTo(lane->context);

	if (mapping->sweep_lsn == 0)
		mapping->sweep_lsn = mark->lsn;
	mapping->sweep_xids = list_append_unique_oid(mapping->sweep_xids, mark->xid);
	mapping->sweep_all |= mark->kind == PLINTH_SYNC_MARK_ALL;
	MemoryContextSwitchTo(old);
}

/* One of the decoder's marks of a key or of a sweep. */
static void
take_mark(PlinthLane *lane, const PlinthSyncMark *mark, const char *key, Size *used)
{
	PlinthLaneMapping *mapping = plinth_sync_lane_mapping(lane, mark->mapping);

	if (mapping == NULL &&
		lane->generation != plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC))
	{
		/*
		 * The decoder may know it before we do.  What was dropped is owed
		 * nothing, and what is unknown at this generation yet was committed
		 * before the mapping's snapshot begins.
		 */
		plinth_sync_lane_load(lane);
		*used = plinth_sync_room_used(lane);
		mapping = plinth_sync_lane_mapping(lane, mark->mapping);
	}
	if (mapping == NULL)
		return;
	if (mark->kind == PLINTH_SYNC_MARK_SWEEP || mark->kind == PLINTH_SYNC_MARK_ALL)
		mark_sweep(lane, mapping, mark);
	else
	{
		PlinthDirtySet *set = mark->kind == PLINTH_SYNC_MARK_VIA ? &mapping->via : &mapping->dirty;

		/* The decoder may not know the number of lanes that we know, or may have sent this before it did. */
		if (set == &mapping->dirty && !mapping->foreign &&
			!plinth_sync_share_mine(lane, mapping, key, mark->keylen))
			mapping->foreign = true;
		*used -= set->bytes;
		plinth_sync_dirty_mark(set, mark, key, mark->lsn < lane->start_lsn);
		*used += set->bytes;
	}
}

/* The decoder's marks, as many as there is room for; true when any came. */
static bool
take_marks(PlinthLane *lane)
{
	PlinthSyncMark mark;
	const char *key;
	Size used = plinth_sync_room_used(lane);
	Size limit = plinth_sync_room_limit();
	int n = 0;

	while (n < MARKS_AT_ONCE && used <= limit && plinth_sync_channel_receive(&mark, &key))
	{
		n++;
		/* They come in the order of commits: whatever was committed before is here. */
		lane->progress = Max(lane->progress, mark.lsn);
		if (mark.kind != PLINTH_SYNC_MARK_PROGRESS)
			take_mark(lane, &mark, key, &used);
	}
	lane->full = used > limit;
	return n > 0;
}

static void
add_sweep(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	plinth_sync_store_sweep(mapping, mapping->sweep_all);
}

/*
 * Marks to sweep become a task once what they tell of is visible: a sweep that
 * began before would find the rows that it is to miss.
 */
static void
settle_sweep(PlinthLane *lane, PlinthLaneMapping *mapping)
{
	bool visible = false;
	ListCell *lc;

	foreach (lc, mapping->sweep_xids)
	{
		if (TransactionIdIsInProgress(lfirst_oid(lc)))
			continue;
		visible = true;
		break;
	}
	if (!visible || !plinth_sync_lane_run(lane, mapping, add_sweep, NULL))
		return;
	lane->shapes_stale |= mapping->shape_stale;
	foreach (lc, mapping->sweep_xids)
	{
		if (!TransactionIdIsInProgress(lfirst_oid(lc)))
			mapping->sweep_xids = foreach_delete_current (mapping->sweep_xids, lc);
	}
	if (mapping->sweep_xids == NIL)
	{
		mapping->sweep_lsn = 0;
		mapping->sweep_all = false;
	}
}

static void
settle_sweeps(PlinthLane *lane)
{
	ListCell *lc;

	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (mapping->sweep_lsn != 0)
			settle_sweep(lane, mapping);
	}
}

static void
look(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	/* Beginning a transaction takes in what was invalidated. */
}

/*
 * Somebody waits for what was committed before, definitions included.  Looking
 * is not free, and they may ask often: it is done where anything was
 * invalidated, or where a mapping cannot run, which may be mended without that.
 */
static void
look_for_waiters(PlinthLane *lane, uint64 asked)
{
	bool moved;
	ListCell *lc;

	plinth_sync_lane_run(lane, NULL, look, NULL);
	/* Cleared before: what moves meanwhile sets it again. */
	moved = lane->catalog_moved;
	lane->catalog_moved = false;
	foreach (lc, lane->mappings)
	{
		PlinthLaneMapping *mapping = lfirst(lc);

		if (moved || mapping->def->problem != NULL)
			lane->shapes_stale = mapping->look_due = true;
	}
	lane->looking = asked;
}

/*
 * What moves by time or by others.  Each mapping is looked at every
 * LOOK_EVERY_MS, one at a time: it takes milliseconds, and keys wait for it.
 */
static void
look_around(PlinthLane *lane)
{
	TimestampTz now = GetCurrentTimestamp();
	uint64 asked = pg_atomic_read_u64(&lane->shared->look_asked);
	int n = list_length(lane->mappings);

	if (asked != lane->looking)
		look_for_waiters(lane, asked);
	if (now >= lane->look_at || TimestampDifferenceExceeds(now, lane->look_at, LOOK_EVERY_MS))
	{
		lane->look_at = TimestampTzPlusMilliseconds(now, LOOK_EVERY_MS / Max(n, 1));
		plinth_sync_lane_run(lane, NULL, look, NULL);
		if (n > 0)
		{
			PlinthLaneMapping *mapping = list_nth(lane->mappings, lane->look_next++ % n);

			mapping->look_due = true;
			lane->shapes_stale = true;
		}
	}
	plinth_sync_share_look(lane);
	if (lane->shapes_stale)
		plinth_sync_lane_settle(lane);
}

static bool
fence_is_due(PlinthLane *lane)
{
	return lane->acked > ACKS_A_FENCE || plinth_sync_room_needs_fence(lane) ||
		   TimestampDifferenceExceeds(lane->last_checkpoint, GetCurrentTimestamp(),
									  plinth_setting_sync_checkpoint_interval);
}

static void
turn(PlinthLane *lane, bool *did)
{
	*did = take_marks(lane);
	look_around(lane);
	if (lane->gone)
		return;
	settle_sweeps(lane);
	*did |= plinth_sync_via_step(lane);
	plinth_sync_room_make(lane);
	if (lane->retry_at <= GetCurrentTimestamp() && lane->mappings != NIL &&
		plinth_sync_connect(lane))
	{
		*did |= plinth_sync_turns(lane);
		if (lane->client != NULL && fence_is_due(lane))
			plinth_sync_checkpoint(lane);
	}
	plinth_sync_checkpoint_finish(lane, false);
	plinth_sync_report_publish(lane);
	if (TimestampDifferenceExceeds(lane->last_stats, GetCurrentTimestamp(), STATS_EVERY_MS))
		plinth_sync_report_stats(lane);
}

void
plinth_sync_lane_main(int instance)
{
	PlinthLane *lane;
	MemoryContext work;
	bool did = true;

	settle_session();
	lane = MemoryContextAllocZero(TopMemoryContext, sizeof(PlinthLane));
	lane->context = AllocSetContextCreate(TopMemoryContext, "plinth lane", ALLOCSET_DEFAULT_SIZES);
	work = AllocSetContextCreate(TopMemoryContext, "plinth lane turn", ALLOCSET_DEFAULT_SIZES);
	lane->index = instance;
	lane->db = plinth_sync_database(MyDatabaseId, true);
	lane->shared = &lane->db->lanes[instance];
	if (!plinth_sync_channel_attach(lane->db, instance))
		return;
	/* What the decoder sends from before this point may be in flight already. */
	lane->start_lsn = GetFlushRecPtr(NULL);
	the_lane = lane;
	CacheRegisterRelcacheCallback(relation_moved, (Datum) 0);
	CacheRegisterSyscacheCallback(ENUMOID, labels_moved, (Datum) 0);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, options_moved, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, options_moved, (Datum) 0);
	plinth_sync_lane_load(lane);

	while (plinth_worker_wait(did ? 0 : plinth_sync_turns_pause(lane)) && !lane->gone)
	{
		MemoryContextReset(work);
		MemoryContextSwitchTo(work);
		turn(lane, &did);
	}
	/* What was acknowledged since the last fence is sent again at the next start. */
	if (lane->client != NULL)
		plinth_mongo_close(lane->client);
}

/* Lanes beyond what is asked for, of servers and owners that still have some: their memory may hold keys. */
static void
keep_running(PlinthSyncDatabase *db, bool *used)
{
	LWLockAcquire(plinth_sync_lock(), LW_SHARED);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		PlinthSyncLane *lane = &db->lanes[i];

		if (used[i] || lane->pid == 0 || lane->share == 0)
			continue;
		for (int j = 0; j < PLINTH_SYNC_MAX_LANES; j++)
			used[i] |= used[j] && db->lanes[j].owner == lane->owner &&
					   strcmp(NameStr(db->lanes[j].server), NameStr(lane->server)) == 0;
	}
	LWLockRelease(plinth_sync_lock());
}

int
plinth_sync_lane_wanted(void)
{
	PlinthSyncDatabase *db = plinth_sync_database(MyDatabaseId, true);
	uint64 generation = plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC);
	bool used[PLINTH_SYNC_MAX_LANES] = {0};
	int wanted = 0;

	if (!plinth_worker_is_adopted())
		return 0;
	SPI_connect();
	/* Under a snapshot that is younger than the generation. */
	if (SPI_execute("SELECT server_name::text, owner::oid, max(plinth._sync_lanes(id))"
					"  FROM plinth.sync_mappings GROUP BY server_name, owner",
					false, 0) != SPI_OK_SELECT)
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not read sync mappings")));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool isnull;
		int lanes = DatumGetInt32(SPI_getbinval(tuple, desc, 3, &isnull));

		for (int share = 0; share < lanes; share++)
		{
			int lane = plinth_sync_lane_of(db, SPI_getvalue(tuple, desc, 1),
										   DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull)),
										   share, true);

			if (lane < 0)
				continue;
			used[lane] = true;
			wanted = Max(wanted, lane + 1);
		}
	}
	SPI_finish();
	keep_running(db, used);
	/* What the decoder knows and we do not yet keeps its lane; we are asked again. */
	if (generation == plinth_base_generation(MyDatabaseId, PLINTH_GEN_SYNC))
		plinth_sync_lanes_free(db, used);
	/* A lane that has nothing to do any more idles: to stop it would stop the others. */
	for (int i = wanted; wanted > 0 && i < PLINTH_SYNC_MAX_LANES; i++)
	{
		if (db->lanes[i].pid != 0)
			wanted = i + 1;
	}
	return wanted;
}
