/*
 * bson_util.c
 *		Limits, encodings and copies between bson_t and palloc'd bytes.
 *
 * Strings in BSON are UTF-8 whatever the database's encoding is.  libbson
 * takes invalid UTF-8 silently, so every string is validated here.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "mongo/bson_int.h"

void
plinth_mongo_too_large(void)
{
	ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					errmsg("document is larger than MongoDB allows"),
					errdetail("The limit is %d bytes.", MONGO_MAX_DOCUMENT)));
}

/* Raises 54000 for a level that MongoDB would refuse. */
void
plinth_mongo_check_depth(int depth)
{
	check_stack_depth();
	if (depth > PLINTH_BSON_MAX_DEPTH)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("document is nested more deeply than MongoDB allows"),
						errdetail("The limit is %d levels.", PLINTH_BSON_MAX_DEPTH)));
}

void
plinth_mongo_check_size(const bson_t *bson)
{
	if (bson->len > MONGO_MAX_DOCUMENT)
		plinth_mongo_too_large();
}

/* text in UTF-8; the same pointer where nothing had to be converted. */
char *
plinth_mongo_to_utf8(const char *text, int len, int *utf8len)
{
	char *utf8 = pg_server_to_any(text, len, PG_UTF8);

	*utf8len = utf8 == text ? len : (int) strlen(utf8);
	if (!bson_utf8_validate(utf8, *utf8len, false))
		ereport(ERROR, (errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
						errmsg("invalid byte sequence for encoding \"UTF8\"")));
	return utf8;
}

/* UTF-8 in the server's encoding, palloc'd; ERROR where it has a NUL or no counterpart. */
char *
plinth_mongo_from_utf8(const char *text, int len)
{
	char *result;

	if (len > 0 && memchr(text, 0, len) != NULL)
		ereport(ERROR, (errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
						errmsg("unsupported Unicode escape sequence"),
						errdetail("\\u0000 cannot be converted to text.")));
	result = pg_any_to_server(text, len, PG_UTF8);
	return result == text ? pnstrdup(text, len) : result;
}

PlinthBson
plinth_mongo_bson_copy(const bson_t *bson)
{
	PlinthBson copy;

	copy.len = bson->len;
	copy.data = palloc(bson->len);
	memcpy(copy.data, bson_get_data(bson), bson->len);
	return copy;
}

static void
build_and_copy(MongoBuild build, const void *arg, bson_t *bson, PlinthBson *copy)
{
	build(bson, arg);
	plinth_mongo_check_size(bson);
	*copy = plinth_mongo_bson_copy(bson);
}

PlinthBson
plinth_mongo_build(MongoBuild build, const void *arg, bool pinned)
{
	bson_t bson = BSON_INITIALIZER;
	PlinthBson copy = {0};
	volatile int nestlevel = -1;

	PG_TRY ()
		;
	{
		if (pinned)
			nestlevel = plinth_mongo_settings_pin();
		build_and_copy(build, arg, &bson, &copy);
	}
	PG_CATCH ()
		;
	{
		bson_destroy(&bson);
		plinth_mongo_settings_unpin(nestlevel);
		PG_RE_THROW();
	}
	PG_END_TRY();

	bson_destroy(&bson);
	plinth_mongo_settings_unpin(nestlevel);
	return copy;
}

/* A read-only bson_t over bytes that were made or checked by this room. */
void
plinth_mongo_bson_view(PlinthBson document, bson_t *view)
{
	if (document.data == NULL || !bson_init_static(view, document.data, document.len))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("invalid BSON document")));
}
