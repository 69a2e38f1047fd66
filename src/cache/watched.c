/*
 * watched.c
 *		What a watch's triggers do: invalidate, in the transaction that changes
 *		the table.
 *
 * A transaction that has invalidated many entries of a cache invalidates all of
 * it from then on: the journal of it, and the work at its commit, stay bounded
 * however many rows it changes.
 *
 * Each session compiles a watch once for each table that has its trigger (a
 * partition's columns may lie otherwise than its parent's), and again when
 * definitions or the table changed.
 *
 * The expression is its table owner's, and runs in the sessions of whoever
 * changes the table.  So it uses only functions written in C, which a superuser
 * installed: nothing that the owner wrote ever runs with another's rights.
 * Names are looked up as the owner, who may see them, in pg_catalog unless
 * they say otherwise.
 */
#include "postgres.h"

#include "access/transam.h"
#include "cache/watch.h"
#include "catalog/partition.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/*
 * Invalidations of a cache in one transaction, after which it is cleared.  At
 * commit a prefix (a key of a cache that is per user is one) looks at all
 * entries of its cache, a key or tag at none but its own.
 */
#define MOST_PREFIXES 100
#define MOST_NAMES 1000

typedef struct Compiled
{
	Oid trigger; /* key */
	Oid relation;
	bool valid;
	uint64 generation;
	LocalTransactionId lxid; /* with generation 0: good for one command only */
	CommandId command;
	bool exists; /* false: a trigger without a watch */
	PlinthCacheDef def;
	bool by_tag;
	ExprState *expression; /* NULL: the whole cache */
	ExprContext *econtext;
	MemoryContext memory;
} Compiled;

static HTAB *compiled = NULL;

PGDLLEXPORT Datum plinth_cache_watched(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_cache_watched);

/* Neither PostgreSQL's own nor written in C: not installed by a superuser. */
static bool
is_foreign_code(Oid function, void *context)
{
	HeapTuple tuple;
	Oid language;

	if (function < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	return language != INTERNALlanguageId && language != ClanguageId;
}

static bool
has_foreign_code(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, CoerceToDomain) || check_functions_in_node(node, is_foreign_code, context))
		return true;
	return expression_tree_walker(node, has_foreign_code, context);
}

Node *
plinth_cache_watch_parse(Relation rel, const char *what, const char *text)
{
	PlinthExpression expression = {
		.what = what,
		.text = text,
		.example = "Write an expression over the row's columns, such as: 'user:' || id",
		.type = TEXTOID,
	};
	Node *expr = plinth_base_expression_parse(rel, &expression);

	if (has_foreign_code(expr, NULL))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("%s uses a function that is not written in C, or a domain", what),
						errdetail("It runs with the rights of whoever changes the table."),
						errhint("Keep what it needs in a generated column.")));
	return expr;
}

static void
forget_relation(Datum arg, Oid relation)
{
	HASH_SEQ_STATUS scan;
	Compiled *entry;

	hash_seq_init(&scan, compiled);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		if (!OidIsValid(relation) || entry->relation == relation)
			entry->valid = false;
	}
}

static Compiled *
find_compiled(Oid trigger)
{
	Compiled *entry;
	bool found;

	if (compiled == NULL)
	{
		HASHCTL ctl;

		memset(&ctl, 0, sizeof(ctl));
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Compiled);
		compiled = hash_create("plinth cache watches", 16, &ctl, HASH_ELEM | HASH_BLOBS);
		CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	}
	entry = hash_search(compiled, &trigger, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) entry + sizeof(Oid), 0, sizeof(Compiled) - sizeof(Oid));
		entry->memory = NULL;
	}
	return entry;
}

/* Is the watch of this table, or of one that it is a partition of? */
static bool
is_of(Relation rel, Oid watched)
{
	if (RelationGetRelid(rel) == watched)
		return true;
	return rel->rd_rel->relispartition &&
		   list_member_oid(get_partition_ancestors(RelationGetRelid(rel)), watched);
}

/* Reads the watch; the expression's text, in the current context, or NULL. */
static char *
load_watch(Compiled *entry, int32 watch, Relation rel)
{
	static PlinthPlan plan = {
		.sql = "SELECT w.cache_id, w.relation::pg_catalog.oid, "
			   "coalesce(w.key_expression, w.tag_expression), w.tag_expression IS NOT NULL "
			   "FROM plinth.cache_watches w WHERE w.id = $1",
		.nargs = 1,
		.argtypes = {INT4OID},
	};
	MemoryContext memory = CurrentMemoryContext;
	PlinthAsOwner owner;
	Datum value = Int32GetDatum(watch);
	char *source = NULL;
	int32 cache = 0;
	bool isnull;

	entry->exists = false;
	SPI_connect();
	plinth_base_owner_begin(&owner);
	plinth_base_spi_execute(&plan, &value, NULL, false, SPI_OK_SELECT);
	if (SPI_processed == 1)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		Datum datum;

		cache = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
		entry->exists = is_of(rel, DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull)));
		entry->by_tag = DatumGetBool(SPI_getbinval(tuple, desc, 4, &isnull));
		datum = SPI_getbinval(tuple, desc, 3, &isnull);
		if (!isnull)
			source = MemoryContextStrdup(memory, TextDatumGetCString(datum));
	}
	plinth_base_owner_end(&owner);
	SPI_finish();
	if (entry->exists)
		entry->exists = plinth_cache_by_id(cache, &entry->def);
	return source;
}

/* Compiles as the table's owner, into the entry's own memory. */
static void
compile_expression(Compiled *entry, Relation rel, const char *source)
{
	MemoryContext old = MemoryContextSwitchTo(entry->memory);
	Oid userid;
	int sec_context;
	int nestlevel = NewGUCNestLevel();
	Node *expr;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(rel->rd_rel->relowner, sec_context | SECURITY_LOCAL_USERID_CHANGE |
													  SECURITY_RESTRICTED_OPERATION);
	plinth_base_plain_settings();
	expr =
		plinth_cache_watch_parse(rel, entry->by_tag ? "tag expression" : "key expression", source);
	entry->expression = ExecInitExpr(expression_planner((Expr *) expr), NULL);
	entry->econtext = CreateStandaloneExprContext();
	AtEOXact_GUC(true, nestlevel);
	SetUserIdAndSecContext(userid, sec_context);
	MemoryContextSwitchTo(old);
}

static Compiled *
compile(TriggerData *data)
{
	Trigger *trigger = data->tg_trigger;
	Compiled *entry = find_compiled(trigger->tgoid);
	uint64 generation = plinth_cache_generation();
	char *source;

	if (entry->valid && entry->generation == generation &&
		(generation != 0 ||
		 (entry->lxid == plinth_compat_lxid() && entry->command == GetCurrentCommandId(false))))
		return entry;

	if (trigger->tgnargs != 1)
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("plinth._cache_watched needs one argument"),
						errhint("Use plinth.cache_watch to create the trigger.")));
	if (entry->memory != NULL)
		MemoryContextDelete(entry->memory);
	entry->memory =
		AllocSetContextCreate(TopMemoryContext, "plinth cache watch", ALLOCSET_SMALL_SIZES);
	entry->expression = NULL;
	entry->relation = RelationGetRelid(data->tg_relation);
	entry->generation = generation;
	entry->lxid = plinth_compat_lxid();
	entry->command = GetCurrentCommandId(false);
	/* Before reading: a table that changes meanwhile takes it back. */
	entry->valid = true;
	PG_TRY ()
		;
	{
		source = load_watch(entry, pg_strtoint32(trigger->tgargs[0]), data->tg_relation);
		if (entry->exists && source != NULL)
			compile_expression(entry, data->tg_relation, source);
	}
	PG_CATCH ()
		;
	{
		entry->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	return entry;
}

/* What the expression makes of a row; NULL for NULL. */
static text *
evaluate(Compiled *entry, TupleTableSlot *slot)
{
	bool isnull;
	Datum value;

	if (slot == NULL)
		return NULL;
	ResetExprContext(entry->econtext);
	entry->econtext->ecxt_scantuple = slot;
	value = ExecEvalExprSwitchContext(entry->expression, entry->econtext, &isnull);
	return isnull ? NULL : DatumGetTextPCopy(value);
}

static void
forget(const Compiled *entry, text *name)
{
	const PlinthCacheDef *def = &entry->def;
	const char *data = VARDATA_ANY(name);
	int len = VARSIZE_ANY_EXHDR(name);

	if (entry->by_tag)
		plinth_cache_forget_tag(def, plinth_cache_tag_hash(data, len));
	else if (len > PLINTH_CACHE_MAX_KEY)
		return; /* no entry has such a key */
	else if (def->per_user)
		plinth_cache_forget_prefix(def, NULL, data, len);
	else
	{
		PlinthCacheKey key;

		memset(&key, 0, sizeof(key));
		key.cache = def->id;
		key.key = data;
		key.keylen = len;
		plinth_cache_forget_key(def, &key);
	}
}

static bool
is_bulk(const Compiled *entry)
{
	int64 most = entry->def.per_user && !entry->by_tag ? MOST_PREFIXES : MOST_NAMES;

	return plinth_cache_pending_count(entry->def.id) >= most;
}

Datum
plinth_cache_watched(PG_FUNCTION_ARGS)
{
	TriggerData *data = plinth_base_trigger_data(fcinfo, "_cache_watched");
	Compiled *entry;
	text *before;
	text *after;

	if (!TRIGGER_FIRED_AFTER(data->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("plinth._cache_watched must be called after the event")));
	entry = compile(data);
	if (!entry->exists)
		return PointerGetDatum(NULL);
	if (entry->expression == NULL || !TRIGGER_FIRED_FOR_ROW(data->tg_event) || is_bulk(entry))
	{
		plinth_cache_forget_all(&entry->def, NULL);
		return PointerGetDatum(NULL);
	}

	before = evaluate(entry, data->tg_trigslot);
	after = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? evaluate(entry, data->tg_newslot) : NULL;
	if (before != NULL)
		forget(entry, before);
	if (after != NULL &&
		(before == NULL || VARSIZE_ANY_EXHDR(after) != VARSIZE_ANY_EXHDR(before) ||
		 memcmp(VARDATA_ANY(after), VARDATA_ANY(before), VARSIZE_ANY_EXHDR(after)) != 0))
		forget(entry, after);
	return PointerGetDatum(NULL);
}
