/*
 * rule.c
 *		The allow and deny lists.
 *
 * Keys are looked up by bisection, networks compared one by one.  A key that
 * the application gave says all there is to say about whom it stands for, as it
 * was given: what counts of an IPv6 address is its /64, and a rule may be for one
 * host.  Where the key is the caller's own, the caller's address counts too, in
 * full.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "base/base.h"
#include "limits/internal.h"
#include "limits/policy.h"
#include "utils/inet.h"

typedef struct Host
{
	bool ipv6;
	int bits; /* all, or 64 for a key that is a network */
	uint8 bytes[16];
} Host;

static const uint8 mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

void
plinth_limits_rule_network(PlinthLimitRule *rule, Datum value)
{
	inet *network = DatumGetInetPP(value);

	rule->ipv6 = ip_family(network) == PGSQL_AF_INET6;
	rule->bits = ip_bits(network);
	memcpy(rule->network, ip_addr(network), rule->ipv6 ? 16 : 4);
	if (rule->ipv6 && rule->bits >= 96 && memcmp(rule->network, mapped, sizeof(mapped)) == 0)
	{
		rule->ipv6 = false;
		rule->bits -= 96;
		memmove(rule->network, rule->network + 12, 4);
	}
}

int
plinth_limits_rule_compare(const void *a, const void *b)
{
	return strcmp(((const PlinthLimitRule *) a)->key, ((const PlinthLimitRule *) b)->key);
}

static bool
parse_host(const char *text, Host *host)
{
	host->ipv6 = false;
	host->bits = 32;
	if (inet_pton(AF_INET, text, host->bytes) == 1)
		return true;
	if (inet_pton(AF_INET6, text, host->bytes) != 1)
		return false;
	host->ipv6 = memcmp(host->bytes, mapped, sizeof(mapped)) != 0;
	if (host->ipv6)
		host->bits = 128;
	else
		memmove(host->bytes, host->bytes + 12, 4);
	return true;
}

/* The address that the lists go by: in the key that was given, or the caller's. */
static bool
host_of(const char *key, size_t len, Host *host)
{
	static const char prefix[] = "address:";
	char text[INET6_ADDRSTRLEN + 4];
	bool network;

	if (key == NULL)
	{
		const PlinthContext *context = plinth_base_context();
		const char *address = context != NULL && context->address != NULL
								  ? context->address
								  : plinth_base_client_address();

		return address != NULL && parse_host(address, host);
	}
	if (len > strlen(prefix) && strncmp(key, prefix, strlen(prefix)) == 0)
	{
		key += strlen(prefix);
		len -= strlen(prefix);
	}
	if (len >= sizeof(text))
		return false;
	memcpy(text, key, len);
	text[len] = '\0';
	network = strchr(text, ':') != NULL && len > 3 && strcmp(text + len - 3, "/64") == 0;
	if (network)
		text[len - 3] = '\0';
	if (!parse_host(text, host))
		return false;
	if (network && host->ipv6)
		host->bits = 64;
	return true;
}

static bool
contains(const PlinthLimitRule *rule, const Host *host)
{
	int bytes = rule->bits / 8;
	int rest = rule->bits % 8;

	if (rule->ipv6 != host->ipv6 || rule->bits > host->bits ||
		memcmp(rule->network, host->bytes, bytes) != 0)
		return false;
	return rest == 0 || (rule->network[bytes] ^ host->bytes[bytes]) >> (8 - rest) == 0;
}

static PlinthLimitVerdict
stricter(PlinthLimitVerdict verdict, bool allow)
{
	if (verdict == PLINTH_LIMITS_RULE_DENY || !allow)
		return PLINTH_LIMITS_RULE_DENY;
	return PLINTH_LIMITS_RULE_ALLOW;
}

static PlinthLimitVerdict
key_verdict(const PlinthLimitPolicies *policies, uint32 policy, const char *key, size_t len)
{
	PlinthLimitVerdict verdict = PLINTH_LIMITS_NO_RULE;
	int low = 0;
	int high = policies->nkeys;

	while (low < high)
	{
		int middle = (low + high) / 2;

		/* The first that is not below. */
		if (strncmp(policies->keys[middle].key, key, len) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (int i = low; i < policies->nkeys && strncmp(policies->keys[i].key, key, len) == 0; i++)
	{
		const PlinthLimitRule *rule = &policies->keys[i];

		if (rule->key[len] == '\0' && (rule->policy == 0 || rule->policy == policy))
			verdict = stricter(verdict, rule->allow);
	}
	return verdict;
}

PlinthLimitVerdict
plinth_limits_rule(const PlinthLimitPolicies *policies, uint32 policy, const char *key, size_t len,
				   const char *given, size_t given_len)
{
	PlinthLimitVerdict verdict = PLINTH_LIMITS_NO_RULE;
	bool looked = false;
	int longest = -1;
	Host host;

	if (policies->nkeys > 0)
	{
		verdict = key_verdict(policies, policy, key, len);
		if (given != NULL && given != key && verdict != PLINTH_LIMITS_RULE_DENY)
			verdict = Max(verdict, key_verdict(policies, policy, given, given_len));
	}
	for (int i = 0; verdict == PLINTH_LIMITS_NO_RULE && i < policies->nnetworks; i++)
	{
		const PlinthLimitRule *rule = &policies->networks[i];

		if (rule->policy != 0 && rule->policy != policy)
			continue;
		if (!looked && !host_of(given, given_len, &host))
			return PLINTH_LIMITS_NO_RULE;
		looked = true;
		if (contains(rule, &host))
			longest = Max(longest, rule->bits);
	}
	for (int i = 0; longest >= 0 && i < policies->nnetworks; i++)
	{
		const PlinthLimitRule *rule = &policies->networks[i];

		if (rule->bits == longest && (rule->policy == 0 || rule->policy == policy) &&
			contains(rule, &host))
			verdict = stricter(verdict, rule->allow);
	}
	return verdict;
}
