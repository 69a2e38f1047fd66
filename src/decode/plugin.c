/*
 * plugin.c
 *		The output plugin: turns PostgreSQL's callbacks into the consumers'.
 *
 * It writes no output, so it is of use to nobody but the decoder: any other
 * process that names it (pg_recvlogical, the SQL functions) is refused when
 * it starts up.  pg_upgrade, which makes the slots anew, is let through.
 *
 * Everything is told by top-level transaction.  What a transaction was told
 * of is marked in its output_plugin_private, so that transactions in which
 * nobody had an interest end without a word.  Two-phase transactions are
 * decoded at COMMIT PREPARED.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_class.h"
#include "decode/internal.h"
#include "miscadmin.h"
#include "replication/logical.h"
#include "replication/output_plugin.h"
#include "utils/rel.h"

#define MESSAGE_PREFIX "plinth"

extern PGDLLEXPORT void _PG_output_plugin_init(OutputPluginCallbacks *cb);

bool plinth_decode_in_decoder = false;

static char told_marker;

static void
startup(LogicalDecodingContext *ctx, OutputPluginOptions *options, bool is_init)
{
	if (!plinth_decode_in_decoder && !IsBinaryUpgrade)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("output plugin \"%s\" serves only plinth's own decoder",
							   PLINTH_DECODE_PLUGIN),
						errhint("Its slots are created, read and dropped by plinth itself.")));
	options->output_type = OUTPUT_PLUGIN_BINARY_OUTPUT;
	options->receive_rewrites = true;
}

static void
mark_told(ReorderBufferTXN *top)
{
	top->output_plugin_private = &told_marker;
}

static void
begin(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
}

static PlinthDecodeChange
kind_of(const ReorderBufferChange *what)
{
	if (what->action == REORDER_BUFFER_CHANGE_DELETE)
		return PLINTH_DECODE_DELETE;
	return what->action == REORDER_BUFFER_CHANGE_UPDATE ? PLINTH_DECODE_UPDATE
														: PLINTH_DECODE_INSERT;
}

static void
change(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, Relation relation,
	   ReorderBufferChange *what)
{
	ReorderBufferTXN *top = plinth_compat_toptxn(txn);
	Oid relid = relation->rd_rel->relrewrite;

	CHECK_FOR_INTERRUPTS();
	if (!OidIsValid(relid))
		relid = RelationGetRelid(relation);

	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		const PlinthDecodeConsumer *consumer = plinth_decode_consumers[i];

		if (consumer->change == NULL || consumer->wants == NULL ||
			!consumer->wants(relation, relid))
			continue;
		mark_told(top);
		consumer->change(top->xid, relation, relid, kind_of(what), plinth_compat_oldtuple(what),
						 plinth_compat_newtuple(what));
	}
}

static void
truncate_relations(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, int nrelations,
				   Relation relations[], ReorderBufferChange *what)
{
	ReorderBufferTXN *top = plinth_compat_toptxn(txn);
	Relation *wanted = palloc(nrelations * sizeof(Relation));

	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		const PlinthDecodeConsumer *consumer = plinth_decode_consumers[i];
		int nwanted = 0;

		if (consumer->truncate == NULL || consumer->wants == NULL)
			continue;
		for (int r = 0; r < nrelations; r++)
		{
			if (consumer->wants(relations[r], RelationGetRelid(relations[r])))
				wanted[nwanted++] = relations[r];
		}
		if (nwanted == 0)
			continue;
		mark_told(top);
		consumer->truncate(top->xid, nwanted, wanted);
	}
	pfree(wanted);
}

static void
commit(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr commit_lsn)
{
	if (txn->output_plugin_private == NULL)
		return;
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->commit != NULL)
			plinth_decode_consumers[i]->commit(txn->xid, commit_lsn);
	}
}

static void
message(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr lsn, bool transactional,
		const char *prefix, Size size, const char *body)
{
	TransactionId xid = InvalidTransactionId;

	CHECK_FOR_INTERRUPTS();
	if (strcmp(prefix, MESSAGE_PREFIX) != 0)
		return;
	if (transactional)
	{
		ReorderBufferTXN *top = plinth_compat_toptxn(txn);

		mark_told(top);
		xid = top->xid;
	}
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->message != NULL)
			plinth_decode_consumers[i]->message(xid, lsn, transactional, size, body);
	}
}

static void
stream_start(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
}

static void
stream_stop(LogicalDecodingContext *ctx, ReorderBufferTXN *txn)
{
}

/* A subtransaction's end is not told: what it did is the consumer's to tolerate. */
static void
stream_abort(LogicalDecodingContext *ctx, ReorderBufferTXN *txn, XLogRecPtr abort_lsn)
{
	if (plinth_compat_toptxn(txn) != txn || txn->output_plugin_private == NULL)
		return;
	for (int i = 0; i < plinth_decode_nconsumers; i++)
	{
		if (plinth_decode_consumers[i]->abort != NULL)
			plinth_decode_consumers[i]->abort(txn->xid);
	}
}

void
_PG_output_plugin_init(OutputPluginCallbacks *cb)
{
	cb->startup_cb = startup;
	cb->begin_cb = begin;
	cb->change_cb = change;
	cb->truncate_cb = truncate_relations;
	cb->commit_cb = commit;
	cb->message_cb = message;
	cb->stream_start_cb = stream_start;
	cb->stream_stop_cb = stream_stop;
	cb->stream_abort_cb = stream_abort;
	cb->stream_commit_cb = commit;
	cb->stream_change_cb = change;
	cb->stream_message_cb = message;
	cb->stream_truncate_cb = truncate_relations;
}
