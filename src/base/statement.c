/*
 * statement.c
 *		Hides statements that carry a secret from log and pg_stat_activity.
 *
 * A statement is hidden for either of three reasons.  By its text, when it
 * names a function that takes a secret: known as soon as there is something
 * to log, so that lines before and after the run (log_statement, durations,
 * parameters) are covered.  Because it executes a statement that was prepared
 * with such a text.  Or because such a function ran in it, whatever the text.
 * The latter two are known by the address of the text and the time its message
 * came, which are the same to the line with its duration and differ in the next.
 *
 * The hook on the log then drops the STATEMENT, QUERY and CONTEXT lines, and cuts
 * text and parameters from lines that show the statement itself.
 *
 * pg_stat_activity shows a text before anybody knows what it says.  It is taken
 * away once it was analyzed, or as it is executed where it was before; where it
 * could not even be analyzed, as it is rolled back.
 *
 * Every statement pays for this, so a text is read once a message, and one that
 * is executed without having been analyzed by the same message, which was
 * prepared, only compared with what was read at its address before: another
 * may be there by now.  Copies of such texts are kept (in TopMemoryContext, the
 * plan's own copy is there as well), but for those with a literal beside a
 * function that takes a secret.
 *
 * What cannot be hidden is in docs/security.md.
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>

#include "base/base.h"
#include "base/internal.h"
#include "commands/prepare.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "parser/analyze.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/memutils.h"

#define HIDDEN_TEXT "<hidden by plinth>"
#define MAX_FUNCTIONS 64
#define KNOWN_TEXTS 128
#define KNOWN_TEXT_MAX 4096

static const char *functions[MAX_FUNCTIONS];
static uint8 length_of[MAX_FUNCTIONS];
static int nfunctions = 0;

static const char *hidden_statement = NULL;
static TimestampTz hidden_at = 0;

/* What was found in the text that the client sent, which may hold very many statements. */
static const char *read_statement = NULL;
static TimestampTz read_at = 0;
static bool read_names_function = false;

/* What was prepared and is executed again and again, by its address. */
typedef struct KnownText
{
	char *text;
	bool names_function;
} KnownText;
static KnownText known_texts[KNOWN_TEXTS];

/* Nearly no word has a function's beginning and length. */
static uint64 lengths_of[UCHAR_MAX + 1]; /* by the first character: bit n for a name of n bytes */
static bool is_word_char[UCHAR_MAX + 1];

static emit_log_hook_type prev_emit_log_hook = NULL;
static post_parse_analyze_hook_type prev_post_parse_analyze = NULL;
static ExecutorStart_hook_type prev_executor_start = NULL;
static ExecutorRun_hook_type prev_executor_run = NULL;

void
plinth_base_secret_function(const char *name)
{
	if (nfunctions >= MAX_FUNCTIONS)
		elog(FATAL, "too many functions that take a secret");
	Assert(strlen(name) < NAMEDATALEN);
	length_of[nfunctions] = (uint8) strlen(name);
	functions[nfunctions++] = name;
	lengths_of[(unsigned char) name[0]] |= UINT64CONST(1) << strlen(name);
	lengths_of[pg_toupper((unsigned char) name[0])] |= UINT64CONST(1) << strlen(name);
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
is_function(const char *word, size_t len)
{
	if (len >= NAMEDATALEN || (lengths_of[(unsigned char) *word] >> len & 1) == 0)
		return false;
	for (int i = 0; i < nfunctions; i++)
	{
		if (length_of[i] == len && pg_strncasecmp(word, functions[i], len) == 0)
			return true;
	}
	return false;
}

/* Each word, and where a dot is before it, the two together: "request.headers" is asked for. */
static bool
names_any_function(const char *text)
{
	const unsigned char *p = (const unsigned char *) text;
	const unsigned char *qualified = NULL;

	while (p != NULL && *p != '\0')
	{
		const unsigned char *word = p;

		while (is_word_char[*p])
			p++;
		if (p > word &&
			(is_function((const char *) word, p - word) ||
			 (qualified != NULL && is_function((const char *) qualified, p - qualified))))
			return true;
		qualified = p > word && *p == '.' ? word : NULL;
		if (*p != '\0')
			p++;
	}
	return false;
}

static bool
has_literal(const char *text)
{
	for (; *text != '\0'; text++)
	{
		/* '...' of any kind; $$...$$ and $name$...$name$, not $1. */
		if (*text == '\'' || (*text == '$' && !isdigit((unsigned char) text[1])))
			return true;
	}
	return false;
}

/* As names_any_function, of a text that was prepared. */
static bool
prepared_names_function(const char *text)
{
	KnownText *known = &known_texts[murmurhash32((uint32) ((uintptr_t) text >> 4)) % KNOWN_TEXTS];
	bool found;

	if (known->text != NULL && strcmp(known->text, text) == 0)
		return known->names_function;
	found = names_any_function(text);
	if (strnlen(text, KNOWN_TEXT_MAX) < KNOWN_TEXT_MAX && !(found && has_literal(text)))
	{
		char *copy = MemoryContextStrdup(TopMemoryContext, text);

		if (known->text != NULL)
			pfree(known->text);
		known->text = copy;
		known->names_function = found;
	}
	return found;
}

/*
 * Does what the client sent name one?  It is read once, however often this is
 * asked.  executed: and may be kept, if nobody has asked before.
 */
static bool
statement_names_function(bool executed)
{
	TimestampTz started = GetCurrentStatementStartTimestamp();

	if (debug_query_string == NULL)
		return false;
	if (read_statement != debug_query_string || read_at != started)
	{
		read_names_function = executed ? prepared_names_function(debug_query_string)
									   : names_any_function(debug_query_string);
		read_statement = debug_query_string;
		read_at = started;
	}
	return read_names_function;
}

static bool
is_hidden(const ErrorData *edata)
{
	if (debug_query_string != NULL && hidden_statement == debug_query_string &&
		hidden_at == GetCurrentStatementStartTimestamp())
		return true;
	if (statement_names_function(false))
		return true;
	/* A function's own statement, which failed: with what it was called is in the client's. */
	if (names_any_function(edata->internalquery) || names_any_function(edata->context))
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
		/* The log shows it whatever is hidden, so the client does not get it either. */
		edata->internalquery = NULL;
		edata->internalpos = 0;
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

/* The statement that a utility executes, as it was prepared; or NULL. */
static const char *
prepared_text(Node *utility)
{
	PreparedStatement *prepared;

	while (utility != NULL && (IsA(utility, ExplainStmt) || IsA(utility, CreateTableAsStmt)))
	{
		Node *query = IsA(utility, ExplainStmt) ? ((ExplainStmt *) utility)->query
												: ((CreateTableAsStmt *) utility)->query;

		utility = IsA(query, Query) ? ((Query *) query)->utilityStmt : NULL;
	}
	if (utility == NULL || !IsA(utility, ExecuteStmt))
		return NULL;
	prepared = FetchPreparedStatement(((ExecuteStmt *) utility)->name, false);
	return prepared ? prepared->plansource->query_string : NULL;
}

/* Of what functions run, only an EXECUTE: else what the client sent says it, or nothing does. */
static void
hide_analyzed(ParseState *pstate, Query *query, JumbleState *jstate)
{
	if (prev_post_parse_analyze)
		prev_post_parse_analyze(pstate, query, jstate);
	if ((pstate->p_sourcetext == debug_query_string && statement_names_function(false)) ||
		names_any_function(prepared_text(query->utilityStmt)))
		plinth_base_hide_statement();
}

void
plinth_base_statement_rolled_back(void)
{
	if (MyBEEntry != NULL && names_any_function(MyBEEntry->st_activity_raw))
		pgstat_report_activity(STATE_RUNNING, HIDDEN_TEXT);
}

/*
 * pg_stat_activity shows the text anew where nothing is analyzed: in a parallel
 * worker, and when what was prepared by the protocol is bound and executed.
 */
static void
hide_started(QueryDesc *query, int eflags)
{
	if (statement_names_function(true))
		plinth_base_hide_statement();
	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
}

static void
hide_run(PLINTH_EXECUTOR_RUN_PARAMETERS)
{
	if (statement_names_function(true))
		plinth_base_hide_statement();
	if (prev_executor_run)
		prev_executor_run(PLINTH_EXECUTOR_RUN_ARGUMENTS);
	else
		standard_ExecutorRun(PLINTH_EXECUTOR_RUN_ARGUMENTS);
}

void
plinth_base_statement_init(void)
{
	for (int c = 1; c <= UCHAR_MAX; c++)
		is_word_char[c] = isalnum(c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = hide_in_log;
	prev_post_parse_analyze = post_parse_analyze_hook;
	post_parse_analyze_hook = hide_analyzed;
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = hide_started;
	prev_executor_run = ExecutorRun_hook;
	ExecutorRun_hook = hide_run;
}
