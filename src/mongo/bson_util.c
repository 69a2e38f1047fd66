/*
 * bson_util.c
 *		Limits, encodings and copies between bson_t and palloc'd bytes.
 *
 * Strings in BSON are UTF-8 whatever the database's encoding is.  libbson
 * takes invalid UTF-8 silently, so every string is validated here.
 */
#include "postgres.h"

#include "common/hashfn.h"
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
	if (pg_encoding_verifymbstr(PG_UTF8, utf8, *utf8len) != *utf8len)
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

/*
 * Documents are built in one that is kept, which grows once and not from
 * nothing each time; a large one is given back.  An output function may build
 * another meanwhile.
 */
#define SCRATCH_KEPT 65536

static bson_t scratch;
static bool scratch_made = false;
static bool scratch_busy = false;

static bson_t *
take_scratch(bson_t *other)
{
	if (scratch_busy)
	{
		bson_init(other);
		return other;
	}
	if (scratch_made)
		bson_reinit(&scratch);
	else
		bson_init(&scratch);
	scratch_made = scratch_busy = true;
	return &scratch;
}

static void
give_back(bson_t *bson, bool keep)
{
	if (bson == &scratch)
	{
		scratch_busy = false;
		if (keep && bson->len <= SCRATCH_KEPT)
			return;
		scratch_made = false;
	}
	bson_destroy(bson);
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
	bson_t other;
	bson_t *bson = take_scratch(&other);
	PlinthBson copy = {0};
	volatile int nestlevel = -1;

	PG_TRY ()
		;
	{
		if (pinned)
			nestlevel = plinth_mongo_settings_pin();
		build_and_copy(build, arg, bson, &copy);
	}
	PG_CATCH ()
		;
	{
		/* A document within it may be open. */
		give_back(bson, false);
		plinth_mongo_settings_unpin(nestlevel);
		PG_RE_THROW();
	}
	PG_END_TRY();

	give_back(bson, true);
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

void
plinth_mongo_digest(PlinthBson document, uint64 digest[2])
{
	bson_t view;
	bson_iter_t iter;
	bool more;

	digest[0] = digest[1] = 0;
	plinth_mongo_bson_view(document, &view);
	more = bson_iter_init(&iter, &view) && bson_iter_next(&iter);
	while (more)
	{
		uint32 start = bson_iter_offset(&iter);
		uint32 end;

		more = bson_iter_next(&iter);
		/* The last one ends before the document's closing zero. */
		end = more ? bson_iter_offset(&iter) : document.len - 1;
		for (int seed = 0; seed < 2; seed++)
			digest[seed] += hash_bytes_extended(document.data + start, end - start, seed);
	}
}
