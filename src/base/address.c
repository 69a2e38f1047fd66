/*
 * address.c
 *		Where a client is, and settings that are lists.
 *
 * The address is the connection's.  Only when that peer is in
 * plinth.trusted_proxies, and logged in as one of
 * plinth.trusted_authenticators, is x-forwarded-for of request.headers looked
 * at, from the right: what a proxy appended stands to the right of what its
 * client sent.  The first address that is no trusted proxy is the client.  Something
 * that is no address ends the walk: what stands to the left of it was written
 * by whoever wrote that.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "base/base.h"
#include "base/internal.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/inet.h"
#include "utils/varlena.h"

#define LOCAL_PEER "local" /* in trusted_proxies: connections by Unix socket */

typedef struct Address
{
	int family; /* PGSQL_AF_INET or PGSQL_AF_INET6 */
	uint8 bytes[16];
	int bits; /* of a network; all of them for a host */
} Address;

static bool
parse_address(const char *text, Address *address)
{
	address->family = strchr(text, ':') != NULL ? PGSQL_AF_INET6 : PGSQL_AF_INET;
	memset(address->bytes, 0, sizeof(address->bytes));
	address->bits = pg_inet_net_pton(address->family, text, address->bytes, sizeof(address->bytes));
	if (address->bits < 0)
		return false;

	/* An IPv4 address in IPv6 (RFC 4291, 2.5.5.2) is that IPv4 address. */
	if (address->family == PGSQL_AF_INET6 && address->bits >= 96 &&
		memcmp(address->bytes, "\0\0\0\0\0\0\0\0\0\0\377\377", 12) == 0)
	{
		address->family = PGSQL_AF_INET;
		memmove(address->bytes, address->bytes + 12, 4);
		address->bits -= 96;
	}
	return true;
}

/* A host, not a network. */
static bool
parse_host(const char *text, Address *address)
{
	return strchr(text, '/') == NULL && parse_address(text, address) &&
		   address->bits == (address->family == PGSQL_AF_INET ? 32 : 128);
}

static char *
format_host(const Address *address)
{
	char buffer[INET6_ADDRSTRLEN];

	if (inet_ntop(address->family == PGSQL_AF_INET ? AF_INET : AF_INET6, address->bytes, buffer,
				  sizeof(buffer)) == NULL)
		return NULL;
	return pstrdup(buffer);
}

static bool
in_network(const Address *network, const Address *host)
{
	int bytes = network->bits / 8;
	int rest = network->bits % 8;

	if (network->family != host->family || memcmp(network->bytes, host->bytes, bytes) != 0)
		return false;
	return rest == 0 || (network->bytes[bytes] ^ host->bytes[bytes]) >> (8 - rest) == 0;
}

bool
plinth_base_check_name_list(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *names;
	bool ok = SplitIdentifierString(copy, ',', &names);

	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	list_free(names);
	pfree(copy);
	return ok;
}

bool
plinth_base_check_networks(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *networks;
	bool ok = SplitGUCList(copy, ',', &networks);
	ListCell *cell;

	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	foreach (cell, networks)
	{
		Address ignored;

		if (!ok || strcmp(lfirst(cell), LOCAL_PEER) == 0)
			continue;
		ok = parse_address(lfirst(cell), &ignored);
		if (!ok)
			GUC_check_errdetail("\"%s\" is neither an address nor a network, nor \"%s\".",
								(char *) lfirst(cell), LOCAL_PEER);
	}
	list_free(networks);
	pfree(copy);
	return ok;
}

/* host NULL: a peer by Unix socket. */
static bool
is_trusted(const Address *host)
{
	List *networks;
	ListCell *cell;

	if (!SplitGUCList(pstrdup(plinth_setting_trusted_proxies), ',', &networks))
		return false;
	foreach (cell, networks)
	{
		const char *text = lfirst(cell);
		Address network;

		if (strcmp(text, LOCAL_PEER) == 0)
		{
			if (host == NULL)
				return true;
		}
		else if (host != NULL && parse_address(text, &network) && in_network(&network, host))
			return true;
	}
	return false;
}

/* x-forwarded-for of the running request, where its writer is believed; or NULL. */
static char *
forwarded_header(bool has_address, const Address *peer)
{
	if (plinth_setting_trusted_proxies[0] == '\0' || !is_trusted(has_address ? peer : NULL) ||
		!plinth_base_is_trusted_authenticator())
		return NULL;
	return plinth_base_request_field(plinth_base_request_object("request.headers"),
									 "x-forwarded-for");
}

/* One hop of the header: an address, perhaps with a port; brackets around IPv6. */
static bool
parse_hop(char *hop, Address *address)
{
	char *end;

	hop += strspn(hop, " \t");
	hop[strcspn(hop, " \t")] = '\0';
	if (hop[0] == '[')
	{
		hop++;
		end = strchr(hop, ']');
		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return false;
		*end = '\0';
	}
	else if ((end = strchr(hop, ':')) != NULL && strchr(end + 1, ':') == NULL)
		*end = '\0';
	return parse_host(hop, address);
}

/* The connection's peer; false for a Unix socket, or a process without a client. */
static bool
peer_address(Address *peer)
{
	LOCAL_FCINFO(fcinfo, 0);
	Datum inet;

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	inet = inet_client_addr(fcinfo);
	if (fcinfo->isnull)
		return false;
	return parse_host(TextDatumGetCString(DirectFunctionCall1(network_host, inet)), peer);
}

char *
plinth_base_client_address(void)
{
	Address client;
	bool has_address = peer_address(&client);
	char *header = forwarded_header(has_address, &client);

	if (header != NULL)
	{
		bool more = true;

		while (more)
		{
			char *comma = strrchr(header, ',');
			Address hop;

			more = comma != NULL;
			if (!parse_hop(more ? comma + 1 : header, &hop))
				break;
			client = hop;
			has_address = true;
			if (!is_trusted(&client))
				break;
			if (more)
				*comma = '\0';
		}
	}
	return has_address ? format_host(&client) : NULL;
}
