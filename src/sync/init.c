/*
 * init.c
 *		What room sync declares when the server starts.
 */
#include "postgres.h"

#include "sync/index_int.h"
#include "sync/sync.h"
#include "sync/watch_int.h"
#include "worker/worker.h"

static const PlinthService lane_service = {
	.name = "lane",
	.group = "sync",
	.wanted = plinth_sync_lane_wanted,
	.main = plinth_sync_lane_main,
	.numbered = true,
};

static const PlinthService indexes_service = {
	.name = "indexes",
	.wanted = plinth_sync_indexes_wanted,
	.main = plinth_sync_indexes_main,
	.numbered = true,
};

static const PlinthService verifier_service = {
	.name = "verifier",
	.wanted = plinth_sync_schedule_wanted,
	.main = plinth_sync_schedule_main,
};

void
plinth_sync_init(void)
{
	plinth_sync_shared_init();
	plinth_sync_collect_init();
	plinth_worker_service_declare(&lane_service);
	plinth_worker_service_declare(&indexes_service);
	plinth_worker_service_declare(&verifier_service);
	plinth_sync_owned_init();
}
