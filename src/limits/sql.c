/*
 * sql.c
 *		The SQL functions of rate limits.
 *
 * Hot: the row type is looked up once in a backend (base's row.c).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/base.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "limits/check.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "limits/table.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PGDLLEXPORT Datum plinth_limits_check_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_check_sql);
PGDLLEXPORT Datum plinth_limits_allow_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_allow_sql);
PGDLLEXPORT Datum plinth_limits_check_all_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_check_all_sql);
PGDLLEXPORT Datum plinth_limits_check_adhoc_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_check_adhoc_sql);
PGDLLEXPORT Datum plinth_limits_require_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_require_sql);
PGDLLEXPORT Datum plinth_limits_reset_sql(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_reset_sql);

PGDLLEXPORT Datum plinth_limits_valid(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(plinth_limits_valid);

#define DECISION_COLUMNS 5

static void
refuse_null(FunctionCallInfo fcinfo, int argument, const char *name)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be NULL", name)));
}

/* Columns of a decision from the first on; intervals go into what the caller has for them. */
static void
put_decision(const PlinthLimitDecision *decision, Datum *values, bool *nulls, Interval times[2])
{
	memset(times, 0, 2 * sizeof(Interval));
	times[0].time = decision->retry_after;
	times[1].time = decision->reset_after;
	values[0] = Int64GetDatum(decision->limit_count);
	values[1] = Int64GetDatum(decision->remaining);
	values[2] = IntervalPGetDatum(&times[0]);
	nulls[2] = decision->retry_after < 0;
	values[3] = IntervalPGetDatum(&times[1]);
}

static Datum
decision_row(FunctionCallInfo fcinfo, const PlinthLimitDecision *decision, PlinthRow *kept)
{
	Datum values[DECISION_COLUMNS];
	bool nulls[DECISION_COLUMNS] = {0};
	Interval times[2];

	values[0] = BoolGetDatum(decision->allowed);
	put_decision(decision, values + 1, nulls + 1, times);
	return HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, kept), values, nulls));
}

/* A decision by the arguments (policy, key, cost). */
static PlinthLimitDecision
decide_by_arguments(FunctionCallInfo fcinfo)
{
	text *policy;
	text *key;

	refuse_null(fcinfo, 0, "policy");
	refuse_null(fcinfo, 2, "cost");
	policy = PG_GETARG_TEXT_PP(0);
	key = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	return plinth_limits_decide(VARDATA_ANY(policy), VARSIZE_ANY_EXHDR(policy),
								key != NULL ? VARDATA_ANY(key) : NULL,
								key != NULL ? VARSIZE_ANY_EXHDR(key) : 0, PG_GETARG_INT64(2));
}

Datum
plinth_limits_check_sql(PG_FUNCTION_ARGS)
{
	static PlinthRow kept;
	PlinthLimitDecision decision = decide_by_arguments(fcinfo);

	PG_RETURN_DATUM(decision_row(fcinfo, &decision, &kept));
}

/* The answer alone: a row is most of what a decision costs a client. */
Datum
plinth_limits_allow_sql(PG_FUNCTION_ARGS)
{
	PlinthLimitDecision decision = decide_by_arguments(fcinfo);

	PG_RETURN_BOOL(decision.allowed);
}

Datum
plinth_limits_require_sql(PG_FUNCTION_ARGS)
{
	PlinthLimitDecision decision = decide_by_arguments(fcinfo);
	char *policy = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (!decision.allowed)
		plinth_limits_raise(429, policy, &decision);
	plinth_limits_respond(policy, &decision);
	PG_RETURN_VOID();
}

Datum
plinth_limits_check_all_sql(PG_FUNCTION_ARGS)
{
	static PlinthRow kept;
	ArrayType *array;
	Datum *elements;
	bool *element_nulls;
	int n;
	text *key;
	PlinthLimitName *names;
	PlinthLimitDecision decision;
	Datum values[DECISION_COLUMNS + 1];
	bool nulls[DECISION_COLUMNS + 1] = {0};
	Interval times[2];

	refuse_null(fcinfo, 0, "policies");
	refuse_null(fcinfo, 2, "cost");
	array = PG_GETARG_ARRAYTYPE_P(0);
	key = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &element_nulls, &n);
	names = palloc(sizeof(PlinthLimitName) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		text *name;

		if (element_nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("policies must not contain NULL")));
		name = DatumGetTextPP(elements[i]);
		names[i].name = VARDATA_ANY(name);
		names[i].len = VARSIZE_ANY_EXHDR(name);
	}
	values[1] = CStringGetTextDatum(plinth_limits_decide_all(
		names, n, key != NULL ? VARDATA_ANY(key) : NULL, key != NULL ? VARSIZE_ANY_EXHDR(key) : 0,
		PG_GETARG_INT64(2), &decision));
	values[0] = BoolGetDatum(decision.allowed);
	put_decision(&decision, values + 2, nulls + 2, times);
	PG_RETURN_DATUM(
		HeapTupleGetDatum(heap_form_tuple(plinth_base_row(fcinfo, &kept), values, nulls)));
}

Datum
plinth_limits_check_adhoc_sql(PG_FUNCTION_ARGS)
{
	static PlinthRow kept;
	PlinthLimitDecision decision;
	text *key;
	int64 limit;

	refuse_null(fcinfo, 0, "key");
	refuse_null(fcinfo, 1, "limit_count");
	refuse_null(fcinfo, 2, "period");
	refuse_null(fcinfo, 4, "cost");
	key = PG_GETARG_TEXT_PP(0);
	limit = PG_GETARG_INT64(1);
	decision = plinth_limits_decide_adhoc(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), limit,
										  plinth_limits_interval(PG_GETARG_INTERVAL_P(2)),
										  PG_ARGISNULL(3) ? limit : PG_GETARG_INT64(3),
										  PG_GETARG_INT64(4));
	PG_RETURN_DATUM(decision_row(fcinfo, &decision, &kept));
}

Datum
plinth_limits_reset_sql(PG_FUNCTION_ARGS)
{
	text *policy;
	text *key;

	refuse_null(fcinfo, 0, "policy");
	policy = PG_GETARG_TEXT_PP(0);
	key = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	PG_RETURN_BOOL(plinth_limits_reset(VARDATA_ANY(policy), VARSIZE_ANY_EXHDR(policy),
									   key != NULL ? VARDATA_ANY(key) : NULL,
									   key != NULL ? VARSIZE_ANY_EXHDR(key) : 0));
}

/* Arguments: algorithm, limit_count, period, burst. */
Datum
plinth_limits_valid(PG_FUNCTION_ARGS)
{
	PlinthRate rate;
	int64 limit;
	int64 period;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	limit = PG_GETARG_INT64(1);
	period = plinth_limits_interval(PG_GETARG_INTERVAL_P(2));
	if (strcmp(text_to_cstring(PG_GETARG_TEXT_PP(0)), "fixed_window") == 0)
		PG_RETURN_BOOL(PG_ARGISNULL(3) && plinth_rate_window(&rate, limit, period));
	PG_RETURN_BOOL(
		plinth_rate_bucket(&rate, limit, period, PG_ARGISNULL(3) ? limit : PG_GETARG_INT64(3)));
}
