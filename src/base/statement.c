/*
 * statement.c
 *		Hides a statement that carries a secret from log and pg_stat_activity.
 *
 * A statement is known by the address of its text and the time its message
 * came: both are the same from its parse to the line with its duration, and
 * differ in the next.  A hook on the log then drops the STATEMENT and CONTEXT
 * lines of whatever is logged while it runs, and the text and parameters in
 * lines about its duration.
 *
 * What a function cannot hide: what was written before it ran
 * (log_statement, pg_stat_activity until then), and what other extensions
 * collect.  docs/security.md says so.
 */
#include "postgres.h"

#include "base/base.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"

#define HIDDEN_TEXT "<hidden by plinth>"

static const char *hidden_statement = NULL;
static TimestampTz hidden_at = 0;

static emit_log_hook_type prev_emit_log_hook = NULL;

void
plinth_base_hide_statement(void)
{
	if (debug_query_string == NULL)
		return;
	if (hidden_statement != debug_query_string || hidden_at != GetCurrentStatementStartTimestamp())
	{
		hidden_statement = debug_query_string;
		hidden_at = GetCurrentStatementStartTimestamp();
		pgstat_report_activity(STATE_RUNNING, HIDDEN_TEXT);
	}
}

static void
hide_in_log(ErrorData *edata)
{
	if (hidden_statement != NULL && hidden_statement == debug_query_string &&
		hidden_at == GetCurrentStatementStartTimestamp())
	{
		edata->hide_stmt = true;
		edata->hide_ctx = true;
		if (edata->message_id != NULL && edata->message != NULL &&
			strncmp(edata->message_id, "duration: ", strlen("duration: ")) == 0)
		{
			/* "duration: 1.234 ms  statement: ..."; the time has no letter but its unit's */
			char *end = strstr(edata->message, " ms");

			if (end != NULL)
				end[strlen(" ms")] = '\0';
			edata->detail = NULL;
			edata->detail_log = NULL;
		}
	}
	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

void
plinth_base_statement_init(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = hide_in_log;
}
