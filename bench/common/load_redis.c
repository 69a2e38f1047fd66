/*
 * load_redis.c
 *		Steps of load.c that ask Redis: redis unix:PATH|tcp:PORT WORD... [& WORD...]...
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

static void
connect_redis(LoadStep *step)
{
	redisContext *context = load_shared_connection(step);

	if (context != NULL)
	{
		step->connection = context;
		return;
	}
	if (strncmp(step->target, "unix:", 5) == 0)
		context = redisConnectUnix(step->target + 5);
	else if (strncmp(step->target, "tcp:", 4) == 0)
		context = redisConnect("127.0.0.1", atoi(step->target + 4));
	else
		load_fail("\"%s\" is neither unix:PATH nor tcp:PORT", step->target);
	if (context == NULL || context->err)
		load_fail("redis: %s", context ? context->errstr : "no memory");
	step->connection = context;
}

static void
run_redis(const LoadStep *step, const LoadKey *key)
{
	redisContext *context = step->connection;

	for (int i = 0; i < step->ncommands; i++)
	{
		const LoadCommand *command = &step->commands[i];
		const char *words[LOAD_MAX_WORDS];
		char filled[LOAD_MAX_WORDS][LOAD_MAX_FIELD + 64];

		for (int j = 0; j < command->nwords; j++)
			words[j] = load_fill_word(command->words[j], key, filled[j], sizeof(filled[j]));
		if (redisAppendCommandArgv(context, command->nwords, words, NULL) != REDIS_OK)
			load_fail("redis: %s", context->errstr);
	}
	/* The first reply would send them by itself, but after the wait. */
	for (int done = 0; load_is_delayed() && !done;)
	{
		if (redisBufferWrite(context, &done) != REDIS_OK)
			load_fail("redis: %s", context->errstr);
	}
	load_wait_network();
	for (int i = 0; i < step->ncommands; i++)
	{
		void *answer = NULL;
		redisReply *reply;

		if (redisGetReply(context, &answer) != REDIS_OK)
			load_fail("redis: %s", context->errstr);
		reply = answer;
		if (reply->type == REDIS_REPLY_ERROR)
			load_fail("redis: %s", reply->str);
		if (reply->type == REDIS_REPLY_NIL ||
			(reply->type == REDIS_REPLY_ARRAY && reply->elements == 0))
			load_fail("nothing came of %s for %s", step->commands[i].words[0], key->fields[0]);
		freeReplyObject(reply);
	}
}

const LoadKind load_redis = {.name = "redis", .connect = connect_redis, .run = run_redis};
