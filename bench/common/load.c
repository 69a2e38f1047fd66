/*
 * load.c
 *		A closed loop of requests from several clients, each a process with
 *		connections of its own: to PostgreSQL by prepared statements (libpq), to
 *		Redis by hiredis.  Both sides of a comparison pay for the same client.
 *
 * load CLIENTS SECONDS KEYS STEP [+ STEP]...
 *
 * A STEP is one of
 *		pg CONNINFO SQL						$1, if there is one, is a key
 *		redis unix:PATH|tcp:PORT WORD...	%k in a word is replaced by a key
 *
 * One request is all of the steps, one after the other, with one key: "k0" to
 * "k<KEYS - 1>", drawn at random.  Prints requests a second, and the median,
 * the 95th and the 99th percentile of their times in microseconds.  Any
 * error, an empty result and a nil answer end it with a message and code 1.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_STEPS 8
#define MAX_WORDS 16
#define MAX_CLIENTS 64
/* Times are counted in buckets of 2 % each. */
#define BUCKETS 1024
#define GROWTH 1.02

typedef struct Step
{
	const char *target; /* "unix:..." or "tcp:...", or the conninfo */
	bool redis;
	const char *words[MAX_WORDS]; /* a command; of PostgreSQL the SQL alone */
	int nwords;
	bool keyed; /* PostgreSQL: the statement has a parameter */
	PGconn *pg;
	redisContext *context;
} Step;

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
		while (i + 1 < argc && strcmp(argv[i + 1], "+") != 0)
		{
			if (step->nwords == MAX_WORDS)
				fail("too many words");
			step->words[step->nwords++] = argv[++i];
		}
		step->keyed = !step->redis && strstr(step->words[0], "$1") != NULL;
		i++;
	}
}

static void
connect_pg(Step *step, int number)
{
	char name[16];
	PGresult *result;

	step->pg = PQconnectdb(step->target);
	if (PQstatus(step->pg) != CONNECTION_OK)
		fail("%s", PQerrorMessage(step->pg));
	snprintf(name, sizeof(name), "s%d", number);
	result = PQprepare(step->pg, name, step->words[0], step->keyed ? 1 : 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		fail("%s", PQerrorMessage(step->pg));
	PQclear(result);
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
run_pg(const Step *step, int number, const char *key)
{
	char name[16];
	const char *values[1] = {key};
	PGresult *result;

	snprintf(name, sizeof(name), "s%d", number);
	result = PQexecPrepared(step->pg, name, step->keyed ? 1 : 0, values, NULL, NULL, 0);
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		fail("%s", PQerrorMessage(step->pg));
	if (PQntuples(result) == 0 || PQgetisnull(result, 0, 0))
		fail("nothing came of \"%s\" for %s", step->words[0], key);
	PQclear(result);
}

static void
run_redis(const Step *step, const char *key)
{
	const char *words[MAX_WORDS];
	char replaced[MAX_WORDS][128];
	redisReply *reply;

	for (int i = 0; i < step->nwords; i++)
	{
		const char *mark = strstr(step->words[i], "%k");

		words[i] = step->words[i];
		if (mark != NULL)
		{
			snprintf(replaced[i], sizeof(replaced[i]), "%.*s%s%s", (int) (mark - step->words[i]),
					 step->words[i], key, mark + 2);
			words[i] = replaced[i];
		}
	}
	reply = redisCommandArgv(step->context, step->nwords, words, NULL);
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR)
		fail("redis: %s", reply ? reply->str : step->context->errstr);
	if (reply->type == REDIS_REPLY_NIL ||
		(reply->type == REDIS_REPLY_ARRAY && reply->elements == 0))
		fail("nothing came of %s for %s", step->words[0], key);
	freeReplyObject(reply);
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
run_client(int number, int keys)
{
	Client *client = &shared->clients[number];
	unsigned int seed = 12345 + number;

	connect_steps();
	__sync_fetch_and_add(&shared->ready, 1);
	while (!shared->start)
		usleep(100);
	while (!shared->stop)
	{
		char key[16];
		double begin = now();

		snprintf(key, sizeof(key), "k%d", rand_r(&seed) % keys);
		for (int i = 0; i < nsteps; i++)
		{
			if (steps[i].redis)
				run_redis(&steps[i], key);
			else
				run_pg(&steps[i], i, key);
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
	int keys = argc > 3 ? atoi(argv[3]) : 0;
	double begin;
	bool failed = false;

	if (argc < 7 || clients < 1 || clients > MAX_CLIENTS || seconds <= 0 || keys < 1)
		fail("usage: load CLIENTS SECONDS KEYS STEP [+ STEP]...");
	parse_steps(argc, argv);
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
			run_client(i, keys);
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
