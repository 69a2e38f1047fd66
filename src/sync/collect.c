/*
 * collect.c
 *		The consumer in the decoder: which keys of which mappings changed.
 *
 * While a transaction is decoded, its marks gather in a spool of its own; at
 * its commit they move to the spools of the lanes concerned, with the lsn of
 * the commit record, and from there into the channel as the lanes take them.
 * A lane that is busy delays nobody else: its marks wait in its spool, on disk
 * beyond plinth.sync_memory.  What a rolled-back subtransaction touched may be
 * marked too: a mark never says what a row is, only that it must be looked at.
 *
 * Which table belongs to which mapping is found once a table and kept until a
 * relcache invalidation or a change of the mappings; partitions are followed
 * to their ancestors under the historic snapshot, that is as they were when
 * the change was made.
 *
 * A table that stands in a document's query is a target too, at each place
 * where it stands (plinth.sync_sources): what is marked then are the values of
 * the columns that lead to the document's root (collect_key.c, via.c).
 *
 * A change whose old key cannot be told from what the WAL holds (under a
 * replica identity that does not hold it, an UPDATE without an old tuple may
 * have changed the key) becomes a mark to sweep the mapping, one whose new key
 * cannot be told a mark to send all of it again; none is passed over.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "decode/decode.h"
#include "sync/collect_int.h"
#include "sync/share_int.h"
#include "sync/watch_int.h"
#include "worker/worker.h"

typedef struct TableEntry
{
	Oid relid; /* hash key; while a table is rewritten, of the new heap */
	bool valid;
	MemoryContext context; /* of targets and below; NULL without */
	int ntargets;
	PlinthCollectSeen *targets;
} TableEntry;

typedef struct TransactionEntry
{
	TransactionId xid; /* hash key */
	PlinthSpool *spool;
} TransactionEntry;

static PlinthSyncDatabase *db = NULL;
static MemoryContext targets_context = NULL;
static MemoryContext tables_context = NULL;
static MemoryContext work_context = NULL;
static MemoryContext collect_context = NULL;
static List *targets = NIL;
static HTAB *tables = NULL;
static HTAB *transactions = NULL;
static PlinthSpool *lane_spools[PLINTH_SYNC_MAX_LANES];
static bool lane_used[PLINTH_SYNC_MAX_LANES];
static XLogRecPtr progress_sent[PLINTH_SYNC_MAX_LANES];
static XLogRecPtr last_decoded = InvalidXLogRecPtr;
static bool reloaded = false; /* and not told to the lanes */

static void
forget_tables(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	TableEntry *entry;

	if (tables == NULL)
		return;
	if (OidIsValid(relid))
	{
		entry = hash_search(tables, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->valid = false;
		return;
	}
	hash_seq_init(&seq, tables);
	while ((entry = hash_seq_search(&seq)) != NULL)
		entry->valid = false;
}

static void
collect_start(void)
{
	HASHCTL ctl = {0};

	collect_context =
		AllocSetContextCreate(TopMemoryContext, "plinth collect", ALLOCSET_DEFAULT_SIZES);
	targets_context =
		AllocSetContextCreate(collect_context, "plinth collect targets", ALLOCSET_SMALL_SIZES);
	tables_context =
		AllocSetContextCreate(collect_context, "plinth collect tables", ALLOCSET_SMALL_SIZES);
	work_context =
		AllocSetContextCreate(collect_context, "plinth collect change", ALLOCSET_DEFAULT_SIZES);
	ctl.keysize = sizeof(TransactionId);
	ctl.entrysize = sizeof(TransactionEntry);
	ctl.hcxt = collect_context;
	transactions =
		hash_create("plinth collect transactions", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	db = plinth_sync_database(MyDatabaseId, true);
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
		lane_spools[i] =
			plinth_sync_spool_create(collect_context, (Size) plinth_setting_sync_memory * 1024 / 8);
	plinth_sync_channel_create(db);
	CacheRegisterRelcacheCallback(forget_tables, (Datum) 0);
}

static void
collect_reload(void)
{
	MemoryContextReset(targets_context);
	MemoryContextReset(tables_context);
	tables = NULL;
	memset(lane_used, 0, sizeof(lane_used));
	targets = plinth_sync_targets_load(db, targets_context, lane_used);
	reloaded = true;
}

static bool
collect_wanted(void)
{
	bool wanted;

	SPI_connect();
	wanted = SPI_execute("SELECT FROM plinth.sync_mappings LIMIT 1", true, 1) == SPI_OK_SELECT &&
			 SPI_processed > 0;
	SPI_finish();
	return wanted;
}

/* What was committed since is not in the WAL that is left: every mapping must be sent again. */
static void
collect_slot_lost(const char *reason)
{
	static PlinthPlan plan = {
		"INSERT INTO plinth.sync_states AS s (mapping_id, blocked, blocked_hint, blocked_at)"
		" SELECT id, $1, $2, now() FROM plinth.sync_mappings"
		"  WHERE id NOT IN (SELECT mapping_id FROM plinth.sync_states WHERE promoted)"
		" ON CONFLICT (mapping_id) DO UPDATE SET blocked = excluded.blocked,"
		"        blocked_hint = excluded.blocked_hint, blocked_at = excluded.blocked_at",
		2,
		{TEXTOID, TEXTOID},
		NULL};
	Datum values[2];

	/* Those which that leaves alone are sent again as it is. */
	(void) plinth_sync_promote_all();
	values[0] = CStringGetTextDatum(psprintf("the replication slot was lost: %s", reason));
	values[1] = CStringGetTextDatum("Send everything again with plinth.sync_resync(name).");
	SPI_connect();
	plinth_base_spi_execute(&plan, values, NULL, false, 0);
	SPI_finish();
	plinth_base_generation_touch(PLINTH_GEN_SYNC);
}

/* relid is the table's own oid, or of the one whose new heap it is to be. */
static TableEntry *
table_entry(Relation relation, Oid relid)
{
	Oid key = RelationGetRelid(relation);
	TableEntry *entry;
	bool found;
	List *ancestors = NIL;
	ListCell *lc;
	MemoryContext old;

	if (tables == NULL)
	{
		HASHCTL ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(TableEntry);
		ctl.hcxt = tables_context;
		tables =
			hash_create("plinth collect tables", 128, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	entry = hash_search(tables, &key, HASH_ENTER, &found);
	if (found && entry->valid)
		return entry;
	if (found && entry->context != NULL)
		MemoryContextDelete(entry->context);

	entry->valid = false;
	entry->context = NULL;
	entry->ntargets = 0;
	entry->targets = NULL;
	/* A new heap does not say itself whether it is for a partition. */
	if (get_rel_relispartition(relid))
		ancestors = get_partition_ancestors(relid);
	old = CurrentMemoryContext;
	foreach (lc, targets)
	{
		PlinthCollectTarget *target = lfirst(lc);
		PlinthCollectSeen *seen;

		if (target->relation != relid && !list_member_oid(ancestors, target->relation))
			continue;
		if (entry->context == NULL)
		{
			entry->context =
				AllocSetContextCreate(tables_context, "plinth collect table", ALLOCSET_SMALL_SIZES);
			MemoryContextSwitchTo(entry->context);
			entry->targets = palloc0(sizeof(PlinthCollectSeen) * list_length(targets));
		}
		seen = &entry->targets[entry->ntargets++];
		seen->target = target;
		if (target->bucket != 0)
			seen->bucket = get_attnum(relid, "bucket_id");
		plinth_sync_collect_resolve(seen, relation, relid);
	}
	MemoryContextSwitchTo(old);
	entry->valid = true;
	return entry;
}

static bool
collect_wants(Relation relation, Oid relid)
{
	return targets != NIL && table_entry(relation, relid)->ntargets > 0;
}

static void
push_mark(TransactionId xid, const PlinthCollectTarget *target, uint8 kind, const char *key,
		  uint32 keylen)
{
	TransactionEntry *entry;
	bool found;
	PlinthSyncMark mark = {0};
	StringInfoData record;

	entry = hash_search(transactions, &xid, HASH_ENTER, &found);
	if (!found)
	{
		HASH_SEQ_STATUS seq;
		TransactionEntry *other;
		Size used = 0;

		entry->spool =
			plinth_sync_spool_create(collect_context, (Size) plinth_setting_sync_memory * 1024 / 8);
		/* All transactions together stay within the bound too. */
		hash_seq_init(&seq, transactions);
		while ((other = hash_seq_search(&seq)) != NULL)
			used += plinth_sync_spool_memory(other->spool);
		if (used > (Size) plinth_setting_sync_memory * 1024 / 4)
		{
			hash_seq_init(&seq, transactions);
			while ((other = hash_seq_search(&seq)) != NULL)
				plinth_sync_spool_spill(other->spool);
		}
	}
	mark.kind = kind;
	mark.mapping = target->mapping;
	mark.xid = xid;
	mark.lane = kind == PLINTH_SYNC_MARK_KEY
					? target->lanes[plinth_sync_share_of(key, keylen, target->nlanes)]
					: target->lane;
	mark.keylen = keylen;

	initStringInfo(&record);
	appendBinaryStringInfo(&record, (const char *) &mark, sizeof(mark));
	if (keylen > 0)
		appendBinaryStringInfo(&record, key, keylen);
	plinth_sync_spool_push(entry->spool, record.data, record.len);
}

/*
 * Rows have gone that nobody can name: documents of their own go by a sweep,
 * those that they were a part of are not known, and all are sent again.
 */
static uint8
mark_without_trace(const PlinthCollectTarget *target)
{
	return target->source < 0 ? PLINTH_SYNC_MARK_SWEEP : PLINTH_SYNC_MARK_ALL;
}

/* A row of a bucket that is not the target's; it never changes its bucket, which both tuples tell. */
static bool
is_elsewhere(PlinthCollectSeen *seen, Relation relation, HeapTuple tuple)
{
	Datum bucket;
	bool isnull;

	if (seen->bucket == InvalidAttrNumber || tuple == NULL)
		return false;
	bucket = heap_getattr(tuple, seen->bucket, RelationGetDescr(relation), &isnull);
	return !isnull && DatumGetInt64(bucket) != seen->target->bucket;
}

static void
collect_change(TransactionId xid, Relation relation, Oid relid, PlinthDecodeChange kind,
			   HeapTuple oldtuple, HeapTuple newtuple)
{
	TableEntry *entry = table_entry(relation, relid);
	MemoryContext old = MemoryContextSwitchTo(work_context);
	StringInfoData oldkey;
	StringInfoData newkey;

	initStringInfo(&oldkey);
	initStringInfo(&newkey);
	for (int i = 0; i < entry->ntargets; i++)
	{
		PlinthCollectSeen *seen = &entry->targets[i];
		PlinthCollectKey has_old;
		PlinthCollectKey has_new;
		uint8 mark = seen->target->via ? PLINTH_SYNC_MARK_VIA : PLINTH_SYNC_MARK_KEY;
		bool old_known;

		if (seen->target->append && kind != PLINTH_DECODE_INSERT)
			continue;
		if (is_elsewhere(seen, relation, newtuple != NULL ? newtuple : oldtuple))
			continue;
		has_old = plinth_sync_collect_key(seen, relation, oldtuple, NULL, true, &oldkey);
		has_new = plinth_sync_collect_key(seen, relation, newtuple, oldtuple, false, &newkey);
		old_known = has_old != PLINTH_COLLECT_UNKNOWN || kind == PLINTH_DECODE_INSERT ||
					(kind == PLINTH_DECODE_UPDATE && oldtuple == NULL && seen->covered);

		if (has_old == PLINTH_COLLECT_KNOWN)
			push_mark(xid, seen->target, mark, oldkey.data, oldkey.len);
		if (has_new == PLINTH_COLLECT_KNOWN &&
			!(has_old == PLINTH_COLLECT_KNOWN && oldkey.len == newkey.len &&
			  memcmp(oldkey.data, newkey.data, newkey.len) == 0))
			push_mark(xid, seen->target, mark, newkey.data, newkey.len);
		if (has_new == PLINTH_COLLECT_UNKNOWN && kind != PLINTH_DECODE_DELETE)
			push_mark(xid, seen->target, PLINTH_SYNC_MARK_ALL, NULL, 0);
		else if (!old_known)
			push_mark(xid, seen->target, mark_without_trace(seen->target), NULL, 0);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(work_context);
}

static void
collect_truncate(TransactionId xid, int nrelations, Relation relations[])
{
	MemoryContext old = MemoryContextSwitchTo(work_context);

	for (int i = 0; i < nrelations; i++)
	{
		TableEntry *entry = table_entry(relations[i], RelationGetRelid(relations[i]));

		for (int j = 0; j < entry->ntargets; j++)
		{
			const PlinthCollectTarget *target = entry->targets[j].target;

			if (!target->append)
				push_mark(xid, target, mark_without_trace(target), NULL, 0);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(work_context);
}

static void
collect_commit(TransactionId xid, XLogRecPtr lsn)
{
	TransactionEntry *entry = hash_search(transactions, &xid, HASH_FIND, NULL);
	const char *record;
	uint32 len;

	if (entry == NULL)
		return;
	while ((record = plinth_sync_spool_peek(entry->spool, &len)) != NULL)
	{
		PlinthSyncMark mark;

		memcpy(&mark, record, sizeof(mark));
		mark.lsn = lsn;
		memcpy(unconstify(char *, record), &mark, sizeof(mark));
		plinth_sync_spool_push(lane_spools[mark.lane], record, len);
		plinth_sync_spool_next(entry->spool);
		CHECK_FOR_INTERRUPTS();
	}
	plinth_sync_spool_free(entry->spool);
	hash_search(transactions, &xid, HASH_REMOVE, NULL);
}

static void
collect_abort(TransactionId xid)
{
	TransactionEntry *entry = hash_search(transactions, &xid, HASH_FIND, NULL);

	if (entry == NULL)
		return;
	plinth_sync_spool_free(entry->spool);
	hash_search(transactions, &xid, HASH_REMOVE, NULL);
}

static void
drain_lane(int lane, XLogRecPtr decoded)
{
	const char *record;
	uint32 len;

	while ((record = plinth_sync_spool_peek(lane_spools[lane], &len)) != NULL)
	{
		PlinthSyncMark mark;

		memcpy(&mark, record, sizeof(mark));
		if (!plinth_sync_channel_send(lane, &mark, record + sizeof(mark)))
			return;
		plinth_sync_spool_next(lane_spools[lane]);
	}
	if (progress_sent[lane] < decoded)
	{
		PlinthSyncMark mark = {0};

		mark.kind = PLINTH_SYNC_MARK_PROGRESS;
		mark.lsn = decoded;
		if (plinth_sync_channel_send(lane, &mark, NULL))
			progress_sent[lane] = decoded;
	}
	plinth_sync_channel_flush(lane);
}

/*
 * Decoding never waits for a lane: what a lane does not take stays in its
 * spool, so there is always room.
 */
static bool
collect_drain(XLogRecPtr decoded)
{
	last_decoded = decoded;
	/* Snapshots wait for it, and by now it is published. */
	if (reloaded)
		plinth_worker_wake(MyDatabaseId, "lane", -1);
	reloaded = false;
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		if (lane_used[i])
			drain_lane(i, decoded);
	}
	return true;
}

static XLogRecPtr
collect_durable(void)
{
	XLogRecPtr least = last_decoded;

	if (plinth_sync_targets_pending())
		return InvalidXLogRecPtr;
	for (int i = 0; i < PLINTH_SYNC_MAX_LANES; i++)
	{
		XLogRecPtr durable;

		if (!lane_used[i])
			continue;
		durable = pg_atomic_read_u64(&db->lanes[i].durable);
		if (durable == 0)
			return InvalidXLogRecPtr;
		least = Min(least, durable);
	}
	return least;
}

static const PlinthDecodeConsumer consumer = {
	.name = "sync",
	.wanted = collect_wanted,
	.slot_lost = collect_slot_lost,
	.start = collect_start,
	.reload = collect_reload,
	.wants = collect_wants,
	.change = collect_change,
	.truncate = collect_truncate,
	.commit = collect_commit,
	.abort = collect_abort,
	.drain = collect_drain,
	.durable = collect_durable,
};

void
plinth_sync_collect_init(void)
{
	plinth_decode_consumer_declare(&consumer);
}
