/*
 * bson_int.h
 *		What mongo's conversion files share: encoders and limits.  Private.
 *
 * Include after "postgres.h".
 *
 * A bson_t owns malloc'd memory, so each public function builds its document
 * inside PG_TRY and hands out a palloc'd copy; what these functions raise may
 * pass through freely.
 */
#ifndef PLINTH_BSON_INT_H
#define PLINTH_BSON_INT_H

#include <bson/bson.h>

#include "fmgr.h"
#include "base/compat.h"
#include "mongo/mongo.h"
#include "mongo/bson_check.h"

/* libbson 2 has a new name for what appends an array whose keys the caller writes. */
#ifndef BSON_APPEND_ARRAY_UNSAFE_BEGIN
#define bson_append_array_unsafe_begin bson_append_array_begin
#define BSON_APPEND_ARRAY_UNSAFE_BEGIN BSON_APPEND_ARRAY_BEGIN
#endif

/* MongoDB's own bound on a document. */
#define MONGO_MAX_DOCUMENT 16777216

typedef enum MongoCast
{
	MONGO_CAST_NONE,
	MONGO_CAST_STRING,
	MONGO_CAST_INT,
	MONGO_CAST_LONG,
	MONGO_CAST_DOUBLE,
	MONGO_CAST_DECIMAL,
	MONGO_CAST_BOOL,
	MONGO_CAST_DATE,
	MONGO_CAST_OBJECTID,
	MONGO_CAST_UUID,
	MONGO_CAST_BINARY,
	MONGO_CAST_JSON,
	MONGO_CAST_MICROS
} MongoCast;

typedef struct MongoEncoder MongoEncoder;
typedef struct MongoRow MongoRow;
typedef void (*MongoEncode)(MongoEncoder *encoder, bson_t *bson, const char *key, int keylen,
							Datum value, int depth);

/* How values of one type are appended; compiled once, then used for many rows. */
struct MongoEncoder
{
	MongoEncode encode;
	Oid type; /* below domains */
	MongoCast cast;
	bool exact_text;       /* of an _id: only the canonical spelling is taken */
	bool pinned;           /* the text depends on settings: pin them */
	FmgrInfo out;          /* the type's output function, where text is needed */
	MongoEncoder *element; /* arrays */
	int16 typlen;
	bool typbyval;
	char typalign;
	MongoRow *row; /* composites, built at first use */
};

/* bson_util.c */
pg_noreturn extern void plinth_mongo_too_large(void);
extern void plinth_mongo_check_depth(int depth);
extern void plinth_mongo_check_size(const bson_t *bson);
extern char *plinth_mongo_to_utf8(const char *text, int len, int *utf8len);
extern char *plinth_mongo_from_utf8(const char *text, int len);
extern PlinthBson plinth_mongo_bson_copy(const bson_t *bson);
/*
 * Builds a document inside PG_TRY and gives its palloc'd copy; pinned: under
 * settings that do not depend on the session.
 */
typedef void (*MongoBuild)(bson_t *bson, const void *arg);
extern PlinthBson plinth_mongo_build(MongoBuild build, const void *arg, bool pinned);
extern void plinth_mongo_bson_view(PlinthBson document, bson_t *view);

/* Fails with 54000 when the document outgrows what BSON can hold. */
#define MONGO_APPEND(call)                                                                         \
	do                                                                                             \
	{                                                                                              \
		if (!(call))                                                                               \
			plinth_mongo_too_large();                                                              \
	} while (0)

/* settings.c: output that does not depend on the session; -1 when nothing had to change */
extern int plinth_mongo_settings_pin(void);
extern void plinth_mongo_settings_unpin(int nestlevel);

/* encode.c */
extern MongoCast plinth_mongo_cast_parse(const char *cast);
extern MongoEncoder *plinth_mongo_encoder(Oid type, MongoCast cast);
extern MongoEncoder *plinth_mongo_id_encoder(Oid type, MongoCast cast);
extern bool plinth_mongo_is_text_type(Oid type);

/* encode_value.c */
extern void plinth_mongo_append_text(bson_t *bson, const char *key, int keylen, const char *text,
									 int len);
extern void plinth_mongo_encode_bool(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_int2(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_int4(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_int8(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_oid(MongoEncoder *encoder, bson_t *bson, const char *key,
									int keylen, Datum value, int depth);
extern void plinth_mongo_encode_float4(MongoEncoder *encoder, bson_t *bson, const char *key,
									   int keylen, Datum value, int depth);
extern void plinth_mongo_encode_float8(MongoEncoder *encoder, bson_t *bson, const char *key,
									   int keylen, Datum value, int depth);
extern void plinth_mongo_encode_numeric(MongoEncoder *encoder, bson_t *bson, const char *key,
										int keylen, Datum value, int depth);
extern void plinth_mongo_encode_timestamp(MongoEncoder *encoder, bson_t *bson, const char *key,
										  int keylen, Datum value, int depth);
extern void plinth_mongo_encode_date(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_uuid(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_bytea(MongoEncoder *encoder, bson_t *bson, const char *key,
									  int keylen, Datum value, int depth);
extern void plinth_mongo_encode_varlena_text(MongoEncoder *encoder, bson_t *bson, const char *key,
											 int keylen, Datum value, int depth);
extern void plinth_mongo_encode_output(MongoEncoder *encoder, bson_t *bson, const char *key,
									   int keylen, Datum value, int depth);
/* The value by its output function; palloc'd, in the server's encoding. */
extern char *plinth_mongo_output_text(MongoEncoder *encoder, Datum value);
/* An exact Decimal128, or the text itself where there is none. */
extern void plinth_mongo_append_decimal(bson_t *bson, const char *key, int keylen,
										const char *text);

/* A finite time's milliseconds since 1970, rounded down. */
extern int64 plinth_mongo_milliseconds(int64 stamp);

/* encode_cast.c */
extern void plinth_mongo_encode_cast(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);

/* encode_nested.c */
extern void plinth_mongo_encode_array(MongoEncoder *encoder, bson_t *bson, const char *key,
									  int keylen, Datum value, int depth);
extern void plinth_mongo_encode_composite(MongoEncoder *encoder, bson_t *bson, const char *key,
										  int keylen, Datum value, int depth);
/* Appends a composite's attributes to a document that is open already. */
extern void plinth_mongo_append_attributes(MongoEncoder *encoder, bson_t *bson, Datum value,
										   int depth);

/* encode_json.c */
extern void plinth_mongo_encode_jsonb(MongoEncoder *encoder, bson_t *bson, const char *key,
									  int keylen, Datum value, int depth);
extern void plinth_mongo_encode_json(MongoEncoder *encoder, bson_t *bson, const char *key,
									 int keylen, Datum value, int depth);
/* Appends the members of a jsonb object; false when it is not an object. */
extern bool plinth_mongo_append_members(bson_t *bson, Datum jsonb);

/* index.c: appends the members of a JSON object, as extended JSON; false with the reason. */
extern bool plinth_mongo_append_extended(bson_t *bson, const char *json, int len,
										 bson_error_t *reason);

/* id.c */
struct PlinthMongoIdSpec
{
	int nkeys;
	char **names; /* UTF-8 */
	int *namelens;
	Oid *types;
	int32 *typmods;
	MongoEncoder **encoders;
	MongoCast cast;
	char *prefix; /* UTF-8; NULL for none */
	int prefixlen;
	bool pinned;
};
extern void plinth_mongo_append_id(const PlinthMongoIdSpec *spec, bson_t *bson,
								   const Datum *values);

#endif /* PLINTH_BSON_INT_H */
