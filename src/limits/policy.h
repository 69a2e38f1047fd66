/*
 * policy.h
 *		Policies and rules as a backend keeps them.
 *
 * Private to room limits.
 */
#ifndef PLINTH_LIMITS_POLICY_H
#define PLINTH_LIMITS_POLICY_H

#include "limits/rate.h"
#include "nodes/pg_list.h"

/* What a tier of users has, or those without one. */
typedef struct PlinthLimitTerms
{
	const char *tier; /* NULL: everybody */
	PlinthRate rate;
	uint64 units; /* plinth_limits_table_units */
} PlinthLimitTerms;

typedef struct PlinthLimitPolicy
{
	const char *name;
	uint32 id;
	const char *scope;
	bool shadow;
	bool enabled;
	bool allow_on_error;
	int count_slot;
	PlinthLimitTerms terms;
	int ntiers;
	PlinthLimitTerms *tiers;
} PlinthLimitPolicy;

/* A rule of the allow and deny lists: for a network or for a key. */
typedef struct PlinthLimitRule
{
	uint32 policy; /* 0: all */
	bool allow;
	const char *key; /* NULL: a network */
	bool ipv6;
	int bits;
	uint8 network[16];
} PlinthLimitRule;

typedef struct PlinthLimitPolicies
{
	Oid incarnation; /* of the extension: a new one knows nothing of an old one's keys */
	int adhoc_slot;
	int npolicies;
	PlinthLimitPolicy *policies; /* sorted by name */
	int nkeys;
	PlinthLimitRule *keys; /* sorted by key */
	int nnetworks;
	PlinthLimitRule *networks;
} PlinthLimitPolicies;

/* What there is now; good until the next call. */
extern const PlinthLimitPolicies *plinth_limits_policies(void);

/* 42704 for an unknown name. */
extern const PlinthLimitPolicy *plinth_limits_policy_find(const PlinthLimitPolicies *policies,
														  const char *name, size_t len);

/* The transaction has changed policies: until its end they are read anew each time. */
extern void plinth_limits_policies_changing(void);

/* An interval in microseconds; a month is 30 days.  -1 for one of more than 400 years, or below 0. */
extern int64 plinth_limits_interval(const Interval *interval);

typedef enum PlinthLimitVerdict
{
	PLINTH_LIMITS_NO_RULE,
	PLINTH_LIMITS_RULE_ALLOW,
	PLINTH_LIMITS_RULE_DENY
} PlinthLimitVerdict;

/*
 * What the lists say of a key that counts, and of the one that was given for
 * it, or, where none was (NULL), of the caller's address.  A key beats a
 * network, a longer prefix a shorter one, and deny beats allow.
 */
extern PlinthLimitVerdict plinth_limits_rule(const PlinthLimitPolicies *policies, uint32 policy,
											 const char *key, size_t len, const char *given,
											 size_t given_len);

/* Sorts the rules that were read, and turns inet into bytes. */
extern void plinth_limits_rule_network(PlinthLimitRule *rule, Datum inet);
extern int plinth_limits_rule_compare(const void *a, const void *b);

#endif /* PLINTH_LIMITS_POLICY_H */
