/*
 * check_filter.c
 *		What a filter may be: one boolean expression over the row's own columns.
 *
 * A document depends on its row alone: see base/expression.c for what that
 * means.  What is kept is the deparsed form: every name qualified and every
 * literal in a form that no DateStyle or TimeZone changes.
 */
#include "postgres.h"

#include "base/base.h"
#include "catalog/pg_type.h"
#include "sync/check.h"
#include "utils/rel.h"

char *
plinth_sync_check_filter(Relation rel, const char *filter)
{
	PlinthExpression expression = {
		.what = "filter",
		.text = filter,
		.example = "Write what would stand after WHERE, such as: status = 'published'",
		.type = BOOLOID,
	};

	return plinth_base_expression_deparse(rel, plinth_base_expression_parse(rel, &expression));
}
