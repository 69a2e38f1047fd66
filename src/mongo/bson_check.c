/*
 * bson_check.c
 *		Is a run of bytes a sound BSON document?
 *
 * libbson's own bson_validate recurses without a bound, so 16 MB of nothing
 * but nesting would overflow the stack: this walks with bson_iter_next, which
 * checks every length against the enclosing document, and counts levels.
 *
 * No PostgreSQL here: unit-tested and fuzzed on its own.
 */
#include "mongo/bson_check.h"

#include <bson/bson.h>

/* Where a document turned out not to be sound: the element's first byte. */
typedef const uint8_t *Place;

static PlinthBsonCheck check_document(const uint8_t *data, size_t len, int left, Place *bad);

static bool
check_utf8(const char *text, size_t len)
{
	/* It takes C0 80 for a NUL, which no UTF-8 has. */
	return bson_utf8_validate(text, len, true) && (len == 0 || memchr(text, 0xc0, len) == NULL);
}

static PlinthBsonCheck
check_value(bson_iter_t *iter, int left, Place *bad)
{
	const uint8_t *data;
	const char *text;
	uint32_t len;
	bson_subtype_t subtype;
	const bson_oid_t *oid;

	switch (bson_iter_type(iter))
	{
		case BSON_TYPE_DOCUMENT:
			bson_iter_document(iter, &len, &data);
			return check_document(data, len, left - 1, bad);
		case BSON_TYPE_ARRAY:
			bson_iter_array(iter, &len, &data);
			return check_document(data, len, left - 1, bad);
		case BSON_TYPE_CODEWSCOPE:
		{
			uint32_t scope_len;

			text = bson_iter_codewscope(iter, &len, &scope_len, &data);
			if (text == NULL || !check_utf8(text, len))
				return PLINTH_BSON_CORRUPT;
			return check_document(data, scope_len, left - 1, bad);
		}
		case BSON_TYPE_UTF8:
			text = bson_iter_utf8(iter, &len);
			break;
		case BSON_TYPE_CODE:
			text = bson_iter_code(iter, &len);
			break;
		case BSON_TYPE_SYMBOL:
			text = bson_iter_symbol(iter, &len);
			break;
		case BSON_TYPE_DBPOINTER:
			bson_iter_dbpointer(iter, &len, &text, &oid);
			break;
		case BSON_TYPE_REGEX:
		{
			const char *options;

			text = bson_iter_regex(iter, &options);
			if (text == NULL || !check_utf8(options, strlen(options)))
				return PLINTH_BSON_CORRUPT;
			len = (uint32_t) strlen(text);
			break;
		}
		case BSON_TYPE_BINARY:
			bson_iter_binary(iter, &subtype, &len, &data);
			return data != NULL || len == 0 ? PLINTH_BSON_SOUND : PLINTH_BSON_CORRUPT;
		default:
			return PLINTH_BSON_SOUND;
	}
	return text != NULL && check_utf8(text, len) ? PLINTH_BSON_SOUND : PLINTH_BSON_CORRUPT;
}

static PlinthBsonCheck
check_document(const uint8_t *data, size_t len, int left, Place *bad)
{
	bson_iter_t iter;

	if (data != NULL)
		*bad = data;

	if (left <= 0)
		return PLINTH_BSON_TOO_DEEP;
	if (data == NULL || len < 5 || len > INT32_MAX || data[len - 1] != 0 ||
		!bson_iter_init_from_data(&iter, data, len))
		return PLINTH_BSON_CORRUPT;

	while (bson_iter_next(&iter))
	{
		const char *key = bson_iter_key(&iter);
		PlinthBsonCheck result;

		*bad = data + iter.off;
		if (!check_utf8(key, strlen(key)))
			return PLINTH_BSON_CORRUPT;
		result = check_value(&iter, left, bad);
		if (result != PLINTH_BSON_SOUND)
			return result;
	}
	if (iter.err_off == 0)
		return PLINTH_BSON_SOUND;
	*bad = data + iter.err_off;
	return PLINTH_BSON_CORRUPT;
}

PlinthBsonCheck
plinth_mongo_bson_check_at(const uint8_t *data, size_t len, int maxdepth, size_t *where)
{
	uint32_t declared;
	Place bad = data;
	PlinthBsonCheck result;

	*where = 0;
	if (data == NULL || len < 5 || len > INT32_MAX)
		return PLINTH_BSON_CORRUPT;
	memcpy(&declared, data, sizeof(declared));
	if (BSON_UINT32_FROM_LE(declared) != len)
		return PLINTH_BSON_CORRUPT;
	result = check_document(data, len, maxdepth, &bad);
	*where = (size_t) (bad - data);
	return result;
}

PlinthBsonCheck
plinth_mongo_bson_check(const uint8_t *data, size_t len, int maxdepth)
{
	size_t where;

	return plinth_mongo_bson_check_at(data, len, maxdepth, &where);
}
