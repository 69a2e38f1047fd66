/*
 * plinth.c
 *		Where PostgreSQL enters: one line a room.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "audit/audit.h"
#include "base/base.h"
#include "cache/cache.h"
#include "crypto/crypto.h"
#include "decode/decode.h"
#include "identity/identity.h"
#include "limits/limits.h"
#include "mongo/mongo.h"
#include "session/session.h"
#include "sync/sync.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("plinth must be loaded via \"shared_preload_libraries\""),
						errhint("Add plinth to \"shared_preload_libraries\" in postgresql.conf and "
								"restart the server.")));

	plinth_base_settings_init();
	plinth_base_statement_init();
	plinth_base_xact_init();
	plinth_base_database_init();
	plinth_base_context_init();
	plinth_crypto_init();
	plinth_worker_init();
	plinth_decode_init();
	plinth_limits_init();
	plinth_audit_init();
	plinth_identity_init();
	plinth_session_init();
	plinth_cache_init();
	plinth_mongo_init();
	plinth_sync_init();
	plinth_base_shmem_init();
}
