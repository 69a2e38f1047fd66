/* sources: src/cache/sieve.c */
/*
 * sieve_test.c
 *		SIEVE's queue against a plain array that does what the paper says, and
 *		what eviction is worth against FIFO on a skewed load.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cache/sieve.h"
#include "tap.h"

#define ENTRIES 200
#define OPERATIONS 2000000

typedef struct Entry
{
	uint8_t padding[3];
	uint8_t visited;
	PlinthSieveNode node;
	PlinthSieveNode other;
	uint32_t tail;
} Entry;

static Entry entries[ENTRIES];
static const PlinthSieveEntries view = {(char *) entries, sizeof(Entry), offsetof(Entry, node),
										offsetof(Entry, visited)};
static const PlinthSieveEntries other_view = {(char *) entries, sizeof(Entry),
											  offsetof(Entry, other), offsetof(Entry, visited)};

/* The model: entries in order of insertion, oldest first; the hand by position. */
typedef struct Model
{
	uint32_t order[ENTRIES];
	int count;
	int hand;
	bool visited[ENTRIES];
} Model;

static uint64_t state = UINT64_C(88172645463325252);

static uint32_t
draw(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t) ((state >> 16) % below);
}

static int
model_find(const Model *model, uint32_t entry)
{
	for (int i = 0; i < model->count; i++)
	{
		if (model->order[i] == entry)
			return i;
	}
	return -1;
}

static void
model_insert(Model *model, uint32_t entry)
{
	/* A hand past the newest means the oldest, also when there is a newer one then. */
	if (model->hand >= model->count)
		model->hand = -1;
	model->order[model->count++] = entry;
	model->visited[entry] = false;
}

static void
model_remove(Model *model, uint32_t entry)
{
	int at = model_find(model, entry);

	memmove(&model->order[at], &model->order[at + 1],
			(size_t) (model->count - at - 1) * sizeof(uint32_t));
	model->count--;
	if (model->hand > at)
		model->hand--;
	if (model->hand >= model->count)
		model->hand = -1;
}

static uint32_t
model_victim(Model *model)
{
	if (model->count == 0)
		return PLINTH_SIEVE_NONE;
	if (model->hand < 0 || model->hand >= model->count)
		model->hand = 0;
	while (model->visited[model->order[model->hand]])
	{
		model->visited[model->order[model->hand]] = false;
		model->hand = (model->hand + 1) % model->count;
	}
	return model->order[model->hand];
}

static bool
same_order(const PlinthSieveQueue *queue, const Model *model)
{
	uint32_t entry = queue->oldest;
	uint32_t before = PLINTH_SIEVE_NONE;

	if (queue->count != (uint32_t) model->count)
		return false;
	for (int i = 0; i < model->count; i++)
	{
		if (entry != model->order[i] || entries[entry].node.older != before ||
			entries[entry].visited != (uint8_t) model->visited[entry])
			return false;
		before = entry;
		entry = entries[entry].node.newer;
	}
	return entry == PLINTH_SIEVE_NONE && queue->newest == before;
}

static void
test_against_model(void)
{
	static Model model = {.hand = -1};
	PlinthSieveQueue queue;
	long inserted = 0;
	long evicted = 0;
	bool victims = true;
	bool orders = true;

	plinth_sieve_init(&queue);
	for (long i = 0; i < OPERATIONS; i++)
	{
		uint32_t entry = draw(ENTRIES);
		uint32_t what = draw(100);
		/* Long stretches in which the queue is nearly empty, or full. */
		uint32_t inserts = i / 50000 % 2 == 0 ? 45 : 15;

		if (what < 40)
		{
			if (model_find(&model, entry) >= 0)
			{
				entries[entry].visited = 1;
				model.visited[entry] = true;
			}
		}
		else if (what < 40 + inserts)
		{
			if (model_find(&model, entry) >= 0)
				continue;
			plinth_sieve_insert(&view, &queue, entry);
			model_insert(&model, entry);
			inserted++;
		}
		else if (what < 93)
		{
			uint32_t victim = plinth_sieve_victim(&view, &queue);

			victims = victims && victim == model_victim(&model);
			if (victim == PLINTH_SIEVE_NONE)
				continue;
			plinth_sieve_remove(&view, &queue, victim);
			model_remove(&model, victim);
			evicted++;
		}
		else if (model_find(&model, entry) >= 0)
		{
			plinth_sieve_remove(&view, &queue, entry);
			model_remove(&model, entry);
		}
		if (i % 64 == 0)
			orders = orders && same_order(&queue, &model);
	}
	check(victims, "each victim is the model's, in 2,000,000 random operations");
	check(orders, "order and flags are the model's");
	check(inserted > 100000 && evicted > 50000, "many were inserted and evicted");
}

/* Of a load where few entries are asked for often; which: by SIEVE or in order of insertion. */
static long
hits_of(bool sieve)
{
	enum
	{
		ROOM = 50,
		REQUESTS = 300000
	};
	static bool present[ENTRIES];
	PlinthSieveQueue queue;
	long hits = 0;

	memset(present, 0, sizeof(present));
	plinth_sieve_init(&queue);
	for (long i = 0; i < REQUESTS; i++)
	{
		uint32_t a = draw(ENTRIES);
		uint32_t b = draw(ENTRIES);
		uint32_t entry = a * b / ENTRIES; /* the low ones more often */

		if (present[entry])
		{
			hits++;
			entries[entry].visited = sieve;
			continue;
		}
		if (queue.count == ROOM)
		{
			uint32_t victim = plinth_sieve_victim(&view, &queue);

			plinth_sieve_remove(&view, &queue, victim);
			present[victim] = false;
		}
		plinth_sieve_insert(&view, &queue, entry);
		present[entry] = true;
	}
	return hits;
}

static void
test_two_queues(void)
{
	PlinthSieveQueue one;
	PlinthSieveQueue two;

	plinth_sieve_init(&one);
	plinth_sieve_init(&two);
	for (uint32_t i = 0; i < 3; i++)
	{
		plinth_sieve_insert(&view, &one, i);
		plinth_sieve_insert(&other_view, &two, 2 - i);
	}
	entries[0].visited = 1;
	check(plinth_sieve_victim(&view, &one) == 1, "a visited entry is spared");
	check(plinth_sieve_victim(&other_view, &two) == 2, "another queue has its own order");
	plinth_sieve_remove(&view, &one, 1);
	check(plinth_sieve_victim(&view, &one) == 2, "the hand goes on behind what was removed");
	plinth_sieve_remove(&view, &one, 2);
	check(plinth_sieve_victim(&view, &one) == 0, "and begins anew at the oldest");
	plinth_sieve_remove(&view, &one, 0);
	check(plinth_sieve_victim(&view, &one) == PLINTH_SIEVE_NONE && one.count == 0,
		  "an empty queue has no victim");
	check(two.count == 3 && two.oldest == 2 && two.newest == 0, "the other queue still has all");
}

int
main(void)
{
	long sieve;
	long fifo;

	test_against_model();
	memset(entries, 0, sizeof(entries));
	test_two_queues();
	memset(entries, 0, sizeof(entries));
	sieve = hits_of(true);
	memset(entries, 0, sizeof(entries));
	fifo = hits_of(false);
	check(sieve > fifo, "on a skewed load SIEVE hits more often than FIFO");
	return tap_done();
}
