/*
 * settings.c
 *		Text that does not depend on the session that makes it.
 *
 * Output functions of dates, intervals, floats, bytea and names read settings
 * that anyone may change; what goes to MongoDB must be the same from every
 * session, or a key would get a second _id.  A worker that runs with these
 * values anyway pays only for the comparison.  lc_monetary is not pinned: it
 * is what a money value means.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "mongo/bson_int.h"
#include "pgtime.h"
#include "utils/bytea.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/guc.h"

static bool
is_pinned(void)
{
	return DateStyle == USE_ISO_DATES && DateOrder == DATEORDER_YMD &&
		   IntervalStyle == INTSTYLE_POSTGRES && extra_float_digits == 1 &&
		   bytea_output == BYTEA_OUTPUT_HEX &&
		   strcmp(pg_get_timezone_name(session_timezone), "UTC") == 0 &&
		   strcmp(namespace_search_path, "pg_catalog") == 0;
}

static void
pin(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

int
plinth_mongo_settings_pin(void)
{
	int nestlevel;

	if (is_pinned())
		return -1;
	nestlevel = NewGUCNestLevel();
	pin("datestyle", "ISO, YMD");
	pin("intervalstyle", "postgres");
	pin("extra_float_digits", "1");
	pin("bytea_output", "hex");
	pin("timezone", "UTC");
	pin("search_path", "pg_catalog");
	return nestlevel;
}

void
plinth_mongo_settings_unpin(int nestlevel)
{
	if (nestlevel >= 0)
		AtEOXact_GUC(true, nestlevel);
}
