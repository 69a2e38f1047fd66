/*
 * statement.c
 *		Hides statements that carry a secret from log and pg_stat_activity.
 *
 * A statement is hidden for either of two reasons.  By its text, when it
 * names a function that takes a secret: known as soon as there is something
 * to log, so that lines before and after the run (log_statement, durations,
 * parameters) are covered.  Or because such a function ran in it, whatever
 * the text: known by the address of the text and the time its message came,
 * which are the same to the line with its duration and differ in the next.
 *
 * The hook on the log then drops the STATEMENT and CONTEXT lines, and cuts
 * text and parameters from lines that show the statement itself.
 *
 * What cannot be hidden is in docs/security.md.
 */
#include "postgres.h"

#include <ctype.h>

#include "base/base.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"

#define HIDDEN_TEXT "<hidden by plinth>"
#define MAX_FUNCTIONS 64

static const char *functions[MAX_FUNCTIONS];
static int nfunctions = 0;

static const char *hidden_statement = NULL;
static TimestampTz hidden_at = 0;

static emit_log_hook_type prev_emit_log_hook = NULL;

void
plinth_base_secret_function(const char *name)
{
	if (nfunctions >= MAX_FUNCTIONS)
		elog(FATAL, "too many functions that take a secret");
	functions[nfunctions++] = name;
}

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

static bool
is_word_char(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

static bool
names_function(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = text; *p != '\0'; p++)
	{
		if (pg_strncasecmp(p, name, len) == 0 && (p == text || !is_word_char(p[-1])) &&
			!is_word_char(p[len]))
			return true;
	}
	return false;
}

static bool
names_any_function(const char *text)
{
	for (int i = 0; text != NULL && i < nfunctions; i++)
	{
		if (names_function(text, functions[i]))
			return true;
	}
	return false;
}

static bool
is_hidden(const ErrorData *edata)
{
	if (debug_query_string != NULL && hidden_statement == debug_query_string &&
		hidden_at == GetCurrentStatementStartTimestamp())
		return true;
	if (names_any_function(debug_query_string))
		return true;
	/* EXECUTE shows what was prepared; what ends at COMMIT (a cursor) shows what opened it. */
	return edata->elevel == LOG &&
		   (names_any_function(edata->detail) || names_any_function(edata->message));
}

static bool
starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

static void
hide_in_log(ErrorData *edata)
{
	if (is_hidden(edata))
	{
		char *cut = NULL;

		edata->hide_stmt = true;
		edata->hide_ctx = true;
		if (edata->message != NULL && edata->message_id != NULL)
		{
			/* "duration: 1.234 ms  statement: ...", "statement: ...", "execute <unnamed>: ..." */
			bool duration = starts_with(edata->message_id, "duration: ");

			if (duration)
				cut = strstr(edata->message, " ms");
			if (cut == NULL && (duration || starts_with(edata->message_id, "statement: ") ||
								strcmp(edata->message_id, "%s %s%s%s: %s") == 0))
				cut = strchr(edata->message, ':');
		}
		if (cut != NULL)
			cut[*cut == ':' ? 1 : strlen(" ms")] = '\0';

		/* Parameters, or a tree of the query. */
		if (edata->elevel == LOG)
		{
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
