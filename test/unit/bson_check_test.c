/* sources: src/mongo/bson_check.c */
/* libs: -isystem /usr/include/libbson-1.0 -lbson-1.0 */
/*
 * bson_check_test.c
 *		Sound documents, and every way in which one is not.
 */
#include <stdio.h>
#include <string.h>

#include <bson/bson.h>

#include "mongo/bson_check.h"
#include "tap.h"

/* bytes of a string literal, without its terminating zero */
#define VERDICT(literal)                                                                           \
	plinth_mongo_bson_check((const uint8_t *) (literal), sizeof(literal) - 1, PLINTH_BSON_MAX_DEPTH)

static PlinthBsonCheck
nested(int levels, int maxdepth)
{
	bson_t *inner = bson_new();
	PlinthBsonCheck verdict;

	for (int i = 1; i < levels; i++)
	{
		bson_t *outer = bson_new();

		bson_append_document(outer, "a", 1, inner);
		bson_destroy(inner);
		inner = outer;
	}
	verdict = plinth_mongo_bson_check(bson_get_data(inner), inner->len, maxdepth);
	bson_destroy(inner);
	return verdict;
}

int
main(void)
{
	size_t where;

	check(VERDICT("\x05\0\0\0\0") == PLINTH_BSON_SOUND, "the empty document");
	check(VERDICT("") == PLINTH_BSON_CORRUPT, "no bytes");
	check(plinth_mongo_bson_check(NULL, 0, 1) == PLINTH_BSON_CORRUPT, "nothing at all");
	check(VERDICT("\x05\0\0\0") == PLINTH_BSON_CORRUPT, "cut");
	check(VERDICT("\x05\0\0\0\0\0") == PLINTH_BSON_CORRUPT, "bytes behind the end");
	check(VERDICT("\x05\0\0\0\1") == PLINTH_BSON_CORRUPT, "no terminating zero");
	check(VERDICT("\x0e\0\0\0\x02"
				  "a\0\2\0\0\0x\0\0") == PLINTH_BSON_SOUND,
		  "a string");
	check(VERDICT("\x0e\0\0\0\x02"
				  "a\0\2\0\0\0\xff\0\0") == PLINTH_BSON_CORRUPT,
		  "a string that is not UTF-8");
	check(VERDICT("\x0f\0\0\0\x02"
				  "a\0\3\0\0\0\xc0\x80\0\0") == PLINTH_BSON_CORRUPT,
		  "a NUL of two bytes, which is no UTF-8");
	check(plinth_mongo_bson_check_at((const uint8_t *) "\x0f\0\0\0\x02"
													   "a\0\3\0\0\0\xc0\x80\0\0",
									 15, PLINTH_BSON_MAX_DEPTH, &where) == PLINTH_BSON_CORRUPT &&
			  where == 4,
		  "and where it stands");
	check(VERDICT("\x0e\0\0\0\x02"
				  "a\0\xff\xff\xff\x7fx\0\0") == PLINTH_BSON_CORRUPT,
		  "a string longer than its document");
	check(VERDICT("\x08\0\0\0\x0a\xff\0\0") == PLINTH_BSON_CORRUPT, "a name that is not UTF-8");
	check(VERDICT("\x08\0\0\0\x55"
				  "a\0\0") == PLINTH_BSON_CORRUPT,
		  "an unknown type");
	check(VERDICT("\x17\0\0\0\x0f"
				  "a\0\x0f\0\0\0\2\0\0\0x\0\5\0\0\0\0\0") == PLINTH_BSON_SOUND,
		  "code with a scope");
	check(VERDICT("\x17\0\0\0\x0f"
				  "a\0\x0f\0\0\0\2\0\0\0x\0\6\0\0\0\0\0") == PLINTH_BSON_CORRUPT,
		  "a scope longer than its place");
	check(nested(100, 100) == PLINTH_BSON_SOUND, "100 levels of 100");
	check(nested(101, 100) == PLINTH_BSON_TOO_DEEP, "101 levels of 100");
	check(nested(5000, 250) == PLINTH_BSON_TOO_DEEP, "5,000 levels");
	return tap_done();
}
