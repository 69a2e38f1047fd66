/*
 * key.c
 *		Keys as texts: C strings in a row in memory, an array literal in tables.
 */
#include "postgres.h"

#include "sync/sync_int.h"

char *
plinth_sync_key_literal(int nkeys, const char *key, uint32 keylen)
{
	StringInfoData literal;
	const char *end = key + keylen;

	initStringInfo(&literal);
	appendStringInfoChar(&literal, '{');
	for (int i = 0; i < nkeys && key < end; i++)
	{
		appendStringInfoString(&literal, i > 0 ? ",\"" : "\"");
		for (; *key != '\0'; key++)
		{
			if (*key == '"' || *key == '\\')
				appendStringInfoChar(&literal, '\\');
			appendStringInfoChar(&literal, *key);
		}
		key++;
		appendStringInfoChar(&literal, '"');
	}
	appendStringInfoChar(&literal, '}');
	return literal.data;
}

/*
 * Takes what plinth_sync_key_literal makes and what array_out makes of a
 * text[] without NULLs: elements quoted or not; so many, or any number where
 * nkeys is 0.
 */
char *
plinth_sync_key_parse(int nkeys, const char *literal, uint32 *keylen)
{
	StringInfoData key;
	const char *at = literal;
	int found = 0;

	initStringInfo(&key);
	if (*at != '{')
		goto malformed;
	at++;
	while (*at != '}')
	{
		if (found > 0 && *at++ != ',')
			goto malformed;
		if (*at == '"')
		{
			for (at++; *at != '"'; at++)
			{
				if (*at == '\\')
					at++;
				if (*at == '\0')
					goto malformed;
				appendStringInfoChar(&key, *at);
			}
			at++;
		}
		else
		{
			const char *start = at;

			for (; *at != ',' && *at != '}'; at++)
			{
				if (*at == '\\')
					at++;
				if (*at == '\0' || *at == '"' || *at == '{')
					goto malformed;
				appendStringInfoChar(&key, *at);
			}
			if (at == start)
				goto malformed;
		}
		appendStringInfoChar(&key, '\0');
		found++;
	}
	if (at[1] != '\0' || (nkeys > 0 && found != nkeys))
		goto malformed;
	*keylen = key.len;
	return key.data;

malformed:
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION), errmsg("malformed key \"%s\"", literal),
			 errdetail("A key is an array literal of %d text values.", nkeys)));
	return NULL;
}
