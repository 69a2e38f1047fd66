/*
 * xact.c
 *		What rooms do at the end of a transaction, with one registration.
 *
 * Pending actions form one list in the order they were added, each marked
 * with its subtransaction.  A subtransaction that commits hands its actions to
 * its parent; one that rolls back discards them, last first.  reserve runs in
 * order at pre-commit, where it may still ERROR and may add actions, which
 * are then reserved too.  publish runs after commit, rows visible and locks
 * still held; neither publish nor discard may ERROR: if one does, the error
 * becomes a WARNING, what it left locked is released and the others go on,
 * since an ERROR after commit would be a PANIC.
 *
 * PREPARE TRANSACTION: PostgreSQL gives no hook to the session that will
 * commit it, so it is refused while an action that publishes to shared memory
 * is pending.  Other actions are discarded.  Parallel workers have none.
 *
 * The list lives in TopTransactionContext and is forgotten with it.
 */
#include "postgres.h"

#include "base/base.h"
#include "base/internal.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#define MAX_END_CALLBACKS 16

typedef struct PendingAction
{
	dlist_node node;
	const PlinthXactAction *action;
	void *arg;
	SubTransactionId subid;
} PendingAction;

static dlist_head pending = DLIST_STATIC_INIT(pending);

static PlinthXactEnd end_callbacks[MAX_END_CALLBACKS];
static int nend_callbacks = 0;

void
plinth_base_xact_add(const PlinthXactAction *action, void *arg)
{
	PendingAction *p;

	Assert(IsTransactionState());
	p = MemoryContextAlloc(TopTransactionContext, sizeof(PendingAction));
	p->action = action;
	p->arg = arg;
	p->subid = GetCurrentSubTransactionId();
	dlist_push_tail(&pending, &p->node);
}

void
plinth_base_xact_add_once(const PlinthXactAction *action, void *arg)
{
	dlist_iter iter;

	/*
	 * Every action in the list belongs to this subtransaction or to one that
	 * encloses it: those of subtransactions that ended were handed on or
	 * discarded.
	 */
	dlist_foreach (iter, &pending)
	{
		PendingAction *p = dlist_container(PendingAction, node, iter.cur);

		if (p->action == action && p->arg == arg)
			return;
	}
	plinth_base_xact_add(action, arg);
}

void
plinth_base_xact_on_end(PlinthXactEnd callback)
{
	if (nend_callbacks >= MAX_END_CALLBACKS)
		elog(FATAL, "too many callbacks at the end of a transaction");
	end_callbacks[nend_callbacks++] = callback;
}

/* Runs something that must not fail; if it does, warns and cleans up. */
static void
run_guarded(void (*func)(void *), void *arg, const char *name)
{
	MemoryContext oldcontext = CurrentMemoryContext;
	uint32 holdoff = InterruptHoldoffCount;

	PG_TRY ()
		;
	{
		func(arg);
	}
	PG_CATCH ()
		;
	{
		ErrorData *edata;

		LWLockReleaseAll();
		InterruptHoldoffCount = holdoff;
		MemoryContextSwitchTo(oldcontext);
		edata = CopyErrorData();
		FlushErrorState();
		ereport(WARNING, (errcode(edata->sqlerrcode),
						  errmsg("plinth: \"%s\" failed at the end of a transaction: %s", name,
								 edata->message)));
		FreeErrorData(edata);
	}
	PG_END_TRY();
}

/* Discards the actions of a subtransaction, or all for InvalidSubTransactionId; last first. */
static void
discard_actions(SubTransactionId subid)
{
	dlist_node *node = dlist_is_empty(&pending) ? NULL : dlist_tail_node(&pending);

	while (node != NULL)
	{
		PendingAction *p = dlist_container(PendingAction, node, node);

		node = dlist_has_prev(&pending, node) ? dlist_prev_node(&pending, node) : NULL;
		if (subid != InvalidSubTransactionId && p->subid != subid)
			continue;
		dlist_delete(&p->node);
		if (p->action->discard != NULL)
			run_guarded(p->action->discard, p->arg, p->action->name);
		pfree(p);
	}
}

static void
reserve_actions(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &pending)
	{
		PendingAction *p = dlist_container(PendingAction, node, iter.cur);

		if (p->action->reserve != NULL)
			p->action->reserve(p->arg);
	}
}

static void
publish_actions(void)
{
	while (!dlist_is_empty(&pending))
	{
		PendingAction *p = dlist_container(PendingAction, node, dlist_pop_head_node(&pending));

		if (p->action->publish != NULL)
			run_guarded(p->action->publish, p->arg, p->action->name);
		pfree(p);
	}
}

static void
refuse_prepare(void)
{
	dlist_iter iter;

	dlist_foreach (iter, &pending)
	{
		PendingAction *p = dlist_container(PendingAction, node, iter.cur);

		if (p->action->shared)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that changed plinth's shared state"),
					 errdetail("What is pending: %s.", p->action->name),
					 errhint("Use COMMIT, or change it in a transaction of its own.")));
	}
}

typedef struct EndArgs
{
	int next; /* which callback */
	bool committed;
	bool wrote;
} EndArgs;

static void
call_next_callbacks(void *arg)
{
	EndArgs *args = arg;

	while (args->next < nend_callbacks)
		end_callbacks[args->next++](args->committed, args->wrote);
}

/* Every transaction pays for this: one guard for all, and another only after one that failed. */
static void
call_end_callbacks(bool committed)
{
	EndArgs args = {.committed = committed};

	args.wrote = TransactionIdIsValid(GetTopTransactionIdIfAny());
	while (args.next < nend_callbacks)
		run_guarded(call_next_callbacks, &args, "end callback");
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			reserve_actions();
			break;
		case XACT_EVENT_PRE_PREPARE:
			refuse_prepare();
			break;
		case XACT_EVENT_COMMIT:
			publish_actions();
			call_end_callbacks(true);
			break;
		case XACT_EVENT_ABORT:
			plinth_base_statement_rolled_back();
			/* FALLTHROUGH */
		case XACT_EVENT_PREPARE:
			discard_actions(InvalidSubTransactionId);
			call_end_callbacks(false);
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;
	}
}

static void
on_subxact(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	dlist_iter iter;

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		plinth_base_statement_rolled_back();
		discard_actions(subid);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		dlist_foreach (iter, &pending)
		{
			PendingAction *p = dlist_container(PendingAction, node, iter.cur);

			if (p->subid == subid)
				p->subid = parent;
		}
	}
}

void
plinth_base_xact_init(void)
{
	RegisterXactCallback(on_xact, NULL);
	RegisterSubXactCallback(on_subxact, NULL);
}
