/*
 * key.c
 *		Keys: who is counted.
 *
 * A key that an application passes is taken as it is, but for the scope
 * address.  Where none is passed, it is what this extension knows about the
 * caller, never what the caller says: the verified user or session, else the
 * address from which the request comes.  An IPv6 address counts by its /64,
 * which is what one customer has; an IPv4 address written as IPv6 is that
 * IPv4 address.
 *
 * Only the scope endpoint adds something that the client chooses, the path of
 * PostgREST's request.  It is cut off, so that a long one makes no new key.
 */
#include "postgres.h"

#include <arpa/inet.h>

#include "base/base.h"
#include "limits/internal.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define ADDRESS_PREFIX "address:"
#define LOCAL_KEY "local"
#define PATH_MAX_BYTES 256

/* The key of this connection's own address, while no proxy is trusted. */
static char *peer_key = NULL;

/* "address:" and the canonical form; NULL for what is no address. */
static char *
address_key(const char *address)
{
	unsigned char bytes[16];
	char text[INET6_ADDRSTRLEN];

	if (inet_pton(AF_INET, address, bytes) == 1)
	{
		if (inet_ntop(AF_INET, bytes, text, sizeof(text)) == NULL)
			return NULL;
		return psprintf(ADDRESS_PREFIX "%s", text);
	}
	if (inet_pton(AF_INET6, address, bytes) != 1)
		return NULL;
	if (memcmp(bytes, "\0\0\0\0\0\0\0\0\0\0\377\377", 12) == 0)
	{
		if (inet_ntop(AF_INET, bytes + 12, text, sizeof(text)) == NULL)
			return NULL;
		return psprintf(ADDRESS_PREFIX "%s", text);
	}
	memset(bytes + 8, 0, 8);
	if (inet_ntop(AF_INET6, bytes, text, sizeof(text)) == NULL)
		return NULL;
	return psprintf(ADDRESS_PREFIX "%s/64", text);
}

char *
plinth_limits_address_key(const char *key)
{
	const char *address = key;
	char *bare;
	char *result;
	size_t len;

	if (strcmp(key, LOCAL_KEY) == 0)
		return pstrdup(key);
	if (strncmp(address, ADDRESS_PREFIX, strlen(ADDRESS_PREFIX)) == 0)
		address += strlen(ADDRESS_PREFIX);
	bare = pstrdup(address);
	len = strlen(bare);
	if (strchr(bare, ':') != NULL && len > 3 && strcmp(bare + len - 3, "/64") == 0)
		bare[len - 3] = '\0';
	result = address_key(bare);
	if (result == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("a key of a policy with scope \"address\" must be an IP address"),
						errhint("Pass NULL for the caller's own address.")));
	return result;
}

static char *
caller_address_key(const PlinthContext *context)
{
	char *address;
	char *key;

	if (context != NULL && context->address != NULL)
		address = pstrdup(context->address);
	else
	{
		if (peer_key != NULL && plinth_setting_trusted_proxies[0] == '\0')
			return pstrdup(peer_key);
		address = plinth_base_client_address();
	}
	key = address != NULL ? address_key(address) : NULL;
	if (key == NULL)
		key = pstrdup(LOCAL_KEY);
	if (peer_key == NULL && plinth_setting_trusted_proxies[0] == '\0' &&
		(context == NULL || context->address == NULL))
		peer_key = MemoryContextStrdup(TopMemoryContext, key);
	return key;
}

static char *
uuid_key(const char *kind, const pg_uuid_t *uuid)
{
	static const char digits[] = "0123456789abcdef";
	size_t len = strlen(kind);
	char *key = palloc(len + 1 + 36 + 1);
	char *p = key + len;

	memcpy(key, kind, len);
	*p++ = ':';
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid->data[i] >> 4];
		*p++ = digits[uuid->data[i] & 15];
	}
	*p = '\0';
	return key;
}

/* The path of the running request, "" where there is none. */
static char *
request_path(void)
{
	const char *path = GetConfigOption("request.path", true, false);

	if (path == NULL)
		return pstrdup("");
	return pnstrdup(path, pg_mbcliplen(path, strlen(path), PATH_MAX_BYTES));
}

char *
plinth_limits_caller_key(const char *scope)
{
	const PlinthContext *context = plinth_base_context();
	char *key;

	if (strcmp(scope, "session") == 0 && context != NULL && context->has_session)
		return uuid_key("session", &context->session_id);
	if (strcmp(scope, "address") != 0 && context != NULL && context->has_user)
		key = uuid_key("user", &context->user_id);
	else
		key = caller_address_key(context);
	if (strcmp(scope, "endpoint") == 0)
		key = psprintf("%s %s", key, request_path());
	return key;
}
