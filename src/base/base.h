/*
 * base.h
 *		What every other room stands on: settings, shared memory, transaction
 *		callbacks, generations, prepared plans, identifiers and the request
 *		context.
 *
 * Include after "postgres.h".
 */
#ifndef PLINTH_BASE_H
#define PLINTH_BASE_H

#include "access/xact.h"
#include "base/compat.h"
#include "executor/spi.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

/* -------------------------------------------------------------------------
 * SQLSTATEs of API-facing errors: PostgREST turns PTnnn into HTTP nnn.
 * -------------------------------------------------------------------------
 */
#define PLINTH_ERRCODE_BAD_REQUEST MAKE_SQLSTATE('P', 'T', '4', '0', '0')
#define PLINTH_ERRCODE_UNAUTHENTICATED MAKE_SQLSTATE('P', 'T', '4', '0', '1')
#define PLINTH_ERRCODE_FORBIDDEN MAKE_SQLSTATE('P', 'T', '4', '0', '3')
#define PLINTH_ERRCODE_NOT_FOUND MAKE_SQLSTATE('P', 'T', '4', '0', '4')
#define PLINTH_ERRCODE_CONFLICT MAKE_SQLSTATE('P', 'T', '4', '0', '9')
#define PLINTH_ERRCODE_TOO_MANY_REQUESTS MAKE_SQLSTATE('P', 'T', '4', '2', '9')

/* -------------------------------------------------------------------------
 * Settings (settings.c): every plinth.* setting of every room, in one table.
 * -------------------------------------------------------------------------
 */
extern char *plinth_setting_root_key_file;
extern int plinth_setting_max_databases;
extern int plinth_setting_max_workers;          /* per-database workers, all databases together */
extern int plinth_setting_worker_restart_delay; /* ms */

extern char *plinth_setting_role_anon;
extern char *plinth_setting_role_authenticated;
extern char *plinth_setting_trusted_authenticators;
extern char *plinth_setting_trusted_proxies;
extern char *plinth_setting_allowed_origins;
extern char *plinth_setting_session_header;
extern char *plinth_setting_api_key_header;
extern char *plinth_setting_session_cookie;

extern int plinth_setting_argon2_memory; /* KiB */
extern int plinth_setting_argon2_ops;    /* passes */
extern int plinth_setting_password_max_concurrent;
extern int plinth_setting_password_min_length;
extern bool plinth_setting_require_verified_email;
extern int plinth_setting_recent_sign_in;          /* s */
extern int plinth_setting_email_verify_lifetime;   /* s */
extern int plinth_setting_password_reset_lifetime; /* s */
extern int plinth_setting_magic_link_lifetime;     /* s */
extern int plinth_setting_email_code_lifetime;     /* s, at most an hour: see redeem.c */
extern int plinth_setting_email_change_lifetime;   /* s */
extern int plinth_setting_outbox_max_attempts;
extern int plinth_setting_outbox_retention;       /* s */
extern int plinth_setting_session_lifetime;       /* s */
extern int plinth_setting_session_idle_timeout;   /* s */
extern int plinth_setting_session_memory;         /* KiB */
extern int plinth_setting_session_flush_interval; /* ms */
extern int plinth_setting_session_retention;      /* s */
extern int plinth_setting_api_key_retention;      /* s */
extern int plinth_setting_sessions_per_user;      /* 0: any number */
extern int plinth_setting_jwt_lifetime;           /* s */
extern int plinth_setting_jwt_leeway;             /* s */
extern int plinth_setting_refresh_grace;          /* s */
extern char *plinth_setting_jwt_issuer;
extern char *plinth_setting_jwt_audience;
extern char *plinth_setting_signing_key_directory;

extern int plinth_setting_limits_memory;        /* KiB */
extern int plinth_setting_limits_save_interval; /* ms */
extern int plinth_setting_meter_flush_interval; /* ms */
extern int plinth_setting_cache_memory;         /* KiB */

extern int plinth_setting_sync_memory;              /* KiB, decoder and each lane */
extern int plinth_setting_sync_wal_keep;            /* KiB of WAL a lane may hold back */
extern int plinth_setting_sync_batch_rows;          /* documents a write command */
extern int plinth_setting_sync_batch_bytes;         /* KiB a write command */
extern int plinth_setting_sync_timeout;             /* ms, maxTimeMS and socket timeout */
extern int plinth_setting_sync_connect_timeout;     /* ms */
extern int plinth_setting_sync_retry_max;           /* ms, the longest backoff */
extern int plinth_setting_sync_zombie_window;       /* ms */
extern int plinth_setting_sync_checkpoint_interval; /* ms between two fences */
extern int plinth_setting_sync_lock_timeout;        /* ms, reading rows */
extern int plinth_setting_sync_snapshot_rate;       /* rows/s of a mapping; 0: no limit */
extern int plinth_setting_sync_file_max;            /* KiB, a bytea that sync_file copies */
extern int plinth_setting_file_grace;               /* ms */
extern int plinth_setting_file_upload_lifetime;     /* s */
extern int plinth_setting_sync_read_timeout;        /* ms, likewise; 0: none */
extern int plinth_setting_sync_lag_alert;           /* ms; 0: none */
typedef enum PlinthAfterPromotion
{
	PLINTH_AFTER_PROMOTION_PAUSE,
	PLINTH_AFTER_PROMOTION_RESYNC
} PlinthAfterPromotion;
extern int plinth_setting_sync_after_promotion; /* a PlinthAfterPromotion */

/* Defines every setting; called first in _PG_init. */
extern void plinth_base_settings_init(void);

/* -------------------------------------------------------------------------
 * Shared memory (shmem.c): one request, in which each room declares a part.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthShmemPart
{
	const char *name;        /* static; also the name of its LWLock tranche */
	Size (*size)(void);      /* evaluated in shmem_request_hook: settings are known */
	void (*init)(void *ptr); /* fills new memory; runs again after a crash restart */
	void **pointer;          /* set in every process before it may be used */
	int lwlocks;             /* how many LWLocks the part needs */
	LWLockPadded **locks;    /* where their array goes; NULL when lwlocks is 0 */
} PlinthShmemPart;

/* Declares a part; only from _PG_init.  The struct must be static. */
extern void plinth_base_shmem_declare(const PlinthShmemPart *part);

/* Installs the request and startup hooks; the last call of _PG_init. */
extern void plinth_base_shmem_init(void);

/* -------------------------------------------------------------------------
 * Databases (database.c): an entry in shared memory for each database in
 * which the extension is used.  Entries never move while in use; they are
 * purged when the database goes.
 * -------------------------------------------------------------------------
 */
typedef enum PlinthGeneration
{
	PLINTH_GEN_EXTENSION, /* created, dropped or updated */
	PLINTH_GEN_SYNC,      /* sync mappings, tasks, server options */
	PLINTH_GEN_SESSION,   /* sessions revoked or changed */
	PLINTH_GEN_IDENTITY,  /* users, roles and permissions */
	PLINTH_GEN_LIMITS,
	PLINTH_GEN_CACHE,
	PLINTH_GEN_USER_KEY, /* the application's own keys of users */
	PLINTH_GEN_LAST = PLINTH_GEN_USER_KEY
} PlinthGeneration;

/*
 * The generation of something in a database; 0 where the database has no
 * entry yet, so that nothing read under 0 may be kept.
 */
extern uint64 plinth_base_generation(Oid database, PlinthGeneration which);

/*
 * As above, of this database, which gets an entry where it has none: 0 only
 * where there is no place for one, or none yet in a parallel operation.
 */
extern uint64 plinth_base_generation_keep(PlinthGeneration which);

/*
 * Marks something of this database as changed by the running transaction: its
 * generation moves just before commit and again after it, so that a reader
 * who saw the old state under the old generation will look again.  Nothing
 * happens on rollback (to savepoint too).
 */
extern void plinth_base_generation_touch(PlinthGeneration which);

/* Moves a generation at once; warns when there is no entry and no place for one. */
extern void plinth_base_generation_bump(Oid database, PlinthGeneration which);

/* A room that keeps its own shared memory by database is told when one goes. */
typedef void (*PlinthDatabasePurge)(Oid database);
extern void plinth_base_database_on_purge(PlinthDatabasePurge purge);
extern void plinth_base_database_purge(Oid database);
extern void plinth_base_database_init(void);

/* -------------------------------------------------------------------------
 * Transactions (xact.c): one registration with PostgreSQL for all rooms.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthXactAction
{
	/*
	 * reserve: at pre-commit, may ERROR (then the transaction aborts).
	 * publish: after commit, rows are visible; must not ERROR.
	 * discard: the (sub)transaction rolled back; must not ERROR.  May be NULL.
	 * shared: the action publishes to shared memory, so PREPARE TRANSACTION is
	 * refused while it is pending.  Others are discarded at PREPARE.
	 */
	const char *name;
	void (*reserve)(void *arg);
	void (*publish)(void *arg);
	void (*discard)(void *arg);
	bool shared;
} PlinthXactAction;

/*
 * Adds an action to the current subtransaction.  arg must live in
 * TopTransactionContext or longer.  Actions run in the order they were added;
 * those of a subtransaction that rolls back are discarded.
 */
extern void plinth_base_xact_add(const PlinthXactAction *action, void *arg);

/* As above, unless the same action with the same arg is pending already. */
extern void plinth_base_xact_add_once(const PlinthXactAction *action, void *arg);

/*
 * Called after every commit (publish) or abort of a top-level transaction of
 * this backend; for what must look at each transaction, such as waking the
 * decoder.  wrote: the transaction had an xid.  PREPARE counts as not
 * committed, and COMMIT PREPARED as a commit that wrote nothing.  Must not
 * ERROR.
 */
typedef void (*PlinthXactEnd)(bool committed, bool wrote);
extern void plinth_base_xact_on_end(PlinthXactEnd callback);
extern void plinth_base_xact_init(void);

/* -------------------------------------------------------------------------
 * SPI (spi.c)
 * -------------------------------------------------------------------------
 */
#define PLINTH_PLAN_MAX_ARGS 24
typedef struct PlinthPlan
{
	const char *sql;
	int nargs;
	Oid argtypes[PLINTH_PLAN_MAX_ARGS];
	SPIPlanPtr plan; /* NULL until first used; kept for the backend's life */
} PlinthPlan;

/*
 * Runs a kept plan inside an SPI connection of the caller's; returns what
 * SPI_execute_plan returns, and raises an error when that is below 0 or not
 * what expect says (an SPI_OK_* code; 0 for any).
 */
extern int plinth_base_spi_execute(PlinthPlan *plan, Datum *values, const char *nulls,
								   bool read_only, int expect);

/*
 * As above, reading what has committed by now, whatever the isolation level;
 * in a parallel operation, which has no snapshot but its own, by that one.
 */
extern void plinth_base_spi_select_latest(PlinthPlan *plan, Datum *values);

/* Likewise what writes, while *writing is true: for triggers that take no note of it then. */
extern void plinth_base_spi_write(PlinthPlan *plan, Datum *values, int expect, bool *writing);

/* Whether a SELECT without arguments finds a row; no SPI connection of the caller's. */
extern bool plinth_base_spi_finds(PlinthPlan *plan);

/* -------------------------------------------------------------------------
 * Notes (note.c): an UPDATE as plinth_owner just before commit.
 * -------------------------------------------------------------------------
 */
/* May the running transaction make one? */
extern bool plinth_base_may_note(void);

/*
 * Makes one, where that is still so at commit.  The plan must live as long;
 * values are copied, none is null.  *writing, unless NULL, is true meanwhile.
 */
extern void plinth_base_note(PlinthPlan *plan, const Datum *values, bool *writing);

/* -------------------------------------------------------------------------
 * Rows that hot functions return (row.c): each has a static PlinthRow.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthRow
{
	Oid function;
	struct TypeCacheEntry *type; /* NULL where it has no type of its own */
	uint64 state;                /* of the type */
	TupleDesc desc;
} PlinthRow;

/* What heap_form_tuple takes, blessed: good until the next call for this row. */
extern TupleDesc plinth_base_row(FunctionCallInfo fcinfo, PlinthRow *kept);

/* -------------------------------------------------------------------------
 * Expressions over the columns of one table (expression.c)
 * -------------------------------------------------------------------------
 */
typedef struct PlinthExpression
{
	const char *what; /* "filter": for messages */
	const char *text;
	const char *example; /* a hint, for what is no expression at all */
	Oid type;            /* what it becomes */
} PlinthExpression;

/*
 * Parses one that depends on the row alone: only its columns and IMMUTABLE
 * functions.  Vars have the relation as number 1.  ERROR for anything else.
 */
extern struct Node *plinth_base_expression_parse(struct RelationData *rel,
												 const PlinthExpression *expression);

/* Its text, with every name qualified and every literal the same in any session. */
extern char *plinth_base_expression_deparse(struct RelationData *rel, struct Node *expr);

/* Settings that make texts unambiguous, until the caller's GUC nest level ends. */
extern void plinth_base_plain_settings(void);

/* -------------------------------------------------------------------------
 * The extension's own objects (extension.c)
 * -------------------------------------------------------------------------
 */
/* InvalidOid where the extension, its schema or plinth_owner does not exist. */
extern Oid plinth_base_extension_oid(void);

/*
 * The same by the catalog, but InvalidOid where this transaction has made or
 * updated the extension.  What shared memory has of an extension (or of one of
 * its relations) that is older than one which is committed, nobody asks for any
 * more; whoever has not heard of the latest must not forget what that one has.
 */
extern Oid plinth_base_extension_committed(void);

static inline bool
plinth_base_oid_is_older(Oid oid, Oid committed)
{
	return OidIsValid(committed) && (int32) (oid - committed) < 0;
}

extern Oid plinth_base_schema_oid(void);

/*
 * Run something as plinth_owner with a safe search_path, where roles cannot be
 * switched; ends by itself when the (sub)transaction aborts.
 */
typedef struct PlinthAsOwner
{
	Oid userid;
	int sec_context;
	int nestlevel;
} PlinthAsOwner;
extern void plinth_base_owner_begin(PlinthAsOwner *state);
extern void plinth_base_owner_end(PlinthAsOwner *state);

/*
 * Secrets (statement.c).  A function that takes one is named in _PG_init, by
 * its name in SQL, so that statements that call it are kept out of the log;
 * and it hides the running statement, which may not name it, from log and
 * pg_stat_activity.
 */
extern void plinth_base_secret_function(const char *name);
extern void plinth_base_hide_statement(void);
extern void plinth_base_statement_init(void);

/* -------------------------------------------------------------------------
 * Identifiers and encodings (ids.c, base64url.c): no PostgreSQL types needed
 * -------------------------------------------------------------------------
 */
#include "base/ids.h"

/* A new UUID version 7, greater than the last of this backend (idsql.c). */
extern void plinth_base_make_uuid_v7(pg_uuid_t *uuid);

/* -------------------------------------------------------------------------
 * Request context (context.c): who is calling, as this extension verified it.
 *
 * It lives in the setting plinth.context, which only plinth_base_context_fix
 * can write: it lasts until the end of the transaction, reaches parallel
 * workers and survives savepoints.  Session fills it; policies read it.
 * -------------------------------------------------------------------------
 */
typedef struct PlinthContext
{
	pg_uuid_t user_id;
	pg_uuid_t session_id;
	bool has_user;
	bool has_session;
	int aal;                  /* authenticator assurance level: 1, 2 or 3; 0 is anonymous */
	const char *user_key;     /* the application's own key of the user, or NULL */
	const char *roles;        /* comma-separated, sorted; "" for none; "+resource:action" is a
							   * permission of the user's own */
	const char *scopes;       /* the only permissions that count, as roles; NULL: no such limit */
	const char *tier;         /* the user's plan, or NULL */
	const char *address;      /* client address as text, or NULL */
	const char *impersonator; /* uuid of the admin who acts as the user, or NULL */
	const char *api_key;      /* uuid of the API key that the request came with, or NULL */
} PlinthContext;

/*
 * The context of the running transaction; where none was begun, what a trusted
 * authenticator says in request.jwt.claims (claims.c); or NULL.  Do not keep
 * it: it is good until the transaction or the setting changes.
 */
extern const PlinthContext *plinth_base_context(void);

/*
 * Fixes the context for the rest of the transaction.  Refused (PT403) when
 * another identity (user, session, impersonator) was fixed before, in a
 * savepoint rolled back since too.  Strings are copied.  Not allowed in a
 * parallel operation or a security-restricted one.
 */
extern void plinth_base_context_fix(const PlinthContext *context);

/*
 * What runs until the caller's GUC nest level is rolled back serves nobody's
 * request: it finds no context, no claims, and nothing that it does brings them
 * back.  For a security-restricted operation, in which no context can be fixed.
 */
extern void plinth_base_context_hide(void);
extern void plinth_base_context_init(void);

/* -------------------------------------------------------------------------
 * Who, or what, calls a function (caller.c)
 * -------------------------------------------------------------------------
 */
/* The running context, which has a user; PT401 where there is none. */
extern const PlinthContext *plinth_base_require_user(void);

/* ERROR unless plinth.NAME was called as a trigger. */
extern struct TriggerData *plinth_base_trigger_data(FunctionCallInfo fcinfo, const char *name);

/*
 * The client's address: the connection's; or what a trusted proxy forwarded,
 * when the login role is a trusted authenticator; NULL for a socket.  palloc'd.
 */
extern char *plinth_base_client_address(void);

/* Whether the connection logged in as one of plinth.trusted_authenticators (claims.c). */
extern bool plinth_base_is_trusted_authenticator(void);

/* -------------------------------------------------------------------------
 * The HTTP request that runs (request.c), by the settings of PostgREST, which
 * whoever runs SQL can write.
 * -------------------------------------------------------------------------
 */
/* The value of a setting; NULL where it is not set, or empty. */
extern const char *plinth_base_request_setting(const char *name);

/* One that is a JSON object: request.headers or request.cookies.  NULL as above; else PT400. */
extern Jsonb *plinth_base_request_object(const char *name);

/* A string in it; NULL where there is none.  palloc'd. */
extern char *plinth_base_request_field(Jsonb *object, const char *name);

/* As above, for a header by its name in any case. */
extern char *plinth_base_request_header_value(Jsonb *headers, const char *name);

/* Whether its method is one that changes nothing (RFC 9110, 9.2.1). */
extern bool plinth_base_request_is_safe(void);

/*
 * Whether a request with these headers comes from a page that may use its
 * user's cookie (origin.c).  Asked only where the method is not a safe one.
 */
extern bool plinth_base_origin_allowed(Jsonb *headers);

/* Adds a header to the response, beside those that are there.  Not in a parallel operation. */
extern void plinth_base_response_add(const char *name, const char *value);

/* Whether it can be the name of a header, or of a cookie. */
extern bool plinth_base_is_header_name(const char *name);

#endif /* PLINTH_BASE_H */
