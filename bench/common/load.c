/*
 * load.c
 *		A closed loop of requests from several clients, each a process with
 *		connections of its own: to PostgreSQL by prepared statements (libpq), to
 *		Redis by hiredis.  Both sides of a comparison pay for the same client.
 *
 * load CLIENTS SECONDS KEYS STEP [+ STEP]...
 *
 * A STEP is one of
 *		pg CONNINFO SQL [& SQL]...
 *		redis unix:PATH|tcp:PORT WORD... [& WORD...]...
 * and one round trip: what stands between "&" is pipelined (with PostgreSQL as
 * one transaction).
 *
 * One request is all of the steps, one after the other, with one key.  A key
 * is one of "k0" to "k<KEYS - 1>", or, where KEYS is @FILE, a line of that file
 * with its fields separated by tabs; drawn at random.  $1, $2, ... in an SQL
 * are its fields, which it gets as parameters as far as it names them; %k, or %1, %2, ... in a word of Redis too (one in a word).
 *
 * LOAD_DELAY, in microseconds, is what a network would add to each round trip:
 * the client sleeps that long before it looks for an answer.
 *
 * Prints requests a second, and the median, the 95th and the 99th percentile
 * of their times in microseconds.  Any error, an empty result and a nil answer
 * end it with a message and code 1.
 */
#define _GNU_SOURCE
#include <hiredis/hiredis.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS 8
#define MAX_COMMANDS 4
#define MAX_WORDS 24
#define MAX_FIELDS 4
#define MAX_FIELD 512
#define MAX_CLIENTS 64
/* Times are counted in buckets of 2 % each. */
#define BUCKETS 1024
#define GROWTH 1.02

typedef struct Command
{
	const char *words[MAX_WORDS]; /* of PostgreSQL the SQL alone */
	int nwords;
	int nparams; /* PostgreSQL: which fields it takes */
	int params[MAX_FIELDS];
	char name[16];
} Command;

typedef struct Step
{
	const char *target; /* "unix:..." or "tcp:...", or the conninfo */
	bool redis;
	Command commands[MAX_COMMANDS];
	int ncommands;
	PGconn *pg;
	redisContext *context;
} Step;

typedef struct Key
{
	const char *fields[MAX_FIELDS];
	int nfields;
} Key;

typedef struct Client
{
	uint64_t requests;
	uint64_t times[BUCKETS];
} Client;

typedef struct Shared
{
	volatile int ready;
	volatile int start;
	volatile int stop;
	Client clients[MAX_CLIENTS];
} Shared;

static Step steps[MAX_STEPS];
static int nsteps = 0;
static Key *keys;
static int nkeys = 0;
static long delay = 0;
static Shared *shared;
/* Buckets' upper ends, in microseconds. */
static double bounds[BUCKETS];

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static char *
copy(const char *text)
{
	char *copied = strdup(text);

	if (copied == NULL)
		fail("no memory");
	return copied;
}

static void
add_key(const char *line)
{
	Key *key;
	char *rest = copy(line);
	char *field;

	keys = realloc(keys, sizeof(Key) * (nkeys + 1));
	if (keys == NULL)
		fail("no memory");
	key = &keys[nkeys++];
	key->nfields = 0;
	while ((field = strsep(&rest, "\t")) != NULL)
	{
		if (key->nfields == MAX_FIELDS || strlen(field) >= MAX_FIELD)
			fail("a key has at most %d fields of %d bytes", MAX_FIELDS, MAX_FIELD);
		key->fields[key->nfields++] = field;
	}
}

static void
read_keys(const char *what)
{
	char line[MAX_FIELDS * MAX_FIELD];
	FILE *file;

	if (what[0] != '@')
	{
		for (int i = 0; i < atoi(what); i++)
		{
			snprintf(line, sizeof(line), "k%d", i);
			add_key(line);
		}
		return;
	}
	file = fopen(what + 1, "r");
	if (file == NULL)
		fail("cannot read %s", what + 1);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		line[strcspn(line, "\n")] = '\0';
		add_key(line);
	}
	fclose(file);
}

static void
parse_command(Command *command, int argc, char **argv, int *at)
{
	while (*at + 1 < argc && strcmp(argv[*at + 1], "+") != 0 && strcmp(argv[*at + 1], "&") != 0)
	{
		if (command->nwords == MAX_WORDS)
			fail("too many words");
		command->words[command->nwords++] = argv[++*at];
	}
	if (command->nwords == 0)
		fail("a command is empty");
}

/* Numbers the parameters of an SQL by those fields that it names. */
static void
number_parameters(Command *command)
{
	char *sql = copy(command->words[0]);

	for (char *at = sql; (at = strchr(at, '$')) != NULL; at++)
	{
		int field = at[1] - '1';
		int place = 0;

		if (field < 0 || field >= MAX_FIELDS)
			continue;
		while (place < command->nparams && command->params[place] != field)
			place++;
		if (place == command->nparams)
			command->params[command->nparams++] = field;
		at[1] = '1' + place;
	}
	command->words[0] = sql;
}

static void
parse_steps(int argc, char **argv)
{
	for (int i = 4; i < argc; i++)
	{
		Step *step = &steps[nsteps];

		if (nsteps++ == MAX_STEPS || i + 2 >= argc)
			fail("a step has a kind, a target and words, and there are at most %d", MAX_STEPS);
		step->redis = strcmp(argv[i], "redis") == 0;
		if (!step->redis && strcmp(argv[i], "pg") != 0)
			fail("\"%s\" is neither pg nor redis", argv[i]);
		step->target = argv[++i];
		do
		{
			if (step->ncommands == MAX_COMMANDS)
				fail("too many commands in a step");
			parse_command(&step->commands[step->ncommands], argc, argv, &i);
			if (!step->redis)
				number_parameters(&step->commands[step->ncommands]);
			step->ncommands++;
			i++;
		} while (i < argc && strcmp(argv[i], "&") == 0);
	}
}

static void
connect_pg(Step *step, int number)
{
	step->pg = PQconnectdb(step->target);
	if (PQstatus(step->pg) != CONNECTION_OK)
		fail("%s", PQerrorMessage(step->pg));
	for (int i = 0; i < step->ncommands; i++)
	{
		Command *command = &step->commands[i];
		PGresult *result;

		snprintf(command->name, sizeof(command->name), "s%d_%d", number, i);
		result = PQprepare(step->pg, command->name, command->words[0], command->nparams, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			fail("%s", PQerrorMessage(step->pg));
		PQclear(result);
	}
	if (step->ncommands > 1 && !PQenterPipelineMode(step->pg))
		fail("%s", PQerrorMessage(step->pg));
}

static void
connect_redis(Step *step)
{
	if (strncmp(step->target, "unix:", 5) == 0)
		step->context = redisConnectUnix(step->target + 5);
	else if (strncmp(step->target, "tcp:", 4) == 0)
		step->context = redisConnect("127.0.0.1", atoi(step->target + 4));
	else
		fail("\"%s\" is neither unix:PATH nor tcp:PORT", step->target);
	if (step->context == NULL || step->context->err)
		fail("redis: %s", step->context ? step->context->errstr : "no memory");
}

/* Each target is connected to once; steps with the same one share it. */
static void
connect_steps(void)
{
	for (int i = 0; i < nsteps; i++)
	{
		Step *step = &steps[i];

		if (!step->redis)
		{
			connect_pg(step, i);
			continue;
		}
		for (int j = 0; j < i && step->context == NULL; j++)
		{
			if (steps[j].redis && strcmp(steps[j].target, step->target) == 0)
				step->context = steps[j].context;
		}
		if (step->context == NULL)
			connect_redis(step);
	}
}

static void
wait_network(void)
{
	struct timespec t = {.tv_nsec = delay * 1000};

	if (delay > 0)
		nanosleep(&t, NULL);
}

static void
check_result(const Step *step, const Command *command, const Key *key, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		fail("%s", PQerrorMessage(step->pg));
	if (status == PGRES_TUPLES_OK && (PQntuples(result) == 0 || PQgetisnull(result, 0, 0)))
		fail("nothing came of \"%s\" for %s", command->words[0], key->fields[0]);
	PQclear(result);
}

static void
run_pg(const Step *step, const Key *key)
{
	for (int i = 0; i < step->ncommands; i++)
	{
		const Command *command = &step->commands[i];
		const char *values[MAX_FIELDS];

		for (int j = 0; j < command->nparams; j++)
		{
			if (command->params[j] >= key->nfields)
				fail("\"%s\" names no field of a key", command->words[0]);
			values[j] = key->fields[command->params[j]];
		}
		if (!PQsendQueryPrepared(step->pg, command->name, command->nparams, values, NULL, NULL, 0))
			fail("%s", PQerrorMessage(step->pg));
	}
	if (step->ncommands > 1 && !PQpipelineSync(step->pg))
		fail("%s", PQerrorMessage(step->pg));
	wait_network();
	for (int i = 0; i < step->ncommands; i++)
	{
		check_result(step, &step->commands[i], key, PQgetResult(step->pg));
		if (PQgetResult(step->pg) != NULL)
			fail("\"%s\" has two results", step->commands[i].words[0]);
	}
	if (step->ncommands > 1)
	{
		PGresult *result = PQgetResult(step->pg);

		if (PQresultStatus(result) != PGRES_PIPELINE_SYNC)
			fail("%s", PQerrorMessage(step->pg));
		PQclear(result);
	}
}

/* A word with what it names of the key, in place of its mark. */
static const char *
fill_word(const char *word, const Key *key, char *filled, size_t size)
{
	const char *mark = strchr(word, '%');
	int field;

	if (mark == NULL)
		return word;
	field = mark[1] == 'k' ? 0 : mark[1] - '1';
	if (field < 0 || field >= key->nfields)
		fail("\"%s\" names no field of a key", word);
	snprintf(filled, size, "%.*s%s%s", (int) (mark - word), word, key->fields[field], mark + 2);
	return filled;
}

static void
run_redis(const Step *step, const Key *key)
{
	for (int i = 0; i < step->ncommands; i++)
	{
		const Command *command = &step->commands[i];
		const char *words[MAX_WORDS];
		char filled[MAX_WORDS][MAX_FIELD + 64];

		for (int j = 0; j < command->nwords; j++)
			words[j] = fill_word(command->words[j], key, filled[j], sizeof(filled[j]));
		if (redisAppendCommandArgv(step->context, command->nwords, words, NULL) != REDIS_OK)
			fail("redis: %s", step->context->errstr);
	}
	/* The first reply would send them by itself, but after the wait. */
	for (int done = 0; delay > 0 && !done;)
	{
		if (redisBufferWrite(step->context, &done) != REDIS_OK)
			fail("redis: %s", step->context->errstr);
	}
	wait_network();
	for (int i = 0; i < step->ncommands; i++)
	{
		void *answer = NULL;
		redisReply *reply;

		if (redisGetReply(step->context, &answer) != REDIS_OK)
			fail("redis: %s", step->context->errstr);
		reply = answer;
		if (reply->type == REDIS_REPLY_ERROR)
			fail("redis: %s", reply->str);
		if (reply->type == REDIS_REPLY_NIL ||
			(reply->type == REDIS_REPLY_ARRAY && reply->elements == 0))
			fail("nothing came of %s for %s", step->commands[i].words[0], key->fields[0]);
		freeReplyObject(reply);
	}
}

static void
count_time(Client *client, double microseconds)
{
	int low = 0;
	int high = BUCKETS - 1;

	while (low < high)
	{
		int middle = (low + high) / 2;

		if (bounds[middle] < microseconds)
			low = middle + 1;
		else
			high = middle;
	}
	client->times[low]++;
	client->requests++;
}

static void
run_client(int number)
{
	Client *client = &shared->clients[number];
	unsigned int seed = 12345 + number;

	connect_steps();
	__sync_fetch_and_add(&shared->ready, 1);
	while (!shared->start)
		usleep(100);
	while (!shared->stop)
	{
		const Key *key = &keys[rand_r(&seed) % nkeys];
		double begin = now();

		for (int i = 0; i < nsteps; i++)
		{
			if (steps[i].redis)
				run_redis(&steps[i], key);
			else
				run_pg(&steps[i], key);
		}
		count_time(client, (now() - begin) * 1e6);
	}
	exit(0);
}

static double
percentile(const uint64_t *times, uint64_t total, double share)
{
	uint64_t seen = 0;

	for (int i = 0; i < BUCKETS; i++)
	{
		seen += times[i];
		if (seen >= total * share)
			return bounds[i];
	}
	return bounds[BUCKETS - 1];
}

/* Waits for all clients to be connected; one that failed has said why. */
static void
wait_ready(int clients)
{
	while (shared->ready < clients)
	{
		int status;

		if (waitpid(-1, &status, WNOHANG) > 0)
		{
			kill(0, SIGTERM);
			exit(1);
		}
		usleep(1000);
	}
}

static void
report(int clients, double seconds)
{
	static uint64_t times[BUCKETS];
	uint64_t total = 0;

	for (int i = 0; i < clients; i++)
	{
		total += shared->clients[i].requests;
		for (int j = 0; j < BUCKETS; j++)
			times[j] += shared->clients[i].times[j];
	}
	printf("%.1f %.1f %.1f %.1f\n", total / seconds, percentile(times, total, 0.5),
		   percentile(times, total, 0.95), percentile(times, total, 0.99));
}

int
main(int argc, char **argv)
{
	int clients = argc > 3 ? atoi(argv[1]) : 0;
	double seconds = argc > 3 ? atof(argv[2]) : 0;
	double begin;
	bool failed = false;

	if (argc < 7 || clients < 1 || clients > MAX_CLIENTS || seconds <= 0)
		fail("usage: load CLIENTS SECONDS KEYS STEP [+ STEP]...");
	parse_steps(argc, argv);
	read_keys(argv[3]);
	if (nkeys < 1)
		fail("there are no keys");
	delay = getenv("LOAD_DELAY") != NULL ? atol(getenv("LOAD_DELAY")) : 0;
	/* Or a sleep would last 50 us longer. */
	prctl(PR_SET_TIMERSLACK, 1);
	bounds[0] = 1;
	for (int i = 1; i < BUCKETS; i++)
		bounds[i] = bounds[i - 1] * GROWTH;
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("no memory");
	setpgid(0, 0);
	for (int i = 0; i < clients; i++)
	{
		pid_t pid = fork();

		if (pid < 0)
			fail("cannot fork");
		if (pid == 0)
			run_client(i);
	}
	wait_ready(clients);
	begin = now();
	shared->start = 1;
	usleep(seconds * 1e6);
	shared->stop = 1;
	seconds = now() - begin;
	for (int i = 0; i < clients; i++)
	{
		int status;

		wait(&status);
		failed |= status != 0;
	}
	if (failed)
		return 1;
	report(clients, seconds);
	return 0;
}
