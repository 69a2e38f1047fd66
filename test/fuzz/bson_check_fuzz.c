/* sources: src/mongo/bson_check.c */
/* libs: -isystem /usr/include/libbson-1.0 -lbson-1.0 */
/*
 * bson_check_fuzz.c
 *		What is called sound must be readable by libbson to its end.
 */
#include <stdlib.h>

#include <bson/bson.h>

#include "mongo/bson_check.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bson_t view;
	bson_t copy;
	char *json;

	size_t where;

	if (plinth_mongo_bson_check_at(data, size, PLINTH_BSON_MAX_DEPTH, &where) != PLINTH_BSON_SOUND)
	{
		if (where > size)
			abort();
		return 0;
	}
	if (!bson_init_static(&view, data, size) ||
		!bson_validate(&view, BSON_VALIDATE_UTF8 | BSON_VALIDATE_UTF8_ALLOW_NULL, NULL))
		abort();
	json = bson_as_relaxed_extended_json(&view, NULL);
	bson_free(json);
	bson_copy_to(&view, &copy);
	bson_destroy(&copy);
	return 0;
}
