/*
 * check.c
 *		Decisions: on a policy, on several at once, and ad hoc.
 *
 * A decision consumes at once and for good, whatever becomes of the
 * transaction: a ROLLBACK gives nothing back, or failing requests would be
 * free.  It writes no page and needs no transaction id, so it works in READ ONLY
 * transactions and on a standby.
 */
#include "postgres.h"

#include "base/base.h"
#include "limits/check.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "limits/table.h"
#include "miscadmin.h"

#define KEY_MAX_BYTES 1024
#define RATES 16

/* Rates of limits without a policy, as this backend met them. */
typedef struct AdhocRate
{
	Oid incarnation;
	int64 limit;
	int64 period;
	int64 burst;
	PlinthRate rate;
	uint64 units;
} AdhocRate;

static AdhocRate adhoc_rates[RATES];

/* What a request's user has of a policy. */
static const PlinthLimitTerms *
terms_of(const PlinthLimitPolicy *policy)
{
	const PlinthContext *context;

	if (policy->ntiers == 0)
		return &policy->terms;
	context = plinth_base_context();
	if (context != NULL && context->tier != NULL)
	{
		for (int i = 0; i < policy->ntiers; i++)
		{
			if (strcmp(policy->tiers[i].tier, context->tier) == 0)
				return &policy->tiers[i];
		}
	}
	return &policy->terms;
}

static void
check_cost(int64 cost, const PlinthRate *rate, const char *policy)
{
	if (cost < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cost must not be below 0, but is " INT64_FORMAT, cost)));
	if (cost <= (int64) rate->capacity)
		return;
	if (policy == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("cost " INT64_FORMAT " is above the burst of " UINT64_FORMAT, cost,
							   rate->capacity)));
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					errmsg("cost " INT64_FORMAT " is above the " UINT64_FORMAT
						   " that rate limit policy \"%s\" allows at once",
						   cost, rate->capacity, policy),
					errhint("Ask for less, or raise the burst with plinth.rate_limit_alter().")));
}

static void
check_key(size_t len)
{
	if (len == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("key must not be empty")));
	if (len > KEY_MAX_BYTES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("key of %zu bytes is too long", len),
						errdetail("A key has at most %d bytes.", KEY_MAX_BYTES),
						errhint("Pass a hash of it.")));
}

/* The key that counts: given, or the caller's. */
static const char *
key_of(const PlinthLimitPolicy *policy, const char *key, size_t *len)
{
	if (key == NULL)
	{
		if (strcmp(policy->scope, "key") == 0)
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
							errmsg("rate limit policy \"%s\" needs a key", policy->name),
							errdetail("Its scope is \"key\"."),
							errhint("Pass a key, or give the policy another scope.")));
		key = plinth_limits_caller_key(policy->scope);
		*len = strlen(key);
		return key;
	}
	check_key(*len);
	if (strcmp(policy->scope, "address") == 0)
	{
		key = plinth_limits_address_key(pnstrdup(key, *len));
		*len = strlen(key);
	}
	return key;
}

/* One policy of a decision. */
typedef struct Question
{
	const PlinthLimitPolicy *policy;
	const PlinthLimitTerms *terms;
	PlinthLimitRequest request;
	bool settled; /* decided by a rule, or not enabled: nothing is counted in the table */
} Question;

static void
settle(Question *question, bool allowed)
{
	question->settled = true;
	memset(&question->request.decision, 0, sizeof(question->request.decision));
	question->request.decision.allowed = allowed;
	question->request.decision.remaining = allowed ? question->terms->rate.capacity : 0;
	question->request.decision.retry_after = allowed ? 0 : -1;
}

static void
prepare(Question *question, const PlinthLimitPolicies *all, const PlinthLimitPolicy *policy,
		const char *key, size_t len, int64 cost)
{
	PlinthLimitRequest *request = &question->request;
	const char *given = key;
	size_t given_len = len;

	question->policy = policy;
	question->terms = terms_of(policy);
	question->settled = false;
	check_cost(cost, &question->terms->rate, policy->name);
	key = key_of(policy, key, &len);
	request->rate = &question->terms->rate;
	request->cost = cost;
	request->shadow = policy->shadow;
	request->allow_when_full = policy->allow_on_error;
	request->full = request->evicted = false;
	if (!policy->enabled)
		settle(question, true);
	else if (all->nkeys > 0 || all->nnetworks > 0)
	{
		PlinthLimitVerdict verdict =
			plinth_limits_rule(all, policy->id, key, len, given, given_len);

		if (verdict != PLINTH_LIMITS_NO_RULE)
			settle(question, verdict == PLINTH_LIMITS_RULE_ALLOW);
	}
	if (!question->settled)
		plinth_limits_table_key(&request->key, MyDatabaseId, policy->id, question->terms->units,
								key, len);
}

/*
 * Counts what came of one policy, and lets shadow mode allow.  An allowance
 * that was not used, since another policy denied, is no decision.
 */
static void
finish(Question *question, bool used)
{
	int slot = question->policy->count_slot;
	PlinthRateDecision *decision = &question->request.decision;

	if (question->request.full)
		plinth_limits_count_add(slot, PLINTH_LIMITS_TABLE_FULL);
	if (question->request.evicted)
		plinth_limits_count_add(slot, PLINTH_LIMITS_EVICTED);
	if (question->request.cost > 0 && (used || !decision->allowed))
		plinth_limits_count_add(slot, decision->allowed          ? PLINTH_LIMITS_ALLOWED
									  : question->policy->shadow ? PLINTH_LIMITS_SHADOW_DENIED
																 : PLINTH_LIMITS_DENIED);
	if (!decision->allowed && question->policy->shadow)
	{
		decision->allowed = true;
		decision->retry_after = 0;
	}
}

static PlinthLimitDecision
answer_of(const PlinthRateDecision *decision, const PlinthRate *rate)
{
	PlinthLimitDecision answer = {
		.allowed = decision->allowed,
		.limit_count = rate->capacity,
		.remaining = decision->remaining,
		.retry_after = decision->retry_after,
		.reset_after = decision->reset_after,
		.window = rate->refill,
	};

	return answer;
}

PlinthLimitDecision
plinth_limits_decide(const char *name, size_t name_len, const char *key, size_t key_len, int64 cost)
{
	const PlinthLimitPolicies *all = plinth_limits_policies();
	Question question;

	prepare(&question, all, plinth_limits_policy_find(all, name, name_len), key, key_len, cost);
	if (!question.settled)
		plinth_limits_table_decide(&question.request, plinth_limits_now());
	finish(&question, true);
	return answer_of(&question.request.decision, &question.terms->rate);
}

PlinthLimitDecision
plinth_limits_check(const char *policy, const char *key, int64 cost)
{
	return plinth_limits_decide(policy, strlen(policy), key, key != NULL ? strlen(key) : 0, cost);
}

/* Does a say more than b: the longer wait, else less that remains? */
static bool
is_tighter(const PlinthRateDecision *a, const PlinthRateDecision *b)
{
	if (a->allowed != b->allowed)
		return !a->allowed;
	if (a->allowed)
		return a->remaining < b->remaining;
	if (a->retry_after < 0 || b->retry_after < 0)
		return a->retry_after < 0 && b->retry_after >= 0;
	return a->retry_after > b->retry_after;
}

/*
 * A rule that denies in one policy, or a policy that does, leaves nothing
 * consumed in any.  Those that are settled do not come into the table.
 */
static void
decide_together(Question *questions, int n)
{
	PlinthLimitRequest requests[PLINTH_LIMITS_MAX_TOGETHER];
	bool refused = false;
	bool allowed;
	int asked = 0;

	for (int i = 0; i < n; i++)
	{
		if (questions[i].settled)
			refused =
				refused || (!questions[i].request.decision.allowed && !questions[i].policy->shadow);
		else
			requests[asked++] = questions[i].request;
	}
	if (refused)
	{
		for (int i = 0; i < asked; i++)
			requests[i].cost = 0;
	}
	allowed = plinth_limits_table_decide_all(requests, asked, plinth_limits_now()) && !refused;
	asked = 0;
	for (int i = 0; i < n; i++)
	{
		if (!questions[i].settled)
			questions[i].request = requests[asked++];
		finish(&questions[i], allowed);
	}
}

const char *
plinth_limits_decide_all(const PlinthLimitName *names, int n, const char *key, size_t key_len,
						 int64 cost, PlinthLimitDecision *decision)
{
	const PlinthLimitPolicies *all = plinth_limits_policies();
	Question questions[PLINTH_LIMITS_MAX_TOGETHER];
	int tightest = 0;

	if (n < 1 || n > PLINTH_LIMITS_MAX_TOGETHER)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("between 1 and %d policies can be asked together, not %d",
							   PLINTH_LIMITS_MAX_TOGETHER, n)));
	for (int i = 0; i < n; i++)
	{
		const PlinthLimitPolicy *policy =
			plinth_limits_policy_find(all, names[i].name, names[i].len);

		for (int j = 0; j < i; j++)
		{
			if (questions[j].policy == policy)
				ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
								errmsg("rate limit policy \"%s\" is named twice", policy->name)));
		}
		prepare(&questions[i], all, policy, key, key_len, cost);
	}
	decide_together(questions, n);
	for (int i = 1; i < n; i++)
	{
		if (is_tighter(&questions[i].request.decision, &questions[tightest].request.decision))
			tightest = i;
	}
	*decision = answer_of(&questions[tightest].request.decision, &questions[tightest].terms->rate);
	return questions[tightest].policy->name;
}

static const AdhocRate *
adhoc_rate(Oid incarnation, int64 limit, int64 period, int64 burst)
{
	AdhocRate *known = &adhoc_rates[(limit ^ burst ^ period / 1000) & (RATES - 1)];

	if (known->incarnation == incarnation && known->limit == limit && known->period == period &&
		known->burst == burst)
		return known;
	known->incarnation = InvalidOid;
	if (!plinth_rate_bucket(&known->rate, limit, period, burst))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("rate limit is out of bounds"),
				 errdetail("Limit and burst are from 1 to " INT64_FORMAT
						   ", the period is from 0.1 s to 366 days, and so is the time in which "
						   "the burst comes back.",
						   PLINTH_RATE_COUNT_MAX)));
	known->limit = limit;
	known->period = period;
	known->burst = burst;
	known->units = plinth_limits_table_units(incarnation, false, limit, period);
	known->incarnation = incarnation;
	return known;
}

PlinthLimitDecision
plinth_limits_decide_adhoc(const char *key, size_t key_len, int64 limit, int64 period, int64 burst,
						   int64 cost)
{
	const PlinthLimitPolicies *all = plinth_limits_policies();
	const AdhocRate *adhoc = adhoc_rate(all->incarnation, limit, period, burst);
	static const PlinthLimitPolicy policy = {.name = "(ad hoc)"};
	PlinthLimitPolicy counted = policy;
	Question question = {.policy = &counted};

	check_cost(cost, &adhoc->rate, NULL);
	check_key(key_len);
	counted.count_slot = all->adhoc_slot;
	question.request.rate = &adhoc->rate;
	question.request.cost = cost;
	plinth_limits_table_key(&question.request.key, MyDatabaseId, PLINTH_LIMITS_ADHOC, adhoc->units,
							key, key_len);
	plinth_limits_table_decide(&question.request, plinth_limits_now());
	finish(&question, true);
	return answer_of(&question.request.decision, &adhoc->rate);
}

bool
plinth_limits_reset(const char *name, size_t name_len, const char *key, size_t key_len)
{
	const PlinthLimitPolicies *all = plinth_limits_policies();
	const PlinthLimitPolicy *policy = plinth_limits_policy_find(all, name, name_len);
	int64 now = plinth_limits_now();
	bool used = false;

	key = key_of(policy, key, &key_len);
	for (int i = -1; i < policy->ntiers; i++)
	{
		const PlinthLimitTerms *terms = i < 0 ? &policy->terms : &policy->tiers[i];
		PlinthLimitKey table_key;

		plinth_limits_table_key(&table_key, MyDatabaseId, policy->id, terms->units, key, key_len);
		used = plinth_limits_table_reset(&table_key, &terms->rate, now) || used;
	}
	return used;
}
