/*
 * bson_check.h
 *		Is a run of bytes a sound BSON document?  Plain C over libbson.
 */
#ifndef PLINTH_BSON_CHECK_H
#define PLINTH_BSON_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MongoDB stores no more levels of nesting than this. */
#define PLINTH_BSON_MAX_DEPTH 100

/* But it does not refuse all others, and a reply wraps a document in some more. */
#define PLINTH_BSON_MAX_REPLY_DEPTH 250

typedef enum PlinthBsonCheck
{
	PLINTH_BSON_SOUND,
	PLINTH_BSON_CORRUPT, /* lengths, types, terminators, UTF-8 */
	PLINTH_BSON_TOO_DEEP
} PlinthBsonCheck;

/*
 * Walks the whole document.  Nothing that libbson does with a sound document
 * can fail, recurse deeper than maxdepth or read outside it.
 */
extern PlinthBsonCheck plinth_mongo_bson_check(const uint8_t *data, size_t len, int maxdepth);

/* The same; where: the byte at which what is not sound, or too deep, begins. */
extern PlinthBsonCheck plinth_mongo_bson_check_at(const uint8_t *data, size_t len, int maxdepth,
												  size_t *where);

#endif /* PLINTH_BSON_CHECK_H */
