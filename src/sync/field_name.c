/*
 * field_name.c
 *		How a column's name becomes a field's.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "sync/sync_int.h"

extern PGDLLEXPORT Datum plinth_sync_field_name(PG_FUNCTION_ARGS);

char *
plinth_sync_camel_case(const char *name)
{
	char *result = palloc(strlen(name) + 1);
	char *at = result;
	bool upper = false;

	for (const char *p = name; *p != '\0'; p++)
	{
		/* Only between two other characters: _id and id_ stay what they are. */
		if (*p == '_' && p > name && p[1] != '\0' && p[1] != '_' && p[-1] != '_')
		{
			upper = true;
			continue;
		}
		*at++ = upper && *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p;
		upper = false;
	}
	*at = '\0';
	return result;
}

PG_FUNCTION_INFO_V1(plinth_sync_field_name);
Datum
plinth_sync_field_name(PG_FUNCTION_ARGS)
{
	char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));

	PG_RETURN_TEXT_P(cstring_to_text(PG_GETARG_BOOL(1) ? plinth_sync_camel_case(name) : name));
}
