/*
 * after.c
 *		plinth.sync_after_promotion = resync: a promoted server goes on by itself.
 *
 * A promotion is seen by the timeline: this server's is newer than the one on
 * which the fence was moved last.  Before 17 (or where no copy of the slot was
 * kept) it shows first as a slot that is lost, else as a fence of an older
 * timeline.  Either way everything is sent again, by the mechanism of
 * sync_resync, and the fence is taken over.
 *
 * But never where somebody else may be right: the fence must be of this
 * database, of no higher epoch, and stand where this server's own history was
 * still that timeline.  One that stands further was moved by a server that
 * wrote on after ours had left it: its primary, which still runs or which had
 * committed what never came here, or the server of which this is a copy that
 * was restored to an earlier point.  That is for people to decide.
 */
#include "postgres.h"

#include "access/timeline.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "decode/decode.h"
#include "miscadmin.h"

#include "sync/report_int.h"
#include "sync/watch_int.h"

bool
plinth_sync_is_promotion(const PlinthSyncMapping *mapping, const PlinthMongoFence *fence)
{
	TimeLineID ours = GetWALInsertionTimeLine();
	List *history;

	if (fence->system_identifier != GetSystemIdentifier() || fence->database != MyDatabaseId ||
		fence->epoch > mapping->fence_epoch || fence->timeline >= ours)
		return false;
	history = readTimeLineHistory(ours);
	return tliInHistory(fence->timeline, history) &&
		   fence->lsn <= tliSwitchPoint(fence->timeline, history, NULL);
}

/* Everything again, once the fence has been looked at. */
static uint64
resync(const char *which, PlinthPlan *plan, Datum *values)
{
	uint64 n;

	SPI_connect();
	plinth_base_spi_execute(plan, values, NULL, false, SPI_OK_SELECT);
	n = SPI_processed;
	SPI_finish();
	if (n > 0)
		ereport(LOG, (errmsg("this server was promoted: %s is sent again", which),
					  errhint("As \"plinth.sync_after_promotion\" says.")));
	return n;
}

bool
plinth_sync_promote_all(void)
{
	static PlinthPlan plan = {
		"SELECT plinth._sync_promoted(s.mapping_id) FROM plinth.sync_states AS s"
		" WHERE s.blocked IS NULL AND s.prepared AND s.fence_timeline < $1",
		1,
		{INT4OID},
		NULL};
	Datum value;

	if (plinth_setting_sync_after_promotion != PLINTH_AFTER_PROMOTION_RESYNC ||
		RecoveryInProgress())
		return false;
	value = Int32GetDatum(GetWALInsertionTimeLine());
	if (resync("everything that is synced", &plan, &value) == 0)
		return false;
	(void) plinth_decode_request_slot();
	return true;
}

static void
do_promote(PlinthLane *lane, PlinthLaneMapping *mapping, void *arg)
{
	static PlinthPlan plan = {"SELECT plinth._sync_promoted($1)", 1, {INT8OID}, NULL};
	Datum value = Int64GetDatum(mapping->id);

	resync(psprintf("\"%s\"", mapping->def->name), &plan, &value);
	plinth_sync_store_tasks_load(mapping);
	mapping->def->resyncing = mapping->def->promoted = true;
}

bool
plinth_sync_promote(PlinthLane *lane, PlinthLaneMapping *mapping, const PlinthMongoFence *fence)
{
	return plinth_setting_sync_after_promotion == PLINTH_AFTER_PROMOTION_RESYNC &&
		   plinth_sync_is_promotion(mapping->def, fence) &&
		   (lane->share > 0 || plinth_sync_lane_run(lane, mapping, do_promote, NULL));
}
