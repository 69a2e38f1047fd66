/*
 * origin.c
 *		Whether the page that sent a request may use its user's cookie.
 *
 * A browser sends a cookie along whoever made the page that asks, and says in
 * Origin (RFC 6454) who that is, which no page can change.  So a request that
 * may change something, and has nothing but a cookie to show, must come from
 * an origin in plinth.allowed_origins; one without Origin is refused.  Where
 * the browser says by Sec-Fetch-Site that the page is of another site
 * altogether, no list helps: our cookie is never sent from there.
 */
#include "postgres.h"

#include <ctype.h>

#include "base/base.h"
#include "base/internal.h"
#include "utils/varlena.h"

#define MAX_ORIGIN 300

static bool
skip(const char **text, const char *start)
{
	size_t len = strlen(start);

	if (strncmp(*text, start, len) != 0)
		return false;
	*text += len;
	return true;
}

/*
 * Brings an origin to its one form: lower case, and without the port that its
 * scheme has anyway.  false for what is none: "null", "*", a path.
 */
static bool
normalise(char *origin)
{
	const char *p = origin;
	const char *default_port;
	char *port;

	if (strlen(origin) > MAX_ORIGIN)
		return false;
	for (char *c = origin; *c != '\0'; c++)
		*c = pg_ascii_tolower(*c);
	if (skip(&p, "https://"))
		default_port = "443";
	else if (skip(&p, "http://"))
		default_port = "80";
	else
		return false;

	if (*p == '[')
	{
		port = (char *) p + 1 + strspn(p + 1, "0123456789abcdef:.");
		if (*port++ != ']')
			return false;
	}
	else
		port = (char *) p + strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789-._");
	if (port == p)
		return false;
	if (*port == '\0')
		return true;
	if (*port != ':' || port[1] == '\0' || port[1 + strspn(port + 1, "0123456789")] != '\0')
		return false;
	if (strcmp(port + 1, default_port) == 0)
		*port = '\0';
	return true;
}

bool
plinth_base_check_origins(char **newval, void **extra, GucSource source)
{
	char *copy = pstrdup(*newval);
	List *origins;
	ListCell *cell;
	bool ok = SplitGUCList(copy, ',', &origins);

	if (!ok)
		GUC_check_errdetail("List syntax is invalid.");
	foreach (cell, origins)
	{
		char *origin = pstrdup(lfirst(cell));

		if (ok && !normalise(origin))
		{
			GUC_check_errdetail("\"%s\" is no origin, such as \"https://app.example.com\".",
								(char *) lfirst(cell));
			ok = false;
		}
		pfree(origin);
	}
	list_free(origins);
	pfree(copy);
	return ok;
}

bool
plinth_base_origin_allowed(Jsonb *headers)
{
	char *origin = plinth_base_request_field(headers, "origin");
	char *site = plinth_base_request_field(headers, "sec-fetch-site");
	List *allowed;
	ListCell *cell;

	if (origin == NULL || !normalise(origin) || (site != NULL && strcmp(site, "cross-site") == 0) ||
		!SplitGUCList(pstrdup(plinth_setting_allowed_origins), ',', &allowed))
		return false;
	foreach (cell, allowed)
	{
		char *one = pstrdup(lfirst(cell));

		if (normalise(one) && strcmp(one, origin) == 0)
			return true;
	}
	return false;
}
