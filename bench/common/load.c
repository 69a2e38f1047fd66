/*
 * load.c
 *		A closed loop of requests from several clients, each a process with
 *		connections of its own: to PostgreSQL by prepared statements (libpq), to
 *		Redis by hiredis, by HTTP (libcurl).  All sides of a comparison pay for
 *		the same client.
 *
 * load CLIENTS SECONDS KEYS STEP [+ STEP]...
 *
 * A STEP is one of
 *		pg CONNINFO SQL [& SQL]...
 *		redis unix:PATH|tcp:PORT WORD... [& WORD...]...
 *		http URL METHOD PATH BODY HEADER...
 * and one round trip: what stands between "&" is pipelined (with PostgreSQL as
 * one transaction).
 *
 * One request is all of the steps, one after the other, with one key.  A key
 * is one of "k0" to "k<KEYS - 1>", or, where KEYS is @FILE, a line of that file
 * with its fields separated by tabs; drawn at random.  $1, $2, ... in an SQL
 * are its fields, which it gets as parameters as far as it names them; %k, or
 * %1, %2, ... in a word of the others too (one in a word).
 *
 * LOAD_DELAY, in microseconds, is what a network would add to each round trip:
 * the client sleeps that long before it looks for an answer.
 *
 * Prints requests a second, and the median, the 95th and the 99th percentile
 * of their times in microseconds.  Any error, an empty result, a nil answer and
 * an HTTP status other than 200 end it with a message and code 1.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define MAX_STEPS 8
#define MAX_CLIENTS 64
/* Times are counted in buckets of 2 % each. */
#define BUCKETS 1024
#define GROWTH 1.02

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

static const LoadKind *const kinds[] = {&load_pg, &load_redis, &load_http};

static LoadStep steps[MAX_STEPS];
static int nsteps = 0;
static LoadKey *keys;
static int nkeys = 0;
static long delay = 0;
static Shared *shared;
/* Buckets' upper ends, in microseconds. */
static double bounds[BUCKETS];

void
load_fail(const char *format, ...)
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

char *
load_copy(const char *text)
{
	char *copied = strdup(text);

	if (copied == NULL)
		load_fail("no memory");
	return copied;
}

static void
add_key(const char *line)
{
	LoadKey *key;
	char *rest = load_copy(line);
	char *field;

	keys = realloc(keys, sizeof(LoadKey) * (nkeys + 1));
	if (keys == NULL)
		load_fail("no memory");
	key = &keys[nkeys++];
	key->nfields = 0;
	while ((field = strsep(&rest, "\t")) != NULL)
	{
		if (key->nfields == LOAD_MAX_FIELDS || strlen(field) >= LOAD_MAX_FIELD)
			load_fail("a key has at most %d fields of %d bytes", LOAD_MAX_FIELDS, LOAD_MAX_FIELD);
		key->fields[key->nfields++] = field;
	}
}

static void
read_keys(const char *what)
{
	char line[LOAD_MAX_FIELDS * LOAD_MAX_FIELD];
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
		load_fail("cannot read %s", what + 1);
	while (fgets(line, sizeof(line), file) != NULL)
	{
		line[strcspn(line, "\n")] = '\0';
		add_key(line);
	}
	fclose(file);
}

static void
parse_command(LoadCommand *command, int argc, char **argv, int *at)
{
	while (*at + 1 < argc && strcmp(argv[*at + 1], "+") != 0 && strcmp(argv[*at + 1], "&") != 0)
	{
		if (command->nwords == LOAD_MAX_WORDS)
			load_fail("too many words");
		command->words[command->nwords++] = argv[++*at];
	}
	if (command->nwords == 0)
		load_fail("a command is empty");
}

static const LoadKind *
find_kind(const char *name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
	{
		if (strcmp(kinds[i]->name, name) == 0)
			return kinds[i];
	}
	load_fail("\"%s\" is no kind of step", name);
}

static void
parse_steps(int argc, char **argv)
{
	for (int i = 4; i < argc; i++)
	{
		LoadStep *step = &steps[nsteps];

		if (nsteps++ == MAX_STEPS || i + 2 >= argc)
			load_fail("a step has a kind, a target and words, and there are at most %d", MAX_STEPS);
		step->number = nsteps - 1;
		step->kind = find_kind(argv[i]);
		step->target = argv[++i];
		do
		{
			if (step->ncommands == LOAD_MAX_COMMANDS)
				load_fail("too many commands in a step");
			parse_command(&step->commands[step->ncommands], argc, argv, &i);
			step->ncommands++;
			i++;
		} while (i < argc && strcmp(argv[i], "&") == 0);
	}
}

void *
load_shared_connection(const LoadStep *step)
{
	for (int i = 0; i < step->number; i++)
	{
		if (steps[i].kind == step->kind && strcmp(steps[i].target, step->target) == 0)
			return steps[i].connection;
	}
	return NULL;
}

bool
load_is_delayed(void)
{
	return delay > 0;
}

void
load_wait_network(void)
{
	struct timespec t = {.tv_nsec = delay * 1000};

	if (delay > 0)
		nanosleep(&t, NULL);
}

const char *
load_fill_word(const char *word, const LoadKey *key, char *filled, size_t size)
{
	const char *mark = strchr(word, '%');
	int field;

	if (mark == NULL)
		return word;
	field = mark[1] == 'k' ? 0 : mark[1] - '1';
	if (field < 0 || field >= key->nfields)
		load_fail("\"%s\" names no field of a key", word);
	snprintf(filled, size, "%.*s%s%s", (int) (mark - word), word, key->fields[field], mark + 2);
	return filled;
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

	for (int i = 0; i < nsteps; i++)
		steps[i].kind->connect(&steps[i]);
	__sync_fetch_and_add(&shared->ready, 1);
	while (!shared->start)
		usleep(100);
	while (!shared->stop)
	{
		const LoadKey *key = &keys[rand_r(&seed) % nkeys];
		double begin = now();

		for (int i = 0; i < nsteps; i++)
			steps[i].kind->run(&steps[i], key);
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
		load_fail("usage: load CLIENTS SECONDS KEYS STEP [+ STEP]...");
	parse_steps(argc, argv);
	read_keys(argv[3]);
	if (nkeys < 1)
		load_fail("there are no keys");
	delay = getenv("LOAD_DELAY") != NULL ? atol(getenv("LOAD_DELAY")) : 0;
	/* Or a sleep would last 50 us longer. */
	prctl(PR_SET_TIMERSLACK, 1);
	bounds[0] = 1;
	for (int i = 1; i < BUCKETS; i++)
		bounds[i] = bounds[i - 1] * GROWTH;
	shared = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		load_fail("no memory");
	setpgid(0, 0);
	for (int i = 0; i < clients; i++)
	{
		pid_t pid = fork();

		if (pid < 0)
			load_fail("cannot fork");
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
